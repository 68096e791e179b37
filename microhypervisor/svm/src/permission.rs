// SPDX-License-Identifier: MIT OR Apache-2.0
//! The maps that say which ports and MSRs a guest reaches without an exit (AMD APM vol. 2, 15.10 and 15.11).
//!
//! One port map (all ones: every port exits) and one MSR map serve all guests: a guest has directly what VMLOAD and VMSAVE swap,
//! and nothing else. PAT stays out, though nested paging gives the guest one of its own: emulators let it through to
//! the host's.

use cloister_vcpu::SWAPPED_MSRS;

/// Size of the port map (all ones), bytes: 64 Ki ports, and three bits beyond for accesses that straddle the end; whole pages.
pub const IO_MAP: usize = 3 * 4096;
/// Size of the MSR map, bytes.
pub const MSR_MAP: usize = 2 * 4096;

/// Fills the MSR map: all exit but [`SWAPPED_MSRS`]. Each has two bits, for reads and writes; those from 0xc000_0000 on begin at
/// byte 0x800.
pub fn fill_msr_map(map: &mut [u8; MSR_MAP]) {
    map.fill(0xff);
    for msr in SWAPPED_MSRS {
        let start = if msr >= 0xc000_0000 { 0x800 } else { 0 };
        map[start + (msr & 0x1fff) as usize / 4] &= !(3 << (msr % 4 * 2));
    }
}

#[cfg(test)]
mod tests {
    use super::{MSR_MAP, SWAPPED_MSRS, fill_msr_map};

    /// Both bits of an MSR, by the positions that the manual gives.
    fn bits(map: &[u8; MSR_MAP], msr: usize) -> u8 {
        let bit = match msr {
            0..=0x1fff => msr * 2,
            0xc000_0000..=0xc000_1fff => 0x800 * 8 + (msr - 0xc000_0000) * 2,
            _ => 0x1000 * 8 + (msr - 0xc001_0000) * 2,
        };
        map[bit / 8] >> (bit % 8) & 3
    }

    #[test]
    fn only_swapped_registers_pass() {
        let mut map = [0; MSR_MAP];
        fill_msr_map(&mut map);
        let zeros: u32 = map.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(zeros, 20);
        for msr in SWAPPED_MSRS {
            assert_eq!(bits(&map, msr as usize), 0, "{msr:#x}");
        }
        for msr in [0xc000_0080, 0x277, 0x10, 0x1b, 0xc000_0103, 0xc001_0117] {
            assert_eq!(bits(&map, msr), 3, "{msr:#x}");
        }
    }
}
