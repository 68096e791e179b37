// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot image: one page-aligned archive with everything that the machine starts with.
//!
//! A boot loader knows how to hand over one module; Cloister needs a dozen (core, init, the components, their
//! configuration, guest kernels). The boot image is that one module. It is deliberately simpler than cpio or
//! tar: all sizes stand in a directory at the front, and each module starts on a page, so that core can hand a
//! module out as a ROM by mapping it, without a copy, and without anything of its neighbour on the same page.
//!
//! All numbers are little-endian. Offsets are bytes from the start of the image.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | magic, the bytes `CLSTRIMG` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of modules |
//! | 16 | 8 | size of the whole image, a multiple of the page size |
//! | 24 | 64 each | the modules: name (40 bytes, NUL-padded), offset (8), size (8), kind (4), zero (4) |
//!
//! The directory takes as many pages as it needs; the first module starts on the page after it. Module 0 is the
//! root task, and no other is.
//!
//! Key types: [`Directory`] reads the front alone (all that the kernel maps), [`BootImage`] the whole, and
//! `Writer` (feature `alloc`) builds one. The image is foreign data: the parser is total, it checks everything
//! once at construction, and never panics afterwards.
//!
//! Neighbours: `xtask` writes it; the kernel finds the root task in it; core serves its modules as ROMs.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod directory;
mod image;
#[cfg(any(feature = "alloc", test))]
mod writer;

pub use directory::{Directory, Entry, Modules};
pub use image::{BootImage, Module};
#[cfg(any(feature = "alloc", test))]
pub use writer::{WriteError, Writer};

/// The first eight bytes of an image, as a little-endian number.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CLSTRIMG");

/// The version of the format that this crate reads and writes.
pub const VERSION: u32 = 1;

/// Modules start at multiples of this many bytes.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes before the first entry of the directory.
pub const HEADER_SIZE: usize = 24;

/// Bytes of one entry of the directory.
pub const ENTRY_SIZE: usize = 64;

/// The longest name of a module, in bytes.
pub const NAME_SIZE: usize = 40;

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The program that the kernel starts (core, or a test in its place). Always module 0.
    RootTask,
    /// A program for core or init to start.
    Elf,
    /// Anything else: configuration, guest kernels, disk images.
    Data,
}

impl Kind {
    /// The number that stands for this kind in an image.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::RootTask => 1,
            Self::Elf => 2,
            Self::Data => 3,
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::RootTask),
            2 => Some(Self::Elf),
            3 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Why bytes are not a boot image. The builder of the image is to blame; the number is the module's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Shorter than its header or its directory says.
    Truncated,
    /// The first eight bytes are something else.
    BadMagic,
    /// Of a format that this crate does not know.
    UnknownVersion(u32),
    /// The size in the header is not a multiple of the page size.
    BadSize,
    /// No module at all, or module 0 is not the root task.
    NoRootTask,
    /// A second root task.
    SecondRootTask(u32),
    /// A name that is empty, not UTF-8, or continues after its first NUL.
    BadName(u32),
    /// A kind that this crate does not know.
    UnknownKind(u32),
    /// A module that is not on a page of its own behind the directory, or reaches over the image's end.
    BadRange(u32),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Truncated => write!(f, "the boot image is cut off"),
            Self::BadMagic => write!(f, "not a boot image"),
            Self::UnknownVersion(version) => write!(f, "boot image of unknown version {version}"),
            Self::BadSize => write!(f, "the boot image's size is not a whole number of pages"),
            Self::NoRootTask => write!(f, "the boot image does not start with a root task"),
            Self::SecondRootTask(n) => write!(f, "module {n} of the boot image is a second root task"),
            Self::BadName(n) => write!(f, "module {n} of the boot image has a malformed name"),
            Self::UnknownKind(n) => write!(f, "module {n} of the boot image is of unknown kind"),
            Self::BadRange(n) => write!(f, "module {n} of the boot image lies outside of it"),
        }
    }
}

impl core::error::Error for Error {}
