// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the state page, which the monitor can write at any time.
//!
//! The kernel sees a [`StatePage`] as atomic words: what lies behind it may change between two reads, so each field is read
//! once, into a value of the kernel's own, before anything is decided on it. Words are named by their offset in
//! [`VcpuState`], which the compiler checks ([`word!`], [`crate::Field`]).

use cloister_abi::arch::x86_64::vcpu::VcpuState;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

/// Number of words of the page.
pub const WORDS: usize = size_of::<VcpuState>() / 8;
/// Number of words of the XSAVE image.
pub const FPU_WORDS: usize = (size_of::<VcpuState>() - offset_of!(VcpuState, fpu)) / 8;

/// The state page of a virtual CPU as the kernel sees it. It stays mapped writable for as long as a copy of this is used, and no
/// reference to anything else in it exists meanwhile.
pub type StatePage = &'static [AtomicU64; WORDS];

/// A word of the page by its name.
#[macro_export]
macro_rules! word {
    ($page:expr, $field:ident) => {
        $page[core::mem::offset_of!(cloister_abi::arch::x86_64::vcpu::VcpuState, $field) / 8]
    };
}
pub use word;
