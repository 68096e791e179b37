// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions are assembled by hand and run against a small machine: guest memory with page tables, and a device that
//! writes down what it is asked. Named after what the SDM's volume 2 says of them.

mod rubbish;
mod walk;

use crate::cpu::flag::{AF, CF, DF, OF, PF, SF, TF, ZF};
use crate::{Cpu, Error, Exception, Machine, Miss, Outcome, Segment, emulate};
use std::collections::BTreeMap;

/// Where the device is: linear and guest-physical.
const DEVICE: u64 = 0xfec0_0000;
const CODE: u64 = 0x1000;
const RAM: usize = 0x10_0000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

#[derive(Clone)]
struct Toy {
    ram: Vec<u8>,
    marks: std::cell::RefCell<BTreeMap<u64, u8>>,
    ops: Vec<Op>,
    value: u64,
}

impl Toy {
    fn new() -> Self {
        Self { ram: vec![0; RAM], marks: std::cell::RefCell::default(), ops: vec![], value: 0x8877_6655_4433_2211 }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.ram[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        (at..).take(len).map(|a| self.byte(a)).collect()
    }

    fn byte(&self, at: u64) -> u8 {
        let written = self.marks.borrow().get(&at).copied();
        written.unwrap_or_else(|| self.ram[usize::try_from(at).unwrap()])
    }

    fn entry(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}

impl Machine for Toy {
    fn ram_read(&self, gpa: u64, into: &mut [u8]) -> bool {
        let fits = gpa.checked_add(into.len() as u64).is_some_and(|end| end <= RAM as u64);
        if fits {
            (gpa..).zip(into).for_each(|(a, slot)| *slot = self.byte(a));
        }
        fits
    }

    fn ram_write(&self, gpa: u64, from: &[u8]) -> bool {
        let fits = gpa.checked_add(from.len() as u64).is_some_and(|end| end <= RAM as u64);
        if fits {
            self.marks.borrow_mut().extend((gpa..).zip(from.iter().copied()));
        }
        fits
    }

    fn device_read(&mut self, gpa: u64, into: &mut [u8]) {
        self.ops.push(Op::Read(gpa, into.len()));
        into.iter_mut().zip(self.value.to_le_bytes()).for_each(|(slot, b)| *slot = b);
    }

    fn device_write(&mut self, gpa: u64, from: &[u8]) {
        self.ops.push(Op::Write(gpa, from.to_vec()));
    }
}

/// A processor in 64-bit mode, kernel, with page tables that map the first GiB and the device's 2 MiB as they are.
fn long() -> (Cpu, Toy) {
    let mut toy = Toy::new();
    toy.entry(0x8_0000, 0x8_1007);
    toy.entry(0x8_1000, 0x83);
    toy.entry(0x8_1000 + 3 * 8, 0x8_2007);
    toy.entry(0x8_2000 + 0x1f6 * 8, 0xfec0_0083);
    let mut cpu =
        Cpu { cr0: 0x8001_0001, cr3: 0x8_0000, cr4: 0x20, efer: 0xd00, rip: CODE, rflags: 2, ..Cpu::default() };
    cpu.segments[1] = Segment { base: 0, big: false, long: true };
    cpu.gpr[3] = DEVICE;
    cpu.gpr[4] = 0x9000;
    (cpu, toy)
}

/// A processor in flat 32-bit mode without paging.
fn protected() -> (Cpu, Toy) {
    let mut cpu = Cpu { cr0: 1, rip: CODE, rflags: 2, ..Cpu::default() };
    cpu.segments = [Segment { base: 0, big: true, long: false }; 6];
    cpu.gpr[3] = DEVICE;
    cpu.gpr[4] = 0x9000;
    (cpu, Toy::new())
}

fn run_at(cpu: &mut Cpu, toy: &mut Toy, code: &[u8], gpa: u64, write: bool) -> Result<Outcome, Error> {
    let at = cpu.rip;
    toy.put(at, code);
    let outcome = emulate(cpu, toy, Miss { gpa, write });
    if outcome == Ok(Outcome::Done { trap: false }) {
        assert_eq!(cpu.rip, at + code.len() as u64, "{code:02x?}");
    }
    outcome
}

fn done(cpu: &mut Cpu, toy: &mut Toy, code: &[u8], write: bool) {
    assert_eq!(run_at(cpu, toy, code, DEVICE, write), Ok(Outcome::Done { trap: false }), "{code:02x?}");
}

#[test]
fn mov_loads_by_width() {
    // Code; register; value before; value after.
    let loads: [(&[u8], usize, u64); 9] = [
        (&[0x8a, 0x03], 0, 0xffff_ffff_ffff_ff11),
        (&[0x8a, 0x23], 0, 0xffff_ffff_ffff_11ff),
        (&[0x40, 0x8a, 0x23], 4, 0xffff_ffff_ffff_ff11),
        (&[0x66, 0x8b, 0x03], 0, 0xffff_ffff_ffff_2211),
        (&[0x8b, 0x03], 0, 0x4433_2211),
        (&[0x48, 0x8b, 0x03], 0, 0x8877_6655_4433_2211),
        (&[0x4c, 0x8b, 0x03], 8, 0x8877_6655_4433_2211),
        (&[0x0f, 0xb6, 0x03], 0, 0x11),
        (&[0x48, 0x0f, 0xb7, 0x03], 0, 0x2211),
    ];
    for (code, register, after) in loads {
        let (mut cpu, mut toy) = long();
        cpu.gpr[register] = u64::MAX;
        done(&mut cpu, &mut toy, code, false);
        assert_eq!(cpu.gpr[register], after, "{code:02x?}");
        assert_eq!((cpu.changed.gprs, cpu.changed.rflags), (1 << register, false));
    }
}

#[test]
fn movsx_and_movsxd_extend_the_sign() {
    let loads: [(&[u8], u64); 4] = [
        (&[0x0f, 0xbe, 0x03], 0xffff_ff91),
        (&[0x48, 0x0f, 0xbe, 0x03], 0xffff_ffff_ffff_ff91),
        (&[0x48, 0x0f, 0xbf, 0x03], 0xffff_ffff_ffff_a291),
        (&[0x48, 0x63, 0x03], 0xffff_ffff_c4b3_a291),
    ];
    for (code, after) in loads {
        let (mut cpu, mut toy) = long();
        toy.value = 0xc4b3_a291;
        done(&mut cpu, &mut toy, code, false);
        assert_eq!(cpu.gpr[0], after, "{code:02x?}");
    }
}

#[test]
fn mov_stores_by_width() {
    let stores: [(&[u8], &[u8]); 7] = [
        (&[0x88, 0x03], &[0xef]),
        (&[0x88, 0x23], &[0xcd]),
        (&[0x66, 0x89, 0x03], &[0xef, 0xcd]),
        (&[0x89, 0x03], &[0xef, 0xcd, 0xab, 0x89]),
        (&[0x48, 0x89, 0x03], &[0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01]),
        (&[0xc6, 0x03, 0x77], &[0x77]),
        (&[0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (code, bytes) in stores {
        let (mut cpu, mut toy) = long();
        cpu.gpr[0] = 0x0123_4567_89ab_cdef;
        done(&mut cpu, &mut toy, code, true);
        assert_eq!(toy.ops, [Op::Write(DEVICE, bytes.to_vec())], "{code:02x?}");
        assert_eq!(cpu.changed, crate::Changed::default());
    }
}

#[test]
fn the_quick_way_and_the_full_decoder_agree() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[1] = 0x40;
    cpu.gpr[13] = DEVICE - 0x1000;
    // Forms of addresses, each at DEVICE + 0x180 in the end.
    let forms: [&[u8]; 4] = [
        &[0x8b, 0x83, 0x80, 0x01, 0, 0],
        &[0x8b, 0x84, 0x8b, 0x80, 0, 0, 0],
        &[0x41, 0x8b, 0x85, 0x80, 0x11, 0, 0],
        &[0x41, 0x8b, 0x84, 0x0d, 0x40, 0x11, 0, 0],
    ];
    for code in forms {
        // A different direction of the exit sends the instruction to the full decoder.
        for write in [false, true] {
            let (mut cpu, mut toy) = (cpu.clone(), toy.clone());
            assert_eq!(run_at(&mut cpu, &mut toy, code, DEVICE + 0x180, write), Ok(Outcome::Done { trap: false }));
            assert_eq!(
                (cpu.gpr[0], &toy.ops),
                (0x4433_2211, &vec![Op::Read(DEVICE + 0x180, 4)]),
                "{code:02x?} {write}"
            );
        }
    }
    // Relative to RIP: the device's page is mapped close to the code.
    toy.entry(0x8_1000, 0x8_3007);
    toy.entry(0x8_3000, 0x83);
    toy.entry(0x8_3008, 0xfec0_0083);
    for write in [false, true] {
        let (mut cpu, mut toy) = (cpu.clone(), toy.clone());
        let code = [0x8b, 0x05, 0xfa, 0xef, 0x1f, 0x00];
        assert_eq!(run_at(&mut cpu, &mut toy, &code, DEVICE, write), Ok(Outcome::Done { trap: false }));
        assert_eq!(toy.ops, [Op::Read(DEVICE, 4)]);
    }
}

#[test]
fn arithmetic_on_device_memory() {
    // Code; does it write; what is written; flags.
    let cases: [(&[u8], Option<u32>, u64); 12] = [
        (&[0x01, 0x03], Some(0x4433_2212), PF),
        (&[0x29, 0x03], Some(0x4433_2210), 0),
        (&[0x31, 0x03], Some(0x4433_2210), 0),
        (&[0x09, 0x03], Some(0x4433_2211), PF),
        (&[0x21, 0x03], Some(1), 0),
        (&[0x39, 0x03], None, 0),
        (&[0x85, 0x03], None, 0),
        (&[0x83, 0x03, 0xff], Some(0x4433_2210), CF | AF),
        (&[0xff, 0x03], Some(0x4433_2212), PF),
        (&[0xff, 0x0b], Some(0x4433_2210), 0),
        (&[0xf7, 0x13], Some(0xbbcc_ddee), 0),
        (&[0xf7, 0x1b], Some(0xbbcc_ddef), CF | SF | AF),
    ];
    for (code, written, flags) in cases {
        let (mut cpu, mut toy) = long();
        cpu.gpr[0] = 1;
        done(&mut cpu, &mut toy, code, written.is_some());
        let mut ops = vec![Op::Read(DEVICE, 4)];
        ops.extend(written.map(|w| Op::Write(DEVICE, w.to_le_bytes().to_vec())));
        assert_eq!(toy.ops, ops, "{code:02x?}");
        assert_eq!(cpu.rflags & (CF | PF | AF | ZF | SF | OF), flags, "{code:02x?}");
    }
}

#[test]
fn adc_and_sbb_take_the_carry_and_inc_keeps_it() {
    let (mut cpu, mut toy) = long();
    cpu.rflags |= CF;
    done(&mut cpu, &mut toy, &[0x80, 0x13, 0], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, vec![0x12])));
    cpu.rflags |= CF;
    done(&mut cpu, &mut toy, &[0x80, 0x1b, 0], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, vec![0x10])));
    cpu.rflags |= CF;
    done(&mut cpu, &mut toy, &[0xfe, 0x03], true);
    assert_ne!(cpu.rflags & CF, 0);
}

