// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few ioctls that kvm-ioctls has no method for, and the translation of errors.

use std::os::fd::AsRawFd;

use cloister_hypervisor::Error;
use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_device_attr, kvm_interrupt};

const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;
const KVM_GET_TSC_KHZ: libc::c_ulong = 0xaea3;
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;

/// Translates an error of kvm-ioctls.
pub(crate) fn refused(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |e| Error::Host { call, status: -i64::from(e.errno()) }
}

fn check(call: &'static str, result: libc::c_int) -> Result<libc::c_int, Error> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(Error::Host { call, status: -i64::from(errno) })
}

/// `KVM_INTERRUPT`: queues external interrupt `vector`.
pub(crate) fn interrupt(vcpu: &impl AsRawFd, vector: u8) -> Result<(), Error> {
    let irq = kvm_interrupt { irq: u32::from(vector) };
    // SAFETY: the structure is the one that this ioctl reads, and lives during the call.
    let r = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_INTERRUPT, &raw const irq) };
    check("KVM_INTERRUPT", r).map(drop)
}

/// `KVM_GET_TSC_KHZ` of a VM.
pub(crate) fn tsc_khz(vm: &impl AsRawFd) -> Result<u32, Error> {
    // SAFETY: this ioctl has no argument.
    let r = unsafe { libc::ioctl(vm.as_raw_fd(), KVM_GET_TSC_KHZ, 0) };
    check("KVM_GET_TSC_KHZ", r).map(libc::c_int::unsigned_abs)
}

/// Makes the guest's TSC the host's.
pub(crate) fn zero_tsc_offset(vcpu: &impl AsRawFd) -> Result<(), Error> {
    let offset = 0_u64;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const offset).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the attribute's address is that of a u64, as KVM_VCPU_TSC_OFFSET wants it; both live during the call.
    let r = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attr) };
    check("KVM_SET_DEVICE_ATTR(TSC_OFFSET)", r).map(drop)
}
