// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message page of an EC (UTCB) as the kernel sees it: a frame of the kernel's that the component may write at any time.
//!
//! It is seen as atomic words, each read and written once, and no other reference into it is ever made. Nothing read from it is
//! trusted.

use crate::width::{low8, low32};
use cloister_abi::arch::current::exception::{self, ExceptionState};
use cloister_abi::cap::Selector;
use cloister_abi::utcb::{ITEMS, Item, Utcb, WORDS};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Message words as the kernel sees them.
type Words = [AtomicU64; WORDS];

/// How many words are copied in one step.
const STEP: usize = 4;
const _: () = assert!(WORDS.is_multiple_of(STEP));
const _: () = assert!(exception::WORDS <= WORDS);
const _: () = assert!(offset_of!(Utcb, window_count) == offset_of!(Utcb, window_base) + 4);

/// Message page of an EC.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct MessagePage(NonNull<Utcb>);

impl MessagePage {
    /// The message page in that frame.
    ///
    /// # Safety
    /// The frame is the page's as long as copies of this are used.
    pub(crate) const unsafe fn new(frame: NonNull<u8>) -> Self {
        Self(frame.cast())
    }

    /// Its frame.
    pub(crate) const fn frame(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// Something at a byte offset of the page.
    ///
    /// # Safety
    /// `T` is made of atomic words and fits there.
    #[inline]
    unsafe fn at<'a, T>(self, offset: usize) -> &'a T {
        // SAFETY: the caller vouches for type and place; the page stays as long as its EC.
        unsafe { &*self.0.as_ptr().wrapping_byte_add(offset).cast::<T>() }
    }

    #[inline]
    fn field<'a>(self, offset: usize) -> &'a AtomicU64 {
        // SAFETY: callers pass offsets of fields, which are words.
        unsafe { self.at(offset) }
    }

    #[inline]
    fn words<'a>(self) -> &'a Words {
        // SAFETY: the words lie there.
        unsafe { self.at(offset_of!(Utcb, words)) }
    }

    #[inline]
    fn steps<'a>(self) -> &'a [[AtomicU64; STEP]; WORDS / STEP] {
        // SAFETY: as above; the number of words is a multiple of the step.
        unsafe { self.at(offset_of!(Utcb, words)) }
    }

    fn items<'a>(self) -> &'a [[AtomicU64; 2]; ITEMS] {
        // SAFETY: the items lie there, of two words each.
        unsafe { self.at(offset_of!(Utcb, items)) }
    }

    /// Tells the component where the page is.
    pub(crate) fn set_address(self, address: u64) {
        self.field(offset_of!(Utcb, this)).store(address, Relaxed);
    }

    /// Where a system call goes that is no hypercall.
    #[inline]
    pub(crate) fn foreign_entry(self) -> u64 {
        self.field(offset_of!(Utcb, foreign_entry)).load(Relaxed)
    }

    /// Says where such a call came from, with which flags.
    #[inline]
    pub(crate) fn set_foreign(self, address: u64, flags: u64) {
        self.field(offset_of!(Utcb, foreign_return)).store(address, Relaxed);
        self.field(offset_of!(Utcb, foreign_flags)).store(flags, Relaxed);
    }

    /// Receive window: first selector, and how many.
    pub(crate) fn window(self) -> (Selector, u32) {
        let window = self.field(offset_of!(Utcb, window_base)).load(Relaxed);
        (low32(window), low32(window >> 32))
    }

    /// An item of the message, if there is one of that index.
    pub(crate) fn item(self, index: usize) -> Option<Item> {
        let [value, attr] = self.items().get(index)?;
        Some(Item { value: value.load(Relaxed), attr: attr.load(Relaxed) })
    }

    /// Sets an item of the message.
    pub(crate) fn set_item(self, index: usize, item: Item) {
        if let Some([value, attr]) = self.items().get(index) {
            value.store(item.value, Relaxed);
            attr.store(item.attr, Relaxed);
        }
    }

    /// Copies at least so many words to another page, in steps of four: at most three more than asked, which lie in the page too.
    #[inline]
    pub(crate) fn copy_words(self, to: Self, count: usize) {
        for ([a, b, c, d], [p, q, r, s]) in self.steps().iter().zip(to.steps()).take(count.div_ceil(STEP)) {
            // SAFETY: does nothing. It keeps the compiler from unrolling further, which costs short messages, the usual ones, more
            // than it saves long ones.
            unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
            p.store(a.load(Relaxed), Relaxed);
            q.store(b.load(Relaxed), Relaxed);
            r.store(c.load(Relaxed), Relaxed);
            s.store(d.load(Relaxed), Relaxed);
        }
    }

    /// The first bytes of the message, at most so many.
    pub(crate) fn bytes<'a>(self, count: usize) -> impl Iterator<Item = u8> + 'a {
        let bytes = |word: u64| (0..8).map(move |byte| low8(word >> (8 * byte)));
        self.words().iter().flat_map(move |word| bytes(word.load(Relaxed))).take(count)
    }

    /// Writes words of the message, from that one on, as far as there are.
    pub(crate) fn put_words(self, first: usize, words: &[u64]) {
        for (place, word) in self.words().iter().skip(first).zip(words) {
            place.store(*word, Relaxed);
        }
    }

    /// Writes the state of an exception as the message.
    pub(crate) fn put_exception(self, state: &ExceptionState) {
        for (place, word) in self.words().iter().zip(state.to_words()) {
            place.store(word, Relaxed);
        }
    }

    /// Reads the state of an exception that the message is.
    pub(crate) fn exception(self) -> ExceptionState {
        let mut words = [0; exception::WORDS];
        for (word, place) in words.iter_mut().zip(self.words()) {
            *word = place.load(Relaxed);
        }
        ExceptionState::from_words(words)
    }
}
