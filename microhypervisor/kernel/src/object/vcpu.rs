// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual CPU (VCPU): the guest's registers in the processor's format, and the state page that its monitor sees. Run by
//! [`crate::guest`].

use super::page::{Page, SharedPage};
use super::{Ec, Header, Pd, Ref, Space};
use crate::arch::{fpu, guest};
use crate::percore::core;
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_vcpu::{StatePage, word};
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Virtual CPU (VCPU).
#[repr(C, align(64))]
pub(crate) struct Vcpu {
    header: Header,
    /// The guest's memory.
    pub(crate) guest: Ref<Space>,
    /// State page, as the kernel sees it.
    pub(crate) page: StatePage,
    _shared: SharedPage,
    _block: Page,
    fpu: Page,
    machine: UnsafeCell<guest::Cpu>,
    /// Of its translations.
    pub(crate) tag: u32,
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

const _: () = assert!(size_of::<Vcpu>() <= 704);

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
        let (block, fpu) = (Page::zeroed(payer)?, Page::zeroed(payer)?);
        let shared = SharedPage::map(payer, host, address)?;
        fpu::initialize(fpu.frame());
        let tag = guest::tag();
        // SAFETY: the frame stays mapped for the kernel, and goes with the VCPU.
        let state: StatePage = unsafe { shared.frame().cast().as_ref() };
        // SAFETY: the block is this VCPU's own; the guest space outlives it.
        let machine = unsafe { guest::new_cpu(block.frame(), guest.root(), tag) };
        let vcpu = Self {
            header: Header::new(Kind::Vcpu),
            guest,
            page: state,
            _shared: shared,
            _block: block,
            fpu,
            machine: UnsafeCell::new(machine),
            tag,
            generation: Cell::new(0),
            runner: Cell::new(None),
            held: Cell::new(false),
            kicked: AtomicBool::new(false),
            core,
        };
        Ref::create(payer, vcpu)
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
        word!(self.page, deadline).load(Relaxed)
    }

    /// The run goes beyond the handler that began it: it needs a reference.
    pub(crate) fn hold(&self) {
        if !self.held.replace(true) {
            self.header.acquire();
        }
    }

    /// Floating-point state while it is not in the registers.
    #[inline]
    pub(crate) const fn fpu(&self) -> NonNull<u8> {
        self.fpu.frame()
    }

    /// Makes the floating-point registers the guest's.
    #[inline]
    pub(crate) fn take_fpu(&self) {
        let core = core();
        if !core.has_fpu(&self.header) {
            core.load_fpu(&self.header, self.fpu());
            core.set_fpu_trap(true);
        }
    }

    /// Its floating-point state is nobody's, its core forgets it, and a guest that runs does not go on.
    pub(crate) fn kill(&self) {
        core().forget_fpu(&self.header);
        guest::with_machine!(self, cpu => guest::Machine::retire_on(cpu, core()));
    }
}
