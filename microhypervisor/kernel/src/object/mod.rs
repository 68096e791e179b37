// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel objects: what they have in common, and the references to them.
//!
//! Every object starts with a [`Header`]. It is *alive* until it is destroyed or the last reference goes; a destroyed object answers no
//! look-up any more, is taken out of all queues at once, and its memory returns when the last reference goes. References
//! ([`Ref`]) are counted; capabilities hold one each. Plain pointers ([`NonNull`]) between objects exist only where destruction
//! of either side severs them (caller and callee, queues).
//!
//! Memory comes from the slabs of the protection domain that pays; each object keeps its payer alive, so that the budget it was
//! charged to is there to be credited. Memory is given back by [`reap`], at a point where no hypercall is under way, and no earlier than
//! each core has left the handler that it was in when the last reference went: look-ups take no reference.
//!
//! ECs, SCs and VCPUs belong to a core, which alone touches them; what destruction means for them is done there ([`receive`]).

pub(crate) mod ec;
pub(crate) mod message;
pub(crate) mod pd;
pub(crate) mod pt;
pub(crate) mod sc;
pub(crate) mod sm;
pub(crate) mod space;
pub(crate) mod vcpu;

pub(crate) use ec::Ec;
pub(crate) use message::MessagePage;
pub(crate) use pd::Pd;
pub(crate) use pt::Pt;
pub(crate) use sc::Sc;
pub(crate) use sm::Sm;
pub(crate) use space::Space;
pub(crate) use vcpu::Vcpu;

pub(crate) use cloister_mechanism::work::Work;

use crate::percore::{self, Core, core};
use crate::remote::{self, KILL};
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::Exhausted;
use cloister_mechanism::capability::Target;
use cloister_mechanism::list::{Link, Linked, List};
use cloister_mechanism::mail::Mail;
use cloister_mechanism::refcount::{Fate, RefCount};
use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// At the start of every object.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    /// What look-ups see: the kind, or `Dead`.
    kind: AtomicU8,
    /// The kind, for ever.
    class: Kind,
    refs: RefCount,
    payer: Cell<Option<NonNull<Pd>>>,
    /// In the payer's list while alive, in the list of the dead when the last reference has gone.
    link: Link<Header>,
    /// What another core asks of it.
    pub(crate) mail: Mail<Header>,
}

/// Marks the list of what a PD pays for.
#[derive(Debug)]
pub(crate) struct Owned;
/// Marks the list of objects whose memory can be given back.
#[derive(Debug)]
struct Unreferenced;

impl Linked<Owned> for Header {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}
impl Linked<Unreferenced> for Header {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

/// A core's dead: objects that nobody refers to, whose memory waits for grace.
///
/// Grace costs every other core an interrupt. So that nobody can make them busy by creating and destroying, memory is given back when so
/// many wait ([`BATCH`]), when one has waited so long ([`PATIENCE`]), when somebody wants to know or needs memory, or when the core has nothing
/// else to do. A core that is alone need not wait.
#[derive(Debug)]
pub(crate) struct Graveyard {
    list: List<Header, Unreferenced>,
    count: Cell<u32>,
    /// The last piece of work left some of them.
    behind: Cell<bool>,
}

/// How many dead objects wait at most.
const BATCH: u32 = 32;
/// How long they wait at most, microseconds.
const PATIENCE: u64 = 1_000;
/// Time for others between two pieces of work, microseconds.
pub(crate) const GAP: u64 = 20;

impl Graveyard {
    /// Nobody is dead.
    pub(crate) const fn new() -> Self {
        Self { list: List::new(), count: Cell::new(0), behind: Cell::new(false) }
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn add(&self, core: &Core, header: &Header) {
        self.list.push_back(header);
        self.count.set(self.count.get() + 1);
        if percore::count() == 1 || self.count.get() >= BATCH {
            core.request(percore::REAP);
        } else if self.count.get() == 1 {
            core.postpone(PATIENCE);
        }
    }

    /// Whether there was more than what one piece of work could give back: the rest comes soon.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    /// Leaves some for the next piece of work.
    fn leave(&self, core: &Core, header: &Header) {
        self.list.push_back(header);
        self.count.set(self.count.get() + 1);
        if !self.behind.replace(true) {
            core.postpone(GAP);
        }
    }

    /// All of them, after a time of grace.
    fn take(&self) -> List<Header, Unreferenced> {
        let dead = List::new();
        if !self.is_empty() {
            // Who looked them up before the last reference went may still be at it.
            remote::quiesce();
        }
        while let Some(header) = self.list.pop_front() {
            // SAFETY: members of the graveyard have no references, so they are ours alone.
            dead.push_back(unsafe { header.as_ref() });
        }
        self.count.set(0);
        self.behind.set(false);
        dead
    }
}

impl Header {
    /// Header of a new object with one reference.
    pub(crate) const fn new(class: Kind) -> Self {
        Self {
            kind: AtomicU8::new(class as u8),
            class,
            refs: RefCount::new(),
            payer: Cell::new(None),
            link: Link::new(),
            mail: Mail::new(),
        }
    }

