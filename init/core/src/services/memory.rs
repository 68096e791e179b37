// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attaching: what PD and VM sessions have in common, and the dataspace interface.

use super::Call;
use crate::machine::Core;
use crate::objects::Content;
use cloister_base::{Error, ObjectId};
use cloister_core_model::{Piece, pages};
use cloister_session::{Attach, Dataspace, DataspaceInfo, Object, Rights};

impl Core {
    /// Attaches a dataspace to the address space of a PD or VM session. Answers where.
    pub(crate) fn attach(&mut self, id: ObjectId, dataspace: Object, place: Attach) -> Result<u64, Error> {
        let which = ObjectId::from_raw(dataspace.own()?);
        let memory = self.dataspace(which)?;
        if place.rights.contains(Rights::WRITE) && !memory.writable {
            return Err(Error::Denied);
        }
        let left = memory.size.checked_sub(place.offset).ok_or(Error::Invalid)?;
        let size = if place.size == 0 { left } else { pages(place.size).ok_or(Error::Invalid)? };
        if size > left || place.rights.is_empty() {
            return Err(Error::Invalid);
        }
        let align = if place.offset == 0 { memory.align } else { 12 };
        self.can_settle(id, 1)?;
        let what = (Content::Dataspace(which), place.offset, place.rights);
        let address = self.space(id)?.regions.attach(place.address, size, align, what)?;
        let piece = self.space(id)?.regions.at(address).ok_or(Error::Invalid)?;
        self.settle(id);
        if let Err(error) = self.map(id, &[piece]) {
            self.detach_at(id, address)?;
            return Err(error);
        }
        let memory = self.dataspace_mut(which)?;
        if !memory.attached.contains(&id) {
            memory.attached.push(id);
        }
        Ok(address)
    }

    /// Detaches what is at an address, or gives up a reservation.
    pub(crate) fn detach_at(&mut self, id: ObjectId, address: u64) -> Result<(), Error> {
        let space = self.space(id)?;
        if space.regions.at(address).is_some_and(|piece| piece.region.what == Content::KernelPage) {
            return Err(Error::Denied);
        }
        let pieces = space.regions.detach(address)?;
        self.detached(id, &pieces);
        Ok(())
    }

    /// Unmaps what was detached, and settles.
    pub(crate) fn detached(&mut self, id: ObjectId, pieces: &[Piece<Content>]) {
        self.unmap(id, pieces);
        self.settle(id);
        for piece in pieces {
            self.forget_attachment(id, piece.region.what);
        }
    }

    /// A dataspace that is not in an address space any more need not know of it.
    fn forget_attachment(&mut self, id: ObjectId, what: Content) {
        let Content::Dataspace(dataspace) = what else { return };
        let still = self.space(id).is_ok_and(|space| space.regions.iter().any(|piece| piece.region.what == what));
        if let (false, Ok(memory)) = (still, self.dataspace_mut(dataspace)) {
            memory.attached.retain(|place| *place != id);
        }
    }

    /// Forgets an address space that is about to go as a whole.
    pub(crate) fn forget_space(&mut self, id: ObjectId) {
        let Ok(space) = self.space(id) else { return };
        let shown: alloc::vec::Vec<_> = space.regions.iter().map(|piece| piece.region.what).collect();
        let charged = core::mem::take(&mut space.charged);
        self.deposit(id, cloister_session::Resources { ram: 0, caps: charged });
        for what in shown {
            if let Content::Dataspace(dataspace) = what
                && let Ok(memory) = self.dataspace_mut(dataspace)
            {
                memory.attached.retain(|place| *place != id);
            }
        }
    }

    /// Keeps a page of a PD's address space for a page of the kernel's. Answers its address.
    pub(crate) fn kernel_page(&mut self, id: ObjectId, address: Option<u64>) -> Result<u64, Error> {
        self.can_settle(id, 1)?;
        let what = (Content::KernelPage, 0, Rights::RW);
        let address = self.space(id)?.regions.attach(address, cloister_core_model::PAGE, 12, what)?;
        self.settle(id);
        Ok(address)
    }

    /// Takes such a page away again.
    pub(crate) fn drop_kernel_page(&mut self, id: ObjectId, address: u64) {
        let pieces = self.space(id).and_then(|space| space.regions.detach(address));
        self.detached(id, &pieces.unwrap_or_default());
    }
}

impl Dataspace for Call<'_> {
    fn info(&mut self) -> Result<DataspaceInfo, Error> {
        let memory = self.core.dataspace(self.id)?;
        Ok(DataspaceInfo { size: memory.size, writable: memory.writable, page: memory.align })
    }
}
