// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables by examples, and the frames that tests of this crate use.

pub(super) mod model;

use super::{Format, Freed, MapError, PageTable, TableFrames};
use crate::work::Work;
use crate::{Exhausted, FRAME, Frames};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

/// Frames of the host's heap, limited, with a count of what is in use.
pub(crate) struct Heap {
    free: RefCell<Vec<NonNull<u8>>>,
    used: Cell<usize>,
    limit: Cell<usize>,
}

impl Heap {
    pub(crate) fn new(limit: usize) -> Self {
        Self { free: RefCell::new(Vec::new()), used: Cell::new(0), limit: Cell::new(limit) }
    }
    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }
}

const LAYOUT: Layout = Layout::new::<Page>();
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "only its layout counts")] [u8; FRAME]);

impl Drop for Heap {
    fn drop(&mut self) {
        for frame in self.free.borrow().iter() {
            // SAFETY: allocated in `take` with this layout.
            unsafe { dealloc(frame.as_ptr(), LAYOUT) };
        }
    }
}

impl Frames for Heap {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        if self.used.get() == self.limit.get() {
            return Err(Exhausted::Budget);
        }
        self.used.set(self.used.get() + 1);
        // SAFETY: the layout is not empty.
        Ok(self.free.borrow_mut().pop().unwrap_or_else(|| NonNull::new(unsafe { alloc(LAYOUT) }).expect("memory")))
    }
    unsafe fn give(&self, frame: NonNull<u8>) {
        self.used.set(self.used.get() - 1);
        self.free.borrow_mut().push(frame);
    }
}

impl TableFrames for Heap {
    fn physical(&self, frame: NonNull<u8>) -> u64 {
        frame.as_ptr().expose_provenance() as u64
    }
    fn frame(&self, physical: u64) -> NonNull<u8> {
        let address = usize::try_from(physical).expect("64 bit");
        NonNull::new(core::ptr::with_exposed_provenance_mut(address)).expect("not null")
    }
}

/// Unmaps, and gives back what that frees.
fn unmap(table: &PageTable<Host>, heap: &Heap, virt: u64, order: u32) -> Result<bool, MapError> {
    let mut freed = Freed::default();
    let result = table.unmap(heap, virt, order, &mut freed);
    // SAFETY: nobody else walks.
    unsafe { freed.give_back(heap) };
    result
}

/// Takes out, and gives back, all tables but the root.
fn destroy<F: Format>(table: &PageTable<F>, frames: &impl TableFrames) {
    let mut freed = Freed::default();
    while table.strip(frames, &mut Work::piece(), &mut freed) {}
    // SAFETY: nobody else walks.
    unsafe { freed.give_back(frames) };
}

/// Entries as x86 has them.
pub(super) struct Host;
impl Format for Host {
    const LEVELS: u32 = 4;
    const PRESENT: u64 = 1;
    const LARGE: u64 = 1 << 7;
    const TABLE: u64 = 7;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 256;
}

fn table(heap: &Heap) -> PageTable<Host> {
    // SAFETY: the frame is the table's to the end of the test.
    unsafe { PageTable::new(heap.take_zeroed().expect("a frame")) }
}

fn linear(base: u64) -> impl Fn(u64) -> Option<(u64, u64)> {
    move |offset| Some((base + offset, 7))
}

#[test]
fn maps_looks_up_and_unmaps_each_page_size() {
    for (order, tables) in [(0, 3), (3, 3), (9, 2), (11, 2), (18, 1), (20, 1)] {
        let heap = Heap::new(100);
        let table = table(&heap);
        let (virt, phys) = (1 << 40, 1 << 34);
        assert_eq!(table.map(&heap, virt, order, linear(phys)), Ok(()));
        assert_eq!(heap.used(), 1 + tables, "order {order}");
        let last = (1u64 << (order + 12)) - 4096;
        let leaf = table.lookup(&heap, virt + last).expect("mapped");
        assert_eq!((leaf.address, leaf.bits, leaf.level), (phys + last, 7, order / 9));
        assert!(table.lookup(&heap, virt + last + 4096).is_none());
        if order <= 18 {
            assert_eq!(unmap(&table, &heap, virt, order), Ok(true));
            assert_eq!(unmap(&table, &heap, virt, order), Ok(false));
        } else {
            destroy(&table, &heap);
        }
        assert_eq!(heap.used(), 1);
    }
}