    /// Whether the object was not destroyed.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.kind.load(Relaxed) != Kind::Dead as u8
    }

    /// Kind as a look-up sees it.
    #[inline]
    pub(crate) fn kind(&self) -> u8 {
        self.kind.load(Relaxed)
    }

    /// The PD that pays; none for what the kernel made at boot.
    pub(crate) fn payer(&self) -> Option<&Pd> {
        // SAFETY: each object holds a reference to its payer.
        self.payer.get().map(|pd| unsafe { pd.as_ref() })
    }

    /// Takes one reference more. The object was found in this handler; the last reference may have gone since.
    #[inline]
    pub(crate) fn acquire(&self) {
        self.refs.acquire();
    }

    /// Lets one reference go.
    #[inline]
    pub(crate) fn release(&self) {
        if self.refs.release() {
            self.bury();
        }
    }

    #[cold]
    fn bury(&self) {
        // Destruction may send mail, which takes a reference: then it is buried when that has been received.
        destroy(self, &mut Work::piece());
        if self.refs.retire() {
            let core = core();
            core.graveyard.add(core, self);
        }
    }
}

// SAFETY: objects are aligned to 64 bytes and start with their headers; `reap` gives memory back after a time of grace.
unsafe impl Target for Header {
    #[inline]
    fn is_alive(&self) -> bool {
        self.is_alive()
    }
    #[inline]
    fn acquire(&self) {
        self.acquire();
    }
    #[inline]
    fn release(&self) {
        self.release();
    }
}

/// What can be an object. The header is the first field.
///
/// # Safety
/// The type is `repr(C)` and starts with a [`Header`] of kind `KIND`.
pub(crate) unsafe trait Object: Sized {
    /// Kind of these objects.
    const KIND: Kind;

    /// The header.
    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the trait's contract.
        unsafe { &*core::ptr::from_ref(self).cast::<Header>() }
    }
}

/// A place for something that can be taken and put, but not looked at.
pub(crate) struct Place<T>(Cell<T>);

impl<T: Default> Place<T> {
    /// With that in it.
    pub(crate) const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    /// Takes what is in it.
    pub(crate) fn take(&self) -> T {
        self.0.take()
    }

    /// Puts something else in.
    pub(crate) fn set(&self, value: T) {
        self.0.set(value);
    }
}

impl<T> core::fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Place")
    }
}

/// A counted reference.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Ref<T: Object>(NonNull<T>);

impl<T: Object> Ref<T> {
    /// Takes a counted reference to an object that is known to be there.
    #[inline]
    pub(crate) fn of(object: &T) -> Self {
        object.header().acquire();
        Self(NonNull::from(object))
    }

