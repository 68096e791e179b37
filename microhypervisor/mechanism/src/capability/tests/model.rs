// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two tables against two maps, with memory that runs out at each allocation, objects that die, and destruction in pieces.

use crate::capability::{Refused, SELECTORS, SLOTS, Table, Target};
use crate::radix::tests::Heap;
use crate::work::Work;
use crate::{Exhausted, Frames};
use core::cell::Cell;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// An object, which counts its references.
#[repr(align(64))]
struct Object {
    references: Cell<usize>,
    alive: Cell<bool>,
}

// SAFETY: aligned; objects outlive all tables of a test.
unsafe impl Target for Object {
    fn is_alive(&self) -> bool {
        self.alive.get()
    }
    fn acquire(&self) {
        self.references.set(self.references.get() + 1);
    }
    fn release(&self) {
        self.references.set(self.references.get().checked_sub(1).expect("nobody lets go what he does not hold"));
    }
}

const OBJECTS: usize = 4;

/// What a table should be.
#[derive(Default)]
struct Model {
    /// Object and permissions by selector.
    capabilities: BTreeMap<u64, (usize, u8)>,
    /// Frames that were made.
    frames: BTreeSet<u64>,
    /// From which selector on it has yet to be emptied.
    cursor: Option<u64>,
}

impl Model {
    /// Frames that are to be made for these selectors.
    fn missing(&self, first: u64, last: u64) -> usize {
        let frames: BTreeSet<_> = [first, last].into_iter().map(|selector| selector / SLOTS as u64).collect();
        frames.difference(&self.frames).count()
    }

    fn prepare(&mut self, first: u64, last: u64) {
        self.frames.extend([first, last].map(|selector| selector / SLOTS as u64));
    }

    /// What putting something in answers when there is memory enough.
    fn answer(&self, selector: u64) -> Result<(), Refused> {
        match self.cursor {
            _ if selector >= SELECTORS.into() => Err(Refused::Range),
            Some(_) => Err(Refused::Closed),
            None => Ok(()),
        }
    }

    fn insert(&mut self, selector: u64, object: usize, perms: u8) {
        if selector < SELECTORS.into() && self.cursor.is_some() && self.frames.contains(&(selector / SLOTS as u64)) {
            // What was there has gone for it.
            self.capabilities.remove(&selector);
        } else if self.answer(selector).is_ok() {
            self.prepare(selector, selector);
            self.capabilities.insert(selector, (object, perms & 0x1f));
        }
    }
}

struct World {
    heap: Heap,
    objects: Vec<Object>,
    tables: [Table<Object>; 2],
    models: [Model; 2],
}

impl World {
    fn new() -> Self {
        let heap = Heap::new(10_000);
        let table = || {
            let root = heap.take_zeroed().expect("a frame");
            // SAFETY: the frame is the table's to the end of the test.
            unsafe { Table::new(root) }
        };
        let tables = [table(), table()];
        let object = || Object { references: Cell::new(1), alive: Cell::new(true) };
        Self { heap, objects: (0..OBJECTS).map(|_| object()).collect(), tables, models: Default::default() }
    }

    /// Tries with no memory, then with one frame more each time, until there is enough. Each failure changes nothing.
    fn starved<R: PartialEq + core::fmt::Debug>(&self, missing: usize, exhausted: &R, attempt: impl Fn() -> R) -> R {
        for frames in 0..missing {
            let used = self.heap.used();
            self.heap.set_limit(used + frames);
            assert_eq!(attempt(), *exhausted);
            assert_eq!(self.heap.used(), used, "a failure keeps no memory");
            self.sound();
        }
        self.heap.set_limit(self.heap.used() + missing);
        let answer = attempt();
        self.heap.set_limit(10_000);
        answer
    }

    /// Whether frames have to be made to put something in; a table that is being destroyed makes none.
    fn missing(&self, table: usize, first: u64, last: u64) -> usize {
        let model = &self.models[table];
        if model.answer(last).is_ok() { model.missing(first, last) } else { 0 }
    }

    fn insert(&mut self, table: usize, selector: u64, object: usize, perms: u8) {
        let missing = self.missing(table, selector, selector);
        let full = Err(Refused::Exhausted(Exhausted::Budget));
        let answer = self.starved(missing, &full, || {
            self.objects[object].acquire();
            self.tables[table].insert(&self.heap, selector, &self.objects[object], perms)
        });
        assert_eq!(answer, self.models[table].answer(selector));
        self.models[table].insert(selector, object, perms);
    }

    fn delegate(&mut self, (from, selector): (usize, u64), (to, at): (usize, u64), mask: u8) {
        let source = self.models[from].capabilities.get(&selector).copied();
        let source = source.filter(|(object, _)| self.objects[*object].alive.get());
        let missing = source.map_or(0, |_| self.missing(to, at, at));
        let full = Err(Refused::Exhausted(Exhausted::Budget));
        let answer = self
            .starved(missing, &full, || self.tables[from].delegate(selector, &self.tables[to], &self.heap, at, mask));
        match source {
            None => assert_eq!(answer, Ok(false)),
            Some((object, perms)) => {
                assert_eq!(answer, self.models[to].answer(at).map(|()| true));
                self.models[to].insert(at, object, perms & mask);
            }
        }
    }

