// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dataspaces in the component's own address space.

use crate::sessions::{Attach, DataspaceClient, Rights};
use crate::{Cap, Error, Link, env};
use core::ptr::NonNull;

/// An attached dataspace. It stays attached until [`Mapping::detach`].
#[derive(Debug)]
pub struct Mapping {
    address: u64,
    size: usize,
    writable: bool,
}

impl Mapping {
    /// Attaches a dataspace, anywhere, for reading.
    ///
    /// # Errors
    /// What the dataspace or the PD session says.
    pub fn read_only(dataspace: Cap) -> Result<Self, Error> {
        Self::attach(dataspace, Rights::READ)
    }

    /// Attaches a dataspace, anywhere, for reading and writing.
    ///
    /// # Errors
    /// What the dataspace or the PD session says.
    pub fn writable(dataspace: Cap) -> Result<Self, Error> {
        Self::attach(dataspace, Rights::RW)
    }

    fn attach(dataspace: Cap, rights: Rights) -> Result<Self, Error> {
        let info = DataspaceClient(Link::from(dataspace)).info()?;
        let address = env::pd().attach(dataspace.object(), Attach::anywhere(rights))?;
        let size = usize::try_from(info.size).map_err(|_| Error::Invalid)?;
        Ok(Self { address, size, writable: rights.contains(Rights::WRITE) })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// First byte.
    #[must_use]
    pub fn pointer(&self) -> NonNull<u8> {
        let address = usize::try_from(self.address).unwrap_or(0);
        NonNull::new(core::ptr::with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling())
    }

    /// The content.
    ///
    /// # Safety
    /// Nobody writes to the dataspace as long as the slice is in use, and it is not freed.
    #[must_use]
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped for as long as `self` is there; the rest is the caller's word.
        unsafe { core::slice::from_raw_parts(self.pointer().as_ptr(), self.size) }
    }

    /// The content, to be written. Empty if it was attached for reading.
    ///
    /// # Safety
    /// Nobody else reads or writes the dataspace as long as the slice is in use, and it is not freed.
    #[must_use]
    pub unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        let size = if self.writable { self.size } else { 0 };
        // SAFETY: the range is mapped for as long as `self` is there; the rest is the caller's word.
        unsafe { core::slice::from_raw_parts_mut(self.pointer().as_ptr(), size) }
    }

    /// Detaches it.
    ///
    /// # Errors
    /// What the PD session says.
    pub fn detach(self) -> Result<(), Error> {
        env::pd().detach(self.address)
    }
}
