// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user thread control block (UTCB): one page per execution context, shared by the component and the kernel.
//!
//! The component finds its UTCB through the thread-pointer register that the kernel sets (x86_64: GS base; the first word
//! of the page is the page's own address, so that `gs:[0]` is the pointer). The kernel reads of it only what the
//! fields below say, and writes messages, and nothing in it is trusted.

use crate::cap::Perms;

/// Number of message words.
pub const WORDS: usize = 480;
/// Number of typed items in one message.
pub const ITEMS: usize = 8;
/// Number of words that the component may use as it likes (thread-local data of the framework).
pub const TLS_WORDS: usize = 6;

/// The page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Utcb {
    /// Address of this page in the component. Written by the kernel at creation.
    pub this: u64,
    /// Not touched by the kernel.
    pub tls: [u64; TLS_WORDS],
    /// Address to which the kernel sends a system call that is not a hypercall; 0 for none.
    pub foreign_entry: u64,
    /// Where the foreign system call came from (address of the next instruction). Written by the kernel.
    pub foreign_return: u64,
    /// Flags register at the foreign system call. Written by the kernel.
    pub foreign_flags: u64,
    /// Receive window: first selector into which delegated capabilities are put, one after the other.
    pub window_base: u32,
    /// Receive window: number of selectors. 0 receives none.
    pub window_count: u32,
    /// Reserved.
    pub reserved: [u64; 5],
    /// Typed items of the message.
    pub items: [Item; ITEMS],
    /// Words of the message.
    pub words: [u64; WORDS],
}

/// One typed item. The sender says what is sent; the receiver finds what came.
///
/// Sender: `value` = selector, `attr` = [`Item::DELEGATE`] or [`Item::TRANSLATE`], permissions in bits 8..16.
/// Receiver: `attr` = [`Item::NOTHING`] (an unknown kind or an empty selector was sent, or the window is full), [`Item::DELEGATE`]
/// (`value` = selector in the receive window, permissions received in bits 8..16), or [`Item::TRANSLATE`] (`value` = identity of a
/// portal of the receiver's own). A capability that comes replaces what was at its selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Item {
    /// Selector or portal identity.
    pub value: u64,
    /// Kind and permissions.
    pub attr: u64,
}

impl Item {
    /// Nothing was sent or received.
    pub const NOTHING: u64 = 0;
    /// A capability: sent with the permissions given, received in the window.
    pub const DELEGATE: u64 = 1;
    /// A capability: if it is a portal into the receiver's PD, the receiver gets that portal's identity and
    /// no capability; else it is delegated.
    pub const TRANSLATE: u64 = 2;

    /// Kind of item.
    #[must_use]
    pub const fn kind(&self) -> u64 {
        self.attr & 0xff
    }

    /// Permissions asked for.
    #[must_use]
    pub const fn perms(&self) -> Perms {
        Perms::from_bits_truncate((self.attr >> 8 & 0x1f) as u8)
    }
}

/// Message header: how many words and items a message has. Passed in a register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header(pub u64);

impl Header {
    /// Header of a message of so many words and items.
    #[must_use]
    pub const fn new(words: usize, items: usize) -> Self {
        Self((words as u64 & 0xffff) | (items as u64 & 0xffff) << 16)
    }

    /// Number of words.
    #[must_use]
    pub const fn words(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Number of items.
    #[must_use]
    pub const fn items(self) -> usize {
        (self.0 >> 16 & 0xffff) as usize
    }

    /// Whether the message fits a UTCB and no unknown bit is set.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.words() <= WORDS && self.items() <= ITEMS && self.0 >> 32 == 0
    }
}

const _: () = assert!(size_of::<Utcb>() == crate::PAGE_SIZE);
const _: () = assert!(core::mem::offset_of!(Utcb, items) == 128);
const _: () = assert!(core::mem::offset_of!(Utcb, words) == 256);
