// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Kernel`]: all that the personality asks of the world below it.
//!
//! Three groups: memory (RAM and boot modules as handles that can be attached at addresses), threads (each has one
//! semaphore to wait on), and the outside (log, entropy, time, the end). Implementations need no locks against the
//! personality's own calls, but several threads call at once.

use crate::errno::Errno;

/// Names a dataspace of the implementation: RAM, or the content of a boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u32);

/// Access to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prot {
    /// None: address space only.
    None,
    /// Read.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Exec,
}

/// An open boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rom {
    /// Its content.
    pub handle: Handle,
    /// Its size, bytes. The dataspace behind it is rounded up to pages.
    pub size: u64,
}

/// How a new thread starts: with the registers of the thread that made it, as the implementation finds them at `frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Registers of the parent at its system call, in a form only the implementation knows.
    pub frame: u64,
    /// Stack pointer of the new thread.
    pub stack: u64,
    /// Thread pointer of the new thread (x86_64: FS base).
    pub tls: u64,
}

/// What the personality asks of the world. Addresses and sizes are bytes; attach and detach get whole pages.
pub trait Kernel {
    /// Allocates zeroed RAM of `size` bytes, physically aligned to `align` where that can be had.
    ///
    /// # Errors
    /// `NOMEM` if the component's quota does not allow it.
    fn ram_alloc(&self, size: u64, align: u64) -> Result<Handle, Errno>;

    /// Gives RAM back. It is attached nowhere.
    fn ram_free(&self, ram: Handle);

    /// Makes a range of a dataspace accessible at `address`. `prot` is not `None`.
    ///
    /// # Errors
    /// `NOMEM` if there is no memory for page tables or attachments, `ACCES` for rights that the dataspace does not give.
    fn attach(&self, ds: Handle, offset: u64, address: u64, size: u64, prot: Prot) -> Result<(), Errno>;

    /// Undoes exactly one attach.
    fn detach(&self, address: u64, size: u64);

    /// Opens the boot module of that name.
    ///
    /// # Errors
    /// `NOENT` if there is none.
    fn rom_open(&self, name: &str) -> Result<Rom, Errno>;

    /// Closes it. It is attached nowhere.
    fn rom_close(&self, rom: Handle);

    /// Copies out of the program's memory.
    fn read(&self, address: u64, bytes: &mut [u8]);

    /// Copies into the program's memory.
    fn write(&self, address: u64, bytes: &[u8]);

    /// Copies within the program's memory; the ranges do not overlap.
    fn copy(&self, to: u64, from: u64, size: u64);

    /// Clears program memory.
    fn zero(&self, address: u64, size: u64);

    /// Reads an aligned word that other threads change, at once and in order with what they did before.
    fn load(&self, address: u64) -> u32;

    /// Writes an aligned word that other threads read.
    fn store(&self, address: u64, value: u32);

    /// Slot of the calling thread.
    fn current(&self) -> usize;

    /// Waits until somebody wakes the calling thread, or has done so since it waited last; or until the deadline (ticks).
    /// `false` says that the deadline passed. May return early without reason.
    fn wait(&self, deadline: Option<u64>) -> bool;

    /// Wakes the thread of that slot, now or at its next wait.
    fn wake(&self, slot: usize);

    /// Lets others of the same priority run.
    fn relax(&self);

    /// Starts a thread in that slot.
    ///
    /// # Errors
    /// `AGAIN` if there is no memory or no capability for it.
    fn spawn(&self, slot: usize, start: &Start) -> Result<(), Errno>;

    /// Number of processors on which threads may run.
    fn processors(&self) -> usize;

    /// Present time, ticks of the time-stamp counter.
    fn ticks(&self) -> u64;

    /// Hard-to-guess bits, as good as the machine has them.
    fn entropy(&self) -> u64;

    /// Writes a line (without its end) to the log.
    fn log(&self, line: &[u8]);

    /// The program is done. Returns if the parent takes its time; the caller then waits for its end.
    fn exit(&self, code: i32);
}
