// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intrusive doubly linked queues: no allocation, removal of any member in constant time.
//!
//! A member has a [`Link`] per list it can be in and says where by [`Linked`]. A list does not own its members: who puts an
//! object into a list keeps it alive until it is out again.

use crate::sync::{Cell, constructor};
use core::marker::PhantomData;
use core::ptr::NonNull;

/// Place of an object in a list.
#[derive(Debug)]
pub struct Link<T> {
    next: Cell<Option<NonNull<T>>>,
    prev: Cell<Option<NonNull<T>>>,
    on: Cell<bool>,
}

impl<T> Link<T> {
    constructor! {
        /// Not in a list.
        pub fn none() -> Self {
            Self { next: Cell::new(None), prev: Cell::new(None), on: Cell::new(false) }
        }
    }

    /// Whether the object is in a list by this link.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.on.get()
    }
}

/// Says which link of an object a list uses. `Tag` tells several links of one type apart.
pub trait Linked<Tag>: Sized {
    /// The link.
    fn link(&self) -> &Link<Self>;
}

/// A queue.
#[derive(Debug)]
pub struct List<T, Tag> {
    head: Cell<Option<NonNull<T>>>,
    tail: Cell<Option<NonNull<T>>>,
    tag: PhantomData<Tag>,
}

impl<T: Linked<Tag>, Tag> List<T, Tag> {
    constructor! {
        /// An empty queue.
        pub fn empty() -> Self {
            Self { head: Cell::new(None), tail: Cell::new(None), tag: PhantomData }
        }
    }

    /// First member.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<NonNull<T>> {
        self.head.get()
    }

    /// Whether nobody is in it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Appends. The object must not be in a list by this link.
    pub fn push_back(&self, object: &T) {
        self.insert(object, self.tail.get(), None);
    }

    /// Prepends. The object must not be in a list by this link.
    pub fn push_front(&self, object: &T) {
        self.insert(object, None, self.head.get());
    }

    fn insert(&self, object: &T, prev: Option<NonNull<T>>, next: Option<NonNull<T>>) {
        debug_assert!(!object.link().on.get());
        let link = object.link();
        let this = Some(NonNull::from(object));
        link.prev.set(prev);
        link.next.set(next);
        link.on.set(true);
        match prev {
            // SAFETY: members of the list are alive.
            Some(prev) => unsafe { prev.as_ref() }.link().next.set(this),
            None => self.head.set(this),
        }
        match next {
            // SAFETY: members of the list are alive.
            Some(next) => unsafe { next.as_ref() }.link().prev.set(this),
            None => self.tail.set(this),
        }
    }

    /// Removes a member of this list. Does nothing if the object is in no list.
    pub fn remove(&self, object: &T) {
        let link = object.link();
        if !link.on.get() {
            return;
        }
        match link.prev.get() {
            // SAFETY: members of the list are alive.
            Some(prev) => unsafe { prev.as_ref() }.link().next.set(link.next.get()),
            None => self.head.set(link.next.get()),
        }
        match link.next.get() {
            // SAFETY: members of the list are alive.
            Some(next) => unsafe { next.as_ref() }.link().prev.set(link.prev.get()),
            None => self.tail.set(link.prev.get()),
        }
        link.next.set(None);
        link.prev.set(None);
        link.on.set(false);
    }

    /// Removes and answers the first member.
    pub fn pop_front(&self) -> Option<NonNull<T>> {
        let first = self.head.get()?;
        // SAFETY: members of the list are alive.
        self.remove(unsafe { first.as_ref() });
        Some(first)
    }
}

#[cfg(test)]
mod tests;
