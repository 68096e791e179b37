// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entrypoint: where calls of others arrive.
//!
//! A program has one entrypoint at most; all its portals lead there, to [`crate::arch::portal_entry`], which calls
//! [`portal_called`]. That copies the message out of the message page (the handler makes calls of its own, which use the
//! page), lets the installed handler answer, puts the answer into the page and waits for the next call.
//!
//! Capabilities that come with a message land in a receive window. Those that the handler's decoder accepted belong to the
//! handler; all others are dropped here.

use crate::{Error, selectors};
use cloister_abi::cap::Selector;
use cloister_abi::utcb::{Header, ITEMS, Item, WORDS};
use cloister_session::{Decoder, Encode, Encoder, WINDOW, wire};
use cloister_stubs::utcb;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Answers one call: identity of the portal, request, reply.
pub type Handler = fn(u64, &mut Decoder<'_>, &mut Encoder<'_>);

static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static WINDOW_BASE: AtomicU32 = AtomicU32::new(0);
static BUFFERS: Buffers = Buffers(UnsafeCell::new(Messages {
    words: [0; WORDS],
    items: [Item { value: 0, attr: 0 }; ITEMS],
    reply_words: [0; WORDS],
    reply_items: [Item { value: 0, attr: 0 }; ITEMS],
}));

struct Messages {
    words: [u64; WORDS],
    items: [Item; ITEMS],
    reply_words: [u64; WORDS],
    reply_items: [Item; ITEMS],
}

struct Buffers(UnsafeCell<Messages>);

// SAFETY: only the entrypoint, of which a program has one, uses the buffers (see `install`), and it handles one call at a
// time.
unsafe impl Sync for Buffers {}

/// Sets who answers calls.
///
/// # Safety
/// All portals of the program that start at [`crate::arch::portal_entry`] belong to one and the same entrypoint.
pub unsafe fn install(handler: Handler) {
    HANDLER.store(handler as *mut (), Ordering::Release);
}

/// The address that portals of the entrypoint start at.
#[must_use]
pub fn address() -> u64 {
    let entry: unsafe extern "sysv64" fn() -> ! = crate::arch::portal_entry;
    entry as usize as u64
}

/// Handles one call. For the first instructions of a portal only.
pub(crate) extern "sysv64" fn portal_called(identity: u64, header: u64, stack: u64) -> ! {
    let header = answer(identity, Header(header));
    // SAFETY: nothing on this stack is needed after the reply.
    unsafe { cloister_stubs::reply(header, stack) }
}

fn answer(identity: u64, header: Header) -> Header {
    // SAFETY: see `Buffers`.
    let messages = unsafe { &mut *BUFFERS.0.get() };
    copy_in(messages, header);
    let Messages { words, items, reply_words, reply_items } = messages;
    let mut reply = Encoder::new(reply_words, reply_items);
    let mut accepted = false;
    match Decoder::new(words, items, header) {
        Some(mut request) => {
            handler()(identity, &mut request, &mut reply);
            accepted = request.accepted();
        }
        None => refuse(&mut reply, Error::Malformed),
    }
    let reply_header = reply.header();
    let came = items.get(..header.items()).unwrap_or_default();
    renew_window(came, accepted);
    // SAFETY: the page belongs to this thread, and nobody else refers to it here.
    let page = unsafe { &mut *utcb() };
    page.words[..reply_header.words()].copy_from_slice(&reply_words[..reply_header.words()]);
    page.items[..reply_header.items()].copy_from_slice(&reply_items[..reply_header.items()]);
    page.window_base = WINDOW_BASE.load(Ordering::Relaxed);
    page.window_count = if page.window_base == 0 { 0 } else { WINDOW };
    reply_header
}

fn copy_in(messages: &mut Messages, header: Header) {
    // SAFETY: the page belongs to this thread, and nobody else refers to it here.
    let page = unsafe { &*utcb() };
    let words = header.words().min(WORDS);
    let items = header.items().min(ITEMS);
    messages.words[..words].copy_from_slice(&page.words[..words]);
    messages.items[..items].copy_from_slice(&page.items[..items]);
}

fn handler() -> Handler {
    let pointer = HANDLER.load(Ordering::Acquire);
    if pointer.is_null() {
        return not_ready;
    }
    // SAFETY: only `install` writes the pointer, and what it writes is a `Handler`.
    unsafe { core::mem::transmute::<*mut (), Handler>(pointer) }
}

fn not_ready(_: u64, _: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
    refuse(reply, Error::NotReady);
}

/// Makes an error the answer.
pub fn refuse(reply: &mut Encoder<'_>, error: Error) {
    reply.restart();
    // An error is three words: it fits every message.
    let _ = error.encode(reply);
}

/// Drops what nobody took, and makes room for what the next message brings.
fn renew_window(came: &[Item], accepted: bool) {
    let window = WINDOW_BASE.load(Ordering::Relaxed);
    let taken = wire::delegated(came).count();
    if !accepted {
        for selector in wire::delegated(came) {
            drop_only(selector);
        }
    } else if taken > 0 {
        let taken = u32::try_from(taken).unwrap_or(WINDOW).min(WINDOW);
        selectors::release(window + taken, WINDOW - taken);
        WINDOW_BASE.store(0, Ordering::Relaxed);
    }
    if WINDOW_BASE.load(Ordering::Relaxed) == 0 {
        // Without a window no capabilities can be received; the next call tries again.
        WINDOW_BASE.store(selectors::allocate(WINDOW).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Drops a capability of the window; its selector stays the window's.
fn drop_only(selector: Selector) {
    // SAFETY: dropping a capability takes a right away and touches neither memory nor registers.
    let _ = unsafe { cloister_stubs::invoke(&cloister_abi::hypercall::Drop { base: selector, count: 1 }) };
}
