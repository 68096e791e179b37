// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each core has of its own: who runs, who is ready, who waits, and what must be done before the next return to user mode.

//!
//! A core's structure is its own: no other core touches it but for what is in [`Remote`] and atomic. What belongs to a core (ECs, SCs,
//! VCPUs, queues) is changed by others through mail; see [`crate::remote`].

use crate::arch::percore::Head;
use crate::arch::{self, fpu, paging};
use crate::memory::POOL;
use crate::object::{Ec, Graveyard, Header, Object, Sc, Space};
use crate::remote::Remote;
use crate::width::low8;
use cloister_mechanism::FRAME;
use cloister_mechanism::ready::ReadyQueue;
use cloister_mechanism::timeout::TimeoutQueue;
use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Most cores that run.
pub(crate) const CORES: usize = 64;

/// Work: choose again who runs.
pub(crate) const RESCHEDULE: u32 = 1 << 0;
/// Work: the current EC does not simply go on in user mode.
pub(crate) const RESUME: u32 = 1 << 1;
/// Work: give memory of the dead back, now.
pub(crate) const REAP: u32 = 1 << 2;
/// Work: look at the alarm: deadlines or the time slice.
pub(crate) const ALARM: u32 = 1 << 3;
/// Work: mail has come.
pub(crate) const MAIL: u32 = 1 << 4;

/// Owner of the floating-point registers: nobody, and there may be something of others left.
const NOBODY: *const Header = core::ptr::null();
/// The same, but they are as after reset.
const CLEARED: *const Header = core::ptr::dangling();

/// A core.
#[repr(C)]
pub(crate) struct Core {
    /// For the processor and the entry code.
    pub(crate) head: UnsafeCell<Head>,
    pub(crate) pending: Cell<u32>,
    /// Number of this core.
    pub(crate) id: u8,
    /// The hypercall under way is made for the second time.
    pub(crate) trying_again: Cell<bool>,
    /// The current SC runs an EC that it does not call but help.
    pub(crate) helping: Cell<bool>,
    pub(crate) current: Cell<Option<NonNull<Ec>>>,
    /// The SC that runs. Others may compare it, no more.
    sc: AtomicPtr<Sc>,
    /// Tick at which the current SC was chosen or last accounted.
    pub(crate) since: AtomicU64,
    /// Ticks that no SC used.
    pub(crate) idle: AtomicU64,
    /// Tick for which the alarm is armed.
    pub(crate) armed: Cell<u64>,
    /// Tick at which what was left to do goes on; `u64::MAX` if nothing was.
    pub(crate) later: Cell<u64>,
    /// Tick until which device interrupts wait; `u64::MAX` if they do not.
    pub(crate) brake: Cell<u64>,
    pub(crate) ready: ReadyQueue<Sc>,
    pub(crate) timeouts: TimeoutQueue<Ec>,
    /// The EC or VCPU whose floating-point state is in the registers: one word, since every switch compares it.
    fpu_owner: Cell<*const Header>,
    /// Where its state is saved; none if there is no owner.
    fpu_area: Cell<Option<NonNull<u8>>>,
    /// Floating-point instructions do not trap.
    fpu_open: Cell<bool>,
    /// Page-table root that is active. Others look whether it is theirs.
    root: AtomicU64,
    /// Port space whose bitmap is loaded; null for none.
    ports: AtomicPtr<Space>,
    /// For the guests that run here.
    pub(crate) guests: arch::guest::PerCore,
    /// Objects without references, whose memory waits until no core can be looking at them.
    pub(crate) graveyard: Graveyard,
    /// What others ask of this core.
    pub(crate) remote: Remote,
    /// Identity of the local APIC.
    pub(crate) apic_id: AtomicU32,
    /// Asked to stop for good.
    pub(crate) stopping: AtomicBool,
}

// SAFETY: a core's structure is touched by that core alone, but for atomics.
unsafe impl Sync for Core {}

/// The boot core.
pub(crate) static BOOT_CORE: Core = Core::new(0, 0);
/// The cores that run, the boot core first.
static TABLE: [AtomicPtr<Core>; CORES] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CORES];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The core that runs.
#[inline]
pub(crate) fn core() -> &'static Core {
    // SAFETY: cores' structures stay for ever; the pointer is this core's.
    unsafe { &*arch::percore::this() }
}

/// All cores that run.
pub(crate) fn all() -> impl Iterator<Item = &'static Core> {
    // SAFETY: cores' structures stay for ever.
    TABLE.iter().take(count()).filter_map(|core| unsafe { core.load(Ordering::Relaxed).as_ref() })
}