#[test]
fn xchg_xadd_and_cmpxchg() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[1] = 0xaaaa_bbbb_cccc_dddd;
    done(&mut cpu, &mut toy, &[0x87, 0x0b], true);
    assert_eq!((cpu.gpr[1], toy.ops.pop()), (0x4433_2211, Some(Op::Write(DEVICE, vec![0xdd, 0xdd, 0xcc, 0xcc]))));
    done(&mut cpu, &mut toy, &[0xf0, 0x0f, 0xc1, 0x0b], true);
    assert_eq!((cpu.gpr[1], toy.ops.pop()), (0x4433_2211, Some(Op::Write(DEVICE, vec![0x22, 0x44, 0x66, 0x88]))));
    cpu.gpr[0] = 0xffff_ffff_4433_2211;
    cpu.gpr[1] = 5;
    done(&mut cpu, &mut toy, &[0x0f, 0xb1, 0x0b], true);
    assert_eq!((cpu.rflags & ZF, toy.ops.pop()), (ZF, Some(Op::Write(DEVICE, vec![5, 0, 0, 0]))));
    cpu.gpr[0] = 1;
    done(&mut cpu, &mut toy, &[0x0f, 0xb1, 0x0b], true);
    assert_eq!((cpu.rflags & ZF, cpu.gpr[0]), (0, 0x4433_2211));
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, vec![0x11, 0x22, 0x33, 0x44])));
}

