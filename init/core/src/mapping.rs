// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the books to the page tables: mapping and unmapping what is attached.
//!
//! Three kinds of address space can be attached to: a component's, a guest's, and a region map. The last has no page tables: what
//! is attached to it is mapped wherever the map's own dataspace is attached. A region map holds plain dataspaces only, so that
//! goes one step deep.

use crate::kernel::{self, pieces};
use crate::machine::Core;
use crate::objects::{Caching, Content, Dataspace};
use alloc::vec::Vec;
use cloister_abi::cap::Access;
use cloister_base::{Error, ObjectId};
use cloister_core_model::Piece;
use cloister_session::Rights;

/// A part of a plain dataspace at an address.
#[derive(Clone, Copy)]
struct Part {
    dataspace: ObjectId,
    address: u64,
    offset: u64,
    size: u64,
    rights: Rights,
}

impl Core {
    /// Maps pieces of an address space.
    pub(crate) fn map(&mut self, id: ObjectId, pieces: &[Piece<Content>]) -> Result<(), Error> {
        for piece in pieces {
            for (place, part) in self.parts(id, piece)? {
                self.map_part(place, part)?;
            }
        }
        Ok(())
    }

    /// Unmaps pieces of an address space.
    pub(crate) fn unmap(&mut self, id: ObjectId, gone: &[Piece<Content>]) {
        for piece in gone {
            let Ok(users) = self.users(id) else {
                self.unmap_range(id, piece.address, piece.region.size);
                continue;
            };
            for (place, user) in users {
                if let Some((address, _, size)) = overlap(&user, piece) {
                    self.unmap_range(place, address, size);
                }
            }
        }
    }

    /// Which parts of plain dataspaces appear where because of a piece.
    fn parts(&mut self, id: ObjectId, piece: &Piece<Content>) -> Result<Vec<(ObjectId, Part)>, Error> {
        let Content::Dataspace(dataspace) = piece.region.what else { return Ok(Vec::new()) };
        if let Ok(users) = self.users(id) {
            return Ok(users
                .into_iter()
                .filter_map(|(place, user)| {
                    let (address, skipped, size) = overlap(&user, piece)?;
                    let rights = piece.region.rights & user.region.rights;
                    let offset = piece.region.offset + skipped;
                    Some((place, Part { dataspace, address, offset, size, rights }))
                })
                .collect());
        }
        let (offset, size, rights) = (piece.region.offset, piece.region.size, piece.region.rights);
        let Some(map) = self.dataspace(dataspace)?.map else {
            return Ok([(id, Part { dataspace, address: piece.address, offset, size, rights })].into());
        };
        let shown = self.region_map(map)?.space.regions.clipped(offset, size);
        Ok(shown
            .into_iter()
            .filter_map(|inner| {
                let Content::Dataspace(dataspace) = inner.region.what else { return None };
                let address = piece.address + (inner.address - offset);
                let (offset, size) = (inner.region.offset, inner.region.size);
                let rights = rights & inner.region.rights;
                Some((id, Part { dataspace, address, offset, size, rights }))
            })
            .collect())
    }

    /// Where a region map is attached: the address spaces, and the pieces of them that show it.
    ///
    /// # Errors
    /// It is not a region map.
    fn users(&mut self, id: ObjectId) -> Result<Vec<(ObjectId, Piece<Content>)>, Error> {
        let shown = self.region_map(id)?.dataspace;
        let places = self.dataspace(shown)?.attached.clone();
        let mut users = Vec::new();
        for place in places {
            let regions = &self.space(place)?.regions;
            let pieces = regions.iter().filter(|piece| piece.region.what == Content::Dataspace(shown));
            users.extend(pieces.map(|piece| (place, piece)));
        }
        Ok(users)
    }

    fn map_part(&mut self, place: ObjectId, part: Part) -> Result<(), Error> {
        let selector = self.space(place)?.selector;
        let dataspace = self.dataspace(part.dataspace)?;
        let rights = access(part.rights, dataspace.caching).bits().into();
        let ranges: Vec<_> = physical_ranges(dataspace, part).collect();
        for (physical, address, size) in ranges {
            for chunk in pieces(physical, address, size) {
                self.paid(Some(place), |_| kernel::map(selector, chunk, rights))?;
            }
        }
        Ok(())
    }

    fn unmap_range(&mut self, place: ObjectId, address: u64, size: u64) {
        let Ok(selector) = self.space(place).map(|space| space.selector) else { return };
        for chunk in pieces(0, address, size) {
            // Taking away a part of a large page may cost a page table.
            if let Err(error) = self.paid(Some(place), |_| kernel::unmap(selector, chunk)) {
                let label = self.label(place);
                log::error!("{label}: can't unmap {address:#x}: {error}");
            }
        }
    }
}

/// The part of a region map's piece that a user of the map shows: the user's address, bytes skipped of the piece, size.
fn overlap(user: &Piece<Content>, piece: &Piece<Content>) -> Option<(u64, u64, u64)> {
    let first = user.region.offset;
    let low = piece.address.max(first);
    let high = (piece.address + piece.region.size).min(first + user.region.size);
    (low < high).then(|| (user.address + (low - first), low - piece.address, high - low))
}

/// The parts of physical memory that a part shows: physical address, address, size.
fn physical_ranges(dataspace: &Dataspace, part: Part) -> impl Iterator<Item = (u64, u64, u64)> {
    let (first, end) = (part.offset, part.offset + part.size);
    let mut before = 0;
    dataspace.extents.iter().filter_map(move |extent| {
        let start = before;
        before += extent.size;
        let (low, high) = (first.max(start), end.min(before));
        (low < high).then(|| (extent.base + (low - start), part.address + (low - first), high - low))
    })
}

fn access(rights: Rights, caching: Caching) -> Access {
    let mut access = Access::empty();
    access.set(Access::READ, rights.contains(Rights::READ));
    access.set(Access::WRITE, rights.contains(Rights::WRITE));
    access.set(Access::EXEC, rights.contains(Rights::EXEC));
    access.set(Access::UNCACHED, caching == Caching::Uncached);
    access.set(Access::WRITE_COMBINING, caching == Caching::WriteCombining);
    access
}
