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
        pub fn new() -> Self {
            Self { next: Cell::new(None), prev: Cell::new(None), on: Cell::new(false) }
        }
    }

    /// Whether the object is in a list by this link.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.on.get()
    }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self::new()
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
        pub fn new() -> Self {
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

    /// The member after this one.
    #[must_use]
    pub fn next(&self, member: &T) -> Option<NonNull<T>> {
        member.link().next.get()
    }

    /// Appends. The object must not be in a list by this link.
    pub fn push_back(&self, object: &T) {
        self.insert(object, self.tail.get(), None);
    }

    /// Prepends. The object must not be in a list by this link.
    pub fn push_front(&self, object: &T) {
        self.insert(object, None, self.head.get());
    }

    /// Inserts before a member, or appends.
    pub fn insert_before(&self, object: &T, before: Option<NonNull<T>>) {
        match before {
            None => self.push_back(object),
            // SAFETY: members of the list are alive.
            Some(next) => self.insert(object, unsafe { next.as_ref() }.link().prev.get(), before),
        }
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

impl<T: Linked<Tag>, Tag> Default for List<T, Tag> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::{Link, Linked, List};
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::collections::VecDeque;
    use std::vec::Vec;

    struct Node(u32, Link<Node>);
    struct Tag;
    impl Linked<Tag> for Node {
        fn link(&self) -> &Link<Self> {
            &self.1
        }
    }

    fn drain(list: &List<Node, Tag>) -> Vec<u32> {
        // SAFETY: the nodes outlive the list in each test.
        core::iter::from_fn(|| list.pop_front().map(|n| unsafe { n.as_ref() }.0)).collect()
    }

    #[test]
    fn keeps_order_and_removes_anywhere() {
        let nodes: Vec<_> = (0..6).map(|n| Node(n, Link::new())).collect();
        for gone in 0..6 {
            let list = List::new();
            nodes.iter().for_each(|n| list.push_back(n));
            list.remove(&nodes[gone]);
            list.remove(&nodes[gone]);
            let want: Vec<u32> = (0..6).filter(|n| *n as usize != gone).collect();
            assert_eq!(drain(&list), want);
            assert!(list.is_empty());
        }
    }

    #[test]
    fn inserts_before_and_in_front() {
        let nodes: Vec<_> = (0..4).map(|n| Node(n, Link::new())).collect();
        let list = List::new();
        list.push_back(&nodes[1]);
        list.push_front(&nodes[0]);
        list.insert_before(&nodes[3], None);
        list.insert_before(&nodes[2], Some((&nodes[3]).into()));
        assert!(nodes[2].1.is_linked());
        assert_eq!(drain(&list), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn is_a_sequence(steps in proptest::collection::vec((0..5u8, 0..8usize, 0..8usize), 0..100)) {
            let nodes: Vec<_> = (0..8).map(|n| Node(n, Link::new())).collect();
            let list = List::new();
            let mut model: VecDeque<usize> = VecDeque::new();
            for (what, node, other) in steps {
                let place = model.iter().position(|member| *member == node);
                match (what, place) {
                    (0, None) => {
                        list.push_back(&nodes[node]);
                        model.push_back(node);
                    }
                    (1, None) => {
                        list.push_front(&nodes[node]);
                        model.push_front(node);
                    }
                    (2, None) => {
                        let before = model.iter().position(|member| *member == other);
                        list.insert_before(&nodes[node], before.map(|_| (&nodes[other]).into()));
                        model.insert(before.unwrap_or(model.len()), node);
                    }
                    (3, place) => {
                        list.remove(&nodes[node]);
                        place.map(|place| model.remove(place));
                    }
                    _ => {
                        // SAFETY: the nodes outlive the list.
                        let first = list.pop_front().map(|node| unsafe { node.as_ref() }.0 as usize);
                        prop_assert_eq!(first, model.pop_front());
                    }
                }
                let mut at = list.first();
                for want in &model {
                    // SAFETY: as above.
                    let member = at.map(|node| unsafe { node.as_ref() });
                    prop_assert_eq!(member.map(|member| member.0 as usize), Some(*want));
                    at = member.and_then(|member| list.next(member));
                }
                prop_assert_eq!((at, list.is_empty()), (None, model.is_empty()));
                for (index, node) in nodes.iter().enumerate() {
                    prop_assert_eq!(node.1.is_linked(), model.contains(&index));
                }
            }
        }
    }
}