#[test]
fn bit_instructions_reach_beyond_their_operand() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[0] = 4;
    done(&mut cpu, &mut toy, &[0x0f, 0xa3, 0x03], false);
    assert_eq!((cpu.rflags & CF, toy.ops.pop()), (CF, Some(Op::Read(DEVICE, 4))));
    cpu.gpr[0] = 32 * 4 + 1;
    done(&mut cpu, &mut toy, &[0x0f, 0xab, 0x03], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE + 16, vec![0x13, 0x22, 0x33, 0x44])));
    cpu.gpr[3] = DEVICE + 8;
    cpu.gpr[0] = u64::from((-1i32).cast_unsigned());
    done(&mut cpu, &mut toy, &[0x0f, 0xb3, 0x03], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE + 4, vec![0x11, 0x22, 0x33, 0x44])));
    cpu.gpr[3] = DEVICE;
    done(&mut cpu, &mut toy, &[0x0f, 0xba, 0x3b, 0x21], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, vec![0x13, 0x22, 0x33, 0x44])), "an immediate stays in it");
}

#[test]
fn cmov_reads_always_and_setcc_writes_a_byte() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[0] = u64::MAX;
    done(&mut cpu, &mut toy, &[0x0f, 0x44, 0x03], false);
    assert_eq!((cpu.gpr[0], toy.ops.len()), (0xffff_ffff, 1), "upper half is cleared");
    cpu.rflags |= ZF;
    done(&mut cpu, &mut toy, &[0x48, 0x0f, 0x44, 0x03], false);
    assert_eq!(cpu.gpr[0], toy.value);
    done(&mut cpu, &mut toy, &[0x0f, 0x94, 0x03], true);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, vec![1])));
}

