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

use super::cpu::{feature, has, ticks};
use super::fpu;
use crate::memory::{POOL, physical};
use crate::object::Vcpu;
use crate::percore::Core;
use cloister_abi::hip::features;
use cloister_vcpu::{Enter, Field, word};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::Once;

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
pub(crate) trait Machine: Enter {
    /// A core's side of it. A core runs one handler at a time, and none keeps the reference.
    #[expect(clippy::mut_from_ref, reason = "as said")]
    fn host(core: &Core) -> &mut Option<Self::Host>;

    /// Makes it what this core works on: before anything else, and whenever another may have been worked on since.
    #[inline]
    fn activate_on(&mut self, core: &Core) {
        if let Some(host) = Self::host(core) {
            // SAFETY: a VCPU belongs to one core.
            unsafe { self.activate(host) };
        }
    }

    /// It goes, and its core forgets it.
    fn retire_on(&self, core: &Core) {
        if let Some(host) = Self::host(core) {
            self.retire(host);
        }
    }
}

/// What one core has for the guests that it runs. That core alone touches it.
#[derive(Debug)]
pub(crate) struct PerCore {
    svm: UnsafeCell<Option<cloister_svm::world::Host>>,
    vmx: UnsafeCell<Option<cloister_vmx::world::Host>>,
    /// Whose translations are under each tag: the address of a VCPU.
    owners: [Cell<usize>; MAX_TAGS],
}

impl PerCore {
    /// What a core has before [`init_core`].
    pub(crate) const fn new() -> Self {
        Self { svm: UnsafeCell::new(None), vmx: UnsafeCell::new(None), owners: [const { Cell::new(0) }; MAX_TAGS] }
    }
}

/// What was found, and what all guests share.
#[derive(Clone, Copy)]
enum Kind {
    Svm(cloister_svm::Machine),
    Vmx(cloister_vmx::Machine),
}

static KIND: Once<Kind> = Once::new();
/// Number of tags that the processor has, at most [`MAX_TAGS`]. Tag 0 is the host's.
static TAGS: AtomicU32 = AtomicU32::new(2);
/// Tags that were given. They come round: guests of one core that share one drive each other's translations out.
static NEXT_TAG: AtomicU32 = AtomicU32::new(0);
const MAX_TAGS: usize = 64;

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
    TAGS.store(tags, Ordering::Relaxed);
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

/// A tag for a guest's translations.
pub(crate) fn tag() -> u32 {
    1 + NEXT_TAG.fetch_add(1, Ordering::Relaxed) % (TAGS.load(Ordering::Relaxed) - 1)
}

/// The processor's side of a new VCPU.
///
/// # Safety
/// The block is a zeroed frame of its own, `root` the root of a guest space, and both stay while the VCPU does.
pub(crate) unsafe fn new_cpu(block: NonNull<u8>, root: u64, tag: u32) -> Cpu {
    let address = physical(block);
    match KIND.get() {
        // SAFETY: the caller vouches for the block.
        Some(Kind::Svm(svm)) => Cpu::Svm(unsafe { cloister_svm::Vcpu::new(block.cast(), address, root, tag, svm) }),
        // SAFETY: as above.
        Some(Kind::Vmx(vmx)) => Cpu::Vmx(unsafe { cloister_vmx::Vcpu::new(block.cast(), address, root, tag, vmx) }),
        // Callers look at `is_supported` first.
        None => unreachable!("a VCPU without guests"),
    }
}

/// Runs the guest until it exits, with XCR0 and translations as they must be.
#[inline(always)]
pub(crate) fn enter<M: Machine>(core: &Core, vcpu: &Vcpu, cpu: &mut M, until: u64, utcb: u64) {
    let Some(host) = M::host(core) else { return };
    // Known to others before the generation is read, so that who takes memory away from now on interrupts this core.
    core.remote.guest.store(vcpu.guest.root(), Ordering::SeqCst);
    let generation = vcpu.guest.generation.load(Ordering::Acquire);
    let (this, owner) = (core::ptr::from_ref(vcpu).addr(), &core.guests.owners[vcpu.tag as usize % MAX_TAGS]);
    if vcpu.generation.get() != generation || owner.get() != this {
        vcpu.generation.set(generation);
        owner.set(this);
        cpu.flush_tlb();
    }
    let (own, guest) = (fpu::mask(), cpu.get(Field::XCR0));
    let differs = own != guest && has(feature::XSAVE);
    if differs {
        // SAFETY: the limits allow only what the processor has.
        unsafe { fpu::write_xcr0(guest) };
    }
    let aux = word!(vcpu.page, tsc_aux).load(Ordering::Relaxed);
    if aux != 0 {
        super::cpu::set_tsc_aux(aux);
    }
    let ticks = if cpu.has_timer() { until.saturating_sub(ticks()) } else { 0 };
    // SAFETY: interrupts are off in the kernel; FPU and XCR0 are the guest's; `crate::guest` has activated it; the guest's space maps
    // what was delegated.
    unsafe { cpu.enter(host, [super::percore::fs_base(), utcb], ticks) };
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
