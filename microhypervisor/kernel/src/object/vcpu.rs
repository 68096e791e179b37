// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual CPU (VCPU): the guest's registers in the processor's format, and the state page that its monitor sees. Run by
//! [`crate::guest`].

use super::{Ec, Header, Object, Pd, Ref, Space, status};
use crate::arch::{fpu, guest};
use crate::percore::{FpuOwner, core};
use cloister_abi::arch::current::vcpu::VcpuState;
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::Frames;
use cloister_vcpu::StatePage;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::AtomicBool;

/// Virtual CPU (VCPU).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Vcpu {
    header: Header,
    /// The guest's memory.
    pub(crate) guest: Ref<Space>,
    host: Ref<Space>,
    address: u64,
    /// State page, as the kernel sees it.
    pub(crate) page: StatePage,
    block: NonNull<u8>,
    /// Floating-point state while it is not in the registers.
    pub(crate) fpu: NonNull<u8>,
    machine: UnsafeCell<guest::Cpu>,
    tag: guest::Tag,
    /// Generation of the guest space that the translation buffer has seen.
    pub(crate) generation: Cell<u64>,
    /// The EC that runs it.
    pub(crate) runner: Cell<Option<NonNull<Ec>>>,
    /// The run has a reference.
    pub(crate) held: Cell<bool>,
    /// Asked to leave the guest.
    pub(crate) kicked: AtomicBool,
    /// Core it belongs to.
    pub(crate) core: u8,
}

// SAFETY: `repr(C)`, header first.
unsafe impl Object for Vcpu {
    const KIND: Kind = Kind::Vcpu;
}

const _: () = assert!(size_of::<Vcpu>() <= 576);

impl Vcpu {
    /// A VCPU after RESET, whose state page is mapped into `host` at `address`. `payer` pays.
    ///
    /// # Errors
    /// Memory could not be had, or something is mapped there.
    pub(crate) fn create(
        payer: &Pd,
        guest: Ref<Space>,
        (host, address): (Ref<Space>, u64),
        core: u8,
    ) -> Result<Ref<Self>, Status> {
        let frames @ [page, block, area] = take(payer)?;
        if let Err(why) = host.map_frame(address, page) {
            give(payer, &frames);
            return Err(why);
        }
        fpu::initialize(area);
        let tag = guest::Tag::take();
        // SAFETY: the frame stays mapped for the kernel, and goes with the VCPU.
        let state = unsafe { StatePage::new(page.cast()) };
        // SAFETY: the block is this VCPU's own; the guest space outlives it.
        let machine = unsafe { guest::new_cpu(block, guest.root(), &tag) };
        let vcpu = Self {
            header: Header::new(Kind::Vcpu),
            guest,
            host,
            address,
            page: state,
            block,
            fpu: area,
            machine: UnsafeCell::new(machine),
            tag,
            generation: Cell::new(0),
            runner: Cell::new(None),
            held: Cell::new(false),
            kicked: AtomicBool::new(false),
            core,
        };
        // From here on the VCPU owns the frames, but cannot give them back without a payer.
        Ref::create(payer, vcpu).inspect_err(|_| give(payer, &frames))
    }

    /// The processor's side of it. Only the core that runs it calls this, one reference at a time.
    #[expect(clippy::mut_from_ref, reason = "the VCPU belongs to its core, which runs one handler at a time")]
    #[inline]
    pub(crate) fn machine(&self) -> &mut guest::Cpu {
        // SAFETY: as said above.
        unsafe { &mut *self.machine.get() }
    }

    /// Until when the monitor lets the guest run, as its state page says; 0 for ever.
    #[inline]
    pub(crate) fn deadline(&self) -> u64 {
        self.page.read::<{ offset_of!(VcpuState, deadline) }>()
    }

    /// What RDTSCP answers in the guest, as the state page says.
    #[inline]
    pub(crate) fn tsc_aux(&self) -> u64 {
        self.page.read::<{ offset_of!(VcpuState, tsc_aux) }>()
    }

    /// The run goes beyond the handler that began it: it needs a reference.
    pub(crate) fn hold(&self) {
        if !self.held.replace(true) {
            self.header.acquire();
        }
    }

    /// Whether its translations share a tag with those of others.
    pub(crate) fn tag(&self) -> &guest::Tag {
        &self.tag
    }

    /// Makes the floating-point registers the guest's.
    #[inline]
    pub(crate) fn take_fpu(&self) {
        let core = core();
        let owner = FpuOwner::vcpu(self);
        if core.fpu_owner.get() != owner {
            core.set_fpu_trap(false);
            core.save_fpu();
            // SAFETY: the area is the VCPU's own, initialized at creation; the trap is off.
            unsafe { fpu::restore(self.fpu) };
            core.fpu_owner.set(owner);
            core.set_fpu_trap(true);
        }
    }

    /// Its floating-point state is nobody's, its core forgets it, and a guest that runs does not go on.
    pub(crate) fn kill(&self) {
        core().forget_fpu(FpuOwner::vcpu(self));
        guest::with_machine!(self, cpu => guest::Machine::retire(cpu, core()));
    }

    /// Saves the floating-point registers, which are the guest's. The trap must be off.
    pub(crate) fn save_fpu(&self) {
        // SAFETY: the area is the VCPU's own; the caller says that the trap is off.
        unsafe { fpu::save(self.fpu) };
    }
}

/// Frames for state page, control structure and floating-point state.
fn take(payer: &Pd) -> Result<[NonNull<u8>; 3], Status> {
    let mut frames = [NonNull::dangling(); 3];
    for index in 0..frames.len() {
        frames[index] = payer.take_zeroed().map_err(|why| {
            give(payer, &frames[..index]);
            status(why)
        })?;
    }
    Ok(frames)
}

fn give(payer: &Pd, frames: &[NonNull<u8>]) {
    for frame in frames {
        // SAFETY: the frames were taken from this payer, and nothing uses them.
        unsafe { payer.give(*frame) };
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        let page = self.page.pointer().cast();
        self.host.unmap_frame(self.address, page);
        if let Some(payer) = self.header.payer() {
            give(payer, &[page, self.block, self.fpu]);
        }
    }
}
