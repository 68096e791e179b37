// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest may have: masks for control registers, made once per boot from what CPUID answers.
//!
//! Values of a monitor go through these masks before the processor sees them. Bits that do not exist are taken away; a
//! combination that the processor refuses (paging without protection, say) is left for it to refuse.

use crate::event;
use crate::field::{Field, Segment};
use cloister_abi::arch::x86_64::vcpu::{Controls, SHADOW_NMI, SHADOW_STI};

/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;
const CR0_ET: u64 = 1 << 4;
const CR0_MASK: u64 = 0xe005_003f;
/// EFER: long mode enabled.
pub const EFER_LME: u64 = 1 << 8;
/// EFER: long mode active.
pub const EFER_LMA: u64 = 1 << 10;
const EFER_BASE: u64 = 1 << 11 | EFER_LMA | EFER_LME | 1;
const DR6_MASK: u64 = 0xe00f;
const DR6_ONES: u64 = 0xffff_0ff0;
const DR7_MASK: u64 = 0xffff_23ff;
const DR7_ONES: u64 = 0x400;
const RFLAGS_MASK: u64 = 0x003f_7fd5;
const RFLAGS_ONES: u64 = 2;
/// State components whose XSAVE image fits the state page: x87, SSE, AVX.
const XCR0_MASK: u64 = 7;

/// Bits of CPUID leaves and the CR4 bits that they allow (AMD APM vol. 2, 3.1.3): leaf 1 EDX.
const CR4_LEAF1_EDX: [(u32, u64); 8] =
    [(1, 3), (2, 1 << 3), (3, 1 << 4), (4, 1 << 2), (6, 1 << 5), (7, 1 << 6), (13, 1 << 7), (24, 3 << 9)];
/// As above: leaf 1 ECX.
const CR4_LEAF1_ECX: [(u32, u64); 2] = [(17, 1 << 17), (26, 1 << 18)];
/// As above: leaf 7 EBX.
const CR4_LEAF7_EBX: [(u32, u64); 3] = [(0, 1 << 16), (7, 1 << 20), (20, 1 << 21)];
/// As above: leaf 7 ECX.
const CR4_LEAF7_ECX: [(u32, u64); 2] = [(2, 1 << 11), (16, 1 << 12)];
/// CR4: physical address extension.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4: addresses of 57 bits.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4: machine checks.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PCE needs no feature bit.
const CR4_PCE: u64 = 1 << 8;

/// What a guest may have on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    cr3: u64,
    /// Bits of CR4 that a guest may have.
    pub cr4: u64,
    efer: u64,
    xcr0: u64,
}

fn allowed<const N: usize>(leaf: u32, table: [(u32, u64); N]) -> u64 {
    table.iter().filter(|(bit, _)| leaf & 1 << bit != 0).fold(0, |mask, (_, bits)| mask | bits)
}

impl Limits {
    /// Limits of the machine where CPUID answers these leaves (subleaf 0), zeros for a leaf that does not exist.
    pub fn from_cpuid(leaf: impl Fn(u32) -> [u32; 4]) -> Self {
        let [_, _, leaf1_ecx, leaf1_edx] = leaf(1);
        let [_, leaf7_ebx, leaf7_ecx, _] = leaf(7);
        let [_, _, extended1_ecx, extended1_edx] = leaf(0x8000_0001);
        let ffxsr = u64::from(extended1_edx >> 25 & 1) << 14;
        let tce = u64::from(extended1_ecx >> 17 & 1) << 15;
        let has_xsave = leaf1_ecx & 1 << 26 != 0;
        let physical_bits = (leaf(0x8000_0008)[0] & 0xff).clamp(36, 52);
        Self {
            cr3: (1 << physical_bits) - 1,
            cr4: CR4_PCE
                | allowed(leaf1_edx, CR4_LEAF1_EDX)
                | allowed(leaf1_ecx, CR4_LEAF1_ECX)
                | allowed(leaf7_ebx, CR4_LEAF7_EBX)
                | allowed(leaf7_ecx, CR4_LEAF7_ECX),
            efer: EFER_BASE | ffxsr | tce,
            xcr0: if has_xsave { u64::from(leaf(0xd)[0]) & XCR0_MASK | 1 } else { 1 },
        }
    }

