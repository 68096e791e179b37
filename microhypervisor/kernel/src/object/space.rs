// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spaces: what capabilities, memory and ports are delegated from and to.
//!
//! An object space is a two-level table of capabilities, each one word: the object's address with the permissions in its low
//! bits. Memory spaces are page tables. The port space of a component is a bitmap. The machine's own memory and ports are spaces
//! too, of which only the root task has capabilities and which can only be taken from.
//!
//! The tables of a space are paid by the space's payer. Look-ups take no lock; changes take the space's.

use super::{Header, Object, Pd, Work, status};
use crate::arch::iommu;
use crate::arch::paging::{self, Guest, Host};
use crate::memory::physical;
use crate::width::{index, low8};
use cloister_abi::cap::{Access, Kind, Perms, SELECTORS, Selector};
use cloister_abi::status::Status;
use cloister_mechanism::radix::{Freed, Leaf, MapError, PageTable};
use cloister_mechanism::{FRAME, Frames};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spin::Mutex;

/// Capabilities or pointers in one frame.
const SLOTS: usize = FRAME / 8;
/// Selectors whose capabilities are in one frame.
const PER_TABLE: Selector = 512;
const _: () = assert!(PER_TABLE as usize == SLOTS);
const PERMS: u64 = 0x1f;

pub(crate) type Slots = [AtomicU64; SLOTS];

/// Frames of a bitmap of ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap([NonNull<u8>; 2]);
// SAFETY: the frames are the space's, and are read and written byte by byte.
unsafe impl Send for Bitmap {}

/// What a space is made of.
#[derive(Debug)]
pub(crate) enum Content {
    /// Capabilities.
    Objects(NonNull<Slots>),
    /// Memory of a component.
    Host(PageTable<Host>),
    /// Memory of a guest.
    Guest(PageTable<Guest>),
    /// What devices reach.
    Dma(iommu::Tables),
    /// Ports of a component: two frames of bits, 0 for allowed, made when the first port comes.
    Ports(Mutex<Option<Bitmap>>),
    /// All physical memory that is not the kernel's ([`crate::memory::is_own`]).
    MachineMemory,
    /// All ports that are not the kernel's.
    MachinePorts,
}

/// A space.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Space {
    header: Header,
    lock: Mutex<()>,
    pub(crate) content: Content,
    /// Capabilities: 0, or one more than the selector from which on they have yet to be dropped, when that has begun.
    cursor: AtomicU32,
    /// Guest: counts how often translations were removed, so that each VCPU knows whether it has seen all.
    pub(crate) generation: AtomicU64,
}

// SAFETY: `repr(C)`, header first.
unsafe impl Object for Space {
    const KIND: Kind = Kind::Space;
}

const _: () = assert!(size_of::<Space>() <= 128);

fn map_status(why: MapError) -> Status {
    match why {
        MapError::Exhausted(why) => status(why),
        MapError::Occupied => Status::Busy,
        MapError::Range => Status::BadParameter,
    }
}

impl Space {
    /// A space of that content; its root frames are the space's from now on.
    pub(crate) const fn new(content: Content) -> Self {
        Self {
            header: Header::new(Kind::Space),
            lock: Mutex::new(()),
            content,
            cursor: AtomicU32::new(0),
            generation: AtomicU64::new(1),
        }
    }

    /// Physical address of the page-table root of a host or guest space.
    #[inline]
    pub(crate) fn root(&self) -> u64 {
        match &self.content {
            Content::Host(table) => physical(table.root()),
            Content::Guest(table) => physical(table.root()),
            _ => 0,
        }
    }

    /// Whether it is one of the spaces that a PD has from its creation to its end, or the machine's.
    pub(crate) const fn belongs_to_pd(&self) -> bool {
        !matches!(self.content, Content::Guest(_) | Content::Dma(_))
    }

    // ---- capabilities

    /// First level of an object space.
    pub(crate) fn object_root(&self) -> Option<NonNull<Slots>> {
        match &self.content {
            Content::Objects(root) => Some(*root),
            _ => None,
        }
    }

