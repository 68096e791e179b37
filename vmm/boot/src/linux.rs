// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading Linux by its 64-bit boot protocol (the kernel's Documentation/x86/boot.rst).
//!
//! The compressed kernel goes to its preferred address, so that a kernel that does not randomise its address need not
//! move; the initial ramdisk goes to the top of low memory; the zero page tells where all that is, and lists the
//! memory. linux-loader does the copying; what it does not check (a file that is shorter than its header says) is
//! checked here first.

use std::io::{Read, Seek, SeekFrom};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile};

use crate::{Error, layout};

/// Offset of the setup header in a bzImage.
const SETUP_HEADER: u64 = 0x1f1;
const MAGIC: u32 = 0x5372_6448;
const SECTOR: u64 = 512;
/// The first protocol version that has the fields we need (2.12: `xloadflags`).
const MIN_VERSION: u16 = 0x020c;
const XLF_KERNEL_64: u16 = 1;
/// The 64-bit entry point is this far behind the start of the protected-mode code.
const ENTRY_64: u64 = 0x200;
const LOADER_UNKNOWN: u8 = 0xff;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const LARGE_PAGE: u64 = 2 << 20;

/// Where the first VCPU starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// Guest-physical address of the boot parameters, for RSI.
    pub boot_params: u64,
}

/// What to boot.
#[derive(Debug)]
pub struct Linux<'a, K, I> {
    /// The bzImage.
    pub kernel: &'a mut K,
    /// The initial ramdisk.
    pub initrd: Option<&'a mut I>,
    /// The command line.
    pub command_line: &'a str,
    /// Guest-physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// Size of guest memory.
    pub ram: u64,
}

