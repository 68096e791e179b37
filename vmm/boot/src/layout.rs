// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lies where in the guest-physical memory of a PC guest. Addresses and sizes in bytes.

/// The first VCPU's global descriptor table.
pub const GDT: u64 = 0x500;
/// The Linux boot parameters ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables for the first instructions: one root, one directory pointer table, four directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Room for the command line.
pub const COMMAND_LINE_SIZE: u64 = 0x1_0000;
/// End of conventional memory.
pub const LOW_END: u64 = 0x9_fc00;
/// ACPI tables; the root pointer is the first of them.
pub const ACPI: u64 = 0xe_0000;
/// Room for ACPI tables.
pub const ACPI_SIZE: u64 = 0x2_0000;
/// Memory above the legacy hole.
pub const HIGH_START: u64 = 0x10_0000;
/// RAM below 4 GiB ends here at most; the rest continues at [`RAM_ABOVE_4G`].
pub const RAM_BELOW_4G_MAX: u64 = 0xc000_0000;
/// RAM beyond [`RAM_BELOW_4G_MAX`] starts here.
pub const RAM_ABOVE_4G: u64 = 0x1_0000_0000;
/// Window for memory BARs of PCI devices.
pub const PCI_MMIO: u64 = 0xc000_0000;
/// Size of the window for memory BARs.
pub const PCI_MMIO_SIZE: u64 = 0x2000_0000;
/// Memory-mapped configuration space of bus 0.
pub const ECAM: u64 = 0xe000_0000;
/// Size of the configuration space of one bus.
pub const ECAM_SIZE: u64 = 0x10_0000;
/// The I/O interrupt controller.
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local interrupt controller, in its memory-mapped mode.
pub const LAPIC: u64 = 0xfee0_0000;

/// How RAM of `size` bytes is laid out: (guest-physical start, size) of one or two pieces.
#[must_use]
pub fn ram(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(RAM_BELOW_4G_MAX);
    let mut pieces = vec![(0, low)];
    let high = size.saturating_sub(low);
    if high != 0 {
        pieces.push((RAM_ABOVE_4G, high));
    }
    pieces
}

const _: () = assert!(GDT + 0x100 <= ZERO_PAGE && ZERO_PAGE + 0x1000 <= PAGE_TABLES);
const _: () = assert!(PAGE_TABLES + 6 * 0x1000 <= COMMAND_LINE && COMMAND_LINE + COMMAND_LINE_SIZE <= LOW_END);
const _: () = assert!(ACPI + ACPI_SIZE <= HIGH_START && PCI_MMIO + PCI_MMIO_SIZE <= ECAM);

#[cfg(test)]
mod tests {
    use super::{RAM_ABOVE_4G, ram};

    #[test]
    fn large_memory_continues_above_4_gib() {
        assert_eq!(ram(256 << 20), [(0, 256 << 20)]);
        assert_eq!(ram(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ram(5 << 30), [(0, 3 << 30), (RAM_ABOVE_4G, 2 << 30)]);
    }
}
