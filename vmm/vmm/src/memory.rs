// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory and where it comes from.
//!
//! [`RamSource`] is the seam: on Linux RAM is anonymous memory, on Cloister a dataspace of the VMM's own quota. Either way
//! it is one stretch of the VMM's address space per piece of the guest's layout, aligned to 2 MiB so that the nested page
//! table can map it in large pages, and is seen through `vm-memory`'s volatile accesses only.

use core::{fmt, ptr};
use std::io;

use cloister_boot::layout;
use cloister_hypervisor::{Error, MemoryRegion, Protection, Vm};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

/// Alignment of guest memory in the VMM's address space, bytes.
pub const ALIGN: usize = 2 << 20;

/// Where RAM comes from.
pub trait RamSource {
    /// Gives memory for each of `pieces` (guest-physical start, size in bytes, both whole pages), all zeros.
    ///
    /// # Errors
    /// There is not as much.
    fn allocate_pieces(&self, pieces: &[(u64, u64)]) -> Result<Ram, Error>;

    /// Gives memory for a VM of `size` bytes, all zeros.
    ///
    /// # Errors
    /// There is not as much.
    fn allocate(&self, size: u64) -> Result<Ram, Error> {
        self.allocate_pieces(&layout::ram(size))
    }
}

/// Guest memory. It is given back when this is dropped.
pub struct Ram {
    memory: GuestMemoryMmap,
    _owner: Box<dyn Send + Sync>,
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.memory.fmt(f)
    }
}

impl Ram {
    /// Memory made of `pieces`: guest-physical start, size in bytes, and start in the VMM's address space. `owner` is
    /// dropped with it, and not before.
    ///
    /// # Errors
    /// [`Error::Region`]: a piece wraps or overlaps another one.
    ///
    /// # Safety
    /// Each piece must be mapped readable and writable, must stay so until `owner` is dropped, and must be used by
    /// nobody but through the result (and by the guest).
    pub unsafe fn from_pieces(
        pieces: &[(u64, u64, *mut u8)],
        owner: impl Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let mut regions = Vec::new();
        for &(guest, size, host) in pieces {
            let bad = |reason| Error::Region { address: guest, size, reason };
            let bytes = usize::try_from(size).map_err(|_| bad("larger than the address space"))?;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: the caller promises that the stretch is mapped so as long as `owner` lives.
            let region = unsafe { MmapRegion::build_raw(host, bytes, protection, flags) };
            let region = region.map_err(|_| bad("not aligned"))?;
            regions.push(GuestRegionMmap::new(region, GuestAddress(guest)).ok_or_else(|| bad("wraps"))?);
        }
        let overlap = Error::Region { address: 0, size: 0, reason: "pieces overlap" };
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|_| overlap)?;
        Ok(Self { memory, _owner: Box::new(owner) })
    }

    /// The memory, for devices and loaders.
    ///
    /// # Safety
    /// The result, and clones of it, must not be used after `self` is dropped.
    #[must_use]
    pub unsafe fn memory(&self) -> GuestMemoryMmap {
        self.memory.clone()
    }

    /// Makes it appear in `vm`.
    ///
    /// # Errors
    /// The back end's refusal.
    ///
    /// # Safety
    /// `vm` must not run, nor be kept, beyond the life of `self`.
    pub unsafe fn map_into(&self, vm: &impl Vm, protection: Protection) -> Result<(), Error> {
        for region in self.memory.iter() {
            let host = region.as_ptr().expose_provenance() as u64;
            let (guest, size) = (region.start_addr().0, region.len());
            // SAFETY: the memory is mapped as long as `self` lives, and only accessed through vm-memory.
            unsafe { vm.map(&MemoryRegion { guest, size, host, protection }) }?;
        }
        Ok(())
    }
}

/// Anonymous memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRam;

impl RamSource for HostRam {
    fn allocate_pieces(&self, pieces: &[(u64, u64)]) -> Result<Ram, Error> {
        let mut mappings = Vec::new();
        let mut placed = Vec::new();
        for &(guest, size) in pieces {
            let mapping = Mapping::new(guest, size)?;
            placed.push((guest, size, mapping.aligned()));
            mappings.push(mapping);
        }
        // SAFETY: the mappings are ours alone, and live as long as the memory.
        unsafe { Ram::from_pieces(&placed, mappings) }
    }
}

/// A mapping. If it could hold a large page, it is larger than asked for, so that an aligned stretch lies in it.
#[derive(Debug)]
struct Mapping {
    start: *mut u8,
    length: usize,
    /// Bytes more than asked for.
    slack: usize,
}

// SAFETY: the mapping is owned memory; its address may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; this type only gives out the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(guest: u64, size: u64) -> Result<Self, Error> {
        let bad = Error::Region { address: guest, size, reason: "larger than the address space" };
        let size = usize::try_from(size).map_err(|_| bad.clone())?;
        let slack = if size >= ALIGN { ALIGN } else { 0 };
        let length = size.checked_add(slack).ok_or(bad)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            return Err(Error::Host { call: "mmap of guest memory", status: i64::from(errno).saturating_neg() });
        }
        if slack != 0 {
            // SAFETY: the range is the mapping just made; a host without large pages refuses, and nothing is lost.
            unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { start: start.cast(), length, slack })
    }

    fn aligned(&self) -> *mut u8 {
        let offset = self.start.align_offset(ALIGN).min(self.slack);
        self.start.wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and whoever used it promised to be gone before `Ram`.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGN, HostRam, RamSource};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    #[test]
    fn memory_is_aligned_zero_and_writable_to_its_end() {
        let ram = HostRam.allocate(5 << 20).unwrap();
        let region = ram.memory.iter().next().unwrap();
        assert_eq!(region.as_ptr().addr() % ALIGN, 0);
        let last = GuestAddress((5 << 20) - 8);
        assert_eq!(ram.memory.read_obj::<u64>(last).unwrap(), 0);
        ram.memory.write_obj(7_u64, last).unwrap();
        assert!(ram.memory.write_obj(7_u64, GuestAddress((5 << 20) - 4)).is_err());
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(HostRam.allocate(u64::MAX).is_err());
        assert!(HostRam.allocate(1 << 62).is_err());
    }
}
