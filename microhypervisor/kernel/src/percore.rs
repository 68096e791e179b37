// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each core has of its own: who runs, who is ready, who waits, and what must be done before the next return to user mode.

use crate::arch::percore::Head;
use crate::arch::{self, fpu, paging};
use crate::object::{Ec, Sc, Space, Vcpu};
use cloister_mechanism::ready::ReadyQueue;
use cloister_mechanism::timeout::TimeoutQueue;
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

/// Work: choose again who runs.
pub(crate) const RESCHEDULE: u32 = 1 << 0;
/// Work: the current EC does not simply go on in user mode.
pub(crate) const RESUME: u32 = 1 << 1;
/// Work: give memory back.
pub(crate) const REAP: u32 = 1 << 2;
/// Work: look at the alarm: deadlines or the time slice.
pub(crate) const ALARM: u32 = 1 << 3;

/// Whose floating-point state is in the registers: one word, since every switch compares it. The address of an EC, or that of a
/// VCPU plus one, or 0 for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FpuOwner(usize);

impl FpuOwner {
    /// Nobody's.
    pub(crate) const NOBODY: Self = Self(0);

    /// An EC's.
    #[inline]
    pub(crate) fn ec(ec: &Ec) -> Self {
        Self(core::ptr::from_ref(ec).expose_provenance())
    }

    /// A VCPU's.
    #[inline]
    pub(crate) fn vcpu(vcpu: &Vcpu) -> Self {
        Self(core::ptr::from_ref(vcpu).expose_provenance() + 1)
    }
}

/// A core.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Core {
    /// For the processor and the entry code.
    pub(crate) head: UnsafeCell<Head>,
    pub(crate) pending: Cell<u32>,
    /// Number of this core.
    pub(crate) id: u8,
    /// The current SC runs an EC that it does not call but help.
    pub(crate) helping: Cell<bool>,
    pub(crate) current: Cell<Option<NonNull<Ec>>>,
    sc: Cell<Option<NonNull<Sc>>>,
    /// Tick at which the current SC was chosen or last accounted.
    pub(crate) since: Cell<u64>,
    /// Tick for which the alarm is armed.
    pub(crate) armed: Cell<u64>,
    /// Tick until which device interrupts wait; `u64::MAX` if they do not.
    pub(crate) brake: Cell<u64>,
    pub(crate) ready: ReadyQueue<Sc>,
    pub(crate) timeouts: TimeoutQueue<Ec>,
    pub(crate) fpu_owner: Cell<FpuOwner>,
    /// Floating-point instructions do not trap.
    fpu_open: Cell<bool>,
    /// Page-table root that is active.
    root: Cell<u64>,
    /// Port space whose bitmap is loaded; null for none.
    ports: Cell<*const Space>,
    /// For the guests that run here.
    pub(crate) guests: arch::guest::PerCore,
}

// SAFETY: a core's structure is touched by that core alone.
unsafe impl Sync for Core {}

static BOOT_CORE: Core = Core {
    head: UnsafeCell::new(Head::new()),
    pending: Cell::new(0),
    id: 0,
    helping: Cell::new(false),
    current: Cell::new(None),
    sc: Cell::new(None),
    since: Cell::new(0),
    armed: Cell::new(u64::MAX),
    brake: Cell::new(u64::MAX),
    ready: ReadyQueue::new(),
    timeouts: TimeoutQueue::new(),
    fpu_owner: Cell::new(FpuOwner::NOBODY),
    fpu_open: Cell::new(true),
    root: Cell::new(0),
    ports: Cell::new(core::ptr::null()),
    guests: arch::guest::PerCore::new(),
};

/// The core that runs.
#[inline]
pub(crate) fn core() -> &'static Core {
    // One core so far; with several this is the pointer at GS base.
    &BOOT_CORE
}

impl Core {
    /// Asks for work before the next return to user mode.
    #[inline]
    pub(crate) fn request(&self, work: u32) {
        self.pending.set(self.pending.get() | work);
    }

