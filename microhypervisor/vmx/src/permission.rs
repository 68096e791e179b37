// SPDX-License-Identifier: MIT OR Apache-2.0
//! The map that says which MSRs a guest reaches without an exit (SDM vol. 3C, 25.6.9). One serves all guests. Ports need no
//! map: each exits.

use cloister_vcpu::SWAPPED_MSRS;

/// Size of the map, bytes: reads of low and high registers, then writes of both.
pub const MSR_MAP: usize = 4096;

/// Fills the map: all exit but [`SWAPPED_MSRS`].
pub fn fill_msr_map(map: &mut [u8; MSR_MAP]) {
    map.fill(0xff);
    for msr in SWAPPED_MSRS {
        let high = if msr >= 0xc000_0000 { 1024 } else { 0 };
        let byte = high + (msr & 0x1fff) as usize / 8;
        map[byte] &= !(1 << (msr % 8));
        map[byte + 2048] &= !(1 << (msr % 8));
    }
}

#[cfg(test)]
mod tests {
    use super::{MSR_MAP, fill_msr_map};

    #[test]
    fn only_swapped_registers_pass() {
        let mut map = [0; MSR_MAP];
        fill_msr_map(&mut map);
        assert_eq!(map.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 20);
        // SYSENTER_CS to EIP; STAR to SFMASK; FS base to KERNEL_GS_BASE: reads, and writes half a page on.
        for half in [0, 2048] {
            assert_eq!(
                (map[half + 0x174 / 8], map[half + 1024 + 0x80 / 8], map[half + 1024 + 0x100 / 8]),
                (0x8f, 0xe1, 0xf8)
            );
        }
    }
}
