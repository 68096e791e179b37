// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address space against a model: random calls, and after each the attachments of the machine are what the model says.

use super::{Layout, Memory, PAGE, Request, STEP};
use crate::errno::Errno;
use crate::kernel::{Prot, Rom};
use crate::testing::Machine;
use std::collections::BTreeMap;

const LAYOUT: Layout =
    Layout { start: 0x1000_0000, end: 0x1000_0000 + 512 * PAGE, brk_start: 0x4000_0000, brk_end: 0x4100_0000 };

fn anywhere(size: u64, prot: Prot) -> Request {
    Request { size, prot, fixed: None, stack: false }
}

fn setup() -> (Machine, Memory) {
    (Machine::new(), Memory::new(LAYOUT))
}

/// What can be seen from outside fits together.
fn check(machine: &Machine, memory: &Memory) {
    let world = machine.world();
    let mut end = 0;
    let mut attached = 0;
    for area in memory.areas() {
        assert!(area.start >= end && area.end > area.start, "sorted, not overlapping");
        end = area.end;
        if area.prot != Prot::None
            && let Some(backing) = memory.backing(area.backing)
        {
            let shown = &world.attached[&area.start];
            assert_eq!((shown.handle, shown.offset), (backing.handle.0, area.offset));
            assert_eq!((shown.size, shown.prot), (area.end - area.start, area.prot));
            attached += 1;
        }
    }
    assert_eq!(world.attached.len(), attached, "nothing else is attached");
    assert_eq!(world.ram() as u64, memory.used(), "RAM is held by a backing or free");
}

#[test]
fn reservations_cost_nothing_until_they_are_used() {
    let (machine, mut memory) = setup();
    let at = memory.map(&machine, &anywhere(256 * PAGE, Prot::None)).unwrap();
    assert_eq!(machine.world().ram(), 0);
    memory.protect(&machine, at, PAGE, Prot::Write).unwrap();
    assert_eq!(machine.world().ram() as u64, STEP, "allocated in steps");
    for page in 1..16 {
        memory.protect(&machine, at + page * PAGE, PAGE, Prot::Write).unwrap();
    }
    assert_eq!(machine.world().ram() as u64, STEP, "the step is used up first");
    memory.protect(&machine, at + 16 * PAGE, PAGE, Prot::Write).unwrap();
    assert_eq!(machine.world().ram() as u64, 2 * STEP);
    machine.world().set_byte(at + 17 * PAGE - 1, 1);
    check(&machine, &memory);
    memory.unmap(&machine, at, 256 * PAGE).unwrap();
    assert_eq!(machine.world().ram(), 0);
    check(&machine, &memory);
}

#[test]
fn a_guard_page_loses_its_access_and_nothing_else() {
    let (machine, mut memory) = setup();
    let at = memory.map(&machine, &anywhere(4 * PAGE, Prot::Write)).unwrap();
    machine.world().set_byte(at + PAGE, 7);
    memory.protect(&machine, at, PAGE, Prot::None).unwrap();
    assert!(!machine.world().attached.contains_key(&at));
    assert_eq!(machine.world().byte(at + PAGE), 7);
    memory.protect(&machine, at, PAGE, Prot::Write).unwrap();
    check(&machine, &memory);
}

#[test]
fn arenas_are_trimmed_to_their_alignment() {
    let machine = Machine::new();
    let mut memory =
        Memory::new(Layout { end: LAYOUT.start + (1 << 30), brk_start: 1 << 40, brk_end: 1 << 41, ..LAYOUT });
    let at = memory.map(&machine, &anywhere(128 << 20, Prot::None)).unwrap();
    let aligned = at.next_multiple_of(64 << 20);
    if aligned > at {
        memory.unmap(&machine, at, aligned - at).unwrap();
    }
    memory.unmap(&machine, aligned + (64 << 20), at + (64 << 20) - aligned).unwrap();
    memory.protect(&machine, aligned, 135_168, Prot::Write).unwrap();
    check(&machine, &memory);
    assert!(machine.world().ram() <= 256 << 10);
}

