// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lies where in an address space.
//!
//! Two kinds of entries: *reservations* keep a range free of anything that did not ask for that very address; *regions* are
//! what is attached. `T` names what a region shows (core: a dataspace). A region may fall into pieces of different rights;
//! it goes away as a whole.

use crate::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use cloister_session::{Error, Rights};

/// An attached range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region<T> {
    /// Bytes.
    pub size: u64,
    /// What it shows.
    pub what: T,
    /// First byte of what it shows.
    pub offset: u64,
    /// Rights.
    pub rights: Rights,
    /// Address at which the attachment that this is a part of begins.
    head: u64,
}

/// A part of a region, with its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// First byte.
    pub address: u64,
    /// What is there.
    pub region: Region<T>,
}

/// An address space.
#[derive(Debug)]
pub struct Regions<T> {
    regions: BTreeMap<u64, Region<T>>,
    reserved: BTreeMap<u64, u64>,
    /// Where things are put that may go anywhere.
    anywhere: u64,
    end: u64,
    /// A guest's memory: what is writable may be executable, and page 0 is a page like any other.
    guest: bool,
}

impl<T: Copy + PartialEq> Regions<T> {
    /// An empty address space: what may go anywhere goes to `anywhere` or above; nothing goes to page 0 or beyond `end`.
    #[must_use]
    pub const fn new(anywhere: u64, end: u64) -> Self {
        Self { regions: BTreeMap::new(), reserved: BTreeMap::new(), anywhere, end, guest: false }
    }

    /// The empty memory of a guest.
    #[must_use]
    pub const fn guest(end: u64) -> Self {
        Self { regions: BTreeMap::new(), reserved: BTreeMap::new(), anywhere: 0, end, guest: true }
    }

    /// Attaches at an address, or anywhere at an address that is congruent to `offset` in the low `align` bits (so that large
    /// pages can be used). Answers where.
    ///
    /// # Errors
    /// `Invalid` for what is not whole pages or out of range, `Conflict` if something is there, `OutOfRam` if there is no
    /// such large gap.
    pub fn attach(
        &mut self,
        address: Option<u64>,
        size: u64,
        align: u32,
        (what, offset, rights): (T, u64, Rights),
    ) -> Result<u64, Error> {
        let wx = rights.contains(Rights::WRITE | Rights::EXEC) && !self.guest;
        if wx || !offset.is_multiple_of(PAGE) {
            return Err(Error::Invalid);
        }
        let address = self.place(address, size, align)?;
        self.regions.insert(address, Region { size, what, offset, rights, head: address });
        Ok(address)
    }

    /// Reserves. Answers where.
    ///
    /// # Errors
    /// As [`Self::attach`]; `Conflict` also if a part is reserved.
    pub fn reserve(&mut self, address: Option<u64>, size: u64) -> Result<u64, Error> {
        if let Some(address) = address
            && overlap(&self.reserved, |size| *size, address, size).is_some()
        {
            return Err(Error::Conflict);
        }
        let address = self.place(address, size, 12)?;
        self.reserved.insert(address, size);
        Ok(address)
    }

    fn place(&self, address: Option<u64>, size: u64, align: u32) -> Result<u64, Error> {
        if size == 0 || !size.is_multiple_of(PAGE) {
            return Err(Error::Invalid);
        }
        let Some(address) = address else {
            return self.gap(size, align).ok_or(Error::OutOfRam { needed: size, available: 0 });
        };
        let end = address.checked_add(size).ok_or(Error::Invalid)?;
        if !address.is_multiple_of(PAGE) || (address == 0 && !self.guest) || end > self.end {
            return Err(Error::Invalid);
        }
        match overlap(&self.regions, |region| region.size, address, size) {
            Some(_) => Err(Error::Conflict),
            None => Ok(address),
        }
    }

    /// The lowest gap.
    fn gap(&self, size: u64, align: u32) -> Option<u64> {
        let align = 1_u64.checked_shl(align)?.max(PAGE);
        let mut address = self.anywhere.checked_next_multiple_of(align)?;
        loop {
            let end = address.checked_add(size).filter(|end| *end <= self.end)?;
            let blocker = overlap(&self.regions, |region| region.size, address, size)
                .or_else(|| overlap(&self.reserved, |size| *size, address, size));
            match blocker {
                None => return Some(address),
                Some(stop) => address = stop.max(address + PAGE).checked_next_multiple_of(align)?,
            }
            debug_assert!(end > self.anywhere);
        }
    }

