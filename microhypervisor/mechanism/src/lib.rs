// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data structures of the microhypervisor, apart from the machine: memory comes in as a parameter, so that each of them
//! is tested on the host.
//!
//! * [`pool`] – the kernel's page frames
//! * [`budget`] – what a protection domain may use of them
//! * [`slab`] – small objects out of the frames of one payer
//! * [`radix`] – page tables of host and guest spaces
//! * [`bitmap`] – which ports a domain may use
//! * [`capability`] – object spaces: tables of capabilities
//! * [`list`] – intrusive queues (run queues, waiters, what a domain owns)
//! * `ready` – the run queue: priorities, round robin
//! * [`timeout`] – who waits until when
//! * [`ranges`] – what physical memory is for
//! * [`layout`] – where the kernel's pool lies in it
//! * [`refcount`] – references to objects that are looked up without a lock
//! * [`mail`] – what cores ask of each other's objects
//! * [`semaphore`] – counters, signals, and who waits for them
//! * [`work`] – how much of something large is destroyed in one go
#![no_std]
#![expect(unsafe_code, reason = "intrusive structures in raw kernel memory")]

#[cfg(any(test, feature = "loom"))]
extern crate std;

pub mod bitmap;
pub mod budget;
pub mod capability;
pub mod layout;
pub mod list;
pub mod mail;
pub mod pool;
pub mod radix;
pub mod ranges;
#[cfg(not(feature = "loom"))]
pub mod ready;
pub mod refcount;
pub mod semaphore;
#[cfg(not(feature = "loom"))]
pub mod slab;
mod sync;
pub mod timeout;
pub mod work;

use core::ptr::NonNull;

/// Why memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The payer's budget is used up.
    Budget,
    /// The kernel's pool is used up.
    Pool,
}

/// Size of a page frame in bytes.
pub const FRAME: usize = 4096;

/// Where page frames come from and go to, on somebody's account.
pub trait Frames {
    /// Takes a frame and charges it. Its content is undefined.
    ///
    /// # Errors
    /// The budget or the pool is used up; nothing was charged.
    fn take(&self) -> Result<NonNull<u8>, Exhausted>;

    /// Gives a frame back and credits it.
    ///
    /// # Safety
    /// The frame came from `take` of the same payer and nothing points to it any more.
    unsafe fn give(&self, frame: NonNull<u8>);

    /// Takes a frame filled with zeros.
    ///
    /// # Errors
    /// As `take`.
    fn take_zeroed(&self) -> Result<NonNull<u8>, Exhausted> {
        let frame = self.take()?;
        // SAFETY: the frame is ours, page-aligned and a page long.
        unsafe { frame.as_ptr().cast::<[u64; FRAME / 8]>().write([0; FRAME / 8]) };
        Ok(frame)
    }
}
