// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of a guest's registers: a [`Field`] is the place of its word among those of the state page. The kernel keeps what no
//! control structure has in the same order ([`crate::Registers`]), without segment registers.

use cloister_abi::arch::x86_64::vcpu::VcpuState;
use core::mem::offset_of;
use core::ops::Range;

/// A register that is a word, or the first word of a segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(usize);

/// A segment or table register as the page has it: selector, and access rights from bit 32 on; limit; base.
pub type Segment = [u64; SEGMENT_WORDS];
const SEGMENT_WORDS: usize = 3;

/// Words of segment registers, which every control structure has.
const HOLE: usize = Field::CR0.0 - Field::CS.0;
/// Word of the page that the registers begin with.
const FIRST: usize = offset_of!(VcpuState, gpr) / 8;

/// `NAME = field of the page, or + place in an array`, …
macro_rules! fields {
    ($($name:ident = $field:ident $(+ $index:literal)?),+) => {
        #[expect(missing_docs, reason = "names of registers")]
        impl Field {
            $(pub const $name: Self = Self(offset_of!(VcpuState, $field) / 8 - FIRST $(+ $index)?);)+
        }
    };
}

fields! {
    RAX = gpr, RCX = gpr + 1, RDX = gpr + 2, RBX = gpr + 3, RSP = gpr + 4, RBP = gpr + 5, RSI = gpr + 6, RDI = gpr + 7,
    R8 = gpr + 8, R9 = gpr + 9, R10 = gpr + 10, R11 = gpr + 11, R12 = gpr + 12, R13 = gpr + 13, R14 = gpr + 14, R15 = gpr + 15,
    RIP = rip, RFLAGS = rflags,
    CS = cs, SS = ss, DS = ds, ES = es, FS = fs, GS = gs, TR = tr, LDTR = ldtr, GDTR = gdtr, IDTR = idtr,
    CR0 = cr0, CR2 = cr2, CR3 = cr3, CR4 = cr4, CR8 = cr8, XCR0 = xcr0, EFER = efer, PAT = pat,
    DR0 = dr0_3, DR1 = dr0_3 + 1, DR2 = dr0_3 + 2, DR3 = dr0_3 + 3, DR6 = dr6, DR7 = dr7,
    SYSENTER_CS = sysenter_cs, SYSENTER_ESP = sysenter_esp, SYSENTER_EIP = sysenter_eip,
    STAR = star, LSTAR = lstar, CSTAR = cstar, SFMASK = sfmask, KERNEL_GS_BASE = kernel_gs_base,
    EVENT = event, SHADOW = shadow, CONTROLS = controls, TSC_OFFSET = tsc_offset
}

impl Field {
    /// Number of words that the registers take.
    pub const COUNT: usize = offset_of!(VcpuState, store) / 8 - FIRST - HOLE;
    /// DR0 to DR3.
    pub const BREAKPOINTS: Range<usize> = Self::DR0.index()..Self::DR3.index() + 1;
    /// STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE.
    pub const SYSCALL: Range<usize> = Self::STAR.index()..Self::KERNEL_GS_BASE.index() + 1;

    /// A general-purpose register, by its encoding.
    #[must_use]
    pub const fn gpr(encoding: usize) -> Self {
        Self(encoding & 15)
    }

    /// Place among the registers.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        if self.0 < Self::CR0.0 { self.0 } else { self.0 - HOLE }
    }

    /// Word of the page.
    #[inline(always)]
    pub(crate) const fn word(self) -> usize {
        FIRST + self.0
    }

    /// Place among the segment and table registers: CS, SS, DS, ES, FS, GS, TR, LDTR, GDTR, IDTR.
    #[inline(always)]
    #[must_use]
    pub const fn segment(self) -> usize {
        (self.0 - Self::CS.0) / SEGMENT_WORDS
    }

    /// Whether it is GDTR or IDTR.
    #[inline(always)]
    #[must_use]
    pub const fn is_table(self) -> bool {
        matches!(self, Self::GDTR | Self::IDTR)
    }
}