    /// Detaches what was attached at this address: its pieces. Else gives a reservation up: no pieces.
    ///
    /// # Errors
    /// `NotFound` if nothing begins there.
    pub fn detach(&mut self, address: u64) -> Result<Vec<Piece<T>>, Error> {
        if !self.regions.contains_key(&address) {
            return self.reserved.remove(&address).map(|_| Vec::new()).ok_or(Error::NotFound);
        }
        Ok(self.take_where(|at, region| region.head == address && at >= address))
    }

    /// Detaches everything that shows `what`: its pieces.
    pub fn detach_all(&mut self, what: T) -> Vec<Piece<T>> {
        self.take_where(|_, region| region.what == what)
    }

    /// Detaches everything in a range; what reaches beyond it is cut. Answers what was in the range, piece by piece.
    ///
    /// # Errors
    /// `Invalid` for what is not whole pages or wraps.
    pub fn detach_range(&mut self, address: u64, size: u64) -> Result<Vec<Piece<T>>, Error> {
        let end = address.checked_add(size).ok_or(Error::Invalid)?;
        if !(address | size).is_multiple_of(PAGE) {
            return Err(Error::Invalid);
        }
        self.split(address);
        self.split(end);
        Ok(self.take_where(|at, _| at >= address && at < end))
    }

    /// Changes the rights of a range that lies in one attachment. Answers its pieces, with the new rights.
    ///
    /// # Errors
    /// `Invalid` for what is not whole pages, wraps, or would be writable and executable; `NotFound` if it is not in one
    /// attachment.
    pub fn protect(&mut self, address: u64, size: u64, rights: Rights) -> Result<Vec<Piece<T>>, Error> {
        let end = address.checked_add(size).ok_or(Error::Invalid)?;
        let wx = rights.contains(Rights::WRITE | Rights::EXEC) && !self.guest;
        if !(address | size).is_multiple_of(PAGE) || size == 0 || wx {
            return Err(Error::Invalid);
        }
        let head = self.at(address).ok_or(Error::NotFound)?.region.head;
        let covered: u64 = self
            .overlapping(address, end)
            .filter(|piece| piece.region.head == head)
            .map(|piece| (piece.address + piece.region.size).min(end) - piece.address.max(address))
            .sum();
        if covered != size {
            return Err(Error::NotFound);
        }
        self.split(address);
        self.split(end);
        for (_, region) in self.regions.range_mut(address..end) {
            region.rights = rights;
        }
        Ok(self.overlapping(address, end).collect())
    }

    /// What is at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Piece<T>> {
        let (&start, region) = self.regions.range(..=address).next_back()?;
        (address - start < region.size).then_some(Piece { address: start, region: *region })
    }

    /// What is attached in a range, cut to the range.
    #[must_use]
    pub fn clipped(&self, address: u64, size: u64) -> Vec<Piece<T>> {
        let end = address.saturating_add(size);
        let cut = |piece: Piece<T>| {
            let low = piece.address.max(address);
            let high = (piece.address + piece.region.size).min(end);
            let offset = piece.region.offset + (low - piece.address);
            Piece { address: low, region: Region { size: high - low, offset, ..piece.region } }
        };
        self.overlapping(address, end).map(cut).collect()
    }

    /// Whether the range lies in one reservation and nothing is attached there.
    #[must_use]
    pub fn is_kept_free(&self, address: u64, size: u64) -> bool {
        let Some(end) = address.checked_add(size) else { return false };
        let reserved = self.reserved.range(..=address).next_back().is_some_and(|(start, length)| start + length >= end);
        reserved && overlap(&self.regions, |region| region.size, address, size).is_none()
    }

    /// Everything that is attached.
    pub fn iter(&self) -> impl Iterator<Item = Piece<T>> + '_ {
        self.regions.iter().map(|(&address, region)| Piece { address, region: *region })
    }

    /// Number of pieces and reservations: what the bookkeeping costs.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.regions.len() + self.reserved.len()) as u64
    }

    fn overlapping(&self, address: u64, end: u64) -> impl Iterator<Item = Piece<T>> + '_ {
        self.regions
            .range(..end)
            .rev()
            .take_while(move |(start, region)| **start + region.size > address)
            .map(|(&address, region)| Piece { address, region: *region })
    }

    /// Makes a piece that contains an address two that meet there.
    fn split(&mut self, address: u64) {
        let Some(piece) = self.at(address).filter(|piece| piece.address < address) else { return };
        let done = address - piece.address;
        let (mut low, mut high) = (piece.region, piece.region);
        low.size = done;
        high.size -= done;
        high.offset += done;
        self.regions.insert(piece.address, low);
        self.regions.insert(address, high);
    }

    fn take_where(&mut self, wanted: impl Fn(u64, &Region<T>) -> bool) -> Vec<Piece<T>> {
        let found: Vec<_> = self.iter().filter(|piece| wanted(piece.address, &piece.region)).collect();
        for piece in &found {
            self.regions.remove(&piece.address);
        }
        found
    }
}

