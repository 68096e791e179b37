// SPDX-License-Identifier: MIT OR Apache-2.0
//! A [`Kernel`] for tests: RAM in vectors, attachments checked for overlap, threads of the host.
//!
//! Program addresses are simulated: what is attached is a list, and reads and writes go through it, so that touching what is
//! not mapped (or not with that access) panics.

use crate::errno::Errno;
use crate::kernel::{Handle, Kernel, Prot, Rom, Start};
use crate::threads::SLOTS;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::string::String;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::vec::Vec;

std::thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// An attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) handle: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) prot: Prot,
}

/// What the machine holds.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) dataspaces: BTreeMap<u32, Vec<u8>>,
    pub(crate) attached: BTreeMap<u64, Attached>,
    pub(crate) log: Vec<String>,
    pub(crate) spawned: Vec<(usize, Start)>,
    pub(crate) exits: Vec<i32>,
    pub(crate) roms: BTreeMap<String, Vec<u8>>,
    pub(crate) ram_limit: usize,
    next: u32,
}

impl World {
    fn at(&self, address: u64) -> (&Attached, u64) {
        let (start, area) = self.attached.range(..=address).next_back().expect("address is mapped");
        assert!(address - start < area.size, "address {address:#x} is mapped");
        (area, area.offset + (address - start))
    }

    pub(crate) fn byte(&self, address: u64) -> u8 {
        let (area, offset) = self.at(address);
        self.dataspaces[&area.handle][usize::try_from(offset).unwrap()]
    }

    pub(crate) fn set_byte(&mut self, address: u64, value: u8) {
        let (area, offset) = self.at(address);
        assert_eq!(area.prot, Prot::Write, "address {address:#x} is writable");
        let handle = area.handle;
        self.dataspaces.get_mut(&handle).unwrap()[usize::try_from(offset).unwrap()] = value;
    }

    pub(crate) fn ram(&self) -> usize {
        self.dataspaces.values().map(Vec::len).sum()
    }

    pub(crate) fn open(&mut self, content: Vec<u8>) -> Handle {
        self.next += 1;
        self.dataspaces.insert(self.next, content);
        Handle(self.next)
    }
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    world: Mutex<World>,
    tokens: Mutex<[bool; SLOTS]>,
    changed: Condvar,
    start: Instant,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let world = World { ram_limit: 64 << 20, ..World::default() };
        Self {
            world: Mutex::new(world),
            tokens: Mutex::new([false; SLOTS]),
            changed: Condvar::new(),
            start: Instant::now(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The calling thread of the host plays this slot's.
    pub(crate) fn become_thread(slot: usize) {
        SLOT.set(slot);
    }
}

impl Kernel for Machine {
    fn ram_alloc(&self, size: u64, _: u64) -> Result<Handle, Errno> {
        let size = usize::try_from(size).unwrap();
        assert_eq!(size % 4096, 0);
        let mut world = self.world();
        if world.ram() + size > world.ram_limit {
            return Err(Errno::NOMEM);
        }
        Ok(world.open(std::vec![0; size]))
    }

    fn ram_free(&self, ram: Handle) {
        let mut world = self.world();
        assert!(world.attached.values().all(|area| area.handle != ram.0), "freed while attached");
        world.dataspaces.remove(&ram.0).expect("freed once");
    }

    fn attach(&self, ds: Handle, offset: u64, address: u64, size: u64, prot: Prot) -> Result<(), Errno> {
        let mut world = self.world();
        let whole = world.dataspaces.get(&ds.0).expect("attached while allocated").len() as u64;
        assert!(offset + size <= whole.next_multiple_of(4096), "within the dataspace");
        assert!(prot != Prot::None && size > 0 && (offset | address | size).is_multiple_of(4096));
        let overlap =
            world.attached.range(..address + size).next_back().is_some_and(|(at, area)| at + area.size > address);
        assert!(!overlap, "{address:#x} is free");
        world.attached.insert(address, Attached { handle: ds.0, offset, size, prot });
        Ok(())
    }

    fn detach(&self, address: u64, size: u64) {
        let area = self.world().attached.remove(&address).expect("detached while attached");
        assert_eq!(area.size, size);
    }

    fn rom_open(&self, name: &str) -> Result<Rom, Errno> {
        let mut world = self.world();
        let content = world.roms.get(name).cloned().ok_or(Errno::NOENT)?;
        let size = content.len() as u64;
        let mut padded = content;
        padded.resize(usize::try_from(size.next_multiple_of(4096)).unwrap(), 0);
        Ok(Rom { handle: world.open(padded), size })
    }

    fn rom_close(&self, rom: Handle) {
        self.ram_free(rom);
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        let world = self.world();
        for (byte, at) in bytes.iter_mut().zip(address..) {
            *byte = world.byte(at);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let mut world = self.world();
        for (byte, at) in bytes.iter().zip(address..) {
            world.set_byte(at, *byte);
        }
    }

    fn copy(&self, to: u64, from: u64, size: u64) {
        let mut world = self.world();
        for index in 0..size {
            let byte = world.byte(from + index);
            world.set_byte(to + index, byte);
        }
    }

    fn zero(&self, address: u64, size: u64) {
        let mut world = self.world();
        for at in address..address + size {
            world.set_byte(at, 0);
        }
    }

    fn load(&self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn store(&self, address: u64, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    fn current(&self) -> usize {
        SLOT.get()
    }

    fn wait(&self, deadline: Option<u64>) -> bool {
        let slot = SLOT.get();
        let mut tokens = self.tokens.lock().unwrap();
        loop {
            if core::mem::take(&mut tokens[slot]) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(self.ticks()));
            if left == Some(0) {
                return false;
            }
            let left = Duration::from_nanos(left.unwrap_or(1_000_000_000));
            tokens = self.changed.wait_timeout(tokens, left).unwrap().0;
        }
    }

    fn wake(&self, slot: usize) {
        self.tokens.lock().unwrap()[slot] = true;
        self.changed.notify_all();
    }

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn spawn(&self, slot: usize, start: &Start) -> Result<(), Errno> {
        self.world().spawned.push((slot, *start));
        Ok(())
    }

    fn processors(&self) -> usize {
        2
    }

    fn ticks(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap() + 1
    }

    fn entropy(&self) -> u64 {
        42
    }

    fn log(&self, line: &[u8]) {
        self.world().log.push(String::from_utf8_lossy(line).into_owned());
    }

    fn exit(&self, code: i32) {
        self.world().exits.push(code);
    }
}