#[test]
fn push_and_pop() {
    let (mut cpu, mut toy) = long();
    done(&mut cpu, &mut toy, &[0xff, 0x33], false);
    assert_eq!((cpu.gpr[4], toy.get(0x8ff8, 8)), (0x8ff8, toy.value.to_le_bytes().to_vec()));
    done(&mut cpu, &mut toy, &[0x8f, 0x03], true);
    assert_eq!(cpu.gpr[4], 0x9000);
    assert_eq!(toy.ops.pop(), Some(Op::Write(DEVICE, toy.value.to_le_bytes().to_vec())));
    let (mut cpu, mut toy) = protected();
    done(&mut cpu, &mut toy, &[0x66, 0xff, 0x33], false);
    assert_eq!((cpu.gpr[4], toy.get(0x8ffe, 2)), (0x8ffe, vec![0x11, 0x22]));
}

#[test]
fn movs_copies_between_memory_and_device() {
    let (mut cpu, mut toy) = long();
    toy.put(0x5000, b"abcdefgh");
    (cpu.gpr[6], cpu.gpr[7], cpu.gpr[1]) = (0x5000, DEVICE + 0x10, 2);
    done(&mut cpu, &mut toy, &[0xf3, 0xa5], true);
    assert_eq!(toy.ops, [Op::Write(DEVICE + 0x10, b"abcd".to_vec()), Op::Write(DEVICE + 0x14, b"efgh".to_vec())]);
    assert_eq!((cpu.gpr[6], cpu.gpr[7], cpu.gpr[1]), (0x5008, DEVICE + 0x18, 0));
    (cpu.gpr[6], cpu.gpr[7], cpu.rflags) = (DEVICE, 0x6000, 2 | DF);
    done(&mut cpu, &mut toy, &[0x48, 0xa5], false);
    assert_eq!((toy.get(0x6000, 8), cpu.gpr[6], cpu.gpr[7]), (toy.value.to_le_bytes().to_vec(), DEVICE - 8, 0x5ff8));
}

