// SPDX-License-Identifier: MIT OR Apache-2.0
//! Building an image in memory, for host tools and tests.

use alloc::string::String;
use alloc::vec::Vec;

use crate::directory::directory_size;
use crate::{Kind, MAGIC, NAME_SIZE, PAGE_SIZE, VERSION};

/// Collects modules and lays them out. The root task comes first, whenever it was added.
#[derive(Debug, Default)]
pub struct Writer {
    modules: Vec<(String, Kind, Vec<u8>)>,
}

/// Why no image can be built of these modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The name is empty, longer than [`NAME_SIZE`] bytes, or contains a NUL.
    BadName(String),
    /// Two modules of this name: the second could never be found.
    Duplicate(String),
    /// Not exactly one root task.
    RootTasks(usize),
    /// More than the format's fields can say.
    TooLarge,
}

impl core::fmt::Display for WriteError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadName(name) => write!(f, "a module's name has 1 to {NAME_SIZE} bytes and no NUL: {name:?}"),
            Self::Duplicate(name) => write!(f, "two modules are called {name:?}"),
            Self::RootTasks(count) => write!(f, "a boot image has exactly one root task, not {count}"),
            Self::TooLarge => write!(f, "the modules are too large for a boot image"),
        }
    }
}

impl core::error::Error for WriteError {}

impl Writer {
    /// An image without modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module.
    ///
    /// # Errors
    /// [`WriteError::BadName`] and [`WriteError::Duplicate`].
    pub fn add(&mut self, name: &str, kind: Kind, data: Vec<u8>) -> Result<(), WriteError> {
        if name.is_empty() || name.len() > NAME_SIZE || name.contains('\0') {
            return Err(WriteError::BadName(name.into()));
        }
        if self.modules.iter().any(|(other, ..)| other == name) {
            return Err(WriteError::Duplicate(name.into()));
        }
        self.modules.push((name.into(), kind, data));
        Ok(())
    }

    /// Lays the image out.
    ///
    /// # Errors
    /// [`WriteError::RootTasks`] and [`WriteError::TooLarge`].
    pub fn finish(mut self) -> Result<Vec<u8>, WriteError> {
        let roots = self.modules.iter().filter(|(_, kind, _)| *kind == Kind::RootTask).count();
        if roots != 1 {
            return Err(WriteError::RootTasks(roots));
        }
        self.modules.sort_by_key(|(_, kind, _)| *kind != Kind::RootTask);
        let count = u32::try_from(self.modules.len()).map_err(|_| WriteError::TooLarge)?;

        let mut entries = Vec::new();
        let mut end = directory_size(count).ok_or(WriteError::TooLarge)?;
        for (name, kind, data) in &self.modules {
            let size = u64::try_from(data.len()).map_err(|_| WriteError::TooLarge)?;
            let mut padded = name.clone().into_bytes();
            padded.resize(NAME_SIZE, 0);
            entries.extend_from_slice(&padded);
            entries.extend_from_slice(&end.to_le_bytes());
            entries.extend_from_slice(&size.to_le_bytes());
            entries.extend_from_slice(&kind.code().to_le_bytes());
            entries.extend_from_slice(&0u32.to_le_bytes());
            end = end
                .checked_add(size)
                .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
                .ok_or(WriteError::TooLarge)?;
        }

        let mut image = Vec::with_capacity(usize::try_from(end).map_err(|_| WriteError::TooLarge)?);
        image.extend_from_slice(&MAGIC.to_le_bytes());
        image.extend_from_slice(&VERSION.to_le_bytes());
        image.extend_from_slice(&count.to_le_bytes());
        image.extend_from_slice(&end.to_le_bytes());
        image.extend_from_slice(&entries);
        fill_page(&mut image)?;
        for (_, _, data) in &self.modules {
            image.extend_from_slice(data);
            fill_page(&mut image)?;
        }
        Ok(image)
    }
}

fn fill_page(image: &mut Vec<u8>) -> Result<(), WriteError> {
    let page = usize::try_from(PAGE_SIZE).map_err(|_| WriteError::TooLarge)?;
    let size = image.len().checked_next_multiple_of(page).ok_or(WriteError::TooLarge)?;
    image.resize(size, 0);
    Ok(())
}

#[cfg(test)]
mod tests;
