// SPDX-License-Identifier: MIT OR Apache-2.0
//! Execution context (EC): registers, a UTCB, and what it is doing.
//!
//! A local EC serves portals on the time of its callers; a global one has a scheduling context. An EC belongs to one core: its
//! cells are touched by that core alone (but for what a semaphore tells it, see [`Sm`]). Callers and callees point at each other without counting; destroying either severs
//! the pair.

use super::page::Page;
use super::pd::Spaces;
use super::sc::Parked;
use super::{Header, MessagePage, Pd, Pt, Ref, Sc, Sm, Space, Vcpu, Work};
use crate::arch::{FRESH, Frame, fpu, percore::USER_CS, percore::USER_SS};
use crate::journey::{self, Journey};
use crate::percore::{RESCHEDULE, core};
use crate::remote;
use cloister_abi::cap::Kind;
use cloister_abi::hypercall::EcFlags;
use cloister_abi::status::Status;
use cloister_mechanism::capability::Root;
use cloister_mechanism::list::{Link, Linked, List};
use cloister_mechanism::timeout::{Deadline, Timer};
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Most links of a chain of callees that are followed. A longer one gets no time before it is shorter: who makes it harms
/// only who waits at its beginning, and choosing who runs stays short.
const HOPS: usize = 256;

/// What an EC is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Local: waits for a call.
    Idle,
    /// Runs, or would if it had the processor.
    Running,
    /// Waits for the reply of its callee.
    Calling,
    /// Stopped by an exception, waits for the reply of its handler, which is its callee.
    Faulted,
    /// Its callee is busy: lends it its time and tries again.
    Helping,
    /// Waits for the reply of a callee on another core.
    Away,
    /// Waits at a semaphore.
    Blocked,
    /// Never runs again.
    Stopped,
}

/// How an EC goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// In user mode, with the registers of its frame.
    User,
    /// With the hypercall of its frame once more.
    Retry,
    /// In the guest of its virtual CPU.
    Guest,
}

/// Execution context (EC).
#[repr(C, align(64))]
pub(crate) struct Ec {
    header: Header,
    /// Registers.
    pub(crate) frame: core::cell::UnsafeCell<Frame>,
    /// Domain it runs in.
    pub(crate) pd: Ref<Pd>,
    /// Its capabilities.
    pub(crate) objects: Ref<Space>,
    /// Its ports.
    pub(crate) ports: Ref<Space>,
    /// First level of its object space, for the fast paths.
    pub(crate) table: Root<Header>,
    /// Physical address of the page-table root of its host space, which the message page refers to.
    pub(crate) root: u64,
    /// Message page.
    pub(crate) utcb: MessagePage,
    /// Where its exceptions go.
    pub(crate) event: Option<Ref<Pt>>,
    /// Floating-point state while it is not in the registers.
    pub(crate) fpu: Option<Page>,
    /// FS base while it is not running.
    pub(crate) fs_base: Cell<u64>,
    pub(crate) state: Cell<State>,
    pub(crate) resume: Cell<Resume>,
    /// Who waits for its reply.
    pub(crate) caller: Cell<Option<NonNull<Ec>>>,
    /// Whose reply it waits for, or whom it helps.
    pub(crate) callee: Cell<Option<NonNull<Ec>>>,
    /// SC of whoever called it from another core and waits for its reply.
    pub(crate) visitor: Cell<Option<Ref<Sc>>>,
    /// What the SC that is away with its call had to do here.
    pub(crate) journey: Cell<Journey>,
    /// Its scheduling context, if it is global and started.
    sc: AtomicPtr<Sc>,
    /// Who helps it: ECs that want to call it while it is busy.
    pub(crate) helpers: List<Ec, Helping>,
    /// SCs that wait for it to run again.
    pub(crate) waiting: List<Sc, Parked>,
    /// Semaphore it waits at.
    pub(crate) semaphore: Cell<Option<NonNull<Sm>>>,
    /// With what the semaphore has let it go. Written by who took it out of the queue there, read when its core hears of that.
    pub(crate) awake: Cell<(Status, u64)>,
    /// Virtual CPU it runs.
    pub(crate) vcpu: Cell<Option<NonNull<Vcpu>>>,
    pub(super) queue: Link<Ec>,
    timeout: Timer<Ec>,
    /// Until when it waits, if it does.
    pub(crate) deadline: Cell<u64>,
    /// Core it belongs to.
    pub(crate) core: u8,
    /// Global rather than local.
    pub(crate) global: bool,
}

/// Marks the list of ECs that help another one.
pub(crate) struct Helping;

impl Linked<Helping> for Ec {
    fn link(&self) -> &Link<Self> {
        &self.queue
    }
}
impl Deadline for Ec {
    fn deadline(&self) -> u64 {
        self.deadline.get()
    }
    fn timer(&self) -> &Timer<Self> {
        &self.timeout
    }
}

