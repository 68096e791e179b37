// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests on this processor: SVM with nested paging, or VMX with EPT, as is found at boot. [`crate::guest`] does what it does
//! once for each ([`Machine`]); the choice is one branch per run.
//!
//! What all cores share is made once ([`init`]); each core then switches the extension on for itself ([`init_core`]).
//!
//! Sources: AMD APM vol. 2, 15.16 (address-space identifiers); Intel SDM vol. 3C, 29.4 (VPIDs and EPT).

mod svm;
mod vmx;

pub(crate) use vmx::restore_task;

use super::cpu::{feature, has};
use super::fpu;
use crate::memory::{POOL, physical};
use crate::object::Vcpu;
use crate::percore::Core;
use cloister_abi::hip::features;
use cloister_vcpu::Exits;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use spin::{Mutex, Once};

/// The processor's side of a VCPU.
#[derive(Debug)]
pub(crate) enum Cpu {
    Svm(cloister_svm::Vcpu),
    Vmx(cloister_vmx::Vcpu),
}

/// Evaluates an expression for the processor's side, whichever it is.
macro_rules! with_machine {
    ($vcpu:expr, $cpu:ident => $body:expr) => {
        match $vcpu.machine() {
            $crate::arch::guest::Cpu::Svm($cpu) => $body,
            $crate::arch::guest::Cpu::Vmx($cpu) => $body,
        }
    };
}
pub(crate) use with_machine;

/// What the kernel does with either.
pub(crate) trait Machine: Exits {
    /// Makes it what this core works on: before anything else, and whenever another may have been worked on since.
    #[inline]
    fn activate(&mut self, _: &Core) {}
    /// Whether [`Self::run`] ends at a time by itself, so that the host's timer need not be armed for a guest's deadline.
    #[inline]
    fn has_timer(&self) -> bool {
        false
    }
    /// Runs the guest until it exits, or until that tick where there is a timer. FPU and XCR0 are the guest's.
    fn run(&mut self, core: &Core, until: u64, utcb: u64);
    /// It goes, and its core forgets it.
    fn retire(&mut self, _: &Core) {}
}

/// What one core has for the guests that it runs. That core alone touches it.
#[derive(Debug)]
pub(crate) struct PerCore {
    svm: UnsafeCell<Option<cloister_svm::world::Host>>,
    vmx: UnsafeCell<Option<cloister_vmx::world::Host>>,
    /// Whose translations are under the shared tag.
    shared_tag: Cell<Option<NonNull<u8>>>,
}

impl PerCore {
    /// What a core has before [`init_core`].
    pub(crate) const fn new() -> Self {
        Self { svm: UnsafeCell::new(None), vmx: UnsafeCell::new(None), shared_tag: Cell::new(None) }
    }
}

/// What was found, and what all guests share.
#[derive(Clone, Copy)]
enum Kind {
    Svm(cloister_svm::Machine),
    Vmx(cloister_vmx::Machine),
}

static KIND: Once<Kind> = Once::new();
/// Tags in use, or that the processor has not, one bit each. Tag 0 is the host's, tag 1 is shared by all who found none.
static TAGS: Mutex<u64> = Mutex::new(u64::MAX);

const SHARED_TAG: u32 = 1;
/// CPUID leaf 1, ECX: VMX.
const VMX: u32 = 1 << 5;

/// Whether guests can run here.
pub(crate) fn is_supported() -> bool {
    KIND.is_completed()
}

/// Whether guest spaces are in the format of EPT.
pub(crate) fn uses_ept() -> bool {
    matches!(KIND.get(), Some(Kind::Vmx(_)))
}

/// Whether guest spaces can have pages of 1 GiB, where host spaces can.
pub(crate) fn has_huge_pages() -> bool {
    !matches!(KIND.get(), Some(Kind::Vmx(machine)) if !machine.huge_pages)
}