    fn prepare(&mut self, table: usize, first: u64, last: u64) {
        let missing = self.missing(table, first, last);
        let full = Err(Refused::Exhausted(Exhausted::Budget));
        let answer = self.starved(missing, &full, || self.tables[table].prepare(&self.heap, first, last));
        let model = &mut self.models[table];
        let there = last < SELECTORS.into() && model.missing(first, last) == 0;
        assert_eq!(answer, if there { Ok(()) } else { model.answer(last) });
        if model.answer(last).is_ok() {
            model.prepare(first, last);
        }
    }

    fn remove(&mut self, table: usize, selector: u64) {
        self.tables[table].remove(selector);
        self.models[table].capabilities.remove(&selector);
    }

    /// Does a piece of so many units.
    fn empty(&mut self, table: usize, units: usize) {
        let model = &mut self.models[table];
        let (mut next, mut left) = (model.cursor.unwrap_or(0), units);
        while next < SELECTORS.into() && left > 0 {
            left -= 1;
            if !model.frames.contains(&(next / SLOTS as u64)) {
                next = (next / SLOTS as u64 + 1) * SLOTS as u64;
                continue;
            }
            if model.capabilities.remove(&next).is_some() {
                left = left.saturating_sub(Work::OBJECT);
            }
            next += 1;
        }
        model.cursor = Some(next);
        assert_eq!(self.tables[table].empty(&mut Work::of(units)), next < SELECTORS.into());
    }

    /// Look-ups find what is there, references and frames are as many as there should be.
    fn sound(&self) {
        let mut references = [1; OBJECTS];
        for (table, model) in self.tables.iter().zip(&self.models) {
            for (selector, (object, perms)) in &model.capabilities {
                references[*object] += 1;
                let found = table.get(*selector).expect("a capability");
                assert!(core::ptr::eq(found.target(), &raw const self.objects[*object]));
                assert_eq!(found.perms(), *perms);
                assert!((0..32).all(|wanted| found.allows(wanted) == (wanted & !perms == 0)));
            }
            let near =
                model.frames.iter().flat_map(|frame| SELECTED.map(|at| frame * SLOTS as u64 + at % SLOTS as u64));
            for selector in near.chain(SELECTED).filter(|selector| !model.capabilities.contains_key(selector)) {
                assert!(table.get(selector).is_none());
            }
        }
        assert_eq!(self.objects.iter().map(|object| object.references.get()).collect::<Vec<_>>(), references);
        let frames: usize = self.models.iter().map(|model| 1 + model.frames.len()).sum();
        assert_eq!(self.heap.used(), frames);
    }
}

/// Selectors at the edges of frames and of the table, and beyond it.
const SELECTED: [u64; 12] = [0, 1, 2, 510, 511, 512, 513, 1023, 5000, SELECTORS as u64 - 1, SELECTORS as u64, u64::MAX];

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u64, usize, u8),
    Delegate((usize, u64), (usize, u64), u8),
    Prepare(usize, u64, u64),
    Remove(usize, u64),
    Die(usize),
    Empty(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..2usize, proptest::sample::select(&SELECTED[..]));
    let insert = (place(), 0..OBJECTS, any::<u8>())
        .prop_map(|((table, at), object, perms)| Step::Insert(table, at, object, perms));
    let delegate = (place(), place(), any::<u8>()).prop_map(|(from, to, mask)| Step::Delegate(from, to, mask));
    let prepare = (place(), 0..4u64).prop_map(|((table, at), more)| Step::Prepare(table, at, at.saturating_add(more)));
    let remove = place().prop_map(|(table, at)| Step::Remove(table, at));
    let die = (0..OBJECTS).prop_map(Step::Die);
    let empty = (0..2usize, 1..1500usize).prop_map(|(table, units)| Step::Empty(table, units));
    let step = prop_oneof![12 => insert, 8 => delegate, 4 => prepare, 6 => remove, 1 => die, 1 => empty];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn are_maps_from_selectors_to_capabilities(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Insert(table, at, object, perms) => world.insert(table, at, object, perms),
                Step::Delegate(from, to, mask) => world.delegate(from, to, mask),
                Step::Prepare(table, first, last) => world.prepare(table, first, last),
                Step::Remove(table, at) => world.remove(table, at),
                Step::Die(object) => world.objects[object].alive.set(false),
                Step::Empty(table, units) => world.empty(table, units),
            }
            world.sound();
        }
        for table in &world.tables {
            // SAFETY: nobody uses it any more.
            while unsafe { table.take_apart(&world.heap, &mut Work::piece()) } {}
        }
        assert!(world.objects.iter().all(|object| object.references.get() == 1));
        assert_eq!(world.heap.used(), world.tables.len(), "the first levels");
    }
}