    /// The object's address, keeping the count: who takes it owes a release.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// Creates an object that `payer` pays for.
    ///
    /// # Errors
    /// Memory could not be had, or the payer is being destroyed; the value is dropped.
    pub(crate) fn create(payer: &Pd, value: T) -> Result<Self, Status> {
        let place = payer.allocate(size_of::<T>()).map_err(status)?.cast::<T>();
        // SAFETY: the slot is ours, aligned to 64 bytes and large enough.
        unsafe { place.write(value) };
        // SAFETY: just written.
        let header = unsafe { place.as_ref() }.header();
        payer.header().acquire();
        header.payer.set(Some(NonNull::from(payer)));
        if payer.adopt(header) {
            return Ok(Self(place));
        }
        // Nobody knows it. As after every failure it is dropped without a payer: frames that it was made of are the caller's.
        header.payer.set(None);
        // SAFETY: written above, and used no more.
        unsafe { place.drop_in_place() };
        // SAFETY: allocated above.
        unsafe { payer.deallocate(place.cast(), size_of::<T>()) };
        payer.header().release();
        Err(Status::OutOfBudget)
    }

    /// Whether it refers to that object.
    #[inline]
    pub(crate) fn is(&self, object: &T) -> bool {
        self.0 == NonNull::from(object)
    }
}

impl<T: Object> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self::of(self)
    }
}

impl<T: Object> Deref for Ref<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the reference keeps the object's memory.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Object> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        self.header().release();
    }
}

/// Why memory could not be had, as a hypercall answers it.
pub(crate) const fn status(why: Exhausted) -> Status {
    match why {
        Exhausted::Budget => Status::OutOfBudget,
        Exhausted::Pool => Status::OutOfMemory,
    }
}

/// The object as what it is.
///
/// # Safety
/// `T` is the type of the header's class.
unsafe fn cast<T: Object>(header: &Header) -> &T {
    // SAFETY: the caller vouches for the type; a header is the first field of its object.
    unsafe { &*core::ptr::from_ref(header).cast::<T>() }
}

/// Destroys an object: nobody finds it any more, it is out of all queues, who waits for it is told.
pub(crate) fn destroy(header: &Header, work: &mut Work) {
    // While it is being taken out of the queues nobody may bury it.
    header.acquire();
    if header.kind.swap(Kind::Dead as u8, Relaxed) != Kind::Dead as u8 {
        detach(header, work);
    }
    header.release();
}

/// Takes an object that has just died out of all queues.
fn detach(header: &Header, work: &mut Work) {
    if let Some(payer) = header.payer() {
        payer.disown(header);
    }
    if header.class == Kind::Sc {
        // Its EC can have another one from now on.
        // SAFETY: the class tells the type, for ever.
        unsafe { cast::<Sc>(header) }.unbind();
    }
    match header.class {
        Kind::Ec | Kind::Sc | Kind::Vcpu => match percore::get(home(header)) {
            Some(home) if home.id != core().id => remote::send(home, header, KILL),
            _ => kill(header, work),
        },
        // SAFETY: the class tells the type, for ever.
        Kind::Sm => unsafe { cast::<Sm>(header) }.kill(),
        // SAFETY: as above.
        Kind::Pd => unsafe { cast::<Pd>(header) }.kill(),
        // SAFETY: as above.
        Kind::Space => unsafe { cast::<Space>(header) }.kill(),
        Kind::Pt | Kind::Machine | Kind::Dead => {}
    }
}

/// Core that an EC, SC or VCPU belongs to.
fn home(header: &Header) -> u8 {
    match header.class {
        // SAFETY: the class tells the type, for ever.
        Kind::Ec => unsafe { cast::<Ec>(header) }.core,
        // SAFETY: as above.
        Kind::Sc => unsafe { cast::<Sc>(header) }.core(),
        // SAFETY: as above.
        Kind::Vcpu => unsafe { cast::<Vcpu>(header) }.core,
        _ => core().id,
    }
}

/// Takes an EC, SC or VCPU of this core out of all queues.
fn kill(header: &Header, work: &mut Work) {
    match header.class {
        // SAFETY: the class tells the type, for ever.
        Kind::Ec => unsafe { cast::<Ec>(header) }.kill(work),
        // SAFETY: as above.
        Kind::Sc => unsafe { cast::<Sc>(header) }.kill(),
        // SAFETY: as above.
        Kind::Vcpu => unsafe { cast::<Vcpu>(header) }.kill(),
        _ => {}
    }
}

