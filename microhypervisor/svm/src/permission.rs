// SPDX-License-Identifier: MIT OR Apache-2.0
//! The maps that say which ports and MSRs a guest reaches without an exit (AMD APM vol. 2, 15.10 and 15.11).
//!
//! One port map (all ones: every port exits) and one MSR map serve all guests: a guest has directly what VMLOAD and VMSAVE swap,
//! and nothing else. PAT stays out, though nested paging gives the guest one of its own: emulators let it through to
//! the host's.

/// Size of the port map, bytes: 64 Ki ports, and three bits beyond for accesses that straddle the end; whole pages.
pub const IO_MAP: usize = 3 * 4096;
/// Size of the MSR map, bytes.
pub const MSR_MAP: usize = 2 * 4096;

/// MSRs that the world switch swaps: SYSENTER, STAR to SFMASK, FS base, GS base, KERNEL_GS_BASE.
pub const SWAPPED_MSRS: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

/// Index of the read bit of an MSR in the map (the write bit follows), `None` for those that always exit.
const fn msr_bit(msr: u32) -> Option<usize> {
    let (base, start) = match msr {
        0..=0x1fff => (0, 0),
        0xc000_0000..=0xc000_1fff => (0xc000_0000, 0x800),
        0xc001_0000..=0xc001_1fff => (0xc001_0000, 0x1000),
        _ => return None,
    };
    Some((start * 4 + (msr - base) as usize) * 2)
}

/// Fills the port map: all ports exit.
pub fn fill_io_map(map: &mut [u8; IO_MAP]) {
    map.fill(0xff);
}

/// Fills the MSR map: all exit but [`SWAPPED_MSRS`].
pub fn fill_msr_map(map: &mut [u8; MSR_MAP]) {
    map.fill(0xff);
    for bit in SWAPPED_MSRS.iter().filter_map(|msr| msr_bit(*msr)) {
        if let Some(byte) = map.get_mut(bit / 8) {
            *byte &= !(3 << (bit % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IO_MAP, MSR_MAP, SWAPPED_MSRS, fill_io_map, fill_msr_map, msr_bit};

    #[test]
    fn only_swapped_registers_pass() {
        let mut map = [0; MSR_MAP];
        fill_msr_map(&mut map);
        let zeros: u32 = map.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(zeros, 20);
        for msr in SWAPPED_MSRS {
            let bit = msr_bit(msr).unwrap();
            assert_eq!(map[bit / 8] >> (bit % 8) & 3, 0, "{msr:#x}");
        }
    }

    #[test]
    fn map_positions_of_the_manual() {
        assert_eq!(msr_bit(0), Some(0));
        assert_eq!(msr_bit(0xc000_0080), Some(0x800 * 8 + 0x100));
        assert_eq!(msr_bit(0xc001_0000), Some(0x1000 * 8));
        assert_eq!(msr_bit(0x4000_0000), None);
        assert_eq!(msr_bit(u32::MAX), None);
    }

    #[test]
    fn efer_and_pat_exit() {
        let mut map = [0; MSR_MAP];
        fill_msr_map(&mut map);
        for msr in [0xc000_0080, 0x277, 0x10, 0x1b, 0xc000_0103, 0xc001_0117] {
            let bit = msr_bit(msr).unwrap();
            assert_eq!(map[bit / 8] >> (bit % 8) & 3, 3, "{msr:#x}");
        }
    }

    #[test]
    fn all_ports_exit() {
        let mut map = [0; IO_MAP];
        fill_io_map(&mut map);
        assert!(map.iter().all(|byte| *byte == 0xff));
    }
}