/// End of an entry that overlaps the range.
fn overlap<V>(map: &BTreeMap<u64, V>, size_of: impl Fn(&V) -> u64, address: u64, size: u64) -> Option<u64> {
    let end = address.checked_add(size)?;
    let (&start, entry) = map.range(..end).next_back()?;
    let stop = start + size_of(entry);
    (stop > address).then_some(stop)
}

#[cfg(test)]
mod tests {
    use super::Regions;
    use cloister_session::{Error, Rights};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    const BASE: u64 = 1 << 30;
    const END: u64 = 1 << 40;

    fn space() -> Regions<u32> {
        Regions::new(BASE, END)
    }

    #[test]
    fn anywhere_is_the_lowest_aligned_gap() {
        let mut space = space();
        assert_eq!(space.attach(None, 0x3000, 12, (1, 0, Rights::RW)), Ok(BASE));
        assert_eq!(space.attach(None, 0x40_0000, 21, (2, 0, Rights::RW)), Ok(BASE + 0x20_0000));
        assert_eq!(space.attach(None, 0x1000, 12, (3, 0, Rights::RW)), Ok(BASE + 0x3000));
        space.detach(BASE).expect("attached");
        assert_eq!(space.attach(None, 0x2000, 12, (4, 0, Rights::RW)), Ok(BASE));
    }

    #[test]
    fn conflicts_and_nonsense_are_refused() {
        let mut space = space();
        space.attach(Some(0x1000), 0x3000, 12, (1, 0, Rights::READ)).expect("free");
        for (address, size, error) in [
            (0x3000, 0x1000, Error::Conflict),
            (0x0, 0x1000, Error::Invalid),
            (0x1001, 0x1000, Error::Invalid),
            (0x8000, 0x1001, Error::Invalid),
            (0x8000, 0, Error::Invalid),
            (END - 0x1000, 0x2000, Error::Invalid),
            (u64::MAX - 0xfff, 0x1000, Error::Invalid),
            (u64::MAX - 0xfff, 0x2000, Error::Invalid),
        ] {
            assert_eq!(
                space.attach(Some(address), size, 12, (2, 0, Rights::READ)),
                Err(error),
                "{address:#x}+{size:#x}"
            );
        }
        assert_eq!(space.attach(None, 0x1000, 12, (2, 0, Rights::all())), Err(Error::Invalid));
        assert!(matches!(space.attach(None, END, 12, (2, 0, Rights::READ)), Err(Error::OutOfRam { .. })));
        assert_eq!(space.detach(0x2000), Err(Error::NotFound));
    }

    #[test]
    fn clipping_keeps_address_and_offset_together() {
        let mut space = space();
        space.attach(Some(0x10000), 0x4000, 12, (1, 0x1000, Rights::RW)).expect("free");
        space.attach(Some(0x20000), 0x4000, 12, (2, 0, Rights::RW)).expect("free");
        let mut pieces = space.clipped(0x12000, 0xf000);
        pieces.sort_by_key(|piece| piece.address);
        let seen: Vec<_> = pieces.iter().map(|p| (p.address, p.region.size, p.region.what, p.region.offset)).collect();
        assert_eq!(seen, [(0x12000, 0x2000, 1, 0x3000), (0x20000, 0x1000, 2, 0)]);
        assert_eq!(space.clipped(0x14000, 0xc000), []);
    }