/// How many cores run.
#[inline]
pub(crate) fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The core of that number, if it runs.
pub(crate) fn get(id: u8) -> Option<&'static Core> {
    let place = TABLE.get(usize::from(id)).filter(|_| usize::from(id) < count())?;
    // SAFETY: cores' structures stay for ever.
    unsafe { place.load(Ordering::Relaxed).as_ref() }
}

impl Core {
    const fn new(id: u8, apic_id: u32) -> Self {
        Self {
            head: UnsafeCell::new(Head::new()),
            pending: Cell::new(0),
            id,
            trying_again: Cell::new(false),
            helping: Cell::new(false),
            current: Cell::new(None),
            sc: AtomicPtr::new(core::ptr::null_mut()),
            since: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            armed: Cell::new(u64::MAX),
            later: Cell::new(u64::MAX),
            brake: Cell::new(u64::MAX),
            ready: ReadyQueue::empty(),
            timeouts: TimeoutQueue::empty(),
            fpu_owner: Cell::new(NOBODY),
            fpu_area: Cell::new(None),
            fpu_open: Cell::new(true),
            root: AtomicU64::new(0),
            ports: AtomicPtr::new(core::ptr::null_mut()),
            guests: arch::guest::PerCore::new(),
            graveyard: Graveyard::new(),
            remote: Remote::new(),
            apic_id: AtomicU32::new(apic_id),
            stopping: AtomicBool::new(false),
        }
    }

    /// The structure of a further core, out of the pool.
    ///
    /// # Errors
    /// The pool is too small.
    pub(crate) fn create(number: usize, apic_id: u32) -> Result<&'static Self, &'static str> {
        let frames = POOL.reserve(size_of::<Self>().div_ceil(FRAME)).map_err(|_| "the kernel's pool is too small")?;
        let place = frames.cast::<Self>();
        // SAFETY: fresh frames, enough of them, kept for ever.
        unsafe { place.write(Self::new(low8(number as u64), apic_id)) };
        // SAFETY: just written.
        Ok(unsafe { place.as_ref() })
    }

    /// Makes this core known to the others. Cores come in the order of their numbers.
    pub(crate) fn publish(&self) {
        if let Some(place) = TABLE.get(usize::from(self.id)) {
            place.store(core::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
            COUNT.store(usize::from(self.id) + 1, Ordering::Release);
        }
    }

    /// Identity of the local APIC.
    pub(crate) fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Whether the page table of that root is active here, for a component or a guest.
    pub(crate) fn uses(&self, root: u64) -> bool {
        self.root.load(Ordering::SeqCst) == root || self.remote.guest.load(Ordering::SeqCst) == root
    }

    /// Whether the port bitmap of that space is loaded here.
    pub(crate) fn uses_ports(&self, space: &Space) -> bool {
        core::ptr::eq(self.ports.load(Ordering::SeqCst), space)
    }

    /// Whether that SC runs here. Others ask too.
    #[inline]
    pub(crate) fn runs(&self, sc: &Sc) -> bool {
        core::ptr::eq(self.sc.load(Ordering::Relaxed), sc)
    }

    /// Whether nobody's time runs here. Others ask too.
    pub(crate) fn is_without_sc(&self) -> bool {
        self.sc.load(Ordering::Relaxed).is_null()
    }

    /// Forgets translations and ports, as others have asked.
    pub(crate) fn flush(&self) {
        paging::flush();
        self.drop_ports();
    }

    /// Asks for work before the next return to user mode.
    #[inline]
    pub(crate) fn request(&self, work: u32) {
        self.pending.set(self.pending.get() | work);
    }

    /// Does mail and the dead after so many microseconds at the latest.
    pub(crate) fn postpone(&self, micros: u64) {
        self.later.set(self.later.get().min(arch::cpu::ticks() + arch::timer::from_micros(micros)));
        self.request(ALARM);
    }

    /// Whether there is work.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.get() != 0
    }

    /// Takes work of these kinds.
    #[inline]
    pub(crate) fn take_pending(&self, kinds: u32) -> u32 {
        let pending = self.pending.get();
        self.pending.set(pending & !kinds);
        pending & kinds
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
        unsafe { self.sc.load(Ordering::Relaxed).as_ref() }
    }