#[test]
fn growing_in_place_and_moving_keep_the_content() {
    let (machine, mut memory) = setup();
    let at = memory.map(&machine, &anywhere(2 * PAGE, Prot::Write)).unwrap();
    machine.world().set_byte(at + 5, 5);
    assert_eq!(memory.remap(&machine, at, 2 * PAGE, 4 * PAGE, true), Ok(at));
    memory.map(&machine, &anywhere(PAGE, Prot::Write)).unwrap();
    assert_eq!(memory.remap(&machine, at, 4 * PAGE, 8 * PAGE, false), Err(Errno::NOMEM));
    let moved = memory.remap(&machine, at, 4 * PAGE, 8 * PAGE, true).unwrap();
    assert_ne!(moved, at);
    assert_eq!(machine.world().byte(moved + 5), 5);
    machine.world().set_byte(moved + 8 * PAGE - 1, 1);
    check(&machine, &memory);
    assert_eq!(memory.remap(&machine, moved, 8 * PAGE, PAGE, true), Ok(moved));
    assert_eq!(machine.world().byte(moved + 5), 5);
    check(&machine, &memory);
}

#[test]
fn the_heap_grows_shrinks_and_is_clear_again() {
    let (machine, mut memory) = setup();
    let start = memory.set_brk(&machine, 0);
    assert_eq!(start, LAYOUT.brk_start);
    assert_eq!(memory.set_brk(&machine, start + 100), start + 100);
    machine.world().set_byte(start + 99, 9);
    assert_eq!(memory.set_brk(&machine, start + 3 * STEP), start + 3 * STEP);
    machine.world().set_byte(start + 2 * STEP, 9);
    assert_eq!(memory.set_brk(&machine, start + 50), start + 50);
    assert_eq!(machine.world().ram() as u64, STEP, "what lies above is given back");
    memory.set_brk(&machine, start + 3 * STEP);
    assert_eq!(machine.world().byte(start + 99), 0, "taken again, it is clear");
    assert_eq!(machine.world().byte(start + 2 * STEP), 0);
    assert_eq!(memory.set_brk(&machine, LAYOUT.brk_end + 1), start + 3 * STEP, "refused");
    assert_eq!(memory.set_brk(&machine, LAYOUT.brk_start - 1), start + 3 * STEP, "refused");
    check(&machine, &memory);
}

#[test]
fn running_out_of_ram_changes_nothing() {
    let (machine, mut memory) = setup();
    machine.world().ram_limit = 1 << 20;
    let at = memory.map(&machine, &anywhere(PAGE, Prot::Write)).unwrap();
    assert_eq!(memory.map(&machine, &anywhere(300 * PAGE, Prot::Write)), Err(Errno::NOMEM));
    let fixed = Request { fixed: Some(at), ..anywhere(300 * PAGE, Prot::Write) };
    assert_eq!(memory.map(&machine, &fixed), Err(Errno::NOMEM));
    machine.world().set_byte(at, 1);
    assert_eq!(memory.set_brk(&machine, LAYOUT.brk_start + (2 << 20)), LAYOUT.brk_start);
    check(&machine, &memory);
}

#[test]
fn bad_ranges_are_refused() {
    let (machine, mut memory) = setup();
    assert_eq!(memory.unmap(&machine, 1, PAGE), Err(Errno::INVAL));
    assert_eq!(memory.unmap(&machine, PAGE, 0), Err(Errno::INVAL));
    assert_eq!(memory.unmap(&machine, u64::MAX - PAGE + 1, PAGE), Err(Errno::INVAL));
    assert_eq!(memory.unmap(&machine, PAGE, u64::MAX), Err(Errno::INVAL));
    assert_eq!(memory.map(&machine, &anywhere(u64::MAX, Prot::None)), Err(Errno::NOMEM));
    assert_eq!(memory.map(&machine, &anywhere(1 << 62, Prot::None)), Err(Errno::NOMEM));
    assert_eq!(memory.protect(&machine, LAYOUT.start, PAGE, Prot::Read), Err(Errno::NOMEM));
    assert_eq!(memory.remap(&machine, LAYOUT.start, PAGE, 2 * PAGE, true), Err(Errno::FAULT));
    let outside = Request { fixed: Some(0x1000), ..anywhere(PAGE, Prot::Write) };
    assert_eq!(memory.map(&machine, &outside), Err(Errno::NOMEM));
    check(&machine, &memory);
}

