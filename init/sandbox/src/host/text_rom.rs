// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ROM session with a text of ours: the configuration of a child.
//!
//! Each text lies in a dataspace of its own. When the text changes, the one that the client has stays until the client
//! asks for the content again, so that nothing changes under it while it reads.

use cloister_base::sessions::{Rom, RomContent};
use cloister_base::{Cap, Error, Link, signal};

use super::memory::{filled, own};

#[derive(Debug)]
pub(crate) struct TextRom {
    /// What the client gets when it asks next.
    next: Option<Text>,
    /// What the client has.
    given: Option<Text>,
    handler: Option<Cap>,
}

#[derive(Clone, Copy, Debug)]
struct Text {
    dataspace: Cap,
    size: u64,
}

impl Text {
    fn new(text: &str) -> Result<Self, Error> {
        let size = u64::try_from(text.len()).map_err(|_| Error::TooLong)?;
        Ok(Self { dataspace: filled(own(), size, 0, text.as_bytes())?, size })
    }

    fn free(self) {
        if let Err(error) = own().free(self.dataspace.object()) {
            log::warn!("a configuration's memory could not be freed: {error}");
        }
        Link::from(self.dataspace).drop();
    }
}

impl TextRom {
    pub(super) fn new(text: &str) -> Result<Self, Error> {
        Ok(Self { next: Some(Text::new(text)?), given: None, handler: None })
    }

    pub(super) fn update(&mut self, text: &str) -> Result<(), Error> {
        let text = Text::new(text)?;
        if let Some(old) = self.next.replace(text) {
            old.free();
        }
        if let Some(handler) = self.handler {
            signal::up(handler.selector);
        }
        Ok(())
    }

    pub(super) fn free(self) {
        for text in [self.next, self.given].into_iter().flatten() {
            text.free();
        }
        if let Some(handler) = self.handler {
            Link::from(handler).drop();
        }
    }
}

impl Rom for TextRom {
    fn content(&mut self) -> Result<RomContent, Error> {
        if let Some(next) = self.next.take()
            && let Some(old) = self.given.replace(next)
        {
            old.free();
        }
        let text = self.given.ok_or(Error::NotFound)?;
        Ok(RomContent { size: text.size, dataspace: Cap::portal(text.dataspace.selector) })
    }

    fn signal_handler(&mut self, handler: Option<Cap>) -> Result<(), Error> {
        if let Some(old) = core::mem::replace(&mut self.handler, handler) {
            Link::from(old).drop();
        }
        Ok(())
    }
}
