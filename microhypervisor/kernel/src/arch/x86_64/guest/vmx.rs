// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests by VMX. Intel SDM vol. 3C, 24.6 to 24.8 (discovering and enabling VMX).

use super::Machine;
use crate::memory::{self, physical};
use crate::percore::Core;
use cloister_vmx::Vcpu;
use cloister_vmx::permission::fill_msr_map;
use cloister_vmx::world::Host;
use x86::msr::rdmsr;

/// Reads what VMX can do here, and makes the map.
pub(super) fn init() -> Result<cloister_vmx::Machine, &'static str> {
    // SAFETY: the capability registers exist where VMX does, and those of later processors are read where an earlier one says so.
    let read = |msr| unsafe { rdmsr(msr) };
    cloister_vmx::Machine::detect(super::leaf, read, super::map(fill_msr_map)?)
}

/// Switches VMX on.
pub(super) fn init_core(core: &Core, machine: &cloister_vmx::Machine) -> Result<(), &'static str> {
    let region = memory::boot_frame()?;
    let tpr = memory::boot_frame()?;
    // SAFETY: the head is this core's own, and stays where it is.
    let task = unsafe { &raw const (*core.head.get()).tss }.addr() as u64;
    // SAFETY: VMX is there; the frames are for this alone; the registers are as they stay.
    let host = unsafe { Host::new(region.cast(), physical(region), tpr.cast(), physical(tpr), task, machine) }?;
    // SAFETY: this core's own, and no guest runs yet.
    unsafe { *core.guests.vmx.get() = Some(host) };
    Ok(())
}

impl Machine for Vcpu {
    #[inline]
    fn host(core: &Core) -> &mut Option<Host> {
        // SAFETY: this core's own, and nothing else refers to it.
        unsafe { &mut *core.guests.vmx.get() }
    }
}

/// A component was refused a port: answers whether that was because an exit had cut the task segment, which is whole again now.
pub(crate) fn restore_task(core: &Core) -> bool {
    if !Vcpu::host(core).as_mut().is_some_and(Host::is_task_cut) {
        return false;
    }
    // SAFETY: the head is this core's own.
    unsafe { (*core.head.get()).load_task() };
    true
}
