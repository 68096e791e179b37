// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end asks of the VMM while it handles an exit: the guest's accesses to devices and to MSRs.
//!
//! The implementor owns the device models. Every method is total: whatever a guest asks for has an answer (floating
//! buses read as ones, writes to nothing are dropped), only an MSR access can be refused, as on hardware.

/// The guest's access is refused as the processor would refuse it: a general-protection exception, error code 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault;

/// The answer to an MSR access.
pub type MsrResult<T> = Result<T, Fault>;

/// The VMM's side of an exit.
pub trait Bus {
    /// `IN`: reads `size` (1, 2 or 4) bytes from I/O port `port`. Bits above the size are ignored.
    fn io_in(&mut self, port: u16, size: u8) -> u32;

    /// `OUT`: writes the low `size` (1, 2 or 4) bytes of `value` to I/O port `port`.
    fn io_out(&mut self, port: u16, size: u8, value: u32);

    /// Reads `data.len()` (1 to 64) bytes of device memory at guest-physical address `address`.
    fn mmio_read(&mut self, address: u64, data: &mut [u8]);

    /// Writes `data` (1 to 64 bytes) to device memory at guest-physical address `address`.
    fn mmio_write(&mut self, address: u64, data: &[u8]);

    /// `RDMSR` of `msr`.
    ///
    /// # Errors
    /// [`Fault`]: there is no such MSR, the guest gets #GP(0).
    fn rdmsr(&mut self, msr: u32) -> MsrResult<u64>;

    /// `WRMSR` of `value` to `msr`.
    ///
    /// # Errors
    /// [`Fault`]: no such MSR, or a value that it does not take; the guest gets #GP(0).
    fn wrmsr(&mut self, msr: u32, value: u64) -> MsrResult<()>;

    /// `VMMCALL`/`VMCALL` number `nr` with up to four arguments: the value for the guest's RAX.
    /// The default answers "no such call" as KVM's ABI does (`-KVM_ENOSYS`, 1000).
    fn hypercall(&mut self, nr: u64, args: [u64; 4]) -> u64 {
        let _ = (nr, args);
        (-1000_i64).cast_unsigned()
    }
}