#[test]
fn a_rom_stays_open_while_it_is_mapped() {
    let (machine, mut memory) = setup();
    let handle = machine.world().open(std::vec![3; 8192]);
    let (backing, address) = memory.add_rom(&machine, Rom { handle, size: 5000 }).unwrap();
    let view = memory.map_rom(&machine, backing, PAGE, PAGE).unwrap();
    assert_eq!(machine.world().byte(view), 3);
    assert_eq!(memory.map_rom(&machine, backing, 2 * PAGE, PAGE), Err(Errno::INVAL));
    memory.forget_rom(&machine, backing, address, true);
    assert!(memory.holds(handle));
    memory.unmap(&machine, view, PAGE).unwrap();
    assert!(!memory.holds(handle));
    assert_eq!(machine.world().ram(), 0);
}

/// A small generator: the same numbers at each run (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Page number to what the program sees there: access, and the byte it last wrote.
type Model = BTreeMap<u64, (Prot, u8)>;

fn compare(machine: &Machine, memory: &Memory, model: &Model) {
    check(machine, memory);
    let mut pages = 0;
    for area in memory.areas() {
        for page in area.start / PAGE..area.end / PAGE {
            let (prot, byte) = model[&page];
            assert_eq!(prot, area.prot, "page {page:#x}");
            if prot != Prot::None {
                assert_eq!(machine.world().byte(page * PAGE), byte, "page {page:#x}");
            }
            pages += 1;
        }
    }
    assert_eq!(pages, model.len());
}

#[test]
fn random_calls_behave_like_the_model() {
    let first = LAYOUT.start / PAGE;
    for seed in 1..40 {
        let (machine, mut memory) = setup();
        let mut model = Model::new();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        for step in 0..150 {
            let page = first + dice.roll(96);
            let count = 1 + dice.roll(12);
            let prot = [Prot::None, Prot::Write, Prot::Read, Prot::Write][usize::try_from(dice.roll(4)).unwrap()];
            let range = page..page + count;
            let (start, size) = (page * PAGE, count * PAGE);
            match dice.roll(6) {
                0 => {
                    let fixed = Request { fixed: Some(start), ..anywhere(size, prot) };
                    memory.map(&machine, &fixed).unwrap();
                    model.extend(range.map(|page| (page, (prot, 0))));
                }
                1 => {
                    let at = memory.map(&machine, &anywhere(size, prot)).unwrap() / PAGE;
                    for page in at..at + count {
                        assert_eq!(model.insert(page, (prot, 0)), None, "a free page");
                    }
                }
                2 => {
                    memory.unmap(&machine, start, size).unwrap();
                    model.retain(|page, _| !range.contains(page));
                }
                3 => {
                    let whole = range.clone().all(|page| model.contains_key(&page));
                    assert_eq!(memory.protect(&machine, start, size, prot).is_ok(), whole);
                    if whole {
                        range.for_each(|page| model.get_mut(&page).unwrap().0 = prot);
                    }
                }
                4 => grow(&machine, &mut memory, &mut model, page, 1 + dice.roll(count)),
                _ => {
                    for (page, (prot, byte)) in model.range_mut(range) {
                        if *prot == Prot::Write {
                            *byte = u8::try_from(step).unwrap_or(255);
                            machine.world().set_byte(page * PAGE, *byte);
                        }
                    }
                }
            }
            compare(&machine, &memory, &model);
        }
        memory.unmap(&machine, LAYOUT.start, LAYOUT.end - LAYOUT.start).unwrap();
        assert_eq!(machine.world().ram(), 0, "all RAM comes back");
    }
}

/// `mremap` of one page to several.
fn grow(machine: &Machine, memory: &mut Memory, model: &mut Model, page: u64, count: u64) {
    let Some((prot, byte)) = model.get(&page).copied() else {
        assert_eq!(memory.remap(machine, page * PAGE, PAGE, count * PAGE, true), Err(Errno::FAULT));
        return;
    };
    let at = memory.remap(machine, page * PAGE, PAGE, count * PAGE, true).unwrap() / PAGE;
    if at != page {
        model.remove(&page);
    }
    model.insert(at, (prot, byte));
    for page in at + 1..at + count {
        assert_eq!(model.insert(page, (prot, 0)), None, "a free page");
    }
}