/// Loads a kernel and its ramdisk into `memory`, and writes command line and boot parameters.
///
/// # Errors
/// Each [`Error`]: a bad or truncated image, too little memory, a command line that is too long.
pub fn load<K, I>(memory: &GuestMemoryMmap, linux: Linux<'_, K, I>) -> Result<Entry, Error>
where
    K: Read + ReadVolatile + Seek,
    I: ReadVolatile + Seek,
{
    let header = check_header(linux.kernel)?;
    let low_end = linux.ram.min(layout::RAM_BELOW_4G_MAX);
    let kernel_at = header.pref_address.max(layout::HIGH_START);
    let needed = u64::from(header.init_size);
    let available = low_end.saturating_sub(kernel_at);
    if needed > available {
        return Err(Error::DoesNotFit { what: "kernel", needed, available });
    }
    let loaded = BzImage::load(memory, Some(GuestAddress(kernel_at)), linux.kernel, None)
        .map_err(|e| Error::Kernel(format!("can't be loaded: {e}")))?;

    let mut params = boot_params { hdr: loaded.setup_header.unwrap_or(header), ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    params.acpi_rsdp_addr = linux.rsdp;
    if let Some(initrd) = linux.initrd {
        let kernel_end = kernel_at.saturating_add(needed);
        let (at, size) = load_initrd(memory, initrd, kernel_end, low_end.min(u64::from(header.initrd_addr_max)))?;
        params.hdr.ramdisk_image = at;
        params.hdr.ramdisk_size = size;
    }
    params.hdr.cmd_line_ptr = write_command_line(memory, linux.command_line, u64::from(header.cmdline_size))?;
    list_memory(&mut params, linux.ram);
    memory
        .write_slice(params.as_slice(), GuestAddress(layout::ZERO_PAGE))
        .map_err(|_| Error::Memory { what: "boot parameters", address: layout::ZERO_PAGE })?;
    Ok(Entry { rip: kernel_at.saturating_add(ENTRY_64), boot_params: layout::ZERO_PAGE })
}

/// Reads the setup header and checks that this is a whole 64-bit bzImage.
fn check_header<K: Read + Seek>(kernel: &mut K) -> Result<setup_header, Error> {
    let io = |e: std::io::Error| Error::Kernel(format!("can't be read: {e}"));
    let found = kernel.seek(SeekFrom::End(0)).map_err(io)?;
    let mut header = setup_header::default();
    let header_size = u64::try_from(header.as_slice().len()).unwrap_or(u64::MAX);
    let announced = SETUP_HEADER.saturating_add(header_size);
    if found < announced {
        return Err(Error::KernelTruncated { announced, found });
    }
    kernel.seek(SeekFrom::Start(SETUP_HEADER)).map_err(io)?;
    kernel.read_exact(header.as_mut_slice()).map_err(io)?;
    let (magic, version, xloadflags) = (header.header, header.version, header.xloadflags);
    if magic != MAGIC {
        return Err(Error::Kernel(format!("no bzImage: {magic:#010x} instead of {MAGIC:#010x} at 0x202")));
    }
    if version < MIN_VERSION {
        return Err(Error::Kernel(format!("boot protocol {version:#06x} is older than {MIN_VERSION:#06x}")));
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        return Err(Error::Kernel("has no 64-bit entry point".into()));
    }
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let setup = setup_sectors.saturating_add(1).saturating_mul(SECTOR);
    let announced = setup.saturating_add(u64::from(header.syssize).saturating_mul(16));
    if found < announced {
        return Err(Error::KernelTruncated { announced, found });
    }
    kernel.rewind().map_err(io)?;
    Ok(header)
}

/// Loads the ramdisk as high as it goes below `end`; returns its address and size.
fn load_initrd<I: ReadVolatile + Seek>(
    memory: &GuestMemoryMmap,
    initrd: &mut I,
    start: u64,
    end: u64,
) -> Result<(u32, u32), Error> {
    let io = |e: std::io::Error| Error::Kernel(format!("initrd can't be read: {e}"));
    let size = initrd.seek(SeekFrom::End(0)).map_err(io)?;
    initrd.rewind().map_err(io)?;
    let no_room = Error::DoesNotFit { what: "initrd", needed: size, available: end.saturating_sub(start) };
    let at = end.checked_sub(size).map(|at| at & !(LARGE_PAGE - 1)).filter(|at| *at >= start);
    let at = at.ok_or_else(|| no_room.clone())?;
    let count = usize::try_from(size).map_err(|_| no_room.clone())?;
    memory
        .read_exact_volatile_from(GuestAddress(at), initrd, count)
        .map_err(|e| Error::Kernel(format!("initrd can't be read: {e}")))?;
    let narrow = |v: u64| u32::try_from(v).map_err(|_| no_room.clone());
    Ok((narrow(at)?, narrow(size)?))
}

fn write_command_line(memory: &GuestMemoryMmap, text: &str, kernel_limit: u64) -> Result<u32, Error> {
    let given = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let limit = kernel_limit.min(layout::COMMAND_LINE_SIZE - 1);
    if given > limit {
        return Err(Error::CommandLine { given, limit });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    let address = layout::COMMAND_LINE;
    let refused = Error::Memory { what: "command line", address };
    memory.write_slice(&bytes, GuestAddress(address)).map_err(|_| refused.clone())?;
    u32::try_from(address).map_err(|_| refused)
}

/// Fills in the memory map.
fn list_memory(params: &mut boot_params, ram: u64) {
    let mut list = vec![
        (0, layout::LOW_END, E820_RAM),
        (layout::LOW_END, layout::HIGH_START - layout::LOW_END, E820_RESERVED),
        (layout::ECAM, layout::ECAM_SIZE, E820_RESERVED),
    ];
    for (start, size) in layout::ram(ram) {
        let from = start.max(layout::HIGH_START);
        list.push((from, start.saturating_add(size).saturating_sub(from), E820_RAM));
    }
    list.sort_unstable();
    let mut count = 0_u8;
    let mut table = params.e820_table;
    for (entry, (addr, size, kind)) in table.iter_mut().zip(list) {
        *entry = boot_e820_entry { addr, size, r#type: kind };
        count = count.saturating_add(1);
    }
    params.e820_table = table;
    params.e820_entries = count;
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;
