// SPDX-License-Identifier: MIT OR Apache-2.0
//! The front of an image: its header and the entries of its modules.
//!
//! [`Directory::parse`] needs the directory's own bytes and nothing behind them, so that the kernel can find the
//! root task with a page or two mapped. Entries are decoded anew at each look: a directory holds no memory.

use crate::{ENTRY_SIZE, Error, HEADER_SIZE, Kind, MAGIC, NAME_SIZE, PAGE_SIZE, VERSION};

/// The checked directory of an image.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    entries: &'a [[u8; ENTRY_SIZE]],
    total_size: u64,
}

/// Where one module lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The module's name: what a ROM session asks for.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Bytes from the start of the image, a multiple of [`PAGE_SIZE`].
    pub offset: u64,
    /// Bytes; the rest of the last page is zero.
    pub size: u64,
}

/// The modules of a directory, in their order.
#[derive(Clone, Debug)]
pub struct Modules<'a>(core::slice::Iter<'a, [u8; ENTRY_SIZE]>);

impl<'a> Directory<'a> {
    /// Reads the directory at the front of `bytes`, which may go on behind it or not.
    ///
    /// # Errors
    /// Whatever of [`Error`] is wrong first, front to back.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = Header::decode(bytes)?;
        if !header.total_size.is_multiple_of(PAGE_SIZE) {
            return Err(Error::BadSize);
        }
        let table = bytes.get(HEADER_SIZE..).ok_or(Error::Truncated)?;
        let count = usize::try_from(header.count).map_err(|_| Error::Truncated)?;
        let (all, _) = table.as_chunks::<ENTRY_SIZE>();
        let entries = all.get(..count).ok_or(Error::Truncated)?;
        let first_free = directory_size(header.count).ok_or(Error::Truncated)?;
        for (position, raw) in (0..).zip(entries) {
            check(raw, position, first_free, header.total_size)?;
        }
        if entries.is_empty() {
            return Err(Error::NoRootTask);
        }
        Ok(Self { entries, total_size: header.total_size })
    }

    /// Bytes of the whole image.
    #[must_use]
    pub const fn total_size(&self) -> u64 {
        self.total_size
    }

    /// All modules, the root task first.
    #[must_use]
    pub fn modules(&self) -> Modules<'a> {
        Modules(self.entries.iter())
    }

    /// The first module of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Entry<'a>> {
        self.modules().find(|entry| entry.name == name)
    }
}

impl<'a> Iterator for Modules<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        // Parsing checked each entry, so the position in a complaint does not matter here.
        self.0.next().and_then(|raw| Entry::decode(raw, 0).ok())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// Bytes of a directory with `count` entries, in whole pages; nothing when that is more than memory could hold.
pub(crate) fn directory_size(count: u32) -> Option<u64> {
    let entries = u64::from(count).checked_mul(u64::try_from(ENTRY_SIZE).ok()?)?;
    entries.checked_add(u64::try_from(HEADER_SIZE).ok()?)?.checked_next_multiple_of(PAGE_SIZE)
}

struct Header {
    count: u32,
    total_size: u64,
}

impl Header {
    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if u64_at(bytes, 0)? != MAGIC {
            return Err(Error::BadMagic);
        }
        let version = u32_at(bytes, 8)?;
        if version != VERSION {
            return Err(Error::UnknownVersion(version));
        }
        Ok(Self { count: u32_at(bytes, 12)?, total_size: u64_at(bytes, 16)? })
    }
}

impl<'a> Entry<'a> {
    fn decode(raw: &'a [u8; ENTRY_SIZE], position: u32) -> Result<Self, Error> {
        let (name, _) = raw.split_first_chunk::<NAME_SIZE>().ok_or(Error::Truncated)?;
        Ok(Self {
            name: decode_name(name).ok_or(Error::BadName(position))?,
            offset: u64_at(raw, NAME_SIZE)?,
            size: u64_at(raw, NAME_SIZE.saturating_add(8))?,
            kind: Kind::from_code(u32_at(raw, NAME_SIZE.saturating_add(16))?).ok_or(Error::UnknownKind(position))?,
        })
    }
}

fn check(raw: &[u8; ENTRY_SIZE], position: u32, first_free: u64, total_size: u64) -> Result<(), Error> {
    let entry = Entry::decode(raw, position)?;
    match (position, entry.kind) {
        (0, Kind::RootTask) => {}
        (0, _) => return Err(Error::NoRootTask),
        (_, Kind::RootTask) => return Err(Error::SecondRootTask(position)),
        _ => {}
    }
    let end = entry.offset.checked_add(entry.size).ok_or(Error::BadRange(position))?;
    let aligned = entry.offset.is_multiple_of(PAGE_SIZE);
    if !aligned || entry.offset < first_free || end > total_size {
        return Err(Error::BadRange(position));
    }
    Ok(())
}

fn decode_name(raw: &[u8; NAME_SIZE]) -> Option<&str> {
    let length = raw.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
    let (name, padding) = raw.split_at_checked(length)?;
    let clean = !name.is_empty() && padding.iter().all(|&byte| byte == 0);
    if clean { core::str::from_utf8(name).ok() } else { None }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Error> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Error> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Error> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Error::Truncated)
}
