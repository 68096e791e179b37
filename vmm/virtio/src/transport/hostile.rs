// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drivers that follow the protocol just enough to get rubbish far into a device.

use super::VirtioPci;
use crate::console::Console;
use crate::pci::PciFunction;
use crate::rng::Rng;
use crate::testing::{AVAILABLE, DESCRIPTORS, USED, ram};
use cloister_devices::bus::Width;
use cloister_devices::irq::{IrqLine, Recorder};
use std::sync::Arc;

const B: Width = Width::Byte;
const W: Width = Width::Word;
const DW: Width = Width::Dword;
const Q: Width = Width::Qword;

/// Xorshift64*, as in the tests of the board.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// A driver that mostly follows the protocol, so that rubbish gets beyond the status machine.
fn hostile_step<D: crate::VirtioDevice>(pci: &mut VirtioPci<D>, ram: &crate::Ram, r: &mut Rubbish) {
    use vm_memory::{Bytes, GuestAddress};
    let width = [B, W, DW, Q][usize::try_from(r.below(4)).unwrap()];
    match r.below(16) {
        0 => pci.bar_write(0, 0x14, B, [0, 1, 3, 11, 15, 15, 15, 255][usize::try_from(r.below(8)).unwrap()]),
        1 => {
            for (offset, value) in
                [(0x14, 0), (0x14, 3), (8, 1), (0xc, 1 | (r.next() & 0x100)), (8, 0), (0xc, r.next() & 0x3000_0007)]
            {
                pci.bar_write(0, offset, if offset == 0x14 { B } else { DW }, value);
            }
            pci.bar_write(0, 0x14, B, 11);
            for queue in 0..2 {
                let skew = if r.below(8) == 0 { r.below(0x20_0000) } else { 0 };
                pci.bar_write(0, 0x16, W, queue);
                pci.bar_write(0, 0x18, W, 1 << r.below(7));
                for (offset, address) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED + skew)] {
                    pci.bar_write(0, offset, Q, address);
                }
                pci.bar_write(0, 0x1c, W, 1);
            }
            ram.write_obj(0u16, GuestAddress(AVAILABLE + 2)).unwrap();
            pci.bar_write(0, 0x14, B, 15);
        }
        2..=4 => {
            let at = DESCRIPTORS + 16 * r.below(8);
            let len = [0, 1, 16, 32, 48, 0x1000, u32::MAX][usize::try_from(r.below(7)).unwrap()];
            let address = if r.below(16) == 0 { r.next() } else { r.below(0x10_0000) };
            ram.write_obj(address, GuestAddress(at)).unwrap();
            ram.write_obj(len, GuestAddress(at + 8)).unwrap();
            let flags = if r.below(2) == 0 { 0 } else { r.below(8) };
            ram.write_obj(u16::try_from(flags).unwrap(), GuestAddress(at + 12)).unwrap();
            ram.write_obj(u16::try_from(r.below(9)).unwrap(), GuestAddress(at + 14)).unwrap();
        }
        5..=7 => {
            let at = AVAILABLE + 2 * r.below(10);
            let step = ram.read_obj::<u16>(GuestAddress(AVAILABLE + 2)).unwrap();
            ram.write_obj(step.wrapping_add(u16::try_from(r.below(3)).unwrap()), GuestAddress(AVAILABLE + 2)).unwrap();
            if at != AVAILABLE + 2 {
                ram.write_obj(u16::try_from(r.below(9)).unwrap(), GuestAddress(at)).unwrap();
            }
        }
        8..=9 => pci.bar_write(0, 0x3000 + 4 * r.below(3), W, 0),
        10 => pci.bar_write(0, r.below(0x40), width, r.next()),
        11 => pci.bar_write(0, r.below(0x8000), width, r.next()),
        12 => pci.config_write(u16::try_from(r.below(0x40)).unwrap() * 4, DW, u32::try_from(r.next() >> 32).unwrap()),
        13 => pci.config_write(4, W, 6),
        14 => _ = pci.config_read(u16::try_from(r.below(0x400)).unwrap() * 4, DW),
        _ => {
            pci.bar_read(0, r.below(0x8000), width);
            pci.poll(u16::try_from(r.below(4)).unwrap());
        }
    }
}

#[test]
fn hostile_drivers_end_in_needs_reset_at_worst() {
    for seed in [1, 0xc0ff_ee00, u64::MAX] {
        let (ram, irq) = (ram(), Arc::new(Recorder::default()));
        let line = || IrqLine::new(irq.clone(), 17);
        let mut console = VirtioPci::new(Console::new(Vec::new()), Arc::new(ram.clone()), irq.clone(), line());
        let source = |bytes: &mut [u8]| bytes.len();
        let mut rng = VirtioPci::new(Rng::new(source), Arc::new(ram.clone()), irq.clone(), line());
        let (mut r, mut errors, mut served) = (Rubbish(seed), 0, 0);
        for step in 0..100_000 {
            hostile_step(&mut console, &ram, &mut r);
            hostile_step(&mut rng, &ram, &mut r);
            console.device().type_in(b"k");
            errors += u32::from(console.last_error().is_some());
            served += console.device().output().len();
            console.device().output().clear();
            if step % 100 == 0 {
                irq.take();
            }
        }
        assert!(errors > 0 && served > 0, "seed {seed}: the rubbish never got far ({errors}, {served})");
        console.reset();
        assert_eq!(console.bar_read(0, 0x14, B), 0);
    }
}