    #[test]
    fn a_guest_has_page_0_and_its_own_rules_of_execution() {
        let mut guest: Regions<u32> = Regions::guest(END);
        assert_eq!(guest.attach(Some(0), 0x1000, 12, (1, 0, Rights::all())), Ok(0));
        assert_eq!(guest.detach_range(0, 0x1000).map(|pieces| pieces.len()), Ok(1));
    }

    #[test]
    fn reservations_keep_others_out() {
        let mut space = space();
        let kept = space.reserve(None, 0x10000).expect("room");
        assert_eq!(space.attach(None, 0x1000, 12, (1, 0, Rights::RW)), Ok(kept + 0x10000));
        assert!(space.is_kept_free(kept + 0x1000, 0xf000));
        assert!(!space.is_kept_free(kept + 0x1000, 0x10000));
        space.attach(Some(kept + 0x1000), 0x1000, 12, (2, 0, Rights::RW)).expect("asked for by address");
        assert!(!space.is_kept_free(kept, 0x10000));
        assert_eq!(space.reserve(Some(kept + 0x8000), 0x1000), Err(Error::Conflict));
        assert_eq!(space.detach(kept), Ok(Vec::new()));
    }

    #[test]
    fn protection_splits_and_detach_takes_all_pieces() {
        let mut space = space();
        space.attach(Some(0x10000), 0x8000, 12, (1, 0x1000, Rights::RW)).expect("free");
        let changed = space.protect(0x12000, 0x2000, Rights::RX).expect("inside");
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].address, changed[0].region.size, changed[0].region.offset), (0x12000, 0x2000, 0x3000));
        assert_eq!(space.protect(0x11000, 0x8000, Rights::READ), Err(Error::NotFound));
        assert_eq!(space.protect(0x12000, 0x1000, Rights::all()), Err(Error::Invalid));
        assert_eq!(space.count(), 3);
        let pieces = space.detach(0x10000).expect("attached");
        assert_eq!(pieces.iter().map(|piece| piece.region.size).sum::<u64>(), 0x8000);
        assert_eq!(space.iter().count(), 0);
    }

    #[test]
    fn a_range_is_cut_out() {
        let mut space = space();
        space.attach(Some(0x10000), 0x8000, 12, (1, 0, Rights::RW)).expect("free");
        let gone = space.detach_range(0x12000, 0x1000).expect("whole pages");
        assert_eq!((gone.len(), gone[0].address, gone[0].region.size), (1, 0x12000, 0x1000));
        assert!(space.at(0x12000).is_none());
        assert_eq!(space.at(0x13000).map(|piece| piece.region.offset), Some(0x3000));
    }

    proptest! {
        #[test]
        fn regions_never_overlap(
            steps in prop::collection::vec((any::<bool>(), 0_u64..64, 1_u64..32, 12_u32..16, 0_u8..5), 1..120),
        ) {
            let mut space: Regions<u32> = Regions::new(0x1000, 0x100_0000);
            for (fixed, page, pages, align, what) in steps {
                let (address, size) = (page * 4096, pages * 4096);
                match what {
                    0 => { let _ = space.detach(address); }
                    1 => { let _ = space.detach_range(address, size); }
                    2 => { let _ = space.protect(address, size, Rights::READ); }
                    3 => { let _ = space.reserve(fixed.then_some(address), size); }
                    _ => {
                        let at = space.attach(fixed.then_some(address), size, align, (1, 0, Rights::RW));
                        if let (Ok(at), false) = (at, fixed) {
                            prop_assert!(at.is_multiple_of(1 << align));
                        }
                    }
                }
                let all: Vec<_> = space.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].address + pair[0].region.size <= pair[1].address));
                prop_assert!(all.iter().all(|piece| piece.region.size > 0));
                prop_assert_eq!(all.iter().filter(|piece| piece.address == 0).count(), 0);
            }
        }
    }
}