    /// Sets the SC that runs.
    pub(crate) fn set_sc(&self, sc: Option<&Sc>) {
        self.sc.store(sc.map_or(core::ptr::null_mut(), |sc| core::ptr::from_ref(sc).cast_mut()), Ordering::Relaxed);
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
        arch::percore::set_thread(ec.utcb.address(), ec.fs_base.get());
        let end = ec.frame.get().addr() + size_of::<arch::Frame>();
        // SAFETY: the head is this core's own.
        unsafe { (*self.head.get()).set_frame_end(end as u64) };
        let root = ec.root;
        if root != self.root.load(Ordering::Relaxed) {
            self.root.store(root, Ordering::Relaxed);
            arch::speculation::switch();
            // SAFETY: every host space has the kernel's half.
            unsafe { paging::activate(root) };
            let loaded = core::ptr::eq(self.ports.load(Ordering::Relaxed), &raw const *ec.ports);
            // SAFETY: the head is this core's own.
            unsafe { (*self.head.get()).use_ports(loaded) };
        }
        // As it should be if the EC does not own the registers and they are closed, as with programs that do not use them.
        let owns = self.has_fpu(ec.header());
        if owns || self.fpu_open.get() {
            self.set_fpu_trap(!owns);
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
        let root = crate::memory::physical(root);
        self.root.store(root, Ordering::Relaxed);
        // SAFETY: the kernel's root maps all that the kernel uses.
        unsafe { paging::activate(root) };
    }

    /// Whether the floating-point registers have the state of that EC or VCPU.
    #[inline]
    pub(crate) fn has_fpu(&self, owner: &Header) -> bool {
        core::ptr::eq(self.fpu_owner.get(), owner)
    }

    /// Loads the floating-point registers from the area of an EC or VCPU of this core.
    pub(crate) fn load_fpu(&self, owner: &Header, area: NonNull<u8>) {
        self.set_fpu_trap(false);
        self.save_fpu();
        // SAFETY: the area is its owner's, initialized at creation; the trap is off.
        unsafe { fpu::restore(area) };
        self.fpu_owner.set(owner);
        self.fpu_area.set(Some(area));
    }

    /// A floating-point instruction of the current EC trapped: gives it the unit. Answers whether it may use it.
    pub(crate) fn take_fpu(&self, ec: &Ec) -> bool {
        ec.fpu.as_ref().map(|area| self.load_fpu(ec.header(), area.frame())).is_some()
    }

    /// Puts what the current EC may see into the registers, even if it may not use them: its own state, or nothing. For processors on which the
    /// trap alone does not hide them.
    #[cold]
    pub(crate) fn hide_fpu(&self) {
        let Some(ec) = self.current() else { return };
        if self.fpu_owner.get() == CLEARED || self.has_fpu(ec.header()) || self.take_fpu(ec) {
            return;
        }
        self.set_fpu_trap(false);
        self.save_fpu();
        fpu::clear();
        self.fpu_owner.set(CLEARED);
        self.set_fpu_trap(true);
    }

    /// Saves the registers to whom they belong. The trap must be off.
    pub(crate) fn save_fpu(&self) {
        self.fpu_owner.set(NOBODY);
        if let Some(area) = self.fpu_area.take() {
            // SAFETY: its owner is forgotten here before it goes; the registers were restored from it.
            unsafe { fpu::save(area) };
        }
    }

    /// An EC or VCPU goes: what is in the registers is not its any more.
    pub(crate) fn forget_fpu(&self, owner: &Header) {
        if self.has_fpu(owner) {
            self.fpu_owner.set(NOBODY);
            self.fpu_area.set(None);
        }
    }

    /// A port access of the current EC trapped: loads its bitmap. Answers whether that changes something.
    pub(crate) fn load_ports(&self, ec: &Ec) -> bool {
        if arch::guest::restore_task(self) {
            return true;
        }
        if self.uses_ports(&ec.ports) {
            return false;
        }
        // Known to others before the bitmap is read, so that who changes it meanwhile tells this core.
        self.ports.store(core::ptr::from_ref(&*ec.ports).cast_mut(), Ordering::SeqCst);
        let Some(bitmap) = ec.ports.port_bitmap() else {
            self.drop_ports();
            return false;
        };
        // SAFETY: the head is this core's own.
        let head = unsafe { &mut *self.head.get() };
        // SAFETY: a port space's bitmap is of two frames, for all ports.
        unsafe { head.load_ports(bitmap) };
        true
    }

    /// The bitmap that is loaded does not hold any more.
    fn drop_ports(&self) {
        self.ports.store(core::ptr::null_mut(), Ordering::SeqCst);
        // SAFETY: the head is this core's own.
        unsafe { (*self.head.get()).use_ports(false) };
    }
}