    /// A register's value with the bits that exist on this processor and that the kernel can keep apart per guest. `None` if WRMSR
    /// would refuse it whole, or no processor has such an event.
    #[inline(always)]
    #[must_use]
    pub fn fit(&self, field: Field, value: u64) -> Option<u64> {
        Some(match field {
            Field::CR0 => value & CR0_MASK | CR0_ET,
            Field::CR3 => value & self.cr3,
            Field::CR4 => value & self.cr4,
            Field::CR8 => value & 0xf,
            Field::XCR0 => self.xcr0(value),
            Field::EFER => value & self.efer,
            Field::RFLAGS => value & RFLAGS_MASK | RFLAGS_ONES,
            Field::DR6 => value & DR6_MASK | DR6_ONES,
            Field::DR7 => value & DR7_MASK | DR7_ONES,
            Field::PAT if !is_pat(value) => return None,
            Field::SFMASK => value & 0xffff_ffff,
            Field::SYSENTER_ESP | Field::SYSENTER_EIP | Field::LSTAR | Field::CSTAR | Field::KERNEL_GS_BASE => {
                self.canonical(value)
            }
            Field::EVENT => return event::checked(value),
            Field::SHADOW => value & (SHADOW_STI | SHADOW_NMI),
            Field::CONTROLS => value & Controls::all().bits(),
            _ => value,
        })
    }

    /// A segment or table register: its base canonical; of a table only base and 16 bits of limit.
    #[inline(always)]
    #[must_use]
    pub const fn segment(&self, name: Field, [first, limit, base]: Segment) -> Segment {
        let base = self.canonical(base);
        if name.is_table() {
            [0, limit & 0xffff, base]
        } else {
            [first & 0xffff_ffff_0000_ffff, limit & 0xffff_ffff, base]
        }
    }

    /// An address as the processor would have it: bits beyond the highest are copies of it.
    const fn canonical(&self, address: u64) -> u64 {
        let unused = if self.cr4 & CR4_LA57 != 0 { 7 } else { 16 };
        ((address << unused).cast_signed() >> unused).cast_unsigned()
    }

    /// EFER for the processor. LMA is not the monitor's to say: it follows from LME and paging (APM vol. 2, 14.6.1).
    #[inline]
    #[must_use]
    pub const fn efer(&self, value: u64, cr0: u64) -> u64 {
        let value = value & self.efer & !EFER_LMA;
        if value & EFER_LME != 0 && cr0 & CR0_PG != 0 { value | EFER_LMA } else { value }
    }

    /// XCR0 that XSETBV would take: x87 always, AVX only with SSE.
    const fn xcr0(&self, value: u64) -> u64 {
        let value = value & self.xcr0 | 1;
        if value & 2 == 0 { 1 } else { value }
    }
}

/// Whether all types of memory in a page-attribute table exist (APM vol. 2, 7.8.1).
fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests {
    use super::{CR0_PG, Field, Limits};
    use crate::tests::epyc_leaf;

    fn epyc() -> Limits {
        Limits::from_cpuid(epyc_leaf)
    }

    #[test]
    fn long_mode_follows_paging() {
        let limits = epyc();
        assert_eq!(limits.efer(0xd01, CR0_PG), 0xd01);
        assert_eq!(limits.efer(0x500, 0), 0x100);
        assert_eq!(limits.efer(0x400, CR0_PG), 0);
    }

    #[test]
    fn reserved_bits_go() {
        let fit = |field, value| epyc().fit(field, value).unwrap();
        assert_eq!(fit(Field::CR0, u64::MAX), 0xe005_003f);
        assert_eq!(fit(Field::CR3, u64::MAX), (1 << 40) - 1);
        assert_eq!(fit(Field::CR4, u64::MAX) & !0x0037_0fff, 0);
        assert_eq!(fit(Field::CR4, u64::MAX) & 1 << 13, 0, "VMXE");
        assert_eq!(fit(Field::DR6, u64::MAX), 0xffff_efff & !0x1000 | 0xffff_0ff0);
        assert_eq!(fit(Field::DR7, 0), 0x400);
        assert_eq!(fit(Field::RFLAGS, u64::MAX), 0x003f_7fd7);
        assert_eq!(fit(Field::RFLAGS, 0), 2);
        assert_eq!(fit(Field::LSTAR, 0x8000_1234_5678), 0xffff_8000_1234_5678);
    }

    #[test]
    fn page_attributes_are_taken_whole_or_not_at_all() {
        assert_eq!(epyc().fit(Field::PAT, 0x0007_0406_0007_0402), None);
        assert_eq!(epyc().fit(Field::PAT, 0x0007_0405_0601_0004), Some(0x0007_0405_0601_0004));
    }

    #[test]
    fn tables_have_base_and_limit() {
        let noise = [!0xf0_0000_0000, 0xffff_0001_2345, 1 << 47];
        let base = !0 << 47;
        assert_eq!(epyc().segment(Field::IDTR, noise), [0, 0x2345, base]);
        assert_eq!(epyc().segment(Field::TR, noise), [0xffff_ff0f_0000_ffff, 0x1_2345, base]);
    }

    #[test]
    fn xcr0_is_what_xsetbv_takes() {
        let limits = epyc();
        assert_eq!(limits.xcr0(0), 1);
        assert_eq!(limits.xcr0(5), 1);
        assert_eq!(limits.xcr0(7), 7);
        assert_eq!(limits.xcr0(u64::MAX), 7);
    }
}
