// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel objects: what they have in common, and the references to them.
//!
//! Every object starts with a [`Header`]. It is *alive* until it is destroyed or the last reference goes; a destroyed object answers no
//! look-up any more, is taken out of all queues at once, and its memory returns when the last reference goes. References
//! ([`Ref`]) are counted; capabilities hold one each. Plain pointers ([`NonNull`]) between objects exist only where destruction
//! of either side severs them (caller and callee, queues).
//!
//! Memory comes from the slabs of the protection domain that pays; each object keeps its payer alive, so that the budget it was
//! charged to is there to be credited. Memory is given back by [`reap`], after a time of grace: look-ups take no reference.
//!
//! ECs, SCs and VCPUs belong to a core, which alone touches them; what destruction means for them is done there ([`receive`]).

mod destruction;
pub(crate) mod ec;
mod graveyard;
mod message;
pub(crate) mod page;
pub(crate) mod pd;
pub(crate) mod pt;
mod reference;
pub(crate) mod sc;
pub(crate) mod sm;
pub(crate) mod space;
pub(crate) mod vcpu;

pub(crate) use destruction::{destroy, tell};
pub(crate) use ec::Ec;
pub(crate) use graveyard::{GAP, Graveyard, reap};
pub(crate) use message::MessagePage;
pub(crate) use pd::Pd;
pub(crate) use pt::Pt;
pub(crate) use reference::Ref;
pub(crate) use sc::Sc;
pub(crate) use sm::Sm;
pub(crate) use space::Space;
pub(crate) use vcpu::Vcpu;

pub(crate) use cloister_mechanism::work::Work;

use crate::percore::core;
use cloister_abi::cap::Kind;
use cloister_abi::status::Status;
use cloister_mechanism::Exhausted;
use cloister_mechanism::capability::Target;
use cloister_mechanism::list::{Link, Linked};
use cloister_mechanism::mail::Mail;
use cloister_mechanism::refcount::RefCount;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// At the start of every object.
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
pub(crate) struct Owned;
impl Linked<Owned> for Header {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}
impl Header {
    /// Header of a new object with one reference.
    pub(crate) const fn new(class: Kind) -> Self {
        Self {
            kind: AtomicU8::new(class as u8),
            class,
            refs: RefCount::one(),
            payer: Cell::new(None),
            link: Link::none(),
            mail: Mail::none(),
        }
    }

    /// Whether the object was not destroyed.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.kind.load(Relaxed) != Kind::Dead as u8
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

/// Why memory could not be had, as a hypercall answers it.
pub(crate) const fn status(why: Exhausted) -> Status {
    match why {
        Exhausted::Budget => Status::OutOfBudget,
        Exhausted::Pool => Status::OutOfMemory,
    }
}

macro_rules! kinds {
    ($($kind:ident: $type:ty),+) => {
        $(
            // SAFETY: all of them are `repr(C)`, header first.
            unsafe impl Object for $type {
                const KIND: Kind = Kind::$kind;
            }
        )+

        /// An object as what it is.
        #[derive(Clone, Copy)]
        #[expect(dead_code, reason = "portals and the machine are here for their sizes only")]
        pub(crate) enum View<'a> {
            $($kind(&'a $type),)+
            Dead,
        }

        impl Header {
            /// The object, alive or not.
            #[inline]
            pub(crate) fn view(&self) -> View<'_> {
                match self.class {
                    // SAFETY: the class tells the type, for ever.
                    $(Kind::$kind => View::$kind(unsafe { cast(self) }),)+
                    Kind::Dead => View::Dead,
                }
            }
        }

        /// Drops an object in place and answers its size.
        ///
        /// # Safety
        /// Nobody refers to it.
        unsafe fn finish(header: NonNull<Header>) -> usize {
            // SAFETY: the caller vouches for the object.
            match unsafe { header.as_ref() }.class {
                $(Kind::$kind => {
                    // SAFETY: the class tells the type, and the caller vouches for exclusivity.
                    unsafe { header.cast::<$type>().drop_in_place() };
                    size_of::<$type>()
                })+
                Kind::Dead => 0,
            }
        }
    };
}

kinds!(Pd: Pd, Ec: Ec, Sc: Sc, Pt: Pt, Sm: Sm, Vcpu: Vcpu, Space: Space, Machine: crate::syscall::Machine);

/// The object as what it is.
///
/// # Safety
/// `T` is the type of the header's class.
unsafe fn cast<T: Object>(header: &Header) -> &T {
    // SAFETY: the caller vouches for the type; a header is the first field of its object.
    unsafe { &*core::ptr::from_ref(header).cast::<T>() }
}
