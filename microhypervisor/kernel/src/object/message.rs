// SPDX-License-Identifier: MIT OR Apache-2.0
//! The message page of an EC (UTCB) as the kernel sees it: a frame of the kernel's that the component may write at any time.
//!
//! It is seen as atomic words, each read and written once, and no other reference into it is ever made. Nothing read from it is
//! trusted.

use super::page::SharedPage;
use super::{Pd, Ref, Space};
use crate::width::{low8, low32};
use cloister_abi::arch::current::exception::{self, ExceptionState};
use cloister_abi::cap::Selector;
use cloister_abi::status::Status;
use cloister_abi::utcb::{ITEMS, Item, Utcb, WORDS};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Message words as the kernel sees them.
type Words = [AtomicU64; WORDS];

/// How many words are copied in one step.
const STEP: usize = 4;
const _: () = assert!(WORDS.is_multiple_of(STEP));
const _: () = assert!(exception::WORDS <= WORDS);
const _: () = assert!(offset_of!(Utcb, window_count) == offset_of!(Utcb, window_base) + 4);

/// Message page of an EC.
pub(crate) struct MessagePage(SharedPage);

impl MessagePage {
    /// A message page that a component of that host space sees at that address.
    ///
    /// # Errors
    /// Memory could not be had, or something is mapped there.
    pub(crate) fn map(payer: &Pd, host: Ref<Space>, address: u64) -> Result<Self, Status> {
        let page = Self(SharedPage::map(payer, host, address)?);
        page.field(offset_of!(Utcb, this)).store(address, Relaxed);
        Ok(page)
    }

    /// Where the component sees it.
    #[inline]
    pub(crate) const fn address(&self) -> u64 {
        self.0.address()
    }

    /// Something at a byte offset of the page.
    ///
    /// # Safety
    /// `T` is made of atomic words and fits there.
    #[inline]
    unsafe fn at<T>(&self, offset: usize) -> &T {
        // SAFETY: the caller vouches for type and place.
        unsafe { &*self.0.frame().as_ptr().wrapping_byte_add(offset).cast::<T>() }
    }

    #[inline]
    fn field(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: callers pass offsets of fields, which are words.
        unsafe { self.at(offset) }
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: the words lie there.
        unsafe { self.at(offset_of!(Utcb, words)) }
    }

    #[inline]
    fn steps(&self) -> &[[AtomicU64; STEP]; WORDS / STEP] {
        // SAFETY: as above; the number of words is a multiple of the step.
        unsafe { self.at(offset_of!(Utcb, words)) }
    }

    fn items(&self) -> &[[AtomicU64; 2]; ITEMS] {
        // SAFETY: the items lie there, of two words each.
        unsafe { self.at(offset_of!(Utcb, items)) }
    }

    /// Where a system call goes that is no hypercall.
    #[inline]
    pub(crate) fn foreign_entry(&self) -> u64 {
        self.field(offset_of!(Utcb, foreign_entry)).load(Relaxed)
    }

    /// Says where such a call came from, with which flags.
    #[inline]
    pub(crate) fn set_foreign(&self, address: u64, flags: u64) {
        self.field(offset_of!(Utcb, foreign_return)).store(address, Relaxed);
        self.field(offset_of!(Utcb, foreign_flags)).store(flags, Relaxed);
    }

    /// Receive window: first selector, and how many.
    pub(crate) fn window(&self) -> (Selector, u32) {
        let window = self.field(offset_of!(Utcb, window_base)).load(Relaxed);
        (low32(window), low32(window >> 32))
    }

    /// An item of the message, if there is one of that index.
    pub(crate) fn item(&self, index: usize) -> Option<Item> {
        let [value, attr] = self.items().get(index)?;
        Some(Item { value: value.load(Relaxed), attr: attr.load(Relaxed) })
    }

    /// Sets an item of the message.
    pub(crate) fn set_item(&self, index: usize, item: Item) {
        if let Some([value, attr]) = self.items().get(index) {
            value.store(item.value, Relaxed);
            attr.store(item.attr, Relaxed);
        }
    }

    /// Copies at least so many words to another page, in steps of four: at most three more than asked, which lie in the page too.
    #[inline]
    pub(crate) fn copy_words(&self, to: &Self, count: usize) {
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
    pub(crate) fn bytes(&self, count: usize) -> impl Iterator<Item = u8> {
        let bytes = |word: u64| (0..8).map(move |byte| low8(word >> (8 * byte)));
        self.words().iter().flat_map(move |word| bytes(word.load(Relaxed))).take(count)
    }

    /// Writes words of the message, from that one on, as far as there are.
    pub(crate) fn put_words(&self, first: usize, words: &[u64]) {
        for (place, word) in self.words().iter().skip(first).zip(words) {
            place.store(*word, Relaxed);
        }
    }

    /// Reads the state of an exception that the message is.
    pub(crate) fn exception(&self) -> ExceptionState {
        let mut words = [0; exception::WORDS];
        for (word, place) in words.iter_mut().zip(self.words()) {
            *word = place.load(Relaxed);
        }
        ExceptionState::from_words(words)
    }
}