#[test]
fn occupied_ranges_stay_as_they_are() {
    let heap = Heap::new(100);
    let table = table(&heap);
    assert_eq!(table.map(&heap, 0x20_0000, 9, linear(0x4000_0000)), Ok(()));
    let used = heap.used();
    assert_eq!(table.map(&heap, 0x20_1000, 0, linear(0)), Err(MapError::Occupied));
    assert_eq!(table.map(&heap, 0x20_0000, 9, linear(0)), Err(MapError::Occupied));
    assert_eq!(table.map(&heap, 0, 10, linear(0)), Err(MapError::Occupied));
    assert_eq!(unmap(&table, &heap, 0x20_1000, 0), Err(MapError::Occupied));
    assert_eq!(heap.used(), used);
    assert_eq!(table.lookup(&heap, 0x20_1000).map(|l| l.address), Some(0x4000_1000));
}

#[test]
fn bad_ranges_are_refused() {
    let heap = Heap::new(100);
    let table = table(&heap);
    for (virt, order) in [(0x1000, 1), (1 << 47, 0), (u64::MAX - 4095, 0), (0, 27), (0, 64 - 12), (0x1000, 9)] {
        assert_eq!(table.map(&heap, virt, order, linear(0)), Err(MapError::Range), "{virt:#x} {order}");
    }
    assert_eq!(table.map(&heap, 0, 2, |offset| (offset < 0x2000).then_some((offset, 7))), Err(MapError::Range));
    assert_eq!(heap.used(), 1);
}

#[test]
fn failure_of_each_allocation_rolls_back() {
    for limit in 1..4 {
        let heap = Heap::new(limit);
        let table = table(&heap);
        let full = table.map(&heap, 0x1234_5000, 0, linear(0x1000));
        assert_eq!(full, Err(MapError::Exhausted(Exhausted::Budget)));
        assert_eq!(heap.used(), 1);
    }
}

#[test]
fn strips_in_pieces() {
    let heap = Heap::new(2000);
    let table = table(&heap);
    for index in 0..100u64 {
        assert_eq!(table.map(&heap, index << 21, 0, linear(0x1000)), Ok(()));
        assert_eq!(table.map(&heap, 1 << 40 | index << 30, 9, linear(0)), Ok(()));
    }
    let mut before = heap.used();
    assert_eq!(before, 1 + 2 + 100 + 1 + 100);
    let strip = || {
        let mut freed = Freed::default();
        let more = table.strip(&heap, &mut Work::of(30 * Work::TABLE), &mut freed);
        // SAFETY: nobody else walks.
        unsafe { freed.give_back(&heap) };
        more
    };
    while strip() {
        assert_eq!(before - heap.used(), 30);
        before = heap.used();
    }
    assert_eq!(heap.used(), 1);
    assert!(table.lookup(&heap, 0).is_none() && table.lookup(&heap, 1 << 40).is_none());
    assert_eq!(table.map(&heap, 0, 0, linear(0x1000)), Ok(()));
}

#[test]
fn unmapping_a_large_range_takes_the_tables_below() {
    let heap = Heap::new(2000);
    let table = table(&heap);
    for page in 0..2048u64 {
        assert_eq!(table.map(&heap, page << 12, 0, linear(page << 12)), Ok(()));
    }
    assert_eq!(heap.used(), 1 + 2 + 4);
    assert_eq!(unmap(&table, &heap, 0, 10), Ok(true));
    assert!(table.lookup(&heap, 0x3f_f000).is_none());
    assert!(table.lookup(&heap, 0x40_0000).is_some());
    assert_eq!(unmap(&table, &heap, 0, 18), Ok(true));
    assert_eq!(heap.used(), 1);
}