#[test]
fn repeated_strings_stop_at_a_page_and_go_on() {
    let (mut cpu, mut toy) = long();
    (cpu.gpr[7], cpu.gpr[1], cpu.gpr[0]) = (DEVICE + 0xffe, 5, 0x7a);
    assert_eq!(run_at(&mut cpu, &mut toy, &[0xf3, 0xaa], DEVICE, true), Ok(Outcome::Partial));
    assert_eq!((cpu.gpr[1], cpu.gpr[7], cpu.rip, toy.ops.len()), (3, DEVICE + 0x1000, CODE, 2));
    done(&mut cpu, &mut toy, &[0xf3, 0xaa], true);
    assert_eq!((cpu.gpr[1], toy.ops.len()), (0, 5));
    cpu.gpr[1] = u64::MAX;
    cpu.gpr[7] = DEVICE;
    assert_eq!(run_at(&mut cpu, &mut toy, &[0xf3, 0xaa], DEVICE, true), Ok(Outcome::Partial));
}

#[test]
fn lods_scas_and_cmps() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[6] = DEVICE;
    done(&mut cpu, &mut toy, &[0xac], false);
    assert_eq!((cpu.gpr[0], cpu.gpr[6]), (0x11, DEVICE + 1));
    (cpu.gpr[7], cpu.gpr[1]) = (DEVICE, 10);
    done(&mut cpu, &mut toy, &[0xf2, 0xae], false);
    assert_eq!((cpu.gpr[1], cpu.rflags & ZF), (9, ZF), "found at once");
    (cpu.gpr[6], cpu.gpr[7], cpu.gpr[1]) = (0x5000, DEVICE, 10);
    done(&mut cpu, &mut toy, &[0xf3, 0xa6], false);
    assert_eq!((cpu.gpr[1], cpu.rflags & (CF | ZF)), (9, CF), "0 differs from 0x11");
}

#[test]
fn an_operand_across_pages_is_split() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[3] = DEVICE + 0xffd;
    cpu.gpr[0] = 0x4433_2211;
    assert_eq!(run_at(&mut cpu, &mut toy, &[0x89, 0x03], DEVICE + 0xffd, true), Ok(Outcome::Done { trap: false }));
    let writes = [(0xffd, vec![0x11, 0x22]), (0xfff, vec![0x33]), (0x1000, vec![0x44])];
    assert_eq!(toy.ops, writes.map(|(at, bytes)| Op::Write(DEVICE + at, bytes)));
    // From memory into the device's first byte.
    let (mut cpu, mut toy) = long();
    toy.entry(0x8_2000 + 0x1f5 * 8, 0x8_4007);
    toy.entry(0x8_4000 + 0x1ff * 8, 0x7003);
    cpu.gpr[3] = DEVICE - 1;
    cpu.gpr[0] = 0x2211;
    assert_eq!(run_at(&mut cpu, &mut toy, &[0x66, 0x89, 0x03], DEVICE, true), Ok(Outcome::Done { trap: false }));
    assert_eq!((toy.get(0x7fff, 1), toy.ops), (vec![0x11], vec![Op::Write(DEVICE, vec![0x22])]));
}

#[test]
fn an_instruction_across_pages_is_fetched() {
    let (mut cpu, mut toy) = long();
    cpu.rip = 0x1fff;
    done(&mut cpu, &mut toy, &[0x8b, 0x43, 0x00], false);
    assert_eq!(toy.ops, [Op::Read(DEVICE, 4)]);
}

