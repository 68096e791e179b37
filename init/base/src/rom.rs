// SPDX-License-Identifier: MIT OR Apache-2.0
//! ROM sessions: read-only content by name.

use crate::dataspace::Mapping;
use crate::session::{self, Session};
use crate::sessions::{RomClient, id};
use crate::{Cap, Error, Link, env, selectors};

/// An open ROM, its present content attached.
#[derive(Debug)]
pub struct Rom {
    session: Session,
    mapped: Option<(Cap, Mapping)>,
    size: usize,
}

impl Rom {
    /// Opens a ROM by name and attaches its content.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Denied`] if there is none of that name; what memory says.
    pub fn open(name: &str) -> Result<Self, Error> {
        let session = session::open("ROM", name, "", session::USUAL)?;
        let mut rom = Self { session, mapped: None, size: 0 };
        rom.update()?;
        Ok(rom)
    }

    /// The component's own binary.
    ///
    /// # Errors
    /// What memory says.
    pub fn binary() -> Result<Self, Error> {
        let session = Session { id: id::BINARY, cap: Cap::new(selectors::BINARY) };
        let mut rom = Self { session, mapped: None, size: 0 };
        rom.update()?;
        Ok(rom)
    }

    /// Attaches the present content in place of the former.
    ///
    /// # Errors
    /// What the server and memory say. The ROM is empty then.
    pub fn update(&mut self) -> Result<(), Error> {
        if let Some((dataspace, mapping)) = self.mapped.take() {
            mapping.detach()?;
            Link::from(dataspace).drop();
        }
        self.size = 0;
        let content = RomClient(self.session.link()).content()?;
        if content.size > 0 {
            let mapping = Mapping::read_only(content.dataspace)?;
            self.size = usize::try_from(content.size).unwrap_or(usize::MAX).min(mapping.size());
            self.mapped = Some((content.dataspace, mapping));
        }
        Ok(())
    }

    /// Sets the signal that says that the content changed.
    ///
    /// # Errors
    /// What the server says.
    pub fn signal_handler(&self, signal: Cap) -> Result<(), Error> {
        RomClient(self.session.link()).signal_handler(Some(signal))
    }

    /// The content. It does not change under the reader: a new content comes in a new dataspace.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let Some((_, mapping)) = &self.mapped else { return &[] };
        // SAFETY: a ROM's content is read-only, and stays until the next `update`, which needs `self` alone.
        let all = unsafe { mapping.bytes() };
        all.get(..self.size).unwrap_or_default()
    }

    /// The content's dataspace, if there is content.
    #[must_use]
    pub fn dataspace(&self) -> Option<Cap> {
        self.mapped.as_ref().map(|(dataspace, _)| *dataspace)
    }

    /// Detaches the content and closes the session (but not the binary's).
    ///
    /// # Errors
    /// What memory and the parent say.
    pub fn close(mut self) -> Result<(), Error> {
        if let Some((dataspace, mapping)) = self.mapped.take() {
            mapping.detach()?;
            Link::from(dataspace).drop();
        }
        if self.session.id == id::BINARY { Ok(()) } else { env::parent().close(self.session.id) }
    }
}
