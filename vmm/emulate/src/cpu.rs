// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of a VCPU, as far as an instruction on memory needs them, and the rules of their widths.
//!
//! Writing 8 or 16 bits keeps the rest of a register; writing 32 bits clears its upper half (SDM volume 1 section
//! 3.4.1.1).

use iced_x86::Register;

/// Bits of RFLAGS.
pub mod flag {
    /// Carry.
    pub const CF: u64 = 1 << 0;
    /// Parity.
    pub const PF: u64 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u64 = 1 << 4;
    /// Zero.
    pub const ZF: u64 = 1 << 6;
    /// Sign.
    pub const SF: u64 = 1 << 7;
    /// Trap.
    pub const TF: u64 = 1 << 8;
    /// Direction.
    pub const DF: u64 = 1 << 10;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// Resume.
    pub const RF: u64 = 1 << 16;
    /// Alignment check; lets the supervisor access user pages when SMAP is on.
    pub const AC: u64 = 1 << 18;
}

/// Index of a general-purpose register in [`Cpu::gpr`]: the number that instructions encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
}

/// Names of the segment registers, in the order of [`Cpu::segments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the registers")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

/// A segment register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Linear address of its start. In 64-bit mode only those of FS and GS count.
    pub base: u64,
    /// The D/B bit of its descriptor: 32-bit code, or stack.
    pub big: bool,
    /// The L bit of its descriptor: 64-bit code. Of CS only.
    pub long: bool,
}

/// What an instruction changed, besides RIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Bit n: general-purpose register n.
    pub gprs: u16,
    /// RFLAGS.
    pub rflags: bool,
}

/// The registers of a VCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended features (MSR 0xc000_0080).
    pub efer: u64,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// The A20 gate is closed: bit 20 of physical addresses is 0.
    pub a20_closed: bool,
    /// What the instruction changed; cleared by the caller.
    pub changed: Changed,
}

const EFER_LMA: u64 = 1 << 10;

/// Width of addresses and operands by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Bits16,
    Bits32,
    Bits64,
}

impl Mode {
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
}

/// All ones in `bytes` (1, 2, 4 or 8) bytes.
pub(crate) const fn mask(bytes: usize) -> u64 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// `value` of `bytes` bytes, sign-extended to 64 bits.
pub(crate) const fn sign_extend(value: u64, bytes: usize) -> u64 {
    let shift = match bytes {
        1 => 56,
        2 => 48,
        4 => 32,
        _ => 0,
    };
    ((value << shift).cast_signed() >> shift).cast_unsigned()
}

impl Cpu {
    /// Segment register `name`.
    #[must_use]
    pub const fn segment(&self, name: SegmentName) -> Segment {
        let [es, cs, ss, ds, fs, gs] = self.segments;
        match name {
            SegmentName::Es => es,
            SegmentName::Cs => cs,
            SegmentName::Ss => ss,
            SegmentName::Ds => ds,
            SegmentName::Fs => fs,
            SegmentName::Gs => gs,
        }
    }

    pub(crate) const fn mode(&self) -> Mode {
        let cs = self.segment(SegmentName::Cs);
        if self.efer & EFER_LMA != 0 && cs.long {
            Mode::Bits64
        } else if cs.big {
            Mode::Bits32
        } else {
            Mode::Bits16
        }
    }

    pub(crate) fn is_64(&self) -> bool {
        self.mode() == Mode::Bits64
    }

    /// The base that is added for `name`: in 64-bit mode only FS and GS have one.
    pub(crate) fn base(&self, name: SegmentName) -> u64 {
        match name {
            SegmentName::Fs | SegmentName::Gs => self.segment(name).base,
            _ if self.is_64() => 0,
            _ => self.segment(name).base,
        }
    }

    /// General-purpose register `index`, whole.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.gpr.get(index).copied().unwrap_or(0)
    }

    /// The low `bytes` of general-purpose register `index`; `high` for AH, CH, DH and BH.
    pub(crate) fn get_part(&self, index: usize, bytes: usize, high: bool) -> u64 {
        let value = self.get(index);
        (if high { value >> 8 } else { value }) & mask(bytes)
    }

    /// Writes a part of general-purpose register `index`.
    pub(crate) fn set_part(&mut self, index: usize, bytes: usize, high: bool, value: u64) {
        let Some(slot) = self.gpr.get_mut(index) else { return };
        let value = value & mask(bytes);
        *slot = match (bytes, high) {
            (1, true) => (*slot & !0xff00) | (value << 8),
            (1 | 2, _) => (*slot & !mask(bytes)) | value,
            _ => value,
        };
        self.changed.gprs |= 1u16.checked_shl(u32::try_from(index).unwrap_or(16)).unwrap_or(0);
    }

    /// Index, bytes, and whether it is a high byte, of a general-purpose register.
    fn part(register: Register) -> Option<(usize, usize, bool)> {
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        register.is_gpr().then(|| (register.full_register().number(), register.size(), high))
    }

    /// Reads a general-purpose register; `None` for others.
    pub(crate) fn read(&self, register: Register) -> Option<u64> {
        Self::part(register).map(|(index, bytes, high)| self.get_part(index, bytes, high))
    }

    /// Writes a general-purpose register; `None` for others.
    pub(crate) fn write(&mut self, register: Register, value: u64) -> Option<()> {
        Self::part(register).map(|(index, bytes, high)| self.set_part(index, bytes, high, value))
    }

    pub(crate) const fn has(&self, flag: u64) -> bool {
        self.rflags & flag != 0
    }

    /// Replaces the flags in `which`.
    pub(crate) const fn set_flags(&mut self, which: u64, values: u64) {
        self.rflags = (self.rflags & !which) | (values & which);
        self.changed.rflags = true;
    }

    /// Goes `len` bytes on. A wrapped instruction pointer is kept to the width of the mode.
    pub(crate) fn advance(&mut self, len: usize) {
        let next = self.rip.wrapping_add(u64::try_from(len).unwrap_or(0));
        self.rip = match self.mode() {
            Mode::Bits64 => next,
            Mode::Bits32 | Mode::Bits16 => next & 0xffff_ffff,
        };
    }
}