#[test]
fn faults_have_no_effect() {
    let (mut cpu, mut toy) = long();
    cpu.gpr[6] = 0x5000_0000_0000;
    cpu.gpr[7] = DEVICE;
    let before = cpu.clone();
    let fault = Outcome::Fault(Exception::Page { address: 0x5000_0000_0000, code: 0 });
    assert_eq!(run_at(&mut cpu, &mut toy, &[0xa5], DEVICE, true), Ok(fault));
    cpu.gpr[6] = 0x8000_0000_0000_0000;
    assert_eq!(run_at(&mut cpu, &mut toy, &[0xa5], DEVICE, true), Ok(Outcome::Fault(Exception::GeneralProtection)));
    cpu.gpr[6] = before.gpr[6];
    assert_eq!((cpu, toy.ops.len()), (before, 0));
    let (mut cpu, mut toy) = long();
    cpu.gpr[5] = 1 << 62;
    assert_eq!(run_at(&mut cpu, &mut toy, &[0x01, 0x45, 0x00], DEVICE, true), Ok(Outcome::Fault(Exception::Stack)));
}

#[test]
fn user_code_cannot_reach_kernel_memory_through_the_emulator() {
    // The exit was a user's access to a user's page; meanwhile the instruction was changed to one on a kernel page.
    let (mut cpu, mut toy) = long();
    toy.entry(0x8_0000, 0x8_1007);
    toy.entry(0x8_1000, 0x8_3007);
    toy.entry(0x8_3000, 0x87);
    cpu.cpl = 3;
    let fault = Exception::Page { address: DEVICE + 4, code: 5 };
    assert_eq!(run_at(&mut cpu, &mut toy, &[0x33, 0x43, 0x04], DEVICE, false), Ok(Outcome::Fault(fault)));
    let fault = Exception::Page { address: DEVICE + 4, code: 7 };
    assert_eq!(run_at(&mut cpu, &mut toy, &[0x89, 0x43, 0x04], DEVICE, true), Ok(Outcome::Fault(fault)));
    assert!(toy.ops.is_empty());
}

#[test]
fn what_is_not_known_is_told_with_its_bytes() {
    // MOVAPS, MOV to a segment register, CPUID, an invalid opcode, and a lone prefix at the end of memory.
    for code in [&[0x0f, 0x29, 0x03][..], &[0x8e, 0x1b], &[0x0f, 0xa2], &[0x0f, 0x0b], &[0x06]] {
        let (mut cpu, mut toy) = long();
        let before = cpu.clone();
        let Err(Error::Unsupported { rip, bytes, len, reason }) = run_at(&mut cpu, &mut toy, code, DEVICE, true) else {
            panic!("{code:02x?} was emulated");
        };
        assert_eq!((rip, &bytes[..code.len()], len), (CODE, code, 15));
        assert!(!reason.is_empty());
        assert_eq!(cpu, before);
    }
}

#[test]
fn the_trap_flag_is_told() {
    for code in [&[0x8b, 0x03][..], &[0x33, 0x03]] {
        let (mut cpu, mut toy) = long();
        cpu.rflags |= TF;
        assert_eq!(run_at(&mut cpu, &mut toy, code, DEVICE, false), Ok(Outcome::Done { trap: true }));
    }
}

#[test]
fn real_mode_with_segments_and_a20() {
    let mut toy = Toy::new();
    let mut cpu = Cpu { rip: 0x100, rflags: 2, ..Cpu::default() };
    cpu.segments[1].base = 0x1000;
    cpu.segments[3].base = 0xf_fff0;
    cpu.gpr[3] = 0x30;
    // MOV AX, [BX] at ffff:0030 is 0x100020 with A20 open, 0x20 with it closed.
    toy.put(0x1100, &[0x8b, 0x07]);
    let (mut closed, mut wrapped) = (cpu.clone(), toy.clone());
    assert_eq!(emulate(&mut cpu, &mut toy, Miss { gpa: 0x10_0020, write: false }), Ok(Outcome::Done { trap: false }));
    assert_eq!((toy.ops, cpu.gpr[0], cpu.rip), (vec![Op::Read(0x10_0020, 2)], 0x2211, 0x102));
    closed.a20_closed = true;
    wrapped.put(0x20, &[9, 8]);
    assert_eq!(emulate(&mut closed, &mut wrapped, Miss { gpa: 0x20, write: false }), Ok(Outcome::Done { trap: false }));
    assert_eq!((wrapped.ops.len(), closed.gpr[0]), (0, 0x0809));
}