fn leaf(number: u32) -> [u32; 4] {
    let max = __cpuid(number & 0x8000_0000).eax;
    let leaf = if number <= max { __cpuid_count(number, 0) } else { return [0; 4] };
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// Finds the extension, makes what all cores share, and switches it on, on this core. Answers its feature of the HIP.
///
/// # Errors
/// Why guests cannot run here.
pub(crate) fn init(core: &Core) -> Result<u64, &'static str> {
    let (kind, found, tags) = if leaf(1)[2] & VMX != 0 {
        (Kind::Vmx(vmx::init()?), features::VMX, 64)
    } else {
        (Kind::Svm(svm::init()?), features::SVM, leaf(0x8000_000a)[1].clamp(2, 64))
    };
    kind.switch_on(core)?;
    *TAGS.lock() = 0b11 | !(u64::MAX >> (64 - tags));
    KIND.call_once(|| kind);
    Ok(found)
}

/// Switches the extension on, on this core.
///
/// # Errors
/// Why guests cannot run on it.
pub(crate) fn init_core(core: &Core) -> Result<(), &'static str> {
    KIND.get().ok_or("there are no guests on this machine")?.switch_on(core)
}

impl Kind {
    fn switch_on(&self, core: &Core) -> Result<(), &'static str> {
        match self {
            Self::Svm(_) => svm::init_core(core),
            Self::Vmx(machine) => vmx::init_core(core, machine),
        }
    }
}

/// Adjacent frames for a map, filled by `fill`, kept for ever. Answers their physical address.
fn map<const SIZE: usize>(fill: fn(&mut [u8; SIZE])) -> Result<u64, &'static str> {
    let frames = POOL.reserve(SIZE / 4096).map_err(|_| "the kernel's pool is too small for guests")?;
    // SAFETY: fresh adjacent frames of this size, kept for ever.
    fill(unsafe { frames.cast().as_mut() });
    Ok(physical(frames))
}

/// Tag of a guest's translations in the translation buffer.
#[derive(Debug)]
pub(crate) struct Tag(u32);

impl Tag {
    /// A free tag, or the shared one.
    pub(crate) fn take() -> Self {
        let mut tags = TAGS.lock();
        let free = tags.trailing_ones();
        if free == u64::BITS {
            return Self(SHARED_TAG);
        }
        *tags |= 1 << free;
        Self(free)
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        if self.0 != SHARED_TAG {
            *TAGS.lock() &= !(1 << self.0);
        }
    }
}

/// The processor's side of a new VCPU.
///
/// # Safety
/// The block is a zeroed frame of its own, `root` the root of a guest space, and both stay while the VCPU does.
pub(crate) unsafe fn new_cpu(block: NonNull<u8>, root: u64, tag: &Tag) -> Cpu {
    let address = physical(block);
    match KIND.get() {
        // SAFETY: the caller vouches for the block.
        Some(Kind::Svm(svm)) => Cpu::Svm(unsafe { cloister_svm::Vcpu::new(block.cast(), address, root, tag.0, svm) }),
        // SAFETY: as above.
        Some(Kind::Vmx(vmx)) => Cpu::Vmx(unsafe { cloister_vmx::Vcpu::new(block.cast(), address, root, tag.0, vmx) }),
        // Callers look at `is_supported` first.
        None => unreachable!("a VCPU without guests"),
    }
}

/// Runs the guest until it exits, with XCR0 and translations as they must be.
#[inline(always)]
pub(crate) fn enter(core: &Core, vcpu: &Vcpu, cpu: &mut impl Machine, until: u64, utcb: u64) {
    let this = Some(vcpu.page.pointer().cast());
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
    let (own, guest) = (fpu::mask(), cpu.xcr0());
    let differs = own != guest && has(feature::XSAVE);
    if differs {
        // SAFETY: the limits allow only what the processor has.
        unsafe { fpu::write_xcr0(guest) };
    }
    let aux = vcpu.tsc_aux();
    if aux != 0 {
        super::cpu::set_tsc_aux(aux);
    }
    cpu.run(core, until, utcb);
    // Others can read it too, so it is nobody's while they run.
    if aux != 0 {
        super::cpu::set_tsc_aux(0);
    }
    core.remote.guest.store(0, Ordering::Release);
    if differs {
        // SAFETY: the mask of the boot.
        unsafe { fpu::write_xcr0(own) };
    }
}
