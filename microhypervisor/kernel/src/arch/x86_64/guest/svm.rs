// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests by SVM. AMD APM vol. 2, 15.4 (enabling SVM), 15.30 (MSRs).

use super::Machine;
use crate::memory::{self, physical};
use crate::percore::Core;
use cloister_svm::Vcpu;
use cloister_svm::permission::{IO_MAP, fill_msr_map};
use cloister_svm::world::Host;
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Looks for SVM and makes the maps.
pub(super) fn init() -> Result<cloister_svm::Machine, &'static str> {
    let machine = cloister_svm::Machine::from_cpuid(super::leaf);
    let machine = machine.ok_or("the processor has neither SVM with nested paging nor VMX")?;
    // SAFETY: the register exists where SVM does.
    if unsafe { rdmsr(VM_CR) } >> 4 & 1 != 0 {
        return Err("SVM is disabled by the firmware");
    }
    let io_map = super::map(|map: &mut [u8; IO_MAP]| map.fill(0xff))?;
    Ok(cloister_svm::Machine { io_map, msr_map: super::map(fill_msr_map)?, ..machine })
}

/// Switches SVM on.
pub(super) fn init_core(core: &Core) -> Result<(), &'static str> {
    let save = memory::boot_frame()?;
    let block = memory::boot_frame()?;
    // SAFETY: the register exists in long mode.
    let efer = unsafe { rdmsr(IA32_EFER) };
    // SAFETY: SVM exists and is allowed.
    unsafe { wrmsr(IA32_EFER, efer | 1 << 12) };
    // SAFETY: SVM is on; the host save area is a frame of its own.
    unsafe { wrmsr(VM_HSAVE_PA, physical(save)) };
    // SAFETY: SVM is on; the frame is for this alone; the registers are as they stay.
    let host = unsafe { Host::new(block.cast(), physical(block)) };
    // SAFETY: this core's own, and no guest runs yet.
    unsafe { *core.guests.svm.get() = Some(host) };
    Ok(())
}

impl Machine for Vcpu {
    #[inline]
    fn host(core: &Core) -> &mut Option<Host> {
        // SAFETY: this core's own, and nothing else refers to it.
        unsafe { &mut *core.guests.svm.get() }
    }
}
