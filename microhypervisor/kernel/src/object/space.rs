// SPDX-License-Identifier: MIT OR Apache-2.0
//! Spaces: what capabilities, memory and ports are delegated from and to.
//!
//! An object space is a table of capabilities, memory spaces are page tables, the port space of a component is a bitmap; all of them are
//! in `mechanism`, and here is what they mean to the kernel. The machine's own memory and ports are spaces too, of which only the root
//! task has capabilities and which can only be taken from.
//!
//! The tables of a space are paid by the space's payer. Look-ups of capabilities take no lock; page tables and bitmaps have one each.

use super::page::Page;
use super::{Header, Object, Pd, Ref, Work, cast, status};
use crate::arch::iommu;
use crate::arch::paging::{self, Guest, Host};
use crate::memory::{self, physical};
use cloister_abi::cap::{Access, Kind, Perms, SELECTORS, Selector};
use cloister_abi::status::Status;
use cloister_mechanism::bitmap::Bitmap;
use cloister_mechanism::capability::{self, Capability, Refused, Table};
use cloister_mechanism::radix::{Freed, Leaf, MapError, PageTable, TableFrames};
use cloister_mechanism::{Exhausted, Frames};
use core::ops::RangeInclusive;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;

const _: () = assert!(SELECTORS == capability::SELECTORS && Perms::ALL.bits() < 32);

/// What a space is made of.
pub(crate) enum Content {
    /// Capabilities.
    Objects(Table<Header>),
    /// Memory of a component.
    Host(PageTable<Host>),
    /// Memory of a guest.
    Guest(PageTable<Guest>),
    /// What devices reach.
    Dma(iommu::Tables),
    /// Ports of a component.
    Ports(Mutex<Bitmap>),
    /// All physical memory that is not the kernel's ([`crate::memory::is_own`]).
    MachineMemory,
    /// All ports that are not the kernel's.
    MachinePorts,
}

/// Does something with the page tables of a space, whatever their format; `None` if it has none.
macro_rules! tables {
    ($space:expr, $tables:ident => $what:expr) => {
        match &$space.content {
            Content::Host($tables) => Some($what),
            Content::Guest($tables) => Some($what),
            Content::Dma($tables) => Some($what),
            _ => None,
        }
    };
}

/// A space.
#[repr(C, align(64))]
pub(crate) struct Space {
    header: Header,
    /// Page tables are changed and looked at under it.
    lock: Mutex<()>,
    /// Frame of the first level, if there is one.
    _root: Option<Page>,
    pub(crate) content: Content,
    /// Guest: counts how often translations were removed, so that each VCPU knows whether it has seen all.
    pub(crate) generation: AtomicU64,
}

const _: () = assert!(size_of::<Space>() <= 128);

/// On the account of its payer.
impl Frames for Space {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        self.header.payer().ok_or(Exhausted::Budget)?.take()
    }

    unsafe fn give(&self, frame: NonNull<u8>) {
        if let Some(payer) = self.header.payer() {
            // SAFETY: the caller vouches for the frame.
            unsafe { payer.give(frame) };
        }
    }
}

impl TableFrames for Space {
    fn physical(&self, frame: NonNull<u8>) -> u64 {
        physical(frame)
    }

    fn frame(&self, physical: u64) -> NonNull<u8> {
        memory::BootFrames.frame(physical)
    }
}

fn map_status(why: MapError) -> Status {
    match why {
        MapError::Exhausted(why) => status(why),
        MapError::Occupied => Status::Busy,
        MapError::Range => Status::BadParameter,
    }
}

/// Why a capability was not put in, as a hypercall answers it.
pub(crate) fn refused_status(why: Refused) -> Status {
    match why {
        Refused::Exhausted(why) => status(why),
        Refused::Closed => Status::BadCapability,
        Refused::Range => Status::BadParameter,
    }
}

/// Lets the reference go of a capability for which there is no place.
#[cold]
fn no_place(header: &Header) -> Result<(), Status> {
    header.release();
    Err(Status::BadCapability)
}

/// The object of a capability, if it is of that type, alive, and these permissions are there.
#[inline]
pub(crate) fn object<'a, T: Object>(found: &Capability<'a, Header>, perms: Perms) -> Option<&'a T> {
    let header = found.target();
    let good = header.kind() == T::KIND as u8 && found.allows(perms.bits());
    // SAFETY: the kind tells the type.
    good.then(|| unsafe { cast::<T>(header) })
}

impl Space {
    /// A space of that content, in that root frame if it needs one. `payer` pays.
    ///
    /// # Errors
    /// Memory could not be had.
    pub(crate) fn create(payer: &Pd, root: Option<Page>, content: Content) -> Result<Ref<Self>, Status> {
        let (header, lock, generation) = (Header::new(Kind::Space), Mutex::new(()), AtomicU64::new(1));
        Ref::create(payer, Self { header, lock, _root: root, content, generation })
    }

    /// A space made of a root frame of zeros. `payer` pays.
    ///
    /// # Errors
    /// Memory could not be had.
    pub(crate) fn with_root(payer: &Pd, content: impl FnOnce(NonNull<u8>) -> Content) -> Result<Ref<Self>, Status> {
        let root = Page::zeroed(payer)?;
        let content = content(root.frame());
        Self::create(payer, Some(root), content)
    }

    /// Physical address of the page-table root of a host or guest space.
    #[inline]
    pub(crate) fn root(&self) -> u64 {
        tables!(self, tables => physical(tables.root())).unwrap_or(0)
    }

