// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor and its VMs: `/dev/kvm`, memory slots.

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cloister_hypervisor::{Error, Hypervisor, MemoryRegion, Vm};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, kvm_cpuid_entry2, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::ioctl::{self, refused};
use crate::{KvmVcpu, msrs};

/// Three pages under 4 GiB that KVM wants for itself on Intel processors without unrestricted guest.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// `/dev/kvm`.
#[derive(Debug)]
pub struct KvmHypervisor {
    kvm: Kvm,
}

impl KvmHypervisor {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// There is none, or it lacks a capability that the VMM needs.
    pub fn open() -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(refused("open(/dev/kvm)"))?;
        let needed = [
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR"),
            (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER"),
        ];
        match needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            Some((_, name)) => Err(Error::Unsupported(name)),
            None => Ok(Self { kvm }),
        }
    }
}

impl Hypervisor for KvmHypervisor {
    type Vm = KvmVm;

    fn create_vm(&self) -> Result<KvmVm, Error> {
        let fd = self.kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
        fd.set_tss_address(TSS_ADDRESS).map_err(refused("KVM_SET_TSS_ADDR"))?;
        msrs::install_filter(&fd)?;
        let tsc_khz = ioctl::tsc_khz(&fd)?;
        Ok(KvmVm { fd: Arc::new(fd), tsc_khz, slots: Mutex::default() })
    }

    fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let list = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(refused("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(list.as_slice().to_vec())
    }
}

/// A KVM virtual machine.
pub struct KvmVm {
    fd: Arc<VmFd>,
    tsc_khz: u32,
    /// Guest-physical start and size of each slot in use; the index is the slot's number.
    slots: Mutex<Vec<Option<(u64, u64)>>>,
}

impl fmt::Debug for KvmVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmVm").field("tsc_khz", &self.tsc_khz).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl KvmVm {
    fn set_region(&self, region: kvm_userspace_memory_region) -> Result<(), Error> {
        // SAFETY: `Vm::map`'s caller promises that the memory stays mapped and is shared with the guest.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(refused("KVM_SET_USER_MEMORY_REGION"))
    }
}

impl Vm for KvmVm {
    type Vcpu = KvmVcpu;

    unsafe fn map(&self, region: &MemoryRegion) -> Result<(), Error> {
        let bad = |reason| Error::Region { address: region.guest, size: region.size, reason };
        if region.size == 0 || (region.guest | region.size | region.host) & 0xfff != 0 {
            return Err(bad("not a multiple of 4 KiB"));
        }
        let Some(end) = region.guest.checked_add(region.size) else { return Err(bad("wraps")) };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.iter().flatten().any(|&(start, size)| start < end && region.guest < start.saturating_add(size)) {
            return Err(bad("overlaps another region"));
        }
        let index = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        let slot = u32::try_from(index).map_err(|_| bad("too many regions"))?;
        let flags = if region.protection.write { 0 } else { KVM_MEM_READONLY };
        self.set_region(kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: region.guest,
            memory_size: region.size,
            userspace_addr: region.host,
        })?;
        if index == slots.len() {
            slots.push(None);
        }
        if let Some(entry) = slots.get_mut(index) {
            *entry = Some((region.guest, region.size));
        }
        Ok(())
    }

    fn unmap(&self, guest: u64, size: u64) -> Result<(), Error> {
        let none = Error::Region { address: guest, size, reason: "not mapped" };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = slots.iter().position(|s| *s == Some((guest, size))).ok_or(none)?;
        let slot = u32::try_from(index).unwrap_or(u32::MAX);
        self.set_region(kvm_userspace_memory_region { slot, guest_phys_addr: guest, ..Default::default() })?;
        if let Some(entry) = slots.get_mut(index) {
            *entry = None;
        }
        Ok(())
    }

    fn create_vcpu(&self, id: u32) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(u64::from(id)).map_err(refused("KVM_CREATE_VCPU"))?;
        KvmVcpu::new(fd, self.tsc_khz)
    }

    fn tsc_khz(&self) -> Result<u32, Error> {
        Ok(self.tsc_khz)
    }
}