const _: () = assert!(size_of::<Ec>() <= 576);

/// How a new EC begins.
pub(crate) struct Start {
    /// Where its message page is.
    pub(crate) utcb: u64,
    pub(crate) sp: u64,
    pub(crate) ip: u64,
    pub(crate) core: u8,
    pub(crate) flags: EcFlags,
    /// Where its exceptions go.
    pub(crate) event: Option<Ref<Pt>>,
}

impl Ec {
    /// An EC of that domain, which pays; a global one runs when it gets a scheduling context, a local one when it is called.
    ///
    /// # Errors
    /// Memory could not be had, or something is mapped where the message page is to be.
    pub(crate) fn create(pd: &Pd, spaces: Spaces, start: Start) -> Result<Ref<Self>, Status> {
        let fpu = start.flags.contains(EcFlags::FPU).then(|| Page::zeroed(pd)).transpose()?;
        if let Some(area) = &fpu {
            fpu::initialize(area.frame());
        }
        let global = start.flags.contains(EcFlags::GLOBAL);
        let frame = Frame {
            vector: if global { FRESH } else { crate::arch::SYSCALL },
            rip: start.ip,
            cs: USER_CS,
            rflags: 0x202,
            rsp: start.sp,
            ss: USER_SS,
            ..Frame::default()
        };
        let ec = Self {
            header: Header::new(Kind::Ec),
            frame: core::cell::UnsafeCell::new(frame),
            pd: Ref::of(pd),
            table: spaces.objects.table()?.root(),
            root: spaces.host.root(),
            objects: spaces.objects,
            ports: spaces.ports,
            utcb: MessagePage::map(pd, spaces.host, start.utcb)?,
            event: start.event,
            fpu,
            fs_base: Cell::new(0),
            state: Cell::new(if global { State::Running } else { State::Idle }),
            resume: Cell::new(Resume::User),
            caller: Cell::new(None),
            callee: Cell::new(None),
            visitor: Cell::new(None),
            journey: Cell::new(Journey::Home),
            sc: AtomicPtr::new(core::ptr::null_mut()),
            helpers: List::empty(),
            waiting: List::empty(),
            semaphore: Cell::new(None),
            awake: Cell::new((Status::Success, 0)),
            vcpu: Cell::new(None),
            queue: Link::none(),
            timeout: Timer::none(),
            deadline: Cell::new(0),
            core: start.core,
            global,
        };
        Ref::create(pd, ec)
    }

    /// Its registers. Only its core calls this, and while no other reference to them is in use.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the frame belongs to the core, which runs one handler at a time")]
    pub(crate) fn registers(&self) -> &mut Frame {
        // SAFETY: the core that the EC belongs to runs one handler at a time, and handlers pass the frame on instead of
        // getting it twice at once.
        unsafe { &mut *self.frame.get() }
    }

    /// Puts the results of a hypercall into the registers.
    #[inline]
    pub(crate) fn answer(&self, status: Status, value: u64) {
        let frame = self.registers();
        frame.rax = status as u64;
        frame.rdi = value;
    }

    /// Who runs when this EC has time: the end of the chain of callees, and whether help is a link of it. `None` if the chain has more
    /// than [`HOPS`] links.
    pub(crate) fn path(&self) -> Option<(&Self, bool)> {
        let (mut ec, mut helping) = (self, false);
        for _ in 0..HOPS {
            let next = match (ec.state.get(), ec.callee.get()) {
                // SAFETY: a callee is severed from its caller or helper before it goes.
                (State::Calling | State::Faulted | State::Helping, Some(callee)) => unsafe { callee.as_ref() },
                _ => return Some((ec, helping)),
            };
            if ec.state.get() == State::Helping {
                if next.state.get() == State::Idle {
                    return Some((ec, helping));
                }
                helping = true;
            }
            ec = next;
        }
        None
    }

    /// The end of the chain, as far as it is followed.
    fn leaf(&self) -> &Self {
        self.path().map_or(self, |(leaf, _)| leaf)
    }

    /// Whether it can run now (a helper can: it tries again).
    pub(crate) fn is_runnable(&self) -> bool {
        matches!(self.state.get(), State::Running | State::Helping)
    }