    /// Whether it is one of the spaces that a PD has from its creation to its end, or the machine's.
    pub(crate) const fn belongs_to_pd(&self) -> bool {
        !matches!(self.content, Content::Guest(_) | Content::Dma(_))
    }

    /// Destruction in one go, of what is left: capabilities may lead, through a portal and its EC, to the space itself, which would keep
    /// all of that for ever; and devices reach nothing any more.
    pub(crate) fn kill(&self) {
        match &self.content {
            Content::Objects(table) => while table.empty(&mut Work::piece()) {},
            Content::Dma(tables) => iommu::remove_all(tables),
            _ => {}
        }
    }

    /// Does a piece of the work of emptying it: drops capabilities, or takes tables out with all that is in them. Answers whether there
    /// may be more.
    pub(crate) fn strip(&self, work: &mut Work) -> bool {
        match &self.content {
            // The frames stay, since threads of others may be looking.
            Content::Objects(table) => return table.empty(work),
            Content::Dma(tables) => iommu::remove_all(tables),
            _ => {}
        }
        let guard = self.lock.lock();
        let mut freed = Freed::default();
        let more = tables!(self, tables => tables.strip(self, work, &mut freed));
        drop(guard);
        if more.is_some() {
            self.forget_translations(freed, None);
        }
        more.unwrap_or(false)
    }

    /// Does a piece of the work of emptying it, when grace is over. Answers whether there may be more.
    ///
    /// # Safety
    /// Nobody refers to it, or ever will.
    pub(crate) unsafe fn take_apart(&self, work: &mut Work) -> bool {
        match &self.content {
            // SAFETY: the caller vouches for it; the frames are the space's.
            Content::Objects(table) => unsafe { table.take_apart(self, work) },
            Content::Ports(bitmap) => {
                self.forget_ports();
                // SAFETY: as above, and no core has it loaded.
                unsafe { bitmap.lock().destroy(self) };
                false
            }
            _ => self.strip(work),
        }
    }

    // ---- capabilities

    /// The table of an object space.
    pub(crate) fn table(&self) -> Result<&Table<Header>, Status> {
        match &self.content {
            Content::Objects(table) => Ok(table),
            _ => Err(Status::BadCapability),
        }
    }

    /// Makes sure that selectors from `first` to `last`, which are in two frames at most, have places: all of them or none.
    pub(crate) fn prepare(&self, first: Selector, last: Selector) -> Result<(), Status> {
        self.table()?.prepare(self, first.into(), last.into()).map_err(refused_status)
    }

    /// Puts a capability at a selector, which takes over a reference that was acquired for it. What was there is dropped.
    ///
    /// # Errors
    /// There is no room, or the space is being destroyed; the reference is released.
    #[inline]
    pub(crate) fn insert(&self, selector: Selector, header: &Header, perms: Perms) -> Result<(), Status> {
        let Content::Objects(table) = &self.content else { return no_place(header) };
        table.insert(self, selector.into(), header, perms.bits()).map_err(refused_status)
    }

    // ---- memory

    /// What is mapped at a page address, with what may be done there. The space's lock must be held.
    fn page(&self, address: u64) -> Option<Leaf> {
        tables!(self, tables => tables.lookup(self, address)).flatten()
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
        let mapped = tables!(self, tables => tables.map(self, virt, order, page));
        mapped.ok_or(Status::BadCapability)?.map_err(map_status)
    }

    /// Unmaps a range.
    pub(crate) fn unmap(&self, virt: u64, order: u32) -> Result<(), Status> {
        self.unmap_if(virt, order, |_| true)
    }

    /// Unmaps a range, if what is mapped at its start is as it should be.
    fn unmap_if(&self, virt: u64, order: u32, wanted: impl Fn(Option<Leaf>) -> bool) -> Result<(), Status> {
        let guard = self.lock.lock();
        if !wanted(self.page(virt)) {
            return Ok(());
        }
        let mut freed = Freed::default();
        let removed = tables!(self, tables => tables.unmap(self, virt, order, &mut freed));
        let removed = removed.ok_or(Status::BadCapability)?.map_err(map_status)?;
        drop(guard);
        if removed {
            self.forget_translations(freed, Some((virt, order)));
        }
        Ok(())
    }

    /// A range was unmapped, or everything: nobody uses it any more, nor the tables that went with it. No lock may be held, since this
    /// waits.
    fn forget_translations(&self, mut freed: Freed, range: Option<(u64, u32)>) {
        if let Content::Dma(tables) = &self.content {
            tables.flush(range);
        } else {
            self.generation.fetch_add(1, Ordering::SeqCst);
            let root = self.root();
            crate::remote::flush(|core| core.uses(root));
        }
        // SAFETY: they came from the payer; who looks into the space holds its lock, and processors and devices have forgotten it.
        unsafe { freed.give_back(self) };
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
            Content::Ports(bitmap) => bitmap.lock().frames(),
            _ => None,
        }
    }

    /// The bitmap has changed, or goes: no core uses what it has loaded of it.
    fn forget_ports(&self) {
        crate::remote::flush(|core| core.uses_ports(self));
    }

    /// Allows or forbids ports.
    pub(crate) fn set_ports(&self, ports: RangeInclusive<u16>, allowed: bool) -> Result<(), Status> {
        let Content::Ports(bitmap) = &self.content else { return Err(Status::BadCapability) };
        bitmap.lock().set(self, ports, allowed).map_err(status)?;
        self.forget_ports();
        Ok(())
    }
}
