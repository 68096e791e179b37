// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page tables against a map of pages, watched at every store.
//!
//! A processor may walk at any moment, and may go on from an entry that it read before the operation began (the architectures cache
//! upper entries). So after every store that an operation makes, walks from the root and from every entry that was seen before must
//! find for each address what was there before or what is there afterwards, in frames that were not given back.

use super::{Heap, Host};
use crate::radix::{Format, Freed, LEVEL_BITS, MapError, PageTable, TableFrames};
use crate::work::Work;
use crate::{Exhausted, FRAME, Frames};
use core::cell::RefCell;
use core::marker::PhantomData;
use core::ptr::NonNull;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

std::thread_local! {
    /// Called after every store to an entry.
    static HOOK: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// An entry was written.
pub(in crate::radix) fn written() {
    HOOK.with_borrow(|hook| hook.iter().for_each(|hook| hook()));
}

/// A page: where it is and how large, as its level.
type Page = (u64, u32);

/// What is mapped: by the first address of each page.
type Pages = BTreeMap<u64, Page>;

fn size(level: u32) -> u64 {
    1 << (12 + level * LEVEL_BITS)
}

/// Where an address is mapped to.
fn translate(pages: &Pages, virt: u64) -> Option<u64> {
    let (start, (physical, level)) = pages.range(..=virt).next_back()?;
    (virt < start + size(*level)).then(|| physical + (virt - start))
}

/// Frames, of which it is known which are in use.
struct Watched {
    heap: Heap,
    live: Rc<RefCell<BTreeSet<u64>>>,
}

impl Frames for Watched {
    fn take(&self) -> Result<NonNull<u8>, Exhausted> {
        let frame = self.heap.take()?;
        // What was in a frame before must not matter.
        // SAFETY: the frame is ours.
        unsafe { frame.write_bytes(0xff, FRAME) };
        self.live.borrow_mut().insert(self.physical(frame));
        Ok(frame)
    }
    unsafe fn give(&self, frame: NonNull<u8>) {
        assert!(self.live.borrow_mut().remove(&self.physical(frame)), "given twice");
        // SAFETY: the caller vouches for the frame.
        unsafe { self.heap.give(frame) };
        written();
    }
}

impl TableFrames for Watched {
    fn physical(&self, frame: NonNull<u8>) -> u64 {
        self.heap.physical(frame)
    }
    fn frame(&self, physical: u64) -> NonNull<u8> {
        self.heap.frame(physical)
    }
}

/// A processor that looks whenever it can.
struct Walker<F> {
    root: u64,
    live: Rc<RefCell<BTreeSet<u64>>>,
    samples: Vec<u64>,
    before: Pages,
    after: Pages,
    /// Upper entries that were seen before the operation: the table that each names, its level, and an address below it.
    cached: RefCell<BTreeSet<(u64, u32, u64)>>,
    format: PhantomData<F>,
}

impl<F: Format> Walker<F> {
    /// Goes on from a table of that level, as the processor does. Notes the tables on the way.
    fn walk(&self, mut table: u64, level: u32, virt: u64, seen: &mut impl FnMut(u64, u32)) -> Option<u64> {
        for level in (0..=level).rev() {
            assert!(self.live.borrow().contains(&table), "walks through a frame that was given back");
            seen(table, level);
            let index = virt >> (12 + level * LEVEL_BITS) & 511;
            let place: *const u64 = core::ptr::with_exposed_provenance(usize::try_from(table + index * 8).ok()?);
            // SAFETY: the table is a frame in use.
            let entry = unsafe { place.read_volatile() };
            if entry & F::PRESENT == 0 {
                return None;
            }
            if level == 0 || F::is_leaf(entry, level) {
                return Some((entry & F::ADDRESS) + (virt & (size(level) - 1)));
            }
            table = entry & F::ADDRESS;
        }
        None
    }

    /// Sees what there is, and keeps it.
    fn remember(&self) {
        for virt in &self.samples {
            let mut cached = self.cached.borrow_mut();
            let now = self.walk(self.root, F::LEVELS - 1, *virt, &mut |table, level| {
                cached.insert((table, level, *virt));
            });
            assert_eq!(now, translate(&self.before, *virt), "{virt:#x} before");
        }
    }

    /// Whether every walk finds the old or the new page.
    fn check(&self) {
        let good = |virt: u64, found: Option<u64>| {
            let (old, new) = (translate(&self.before, virt), translate(&self.after, virt));
            assert!(found == old || found == new, "{virt:#x} is at {found:x?}, was {old:x?}, will be {new:x?}");
        };
        for virt in &self.samples {
            good(*virt, self.walk(self.root, F::LEVELS - 1, *virt, &mut |_, _| {}));
        }
        for (table, level, virt) in self.cached.borrow().iter() {
            good(*virt, self.walk(*table, *level, *virt, &mut |_, _| {}));
        }
    }
}

/// A page table and what it should be.
struct World<F> {
    frames: Watched,
    table: PageTable<F>,
    pages: Pages,
}

impl<F: Format + 'static> World<F> {
    fn new() -> Self {
        let frames = Watched { heap: Heap::new(10_000), live: Rc::default() };
        let root = frames.take_zeroed().expect("a frame");
        // SAFETY: the frame is the table's to the end of the test.
        Self { table: unsafe { PageTable::new(root) }, frames, pages: Pages::new() }
    }

    /// Addresses at the edges of what is mapped and of a range.
    fn samples(&self, virt: u64, bytes: u64) -> Vec<u64> {
        let edges = [virt.wrapping_sub(4096), virt, virt + bytes / 2, virt + bytes - 4096, virt + bytes];
        let near = self.pages.range(virt.saturating_sub(1 << 30)..).take(8);
        let far = self.pages.iter().take(4);
        let inside = near.chain(far).flat_map(|(start, (_, level))| [*start, start + size(*level) - 4096]);
        edges.into_iter().chain(inside).filter(|virt| *virt < size(F::LEVELS).min(1 << 47)).collect()
    }

    /// Does something while a processor walks. Answers what it answers.
    fn watched<R>(&self, range: (u64, u64), after: &Pages, act: impl FnOnce(&mut Freed) -> R) -> R {
        let walker = Rc::new(Walker::<F> {
            root: self.frames.physical(self.table.root()),
            live: Rc::clone(&self.frames.live),
            samples: self.samples(range.0, range.1),
            before: self.pages.clone(),
            after: after.clone(),
            cached: RefCell::default(),
            format: PhantomData,
        });
        walker.remember();
        let hook = Rc::clone(&walker);
        HOOK.set(Some(Box::new(move || hook.check())));
        let mut freed = Freed::default();
        let answer = act(&mut freed);
        walker.check();
        // The caller flushes, and only then the frames go.
        walker.cached.borrow_mut().clear();
        // SAFETY: the walker has forgotten what it saw.
        unsafe { freed.give_back(&self.frames) };
        HOOK.set(None);
        answer
    }

    /// Number of tables that the pages need, the root included.
    fn tables(&self) -> usize {
        let above = |(start, (_, level)): (&u64, &Page)| {
            let start = *start;
            (*level..F::LEVELS - 1).map(move |level| (level, start / size(level + 1)))
        };
        1 + self.pages.iter().flat_map(above).collect::<BTreeSet<_>>().len()
    }

    /// Pages that lie in the range or around it.
    fn overlapping(&self, virt: u64, bytes: u64) -> Vec<u64> {
        let touches = |(start, (_, level)): &(&u64, &Page)| **start < virt + bytes && virt < **start + size(*level);
        self.pages.iter().filter(touches).map(|(start, _)| *start).collect()
    }

    fn map(&mut self, virt: u64, order: u32, physical: u64) {
        let (level, bytes) = (order / LEVEL_BITS, 4096u64 << order);
        let mut after = self.pages.clone();
        let free = self.overlapping(virt, bytes).is_empty();
        if free {
            let pages = (0..bytes / size(level)).map(|index| index * size(level));
            after.extend(pages.map(|offset| (virt + offset, (physical + offset, level))));
        }
        // With no memory, with some, until it is enough: a failure changes nothing.
        for more in 0.. {
            let used = self.frames.heap.used();
            self.frames.heap.set_limit(used + more);
            let will = if free { &after } else { &self.pages };
            let answer = self.watched((virt, bytes), will, |_| {
                self.table.map(&self.frames, virt, order, |offset| Some((physical + offset, 7)))
            });
            if answer != Err(MapError::Exhausted(Exhausted::Budget)) {
                assert_eq!(answer, if free { Ok(()) } else { Err(MapError::Occupied) });
                self.pages = after;
                break;
            }
            assert_eq!(self.frames.heap.used(), used, "a failure keeps no memory");
            let same = self.pages.clone();
            self.watched((virt, bytes), &same, |_| ());
        }
        self.sound();
    }

    fn unmap(&mut self, virt: u64, order: u32) {
        let bytes = 4096u64 << order;
        let within = self.overlapping(virt, bytes);
        // Part of a larger page, or of pages that belong to a table above the range's.
        let part = within.first().is_some_and(|start| self.pages[start].1 > order / LEVEL_BITS);
        let mut after = self.pages.clone();
        if !part {
            within.iter().for_each(|start| {
                after.remove(start);
            });
        }
        let answer = self.watched((virt, bytes), &after, |freed| self.table.unmap(&self.frames, virt, order, freed));
        assert_eq!(answer, if part { Err(MapError::Occupied) } else { Ok(!within.is_empty()) });
        self.pages = after;
        self.sound();
    }

    /// Strips all, so many tables at a time. Pages in the root's own tables stay, so there must be none.
    fn strip(&mut self, most: usize) {
        loop {
            let used = self.frames.heap.used();
            let mut work = Work::of(most * Work::TABLE);
            let more = self.watched((0, 4096), &Pages::new(), |freed| self.table.strip(&self.frames, &mut work, freed));
            assert!(used - self.frames.heap.used() <= most);
            if !more {
                break;
            }
            // What is gone is gone; the rest is as it was.
            let root = self.frames.physical(self.table.root());
            let (samples, live) = (Vec::new(), Rc::clone(&self.frames.live));
            let (before, after) = (Pages::new(), Pages::new());
            let (cached, format) = (RefCell::default(), PhantomData);
            let walker = Walker::<F> { root, live, samples, before, after, cached, format };
            self.pages.retain(|virt, _| walker.walk(root, F::LEVELS - 1, *virt, &mut |_, _| {}).is_some());
        }
        self.pages.clear();
        self.sound();
    }

    /// Look-ups find what is mapped, and there are as many tables as needed.
    fn sound(&self) {
        assert_eq!(self.frames.heap.used(), self.tables());
        for virt in self.samples(0, 4096) {
            let found = self.table.lookup(&self.frames, virt).map(|leaf| leaf.address + (virt & 4095));
            assert_eq!(found, translate(&self.pages, virt));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u32, u64),
    Unmap(u64, u32),
    Strip(usize),
}

/// Ranges that often meet: at the edges of tables of all levels.
fn ranges() -> impl Strategy<Value = (u64, u32)> {
    let index = |some: &'static [u64]| proptest::sample::select(some);
    let order = proptest::sample::select(&[0, 0, 0, 1, 3, 8, 9, 9, 10, 17, 18, 19][..]);
    (index(&[0, 1, 255]), index(&[0, 1, 511]), index(&[0, 1, 2, 511]), index(&[0, 1, 2, 8, 511]), order).prop_map(
        |(top, third, second, first, order)| {
            let page = ((top << 9 | third) << 9 | second) << 9 | first;
            (page >> order << order << 12, order)
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let map = (ranges(), any::<u16>())
        .prop_map(|((virt, order), at)| Step::Map(virt, order, (u64::from(at) << 12 << order) & ((1 << 46) - 1)));
    let unmap = ranges().prop_map(|(virt, order)| Step::Unmap(virt, order.min(18)));
    let strip = (1..5usize).prop_map(Step::Strip);
    proptest::collection::vec(prop_oneof![10 => map, 5 => unmap, 1 => strip], 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn walks_find_old_or_new_at_every_store(steps in steps()) {
        play::<Host>(steps);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn so_do_walks_of_devices(steps in steps()) {
        play::<Named>(steps.clone());
        play::<Three>(steps);
    }
}

/// Entries that name the level of the table that they point to, as AMD-Vi has them.
struct Named;
impl Format for Named {
    const LEVELS: u32 = 4;
    const PRESENT: u64 = 1;
    const LARGE: u64 = 0;
    const TABLE: u64 = 1;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;
    fn table(level: u32) -> u64 {
        1 | u64::from(level) << 9
    }
    fn is_leaf(entry: u64, _: u32) -> bool {
        entry >> 9 & 7 == 0
    }
}

/// Three levels, and two bits that make an entry present, as VT-d has them.
struct Three;
impl Format for Three {
    const LEVELS: u32 = 3;
    const PRESENT: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const TABLE: u64 = 3;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    const ROOT_SLOTS: usize = 512;
}

fn play<F: Format + 'static>(steps: Vec<Step>) {
    let mut world = World::<F>::new();
    // No pages in the root itself, which is not stripped.
    let most = LEVEL_BITS * (F::LEVELS - 1) - 1;
    // What lies beyond the space comes round again.
    let within = |virt: u64| virt & (size(F::LEVELS) - 1);
    for step in steps {
        match step {
            Step::Map(virt, order, physical) => world.map(within(virt), order.min(most), physical),
            Step::Unmap(virt, order) => world.unmap(within(virt) & !((4096 << order) - 1), order.min(most)),
            Step::Strip(most) => world.strip(most),
        }
    }
    super::destroy(&world.table, &world.frames);
    assert_eq!(world.frames.heap.used(), 1);
}
