// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever a guest writes wherever it can reach, there is an answer.

use std::sync::{Arc, Mutex};

use super::VcpuBus;
use crate::board::{Board, PCI_DEVICES, Parts};
use crate::clock::TscClock;
use crate::config::Profile;
use crate::config_pages;
use crate::console::Stream;
use crate::memory::{HostRam, RamSource};
use cloister_boot::layout;
use cloister_devices::fabric::NoKick;
use cloister_hypervisor::Bus;
use cloister_hypervisor::arch::Tsc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const ACCESSES: u32 = 60_000;
const REGIONS: [u64; 6] = [layout::IOAPIC, layout::LAPIC, layout::ECAM, layout::PCI_MMIO, layout::PCI_MMIO + 0x8000, 0];

/// A xorshift generator: the same rubbish each time.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn port(&mut self) -> u16 {
        let known =
            [0x20, 0x21, 0xa0, 0x40, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x3f8, 0x3fc, 0x600, 0x604, 0xcf8, 0xcfc];
        let near = known[usize::try_from(self.below(16)).unwrap()] + u16::try_from(self.below(8)).unwrap();
        if self.below(8) == 0 { u16::try_from(self.below(0x1_0000)).unwrap() } else { near }
    }

    fn msr(&mut self) -> u32 {
        let low = u32::try_from(self.below(0x100)).unwrap();
        match self.below(5) {
            0 => 0x800 + low,
            1 => 0x4b56_4d00 + low % 8,
            2 => [0x1b, 0x6e0][usize::try_from(self.below(2)).unwrap()],
            3 => 0xc001_0000 + low,
            _ => u32::try_from(self.below(1 << 32)).unwrap(),
        }
    }

    fn address(&mut self) -> u64 {
        let region = REGIONS[usize::try_from(self.below(6)).unwrap()];
        let far = if self.below(4) == 0 { 0x10_0000 } else { 0x1000 };
        region.wrapping_add(self.below(far))
    }
}

fn one_access(bus: &mut VcpuBus, rubbish: &mut Rubbish) {
    let size = 1_u8 << rubbish.below(3);
    let value = rubbish.next();
    let low = u32::try_from(value & 0xffff_ffff).unwrap();
    let mut data = [0; 16];
    let len = usize::try_from(rubbish.below(16) + 1).unwrap();
    match rubbish.below(6) {
        0 => drop(bus.io_in(rubbish.port(), size)),
        1 => bus.io_out(rubbish.port(), size, low),
        2 => bus.mmio_read(rubbish.address(), &mut data[..len]),
        3 => bus.mmio_write(rubbish.address(), &value.to_le_bytes().repeat(2)[..len]),
        4 => drop(bus.rdmsr(rubbish.msr())),
        _ => drop(bus.wrmsr(rubbish.msr(), value >> rubbish.below(64))),
    }
}

fn throw(profile: Profile, seed: u64) {
    let pages = HostRam.allocate_pieces(&config_pages::pieces(&PCI_DEVICES)).unwrap();
    let parts = Parts {
        vcpus: vec![0],
        tsc_khz: 1_000_000,
        clock: TscClock::start(1_000_000),
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap(),
        console: Arc::new(Mutex::new(Stream::new(std::io::sink()))),
        profile,
        // SAFETY: `pages` lives to the end of this function, the board does not.
        config_pages: (profile == Profile::Reduced).then(|| unsafe { pages.memory() }),
    };
    let board = Board::new(parts, Box::new(NoKick)).unwrap();
    let mut bus = VcpuBus::new(board.clone(), 0);
    let mut rubbish = Rubbish(seed);
    for count in 0..ACCESSES {
        one_access(&mut bus, &mut rubbish);
        let _any = board.power.take();
        if count % 64 == 0 {
            board.fabric.advance_timer(0, Tsc::now().0);
            board.deadlines.advance(board.clock.ns_at(Tsc::now()));
            if let Some(vector) = board.fabric.acknowledge(0) {
                bus.paravirt.offer_end(&board, 0, vector);
            }
            bus.paravirt.collect_end(&board.memory, &board.fabric, 0);
        }
    }
}

#[test]
fn rubbish_has_answers_on_a_pc() {
    throw(Profile::Full, 0x1234_5678_9abc_def1);
}

#[test]
fn rubbish_has_answers_on_reduced_hardware() {
    throw(Profile::Reduced, 0xfeed_beef_cafe_0001);
}

#[test]
fn unclaimed_device_memory_reads_as_ones() {
    let mut data = [0; 3];
    let parts = Parts {
        vcpus: vec![0],
        tsc_khz: 1_000_000,
        clock: TscClock::start(1_000_000),
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap(),
        console: Arc::new(Mutex::new(Stream::new(std::io::sink()))),
        profile: Profile::Full,
        config_pages: None,
    };
    let mut bus = VcpuBus::new(Board::new(parts, Box::new(NoKick)).unwrap(), 0);
    bus.mmio_read(u64::MAX - 1, &mut data);
    assert_eq!(data, [0xff; 3]);
    bus.mmio_write(u64::MAX - 1, &data);
}
