// SPDX-License-Identifier: MIT OR Apache-2.0
//! System-call stubs: [`invoke`] makes any hypercall of the contract, [`utcb`] finds the caller's message page.
//!
//! The stubs add nothing to the contract: arguments are the structures of [`cloister_abi::hypercall`], the answer is a
//! `Result` of the two result values or the status. They work in a component (freestanding or `std`), and nowhere else.
#![no_std]
#![expect(unsafe_code, reason = "the system-call instruction and the message page that the kernel maps")]

mod arch;

use cloister_abi::hypercall::{Call, IpcCall, IpcFlags, IpcReply};
use cloister_abi::{cap::Selector, status::Status, utcb::Header, utcb::Utcb};

/// What a hypercall answers: its two values, or why not.
pub type Answer = Result<(u64, u64), Status>;

/// Makes a hypercall.
///
/// # Errors
/// Each status but `Success`, as the reference says for the call. An answer that is no status at all is `BadHypercall`.
///
/// # Safety
/// The call must not take away memory or change registers that the program relies on: who maps, revokes, destroys or
/// starts threads must know what it does. Calls that touch none of these are safe in effect; wrap them.
#[inline]
pub unsafe fn invoke<C: Call>(call: &C) -> Answer {
    // SAFETY: the caller vouches for the effect of the call.
    let [status, first, second] = unsafe { arch::syscall(C::NUMBER, &call.encode()) };
    match Status::from_raw(status) {
        Some(Status::Success) => Ok((first, second)),
        Some(other) => Err(other),
        None => Err(Status::BadHypercall),
    }
}

/// Address of the calling thread's message page.
///
/// The page belongs to the calling thread alone; the kernel writes to it during hypercalls of that thread only.
#[inline]
#[must_use]
pub fn utcb() -> *mut Utcb {
    arch::utcb()
}

/// Calls a portal: the message and then its reply are in the caller's UTCB. Returns the header of the reply.
///
/// # Errors
/// As `IpcCall` in the reference.
#[inline]
pub fn call(portal: Selector, header: Header) -> Result<Header, Status> {
    let call = IpcCall { portal, header: header.0, flags: IpcFlags::empty().bits() };
    // SAFETY: an IPC changes nothing of the caller but its message page and its receive window.
    unsafe { invoke(&call) }.map(|(header, _)| Header(header))
}

/// Answers the current caller and waits for the next call, which starts at its portal's entry point with the stack pointer
/// given here. Only for local ECs.
///
/// # Safety
/// The stack above `stack` must be free for the next call to use, and everything on the present one is forgotten.
#[inline]
pub unsafe fn reply(header: Header, stack: u64) -> ! {
    let reply = IpcReply { header: header.0 };
    // SAFETY: the caller gives up its stack.
    unsafe { arch::reply(IpcReply::NUMBER, &reply.encode(), stack) }
}