    #[inline]
    fn slot(&self, sel: Selector) -> Option<&AtomicU64> {
        let Content::Objects(root) = &self.content else { return None };
        if sel >= SELECTORS {
            return None;
        }
        slot_in(*root, sel)
    }

    /// The object of that type at a selector, alive and with these permissions.
    #[inline]
    pub(crate) fn lookup<T: Object>(&self, sel: Selector, perms: Perms) -> Result<&T, Status> {
        match &self.content {
            Content::Objects(root) if sel < SELECTORS => lookup_in(*root, sel, perms).ok_or(Status::BadCapability),
            _ => Err(Status::BadCapability),
        }
    }

    /// The capability at a selector, whatever it is, if its object is alive.
    pub(crate) fn capability(&self, sel: Selector) -> Option<(&Header, Perms)> {
        let cap = self.slot(sel)?.load(Ordering::Acquire);
        let header: *const Header = core::ptr::with_exposed_provenance(index(cap & !PERMS));
        // SAFETY: a capability holds a reference to its object.
        let header = unsafe { header.as_ref() }?;
        header.is_alive().then(|| (header, Perms::from_bits_truncate(low8(cap & PERMS))))
    }

    /// Makes sure that selectors from `first` to `last`, which are in two tables at most, have places: all of them or none.
    pub(crate) fn prepare(&self, first: Selector, last: Selector) -> Result<(), Status> {
        let Content::Objects(root) = &self.content else { return Err(Status::BadCapability) };
        if last >= SELECTORS {
            return Err(Status::BadParameter);
        }
        if self.slot(first).is_some() && self.slot(last).is_some() {
            return Ok(());
        }
        let payer = self.header.payer().ok_or(Status::BadCapability)?;
        let _guard = self.lock.lock();
        // SAFETY: the root frame is the space's for its life.
        let tables = unsafe { root.as_ref() };
        let (low, high) = (first as usize / SLOTS, last as usize / SLOTS);
        let make = |index: usize| {
            let missing = tables[index].load(Ordering::Relaxed) == 0;
            missing.then(|| payer.take_zeroed()).transpose().map_err(status)
        };
        let lower = make(low)?;
        let upper = if high == low { Ok(None) } else { make(high) };
        let upper = upper.inspect_err(|_| {
            // SAFETY: taken above, and nobody knows it.
            lower.into_iter().for_each(|frame| unsafe { payer.give(frame) });
        })?;
        // What has its place once keeps it, since look-ups take no lock: so this comes when nothing can fail any more.
        for (index, frame) in [(low, lower), (high, upper)] {
            if let Some(frame) = frame {
                tables[index].store(frame.as_ptr().expose_provenance() as u64, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Puts a capability at a selector, which takes over a reference that was acquired for it. What was there is dropped.
    ///
    /// # Errors
    /// There is no room, or the space is being destroyed; the reference is released.
    #[inline]
    pub(crate) fn insert(&self, sel: Selector, header: &Header, perms: Perms) -> Result<(), Status> {
        let slot = match self.slot(sel) {
            Some(slot) => slot,
            None => self.make_slot(sel).inspect_err(|_| header.release())?,
        };
        let cap = core::ptr::from_ref(header).expose_provenance() as u64 | u64::from(perms.bits());
        release(slot.swap(cap, Ordering::SeqCst));
        // Looked at only now: either this sees that the space is being emptied, or who empties it sees the capability.
        if self.cursor.load(Ordering::SeqCst) != 0 {
            return Self::refuse(slot);
        }
        Ok(())
    }

    /// Takes out what came in too late.
    #[cold]
    fn refuse(slot: &AtomicU64) -> Result<(), Status> {
        release(slot.swap(0, Ordering::AcqRel));
        Err(Status::BadCapability)
    }

    #[cold]
    fn make_slot(&self, sel: Selector) -> Result<&AtomicU64, Status> {
        self.prepare(sel, sel)?;
        self.slot(sel).ok_or(Status::BadParameter)
    }

    /// Removes the capability at a selector.
    pub(crate) fn remove(&self, sel: Selector) {
        if let Some(slot) = self.slot(sel) {
            release(slot.swap(0, Ordering::AcqRel));
        }
    }

    /// Drops all capabilities of an object space that is destroyed. They may lead, through a portal and its EC, to the space
    /// itself, which would keep all of that for ever.
    pub(crate) fn kill(&self) {
        while self.drop_capabilities(&mut Work::piece()) {}
        self.remove_devices();
    }

    /// Takes all devices out of a DMA space.
    fn remove_devices(&self) {
        if let Content::Dma(tables) = &self.content {
            iommu::remove_all(tables);
        }
    }

    /// Drops capabilities, from where the last piece ended. Answers whether there may be more.
    fn drop_capabilities(&self, work: &mut Work) -> bool {
        let Content::Objects(root) = &self.content else { return false };
        // Nothing comes in from now on.
        let mut next = self.cursor.fetch_max(1, Ordering::SeqCst).max(1) - 1;
        while next < SELECTORS && !work.is_done() {
            work.spend(Work::LOOK);
            let Some(slot) = slot_in(*root, next) else {
                next = next / PER_TABLE * PER_TABLE + PER_TABLE;
                continue;
            };
            if slot.load(Ordering::SeqCst) != 0 {
                work.spend(Work::OBJECT);
                release(slot.swap(0, Ordering::AcqRel));
            }
            next += 1;
        }
        // Others may be at it too: all below has been seen by whoever is farthest.
        self.cursor.fetch_max(next + 1, Ordering::SeqCst);
        next < SELECTORS
    }

    /// The tables of an object space.
    fn tables(&self) -> impl Iterator<Item = NonNull<Slots>> {
        let root = match &self.content {
            Content::Objects(root) => Some(*root),
            _ => None,
        };
        root.into_iter().flat_map(|root| {
            // SAFETY: the root frame is the space's for its life.
            unsafe { root.as_ref() }.iter().filter_map(|entry| {
                let address = index(entry.load(Ordering::Acquire));
                NonNull::new(core::ptr::with_exposed_provenance_mut::<Slots>(address))
            })
        })
    }

    // ---- memory

    /// What is mapped at a page address, with what may be done there. The space's lock must be held.
    fn page(&self, address: u64) -> Option<Leaf> {
        let payer = self.header.payer()?;
        match &self.content {
            Content::Host(table) => table.lookup(payer, address),
            Content::Guest(table) => table.lookup(payer, address),
            Content::Dma(tables) => tables.lookup(payer, address),
            _ => None,
        }
    }

    /// Maps a range: `page` gives physical address and attribute bits by offset.
    pub(crate) fn map(&self, virt: u64, order: u32, page: impl Fn(u64) -> Option<(u64, u64)>) -> Result<(), Status> {
        let _guard = self.lock.lock();
        self.map_locked(virt, order, page)
    }

    /// Maps a range of what is mapped in another space: `page` gives physical address and attribute bits by offset and what is there.
    pub(crate) fn map_from(
        &self,
        src: &Self,
        (virt, from): (u64, u64),
        order: u32,
        page: impl Fn(Leaf) -> Option<(u64, u64)>,
    ) -> Result<(), Status> {
        // Two that copy from each other take the locks in the same order.
        let (first, second) =
            if core::ptr::from_ref(self) < core::ptr::from_ref(src) { (self, src) } else { (src, self) };
        let _first = first.lock.lock();
        let _second = (!core::ptr::eq(first, second)).then(|| second.lock.lock());
        self.map_locked(virt, order, |offset| page(src.page(from + offset)?))
    }

    fn map_locked(&self, virt: u64, order: u32, page: impl Fn(u64) -> Option<(u64, u64)>) -> Result<(), Status> {
        let payer = self.header.payer().ok_or(Status::BadCapability)?;
        match &self.content {
            Content::Host(table) => table.map(payer, virt, order, page).map_err(map_status),
            Content::Guest(table) => table.map(payer, virt, order, page).map_err(map_status),
            Content::Dma(tables) => tables.map(payer, virt, order, page).map_err(map_status),
            _ => Err(Status::BadCapability),
        }
    }

    /// Unmaps a range.
    pub(crate) fn unmap(&self, virt: u64, order: u32) -> Result<(), Status> {
        self.unmap_if(virt, order, |_| true)
    }

    /// Unmaps a range, if what is mapped at its start is as it should be.
    fn unmap_if(&self, virt: u64, order: u32, wanted: impl Fn(Option<Leaf>) -> bool) -> Result<(), Status> {
        let payer = self.header.payer().ok_or(Status::BadCapability)?;
        let guard = self.lock.lock();
        if !wanted(self.page(virt)) {
            return Ok(());
        }
        let mut freed = Freed::new();
        let removed = match &self.content {
            Content::Host(table) => table.unmap(payer, virt, order, &mut freed).map_err(map_status)?,
            Content::Guest(table) => table.unmap(payer, virt, order, &mut freed).map_err(map_status)?,
            Content::Dma(tables) => tables.unmap(payer, virt, order, &mut freed).map_err(map_status)?,
            _ => return Err(Status::BadCapability),
        };
        drop(guard);
        if removed {
            self.forget_translations(payer, freed, Some((virt, order)));
        }
        Ok(())
    }

    /// Does a piece of the work of emptying it: drops capabilities, or takes tables out with all that is in them. Answers whether there
    /// may be more.
    pub(crate) fn strip(&self, work: &mut Work) -> bool {
        let Some(payer) = self.header.payer() else { return false };
        if let Content::Objects(_) = &self.content {
            // The tables stay, since threads of others may be looking.
            return self.drop_capabilities(work);
        }
        let guard = self.lock.lock();
        let mut freed = Freed::new();
        let most = work.tables();
        let mut left = most;
        let more = match &self.content {
            Content::Host(table) => table.strip(payer, &mut left, &mut freed),
            Content::Guest(table) => table.strip(payer, &mut left, &mut freed),
            Content::Dma(tables) => {
                iommu::remove_all(tables);
                tables.strip(payer, &mut left, &mut freed)
            }
            _ => return false,
        };
        drop(guard);
        work.spend(Work::WALK + Work::TABLE * (most - left));
        self.forget_translations(payer, freed, None);
        more
    }

    /// A range was unmapped, or everything: nobody uses it any more, nor the tables that went with it. No lock may be held, since this
    /// waits.
    fn forget_translations(&self, payer: &Pd, mut freed: Freed, range: Option<(u64, u32)>) {
        if let Content::Dma(tables) = &self.content {
            tables.flush(range);
        } else {
            self.generation.fetch_add(1, Ordering::SeqCst);
            let root = self.root();
            crate::remote::flush(|core| core.uses(root));
        }
        // SAFETY: they came from the payer; who looks into the space holds its lock, and processors and devices have forgotten it.
        unsafe { freed.give_back(payer) };
    }

    /// Maps a frame of the kernel's that a component shares (UTCB, state page), readable and writable.
    pub(crate) fn map_frame(&self, virt: u64, frame: NonNull<u8>) -> Result<(), Status> {
        let bits = paging::attributes(Access::READ | Access::WRITE, false).ok_or(Status::BadParameter)?;
        if virt >= cloister_abi::USER_END {
            return Err(Status::BadParameter);
        }
        self.map(virt, 0, |_| Some((physical(frame), bits | paging::KERNEL_FRAME)))
    }

    /// Unmaps such a frame, if it is what is mapped there.
    pub(crate) fn unmap_frame(&self, virt: u64, frame: NonNull<u8>) {
        let wanted = |leaf: Option<Leaf>| leaf.is_some_and(|leaf| leaf.address == physical(frame));
        // It was mapped as a page of its own, so there is no other error than that the space has gone.
        let _ = self.unmap_if(virt, 0, wanted);
    }

    // ---- ports

    /// Bitmap of the ports, if there is one.
    pub(crate) fn port_bitmap(&self) -> Option<[NonNull<u8>; 2]> {
        match &self.content {
            Content::Ports(bitmap) => bitmap.lock().map(|Bitmap(frames)| frames),
            _ => None,
        }
    }

    /// The bitmap has changed, or goes: no core uses what it has loaded of it.
    pub(crate) fn forget_ports(&self) {
        crate::remote::flush(|core| core.uses_ports(self));
    }

    /// Allows or forbids a port.
    pub(crate) fn set_port(&self, port: u16, allowed: bool) -> Result<(), Status> {
        let Content::Ports(bitmap) = &self.content else { return Err(Status::BadCapability) };
        let payer = self.header.payer().ok_or(Status::BadCapability)?;
        let mut bitmap = bitmap.lock();
        let frames = match *bitmap {
            Some(Bitmap(frames)) => frames,
            None if !allowed => return Ok(()),
            None => {
                let low = payer.take().map_err(status)?;
                // SAFETY: taken just now and not used.
                let high = payer.take().inspect_err(|_| unsafe { payer.give(low) }).map_err(status)?;
                for frame in [low, high] {
                    // SAFETY: the frames are ours.
                    unsafe { frame.write_bytes(0xff, FRAME) };
                }
                *bitmap = Some(Bitmap([low, high]));
                [low, high]
            }
        };
        let bit = 1u8 << (port % 8);
        let offset = usize::from(port) / 8;
        // SAFETY: the offset is below two frames.
        let byte = unsafe { frames[offset / FRAME].add(offset % FRAME) };
        // SAFETY: as above.
        let old = unsafe { byte.read() };
        // SAFETY: as above.
        unsafe { byte.write(if allowed { old & !bit } else { old | bit }) };
        Ok(())
    }
}

#[inline]
fn slot_in<'a>(root: NonNull<Slots>, sel: Selector) -> Option<&'a AtomicU64> {
    // SAFETY: the root frame is the space's for its life.
    let entry = unsafe { root.as_ref() }[sel as usize / SLOTS].load(Ordering::Acquire);
    let table: *const Slots = core::ptr::with_exposed_provenance(index(entry));
    // SAFETY: an entry is null or the address of a frame that belongs to the space for its life.
    unsafe { table.as_ref() }.map(|slots| &slots[sel as usize % SLOTS])
}

/// The object of that type at a selector below [`SELECTORS`] of the object space with that root, alive and with these permissions.
#[inline]
pub(crate) fn lookup_in<'a, T: Object>(root: NonNull<Slots>, sel: Selector, perms: Perms) -> Option<&'a T> {
    let cap = slot_in(root, sel)?.load(Ordering::Acquire);
    let header: *const Header = core::ptr::with_exposed_provenance(index(cap & !PERMS));
    // SAFETY: a capability holds a reference to its object.
    match unsafe { header.as_ref() } {
        Some(header) if header.kind() == T::KIND as u8 && cap & u64::from(perms.bits()) == u64::from(perms.bits()) => {
            // SAFETY: the kind tells the type.
            Some(unsafe { super::cast::<T>(header) })
        }
        _ => None,
    }
}

#[inline]
fn release(cap: u64) {
    let header: *const Header = core::ptr::with_exposed_provenance(index(cap & !PERMS));
    // SAFETY: a capability holds a reference to its object.
    if let Some(header) = unsafe { header.as_ref() } {
        header.release();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Some(payer) = self.header.payer() else { return };
        match &self.content {
            Content::Objects(root) => {
                self.kill();
                for table in self.tables() {
                    // SAFETY: nobody refers to the space any more, so nobody refers to its frames.
                    unsafe { payer.give(table.cast()) };
                }
                // SAFETY: as above.
                unsafe { payer.give(root.cast()) };
            }
            Content::Host(table) => {
                // SAFETY: the root is not active: whoever ran in this space is gone.
                unsafe { table.clear(payer) };
                // SAFETY: as above.
                unsafe { payer.give(table.root()) };
            }
            Content::Guest(table) => {
                // SAFETY: as above.
                unsafe { table.clear(payer) };
                // SAFETY: as above.
                unsafe { payer.give(table.root()) };
            }
            Content::Dma(tables) => {
                // SAFETY: its devices were taken out when it was destroyed.
                unsafe { tables.clear(payer) };
                // SAFETY: as above.
                unsafe { payer.give(tables.root()) };
            }
            Content::Ports(bitmap) => {
                self.forget_ports();
                for frame in bitmap.lock().iter().flat_map(|Bitmap(frames)| *frames) {
                    // SAFETY: nobody refers to the frames any more.
                    unsafe { payer.give(frame) };
                }
            }
            Content::MachineMemory | Content::MachinePorts => {}
        }
    }
}
