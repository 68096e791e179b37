// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls, well-formed and not, and the message page of the calling thread.

use crate::documented::record;
use cloister_abi::cap::Selector;
use cloister_abi::hip::FIRST_FREE;
use cloister_abi::hypercall::{Args, Call, IpcCall};
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, ITEMS, Item, Utcb, WORDS};
use cloister_stubs::Answer;
use core::sync::atomic::{AtomicU32, Ordering};

/// Makes a hypercall.
///
/// Whoever calls must know what it does to the program's own memory and threads; the tests do little else.
///
/// # Errors
/// The kernel's status.
#[inline]
pub fn call<C: Call>(call: &C) -> Answer {
    // SAFETY: the program owns the machine and takes nothing away from itself that it still uses.
    let answer = unsafe { cloister_stubs::invoke(call) };
    record(C::NUMBER, answer.err().unwrap_or(Status::Success));
    answer
}

/// A hypercall with any number and any registers.
#[derive(Clone, Copy, Debug)]
pub struct Raw<const NUMBER: u64>(pub Args);

impl<const NUMBER: u64> Call for Raw<NUMBER> {
    const NUMBER: u64 = NUMBER;
    const NAME: &'static str = "Raw";
    fn encode(&self) -> Args {
        self.0
    }
    fn decode(args: &Args) -> Option<Self> {
        Some(Self(*args))
    }
}

static NEXT_SELECTOR: AtomicU32 = AtomicU32::new(FIRST_FREE);

/// A selector that was never used, the first of so many.
#[must_use]
pub fn selectors(count: u32) -> Selector {
    NEXT_SELECTOR.fetch_add(count, Ordering::Relaxed)
}

/// A selector that was never used.
#[must_use]
pub fn selector() -> Selector {
    selectors(1)
}

/// A message page; of the calling thread by [`message`], or of another one that does not run meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Message(*mut Utcb);

/// Message page of the calling thread.
#[must_use]
pub fn message() -> Message {
    Message(cloister_stubs::utcb())
}

impl Message {
    /// The message page at that address.
    ///
    /// # Safety
    /// There must be one, for as long as the value is used.
    #[must_use]
    pub const unsafe fn at(address: u64) -> Self {
        Self(core::ptr::with_exposed_provenance_mut(address as usize))
    }

    fn page<'a>(self) -> &'a mut Utcb {
        // SAFETY: the page exists; its thread is the caller, or does not run, and each method is done with the
        // reference when it returns.
        unsafe { &mut *self.0 }
    }

    /// Message word.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        assert!(index < WORDS);
        self.page().words[index]
    }

    /// Sets a message word.
    pub fn set(&self, index: usize, value: u64) {
        assert!(index < WORDS);
        self.page().words[index] = value;
    }

    /// Typed item.
    #[must_use]
    pub fn item(&self, index: usize) -> Item {
        assert!(index < ITEMS);
        self.page().items[index]
    }

    /// Sets a typed item.
    pub fn set_item(&self, index: usize, item: Item) {
        assert!(index < ITEMS);
        self.page().items[index] = item;
    }

    /// Sets the receive window.
    pub fn set_window(&self, base: Selector, count: u32) {
        self.page().window_base = base;
        self.page().window_count = count;
    }

    /// Where foreign system calls go; 0 for nowhere.
    pub fn set_foreign_entry(&self, address: u64) {
        self.page().foreign_entry = address;
    }

    /// Where foreign system calls go.
    #[must_use]
    pub fn foreign_entry(&self) -> u64 {
        self.page().foreign_entry
    }

    /// Return address and flags of the last foreign system call.
    #[must_use]
    pub fn foreign(&self) -> (u64, u64) {
        (self.page().foreign_return, self.page().foreign_flags)
    }

    /// Word of the thread's own.
    #[must_use]
    pub fn tls(&self, index: usize) -> u64 {
        self.page().tls[index]
    }

    /// Sets a word of the thread's own.
    pub fn set_tls(&self, index: usize, value: u64) {
        self.page().tls[index] = value;
    }

    /// The page's own address, as the kernel wrote it.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.page().this
    }
}

/// Calls a portal with so many words and items of the message page.
///
/// # Errors
/// The kernel's status.
pub fn ipc(portal: Selector, words: usize, items: usize) -> Result<Header, Status> {
    let answer = cloister_stubs::call(portal, Header::new(words, items));
    record(IpcCall::NUMBER, answer.err().unwrap_or(Status::Success));
    answer
}