    /// Makes an SC its own. Answers false if it has one.
    pub(crate) fn bind(&self, sc: &Sc) -> bool {
        let sc = core::ptr::from_ref(sc).cast_mut();
        self.sc.compare_exchange(core::ptr::null_mut(), sc, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Its SC goes, if it is that one.
    pub(crate) fn unbind(&self, sc: &Sc) {
        let sc = core::ptr::from_ref(sc).cast_mut();
        // If it is another one, that stays.
        let _ = self.sc.compare_exchange(sc, core::ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Its semaphore has let it go.
    pub(crate) fn woken(&self) {
        if self.state.get() == State::Blocked {
            let (status, value) = self.awake.get();
            self.end_wait(status, value);
        }
    }

    /// Ends a wait at a semaphore.
    pub(crate) fn end_wait(&self, status: Status, value: u64) {
        self.state.set(State::Running);
        self.semaphore.set(None);
        self.answer(status, value);
        core().timeouts.remove(self);
        self.unpark();
    }

    /// Puts an SC into the list of those that wait for it to run again, the most urgent first as a rule.
    pub(crate) fn park(&self, sc: &Sc) {
        sc.parked.set(Some(self.into()));
        // SAFETY: members of the list are alive.
        if self.waiting.first().is_some_and(|first| unsafe { first.as_ref() }.priority < sc.priority) {
            self.waiting.push_front(sc);
        } else {
            self.waiting.push_back(sc);
        }
    }

    /// Lets all go on that waited for this EC to run again: the first at once, all of them soon.
    #[inline]
    pub(crate) fn unpark(&self) {
        if let Some(sc) = self.waiting.pop_front() {
            release(sc);
            if !self.waiting.is_empty() {
                remote::remind(&self.header);
            }
        }
    }

    /// Stops it for good; who waits for it is told, soon.
    pub(crate) fn stop(&self) {
        self.state.set(State::Stopped);
        self.let_go(&mut Work::of(0));
    }

    /// Lets go who waits for this EC to run again and, if it never will, who helps it: as many as `work` allows, the others later.
    pub(crate) fn let_go(&self, work: &mut Work) {
        let stopped = self.state.get() == State::Stopped;
        if stopped {
            self.abort_caller();
        }
        loop {
            let helper = self.helpers.first().filter(|_| stopped);
            if helper.is_none() && self.waiting.is_empty() {
                return;
            }
            if work.is_done() {
                return remote::remind(&self.header);
            }
            work.spend(Work::RELEASE);
            if let Some(helper) = helper {
                // SAFETY: members of the list are alive.
                unsafe { helper.as_ref() }.stop_helping();
            } else if let Some(sc) = self.waiting.pop_front() {
                release(sc);
            }
        }
    }

    /// Cuts this EC off its caller, since it will not answer. A caller that waited for its exception to be handled is stopped, since it
    /// never will be: its own caller is told when that is remembered, since such a row may be long.
    fn abort_caller(&self) {
        journey::abort(core(), self);
        let Some(caller) = self.caller.take() else { return };
        // SAFETY: a caller is severed from its callee before it goes.
        let caller = unsafe { caller.as_ref() };
        caller.callee.set(None);
        if caller.state.get() == State::Faulted {
            caller.state.set(State::Stopped);
            remote::remind(&caller.header);
        } else {
            caller.state.set(State::Running);
            caller.answer(Status::Aborted, 0);
        }
    }

    /// Ends helping, if it does: it tries its call again as soon as it has time.
    pub(crate) fn stop_helping(&self) {
        if self.state.get() != State::Helping {
            return;
        }
        self.resume.set(Resume::Retry);
        if let Some(callee) = self.callee.take() {
            // SAFETY: an EC ends all helping of it before it goes.
            unsafe { callee.as_ref() }.helpers.remove(self);
        }
        self.state.set(State::Running);
    }

    /// Stops it for good and cuts all ties, those of who waits for it soon.
    pub(crate) fn kill(&self, work: &mut Work) {
        if self.callee.get().is_some() {
            work.spend(Work::CHAIN);
        }
        let leaf = NonNull::from(self.leaf());
        let state = self.state.get();
        self.stop_helping();
        if let Some(sm) = self.semaphore.take() {
            // SAFETY: a semaphore lets all who wait go before it goes, and mail that says so is received before anything else.
            unsafe { sm.as_ref() }.semaphore.forget(self);
        }
        core().timeouts.remove(self);
        if let (State::Calling | State::Faulted, Some(callee)) = (state, self.callee.take()) {
            // SAFETY: a callee is severed from its caller before it goes.
            unsafe { callee.as_ref() }.caller.set(None);
        }
        self.stop();
        crate::guest::abandon(self);
        core().forget_fpu(&self.header);
        // Whoever's time waited for the end of a chain that is cut now has to look again.
        // SAFETY: nothing was freed since; memory returns when the hypercall is over.
        unsafe { leaf.as_ref() }.let_go(&mut Work::of(0));
        core().request(RESCHEDULE);
    }
}

/// Lets an SC go on that waited for an EC, and is in the list no more.
fn release(sc: NonNull<Sc>) {
    // SAFETY: members of the list are alive.
    let sc = unsafe { sc.as_ref() };
    sc.parked.set(None);
    crate::sched::enqueue(sc, false);
}
