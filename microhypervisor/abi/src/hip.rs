// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor information page (HIP): what the root task is told about the machine.
//!
//! The kernel maps it read-only at [`ADDRESS`] in the root task and starts the root task with that address as first
//! argument. The root task's first capabilities are at the selectors below.

use crate::cap::Selector;

/// Where the page is mapped in the root task.
pub const ADDRESS: u64 = 0x0000_7fff_f000_0000;
/// Where the UTCB of the root task's first EC is mapped.
pub const ROOT_UTCB: u64 = 0x0000_7fff_f000_1000;
/// First message: "CLOISTER" in little-endian bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CLOISTER");
/// Most memory ranges that are told of.
pub const RANGES: usize = 64;
/// Longest command line, bytes.
pub const CMDLINE: usize = 1024;

/// Root task's PD.
pub const ROOT_PD: Selector = 1;
/// Its object space.
pub const ROOT_OBJECTS: Selector = 2;
/// Its host-memory space.
pub const ROOT_HOST: Selector = 3;
/// Its port space (empty at first).
pub const ROOT_PIO: Selector = 4;
/// Its first EC.
pub const ROOT_EC: Selector = 5;
/// The SC of its first EC.
pub const ROOT_SC: Selector = 6;
/// The machine.
pub const MACHINE: Selector = 7;
/// All physical memory but the kernel's, as a host space whose unit is the physical page. Source of delegations only.
pub const MACHINE_MEMORY: Selector = 8;
/// All I/O ports but the kernel's. Source of delegations only.
pub const MACHINE_PIO: Selector = 9;
/// First selector that the root task may use as it likes.
pub const FIRST_FREE: Selector = 16;

/// Kinds of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Free for the root task.
    Available = 1,
    /// Reserved by firmware, or a hole with devices.
    Reserved = 2,
    /// ACPI tables, free once they are read.
    AcpiReclaim = 3,
    /// ACPI non-volatile storage.
    AcpiNvs = 4,
    /// The boot image; free once nothing in it is used.
    BootImage = 5,
    /// The kernel and its pool: not to be had.
    Kernel = 6,
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryRange {
    /// First byte.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// [`MemoryKind`] as a number.
    pub kind: u32,
    /// Reserved.
    pub reserved: u32,
}

/// Feature bits of [`Hip::features`].
pub mod features {
    /// AMD SVM with nested paging is there and on.
    pub const SVM: u64 = 1 << 0;
    /// Intel VMX with EPT is there and on.
    pub const VMX: u64 = 1 << 1;
    /// The time-stamp counter runs at a constant rate in all states.
    pub const INVARIANT_TSC: u64 = 1 << 2;
    /// An IOMMU is there and on.
    pub const IOMMU: u64 = 1 << 3;
    /// The IOMMU remaps interrupts: a device raises those that were bound for it, and no others.
    pub const INTERRUPT_REMAPPING: u64 = 1 << 4;
}

/// The page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Hip {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub version: u32,
    /// Number of cores that run.
    pub cores: u32,
    /// Frequency of the time-stamp counter, Hz.
    pub tsc_hz: u64,
    /// Bits of [`features`].
    pub features: u64,
    /// Physical address of the boot image, and its size in bytes.
    pub image_base: u64,
    /// Size of the boot image, bytes.
    pub image_size: u64,
    /// Physical address of the ACPI root pointer, 0 if none. The loader may have made a copy of it in memory that is free by now:
    /// [`Hip::acpi_root`] stays.
    pub acpi_rsdp: u64,
    /// Number of global system interrupts.
    pub interrupts: u32,
    /// Number of valid entries in `ranges`.
    pub range_count: u32,
    /// Kernel memory in all, bytes.
    pub kernel_memory: u64,
    /// Frame buffer: physical address (0: none).
    pub framebuffer: u64,
    /// Frame buffer: width | height << 32, pixels.
    pub framebuffer_size: u64,
    /// Frame buffer: bytes per line | bits per pixel << 32.
    pub framebuffer_format: u64,
    /// Wall-clock time at boot, seconds since 1970-01-01 (0 if unknown).
    pub boot_time: u64,
    /// Physical address of the ACPI table of tables (XSDT or RSDT, as its signature says), 0 if none.
    pub acpi_root: u64,
    /// Frame buffer: position of the lowest bit and number of bits of red (bytes 0 and 1), green (2, 3) and blue (4, 5) in a pixel.
    pub framebuffer_colors: u64,
    /// Physical memory, ascending, not overlapping.
    pub ranges: [MemoryRange; RANGES],
    /// Command line, NUL-terminated.
    pub cmdline: [u8; CMDLINE],
    /// Reserved.
    pub padding: [u8; 1408],
}

const _: () = assert!(size_of::<Hip>() == crate::PAGE_SIZE);
