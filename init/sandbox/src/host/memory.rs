// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying into and out of dataspaces that are attached for just that.

#![expect(unsafe_code, reason = "slices over attached dataspaces, in the two functions below")]

use cloister_base::dataspace::Mapping;
use cloister_base::sessions::PdClient;
use cloister_base::{Cap, Error, Link, env};

/// Copies what stands at `offset`; whether that is all inside of the first `size` bytes of the mapping.
///
/// The content of a ROM must not change while it is read; if its server writes to it all the same, the copy may be a mix
/// of old and new bytes, which whoever reads the copy checks like any other foreign data.
pub(super) fn copy_out(mapping: &Mapping, size: u64, offset: u64, buffer: &mut [u8]) -> bool {
    // SAFETY: the mapping is there, and the slice lives for this function only. A server that breaks its word changes
    // bytes under a copy that makes no decision upon them.
    let bytes = unsafe { mapping.bytes() };
    let content = usize::try_from(size).ok().and_then(|size| bytes.get(..size));
    let from = usize::try_from(offset).ok().and_then(|offset| content?.get(offset..));
    let Some(source) = from.and_then(|from| from.get(..buffer.len())) else { return false };
    buffer.copy_from_slice(source);
    true
}

/// Allocates a dataspace out of the account of `pd` and writes its first bytes: `content` at `offset`.
///
/// # Errors
///
/// What either PD session says.
pub(super) fn filled(pd: PdClient<Link>, size: u64, offset: u64, content: &[u8]) -> Result<Cap, Error> {
    let dataspace = pd.alloc(size, 12)?;
    let written = write(dataspace, offset, content);
    if written.is_err() {
        let _ = pd.free(dataspace.object());
        Link::from(dataspace).drop();
    }
    written.map(|()| dataspace)
}

fn write(dataspace: Cap, offset: u64, content: &[u8]) -> Result<(), Error> {
    if content.is_empty() {
        return Ok(());
    }
    let mut mapping = Mapping::writable(dataspace)?;
    // SAFETY: the dataspace is new, nobody else has it attached, and the slice ends before it is detached.
    let bytes = unsafe { mapping.bytes_mut() };
    let place = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset..));
    let written = match place.and_then(|place| place.get_mut(..content.len())) {
        Some(place) => {
            place.copy_from_slice(content);
            Ok(())
        }
        None => Err(Error::Invalid),
    };
    mapping.detach()?;
    written
}

/// The attached content of a ROM session.
#[derive(Debug)]
pub(super) struct Content {
    dataspace: Cap,
    mapping: Mapping,
    /// Bytes of content; the rest of the last page is not content.
    pub(super) size: u64,
}

impl Content {
    /// Attaches what the ROM session `rom` has at present.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it has no content; what the server and memory say.
    pub(super) fn of(rom: Cap) -> Result<Self, Error> {
        let content = cloister_base::sessions::RomClient(Link::from(rom)).content()?;
        if content.size == 0 {
            return Err(Error::NotFound);
        }
        match Mapping::read_only(content.dataspace) {
            Ok(mapping) => Ok(Self { dataspace: content.dataspace, mapping, size: content.size }),
            Err(error) => {
                Link::from(content.dataspace).drop();
                Err(error)
            }
        }
    }

    /// Copies what stands at `offset`; whether that is all inside.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        copy_out(&self.mapping, self.size, offset, buffer)
    }

    /// Copies `size` bytes into a new dataspace of `pd`, which has `room` bytes, behind its first `skip` bytes.
    ///
    /// # Errors
    ///
    /// What memory says; [`Error::Invalid`] if they are not all inside.
    pub(super) fn copy_to(
        &self,
        pd: PdClient<Link>,
        room: u64,
        (offset, size, skip): (u64, u64, u64),
    ) -> Result<Cap, Error> {
        // SAFETY: as in `copy_out`: nothing is decided upon what these bytes are.
        let bytes = unsafe { self.mapping.bytes() };
        let end = offset.checked_add(size).filter(|end| *end <= self.size).ok_or(Error::Invalid)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok()).ok_or(Error::Invalid)?;
        filled(pd, room, skip, bytes.get(range.0..range.1).ok_or(Error::Invalid)?)
    }

    /// The dataspace, to be attached elsewhere.
    pub(super) const fn dataspace(&self) -> Cap {
        self.dataspace
    }

    /// Detaches the content.
    pub(super) fn release(self) {
        if let Err(error) = self.mapping.detach() {
            log::warn!("a ROM could not be detached: {error}");
        }
        Link::from(self.dataspace).drop();
    }
}

/// Our own PD session, as others see it.
pub(super) const fn own_account() -> cloister_base::Object {
    Cap::new(cloister_base::selectors::PD).object()
}

/// Our own PD session.
pub(super) const fn own() -> PdClient<Link> {
    env::pd()
}
