// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests on this processor: SVM with nested paging. Which extension it is is decided here at boot; [`crate::guest`] does not know.
//!
//! Sources: AMD APM vol. 2, 15.4 (enabling SVM), 15.16 (address-space identifiers), 15.30 (MSRs).

use super::cpu::{self, feature};
use super::fpu;
use crate::memory::{self, POOL, physical};
use crate::percore::{Core, core};
use cloister_svm::limits::Cpuid;
use cloister_svm::permission::{IO_MAP, MSR_MAP, fill_io_map, fill_msr_map};
use cloister_svm::world::Host;
use cloister_svm::{Limits, Setup, StatePage};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use spin::Mutex;
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

pub(crate) use cloister_svm::{Exit, Vcpu as Cpu};

const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// What one core has for the guests that it runs. That core alone touches it.
#[derive(Debug)]
pub(crate) struct PerCore {
    host: UnsafeCell<Option<Host>>,
    /// Whose translations are under the shared tag.
    shared_tag: Cell<Option<NonNull<u8>>>,
}

impl PerCore {
    /// What a core has before SVM is on.
    pub(crate) const fn new() -> Self {
        Self { host: UnsafeCell::new(None), shared_tag: Cell::new(None) }
    }
}

/// What all guests share.
struct Shared {
    io_map: u64,
    msr_map: u64,
    limits: Limits,
    /// Tags in use, one bit each. Tag 0 is the host's, tag 1 is shared by all who found none.
    tags: u64,
    tag_count: u32,
}

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

const SHARED_TAG: u32 = 1;

/// Whether guests can run here.
pub(crate) fn is_supported() -> bool {
    SHARED.lock().is_some()
}

fn leaf(number: u32) -> [u32; 4] {
    let max = __cpuid(number & 0x8000_0000).eax;
    let leaf = if number <= max { __cpuid_count(number, 0) } else { return [0; 4] };
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// Switches SVM on, if the processor has it and the firmware allows it.
///
/// # Errors
/// Why guests cannot run here.
pub(crate) fn init() -> Result<(), &'static str> {
    if !cpu::has(feature::SVM) {
        return Err("the processor has no SVM with nested paging");
    }
    // SAFETY: the register exists where SVM does.
    if unsafe { rdmsr(VM_CR) } >> 4 & 1 != 0 {
        return Err("SVM is disabled by the firmware");
    }
    let cpuid = Cpuid {
        leaf1: leaf(1),
        leaf7: leaf(7),
        leaf_d: leaf(0xd),
        extended1: leaf(0x8000_0001),
        extended8: leaf(0x8000_0008),
        extended_a: leaf(0x8000_000a),
    };
    let limits = Limits::from_cpuid(&cpuid).ok_or("the processor has no SVM with nested paging")?;
    let small = |_| "the kernel's pool is too small for SVM";
    let io_map = POOL.reserve(IO_MAP / 4096).map_err(small)?;
    let msr_map = POOL.reserve(MSR_MAP / 4096).map_err(small)?;
    // SAFETY: fresh adjacent frames of these sizes, kept for ever.
    fill_io_map(unsafe { io_map.cast().as_mut() });
    // SAFETY: as above.
    fill_msr_map(unsafe { msr_map.cast().as_mut() });
    let tag_count = leaf(0x8000_000a)[1].clamp(2, 64);
    *SHARED.lock() =
        Some(Shared { io_map: physical(io_map), msr_map: physical(msr_map), limits, tags: 0b11, tag_count });
    init_core(core())
}

/// Switches SVM on, on the core that runs.
///
/// # Errors
/// Why guests cannot run here.
pub(crate) fn init_core(core: &Core) -> Result<(), &'static str> {
    if !is_supported() {
        return Err("no core runs guests");
    }
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
    unsafe { *core.guests.host.get() = Some(host) };
    Ok(())
}

/// Tag of a guest's translations in the translation buffer.
#[derive(Debug)]
pub(crate) struct Tag(u32);

impl Tag {
    /// A free tag, or the shared one.
    pub(crate) fn take() -> Self {
        let mut shared = SHARED.lock();
        let Some(shared) = shared.as_mut() else { return Self(SHARED_TAG) };
        let free = shared.tags.trailing_ones();
        if free >= shared.tag_count {
            return Self(SHARED_TAG);
        }
        shared.tags |= 1 << free;
        Self(free)
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        if self.0 != SHARED_TAG
            && let Some(shared) = SHARED.lock().as_mut()
        {
            shared.tags &= !(1 << self.0);
        }
    }
}

/// The processor's side of a new VCPU.
///
/// # Safety
/// The block is a zeroed frame of its own, `root` the root of a guest space, and both stay while the VCPU does.
pub(crate) unsafe fn new_cpu(block: NonNull<u8>, root: u64, tag: &Tag) -> Cpu {
    let shared = SHARED.lock();
    let setup = match shared.as_ref() {
        Some(shared) => Setup {
            io_map: shared.io_map,
            msr_map: shared.msr_map,
            nested_cr3: root,
            asid: tag.0,
            limits: shared.limits,
        },
        // Callers look at `is_supported` first; a VCPU with these maps would not enter.
        None => unreachable!("a VCPU without SVM"),
    };
    // SAFETY: the caller vouches for the block.
    unsafe { Cpu::new(block.cast(), physical(block), &setup) }
}

/// The state page, for the processor's side.
pub(crate) fn state_page(page: NonNull<cloister_abi::arch::current::vcpu::VcpuState>) -> StatePage {
    // SAFETY: state pages are frames of the kernel's, and go with their VCPU.
    unsafe { StatePage::new(page) }
}

/// Runs the guest until it exits.
#[inline(always)]
pub(crate) fn enter(core: &Core, vcpu: &crate::object::Vcpu, utcb: u64) {
    let cpu = vcpu.machine();
    // SAFETY: this core's own, and nothing else refers to it.
    let Some(host) = (unsafe { &mut *core.guests.host.get() }) else { return };
    let this = Some(vcpu.page.cast());
    // Known to others before the generation is read, so that who takes memory away from now on interrupts this core.
    core.remote.guest.store(vcpu.guest.root(), Ordering::SeqCst);
    let generation = vcpu.guest.generation.load(Ordering::Acquire);
    let shares = vcpu.tag().0 == SHARED_TAG;
    if vcpu.generation.get() != generation || (shares && core.guests.shared_tag.get() != this) {
        vcpu.generation.set(generation);
        if shares {
            core.guests.shared_tag.set(this);
        }
        cpu.flush_tlb();
    }
    host.set_thread(super::percore::fs_base(), utcb);
    let (own, guest) = (fpu::mask(), cpu.xcr0());
    if own != guest && cpu::has(feature::XSAVE) {
        // SAFETY: the limits allow only what the processor has.
        unsafe { fpu::write_xcr0(guest) };
    }
    // SAFETY: interrupts are off in the kernel; FPU and XCR0 are the guest's; the nested table maps what was delegated.
    unsafe { cpu.enter(host) };
    core.remote.guest.store(0, Ordering::Release);
    if own != guest && cpu::has(feature::XSAVE) {
        // SAFETY: the mask of the boot.
        unsafe { fpu::write_xcr0(own) };
    }
}
