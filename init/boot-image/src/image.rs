// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole image in memory: the directory, and the bytes of each module.

use crate::{Directory, Error, Kind};

/// A checked image.
#[derive(Clone, Copy, Debug)]
pub struct BootImage<'a> {
    bytes: &'a [u8],
    directory: Directory<'a>,
}

/// A module and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// The module's name.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub data: &'a [u8],
}

impl<'a> BootImage<'a> {
    /// Reads the image that `bytes` start with; bytes behind the size in its header are left alone.
    ///
    /// # Errors
    /// As [`Directory::parse`], and [`Error::Truncated`] when `bytes` end before the image does.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let directory = Directory::parse(bytes)?;
        let size = usize::try_from(directory.total_size()).map_err(|_| Error::Truncated)?;
        let bytes = bytes.get(..size).ok_or(Error::Truncated)?;
        Ok(Self { bytes, directory })
    }

    /// The directory alone.
    #[must_use]
    pub const fn directory(&self) -> &Directory<'a> {
        &self.directory
    }

    /// All modules, the root task first.
    pub fn modules(&self) -> impl Iterator<Item = Module<'a>> + use<'a> {
        let bytes = self.bytes;
        self.directory.modules().map(move |entry| {
            // The directory was checked against the image's size, so the range is there.
            let data = usize::try_from(entry.offset)
                .ok()
                .and_then(|start| bytes.get(start..))
                .and_then(|rest| rest.get(..usize::try_from(entry.size).ok()?))
                .unwrap_or_default();
            Module { name: entry.name, kind: entry.kind, data }
        })
    }

    /// The first module of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Module<'a>> {
        self.modules().find(|module| module.name == name)
    }
}