    /// Whether there is work.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.get() != 0
    }

    /// Takes the work.
    pub(crate) fn take_pending(&self) -> u32 {
        self.pending.replace(0)
    }

    /// The EC that runs (or would, in the idle loop: the one that ran last).
    #[inline]
    pub(crate) fn current(&self) -> Option<&Ec> {
        // SAFETY: the current EC is kept by a reference that `switch` moves.
        self.current.get().map(|ec| unsafe { ec.as_ref() })
    }

    /// The SC that runs.
    #[inline]
    pub(crate) fn sc(&self) -> Option<&Sc> {
        // SAFETY: an SC that goes is forgotten by its core first.
        self.sc.get().map(|sc| unsafe { sc.as_ref() })
    }

    /// Sets the SC that runs.
    pub(crate) fn set_sc(&self, sc: Option<&Sc>) {
        self.sc.set(sc.map(NonNull::from));
    }

    /// Makes an EC current: its registers are loaded at the next return to user mode.
    pub(crate) fn switch(&self, ec: &Ec) {
        if let Some(old) = self.current() {
            old.fs_base.set(arch::percore::fs_base());
        }
        self.load(ec);
        if ec.resume.get() != crate::object::ec::Resume::User {
            self.request(RESUME);
        }
    }

    /// Makes `to` current in place of `from`, which is current, by a call or its reply: it goes on in user mode.
    #[inline]
    pub(crate) fn hand_over(&self, from: &Ec, to: &Ec) {
        from.fs_base.set(arch::percore::fs_base());
        self.load(to);
    }

    /// Loads what the processor must know of an EC while it is current.
    #[inline]
    fn load(&self, ec: &Ec) {
        self.current.set(Some(NonNull::from(ec)));
        arch::percore::set_thread(ec.utcb_address, ec.fs_base.get());
        let end = ec.frame.get().addr() + size_of::<arch::Frame>();
        // SAFETY: the head is this core's own.
        unsafe { (*self.head.get()).set_frame_end(end as u64) };
        let root = ec.roots.host;
        if root != self.root.get() {
            self.root.set(root);
            arch::speculation::switch();
            // SAFETY: every host space has the kernel's half.
            unsafe { paging::activate(root) };
            let loaded = core::ptr::eq(self.ports.get(), &raw const *ec.ports);
            // SAFETY: the head is this core's own.
            unsafe { (*self.head.get()).use_ports(loaded) };
        }
        // As it should be if the EC does not own the registers and they are closed, as with programs that do not use them.
        if self.fpu_owner.get() == FpuOwner::ec(ec) || self.fpu_open.get() {
            self.set_fpu_trap(self.fpu_owner.get() != FpuOwner::ec(ec));
        }
    }

    /// Lets floating-point instructions trap, or not.
    #[cold]
    pub(crate) fn set_fpu_trap(&self, trap: bool) {
        if self.fpu_open.replace(!trap) == trap {
            fpu::set_trap(trap);
        }
    }

    /// Leaves the current EC: the kernel's own address space, nobody current.
    pub(crate) fn leave(&self) {
        if let Some(old) = self.current.take() {
            // SAFETY: as `current`.
            unsafe { old.as_ref() }.fs_base.set(arch::percore::fs_base());
        }
        let Some(root) = crate::memory::kernel_root() else { return };
        self.root.set(crate::memory::physical(root));
        // SAFETY: the kernel's root maps all that the kernel uses.
        unsafe { paging::activate(self.root.get()) };
    }

    /// Forgets translations, if the space is the current one.
    pub(crate) fn flush_if_current(&self, space: &Space) {
        if space.root() == self.root.get() {
            paging::flush();
        }
    }

    /// A floating-point instruction of the current EC trapped: gives it the unit. Answers whether it may use it.
    pub(crate) fn take_fpu(&self, ec: &Ec) -> bool {
        let Some(area) = ec.fpu else { return false };
        self.set_fpu_trap(false);
        self.save_fpu();
        // SAFETY: the area is the EC's, initialized at creation.
        unsafe { fpu::restore(area) };
        self.fpu_owner.set(FpuOwner::ec(ec));
        true
    }

    /// Saves the registers to whom they belong. The trap must be off.
    pub(crate) fn save_fpu(&self) {
        let FpuOwner(owner) = self.fpu_owner.replace(FpuOwner::NOBODY);
        if owner & 1 != 0 {
            let vcpu: *const Vcpu = core::ptr::with_exposed_provenance(owner - 1);
            // SAFETY: a VCPU that goes is forgotten as owner first.
            unsafe { &*vcpu }.save_fpu();
        } else if owner != 0 {
            let ec: *const Ec = core::ptr::with_exposed_provenance(owner);
            // SAFETY: an EC that goes is forgotten as owner first.
            if let Some(area) = unsafe { &*ec }.fpu {
                // SAFETY: the area is the owner's.
                unsafe { fpu::save(area) };
            }
        }
    }

    /// The owner goes: what is in the registers is nobody's.
    pub(crate) fn forget_fpu(&self, owner: FpuOwner) {
        if self.fpu_owner.get() == owner {
            self.fpu_owner.set(FpuOwner::NOBODY);
        }
    }

    /// A port access of the current EC trapped: loads its bitmap. Answers whether that changes something.
    pub(crate) fn load_ports(&self, ec: &Ec) -> bool {
        if core::ptr::eq(self.ports.get(), &raw const *ec.ports) {
            return false;
        }
        let Some(bitmap) = ec.ports.port_bitmap() else { return false };
        // SAFETY: the head is this core's own.
        let head = unsafe { &mut *self.head.get() };
        // SAFETY: a port space's bitmap is of two frames, for all ports.
        unsafe { head.load_ports(bitmap) };
        self.ports.set(&raw const *ec.ports);
        true
    }

    /// A port space changed or goes: its bitmap must be loaded anew.
    pub(crate) fn forget_ports(&self, space: &Space) {
        if core::ptr::eq(self.ports.get(), space) {
            self.ports.set(core::ptr::null());
            // SAFETY: the head is this core's own.
            unsafe { (*self.head.get()).use_ports(false) };
        }
    }
}
