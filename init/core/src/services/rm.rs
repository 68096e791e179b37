// SPDX-License-Identifier: MIT OR Apache-2.0
//! RM: region maps, and the dataspaces that show them.

use super::Call;
use crate::machine::{Core, SESSION};
use crate::objects::{Caching, Dataspace, Owner, RegionMap as Map, Rm as Session, Space, Thing};
use alloc::vec::Vec;
use cloister_abi::cap::NONE;
use cloister_base::{Cap, Error, ObjectId};
use cloister_core_model::{AccountId, Regions, pages};
use cloister_session::{Attach, Object, RegionMap, Resources, Rm};

/// A map and its dataspace.
const COST: Resources = Resources { ram: 0, caps: 2 };
/// Largest map, bytes.
const LARGEST: u64 = 1 << 46;

impl Core {
    /// Opens an RM session.
    pub(crate) fn open_rm(&mut self, donor: AccountId, donation: Resources) -> Result<ObjectId, Error> {
        let purse = self.open_purse(donor, donation, SESSION)?;
        let session = Session { purse, maps: Vec::new() };
        self.add(None, Thing::Rm(session)).inspect_err(|_| self.close_purse(&purse))
    }

    /// Closes an RM session: its maps go, and vanish from wherever they are attached.
    pub(crate) fn close_rm(&mut self, id: ObjectId) {
        let Ok(session) = self.rm_mut(id) else { return };
        for map in core::mem::take(&mut session.maps) {
            self.destroy_map(id, map);
        }
        if let Some(Thing::Rm(session)) = self.remove(id) {
            self.close_purse(&session.purse);
        }
    }

    fn make_map(&mut self, session: ObjectId, size: u64) -> Result<ObjectId, Error> {
        let shows = Dataspace {
            owner: Owner::Session,
            extents: Vec::new(),
            size,
            align: if size >= 1 << 21 { 21 } else { 12 },
            writable: true,
            caching: Caching::Cached,
            map: None,
            attached: Vec::new(),
        };
        let dataspace = self.add(None, Thing::Dataspace(shows))?;
        let space = Space { selector: NONE, regions: Regions::guest(size), charged: 0 };
        let map = self.add(None, Thing::RegionMap(Map { session, space, dataspace })).inspect_err(|_| {
            self.remove(dataspace);
        })?;
        self.dataspace_mut(dataspace)?.map = Some(map);
        Ok(map)
    }

    fn destroy_map(&mut self, session: ObjectId, map: ObjectId) {
        if let Ok(dataspace) = self.region_map(map).map(|map| map.dataspace) {
            self.remove_dataspace(dataspace);
        }
        self.forget_space(map);
        self.remove(map);
        self.deposit(session, COST);
    }
}

impl Rm for Call<'_> {
    fn create(&mut self, size: u64) -> Result<Cap, Error> {
        let size = pages(size).filter(|size| *size > 0 && *size <= LARGEST).ok_or(Error::Invalid)?;
        self.core.withdraw(self.id, COST)?;
        let map = self.core.make_map(self.id, size).inspect_err(|_| self.core.deposit(self.id, COST))?;
        self.core.rm_mut(self.id)?.maps.push(map);
        self.core.cap(map)
    }

    fn destroy(&mut self, map: Object) -> Result<(), Error> {
        let map = ObjectId::from_raw(map.own()?);
        if self.core.region_map(map)?.session != self.id {
            return Err(Error::Denied);
        }
        self.core.rm_mut(self.id)?.maps.retain(|other| *other != map);
        self.core.destroy_map(self.id, map);
        Ok(())
    }
}

impl RegionMap for Call<'_> {
    fn attach(&mut self, dataspace: Object, place: Attach) -> Result<u64, Error> {
        if self.core.dataspace(ObjectId::from_raw(dataspace.own()?))?.map.is_some() {
            return Err(Error::Unsupported);
        }
        self.core.attach(self.id, dataspace, place)
    }

    fn detach(&mut self, address: u64) -> Result<(), Error> {
        self.core.detach_at(self.id, address)
    }

    fn dataspace(&mut self) -> Result<Cap, Error> {
        let dataspace = self.core.region_map_mut(self.id)?.dataspace;
        self.core.cap(dataspace)
    }
}