/// Does what mail about an object asks for.
pub(crate) fn receive(core: &Core, header: &Header, what: u32, work: &mut Work) {
    // It may have moved on since.
    if let Some(home) = percore::get(home(header)).filter(|home| home.id != core.id) {
        return remote::send(home, header, what);
    }
    if what & remote::WAKE != 0 {
        // SAFETY: only ECs are woken.
        unsafe { cast::<Ec>(header) }.woken();
    }
    if what & remote::START != 0 {
        // SAFETY: only SCs are started.
        crate::journey::arrive(unsafe { cast::<Sc>(header) });
    }
    if what & KILL != 0 {
        kill(header, work);
    }
    if what & remote::LET_GO != 0 {
        match header.class {
            // SAFETY: the class tells the type, for ever.
            Kind::Ec => unsafe { cast::<Ec>(header) }.let_go(work),
            // SAFETY: as above.
            Kind::Sm => unsafe { cast::<Sm>(header) }.let_go(work),
            _ => {}
        }
    }
}

/// Gives back the memory of objects that nobody refers to any more, as much as one piece of work allows. No reference of a hypercall may be
/// in use.
pub(crate) fn reap(core: &Core) {
    let mut work = Work::piece();
    let mut batch = core.graveyard.take();
    loop {
        let Some(header) = batch.pop_front() else {
            // What those have let go; what was left waits.
            if core.graveyard.is_empty() || core.graveyard.is_behind() {
                return;
            }
            batch = core.graveyard.take();
            continue;
        };
        // SAFETY: members of the graveyard have no references, so they are ours alone.
        let dead = unsafe { header.as_ref() };
        if work.is_done() {
            core.graveyard.leave(core, dead);
            continue;
        }
        work.spend(Work::OBJECT);
        match dead.refs.reap() {
            Fate::Gone => {}
            Fate::Again => {
                core.graveyard.add(core, dead);
                continue;
            }
            Fate::Alive => continue,
        }
        let (payer, class) = (dead.payer.get(), dead.class);
        // SAFETY: the class tells the type.
        let space = (class == Kind::Space).then(|| unsafe { cast::<Space>(dead) });
        // SAFETY: nobody refers to it, and grace is over.
        if space.is_some_and(|space| unsafe { space.take_apart(&mut work) }) {
            core.graveyard.leave(core, dead);
            continue;
        }
        // SAFETY: as above; the class tells the type.
        let size = unsafe { finish_class(header, class) };
        let Some(payer) = payer else { continue };
        // SAFETY: the object held a reference to its payer, which is let go only below.
        let payer = unsafe { payer.as_ref() };
        // SAFETY: the slot came from this payer with this size, and the object in it was dropped.
        unsafe { payer.deallocate(header.cast(), size) };
        payer.header().release();
    }
}

/// Drops the object in place, as what its class says, and answers its size.
///
/// # Safety
/// Nobody refers to the object, and the class is its own.
unsafe fn finish_class(header: NonNull<Header>, class: Kind) -> usize {
    match class {
        // SAFETY: the caller vouches for type and exclusivity.
        Kind::Ec => unsafe { finish::<Ec>(header) },
        // SAFETY: as above.
        Kind::Sc => unsafe { finish::<Sc>(header) },
        // SAFETY: as above.
        Kind::Pt => unsafe { finish::<Pt>(header) },
        // SAFETY: as above.
        Kind::Sm => unsafe { finish::<Sm>(header) },
        // SAFETY: as above.
        Kind::Vcpu => unsafe { finish::<Vcpu>(header) },
        // SAFETY: as above.
        Kind::Space => unsafe { finish::<Space>(header) },
        // SAFETY: as above.
        Kind::Pd => unsafe { finish::<Pd>(header) },
        Kind::Machine => size_of::<crate::syscall::Machine>(),
        Kind::Dead => 0,
    }
}

/// Drops the object in place and answers its size.
///
/// # Safety
/// Nobody refers to the object, which is a `T`.
unsafe fn finish<T: Object>(header: NonNull<Header>) -> usize {
    // SAFETY: the caller vouches for type and exclusivity.
    unsafe { header.cast::<T>().drop_in_place() };
    size_of::<T>()
}
