// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest of 64 KiB with one virtual CPU, whose code is a few bytes at [`CODE`].

use crate::kernel::{call, selector};
use crate::memory::{PAGE, addresses, frames, map};
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups, Segment, VcpuState};
use cloister_abi::cap::{Access, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{CreateSpace, CreateVcpu, Delegate, VcpuRun};
use cloister_abi::status::Status;

/// Where the guest's code starts.
pub const CODE: u64 = 0x1000;
/// Top of the guest's stack.
pub const STACK: u64 = 0x8000;
/// Log2 of the guest's pages.
pub const ORDER: u32 = 4;
/// Bytes of guest memory.
pub const SIZE: u64 = PAGE << ORDER;

/// Page tables of a guest in long mode.
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const DIRECTORY: u64 = 0x4000;

/// Access rights of segments, as in [`Segment`].
const CODE16: u32 = 0x9b;
const DATA16: u32 = 0x93;
const CODE64: u32 = 0xa09b;
const DATA64: u32 = 0xc093;
const TASK64: u32 = 0x8b;
const UNUSABLE: u32 = 1 << 16;

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// The VCPU.
    pub vcpu: Selector,
    /// The guest's memory space.
    pub space: Selector,
    /// Address of the guest's memory in this program.
    pub memory: u64,
    state: *mut VcpuState,
}

/// All groups but the FPU's.
#[must_use]
pub fn all_groups() -> u64 {
    (Groups::all() - Groups::FPU).bits()
}

impl Guest {
    /// A guest in real mode, CS to SS based at 0, about to run this code. Each exit stores all groups.
    ///
    /// # Errors
    /// As `CreateSpace`, `Delegate` and `CreateVcpu`.
    pub fn real(code: &[u8]) -> Result<Self, Status> {
        Self::real_on(0, code)
    }

    /// As [`Self::real`], on that core.
    ///
    /// # Errors
    /// As [`Self::real`].
    pub fn real_on(core: u32, code: &[u8]) -> Result<Self, Status> {
        let mut guest = Self::bare(core)?;
        guest.write(CODE, code);
        let state = guest.state();
        let data = segment(DATA16, 0xffff);
        state.cs = segment(CODE16, 0xffff);
        (state.ss, state.ds, state.es, state.fs, state.gs) = (data, data, data, data, data);
        state.tr = segment(0x8b, 0xffff);
        state.ldtr = segment(0x82, 0xffff);
        (state.gdtr, state.idtr) = (segment(0, 0), segment(0, 0x3ff));
        (state.rip, state.rflags, state.gpr[4]) = (CODE, 2, STACK);
        (state.cr0, state.cr4, state.efer, state.xcr0) = (0x10, 0, 0, 1);
        state.pat = 0x0007_0406_0007_0406;
        (state.dr6, state.dr7) = (0xffff_0ff0, 0x400);
        Ok(guest)
    }

    /// A guest in 64-bit mode at privilege level 0, the first 2 MiB mapped one to one, about to run this code.
    ///
    /// # Errors
    /// As [`Self::real`].
    pub fn long(code: &[u8]) -> Result<Self, Status> {
        let mut guest = Self::real(code)?;
        for (table, entry) in [(PML4, PDPT | 7), (PDPT, DIRECTORY | 7), (DIRECTORY, 0x87)] {
            guest.write(table, &entry.to_le_bytes());
        }
        let state = guest.state();
        let data = segment(DATA64, u32::MAX);
        state.cs = segment(CODE64, u32::MAX);
        (state.ss, state.ds, state.es, state.fs, state.gs) = (data, data, data, data, data);
        state.tr = segment(TASK64, 0xffff);
        state.ldtr = segment(UNUSABLE, 0);
        (state.cr0, state.cr3, state.cr4, state.efer) = (0x8001_0033, PML4, 0x620, 0xd01);
        Ok(guest)
    }

    fn bare(core: u32) -> Result<Self, Status> {
        let (space, vcpu) = (selector(), selector());
        let (memory, physical) = (addresses(ORDER), frames(ORDER));
        map(physical, memory, ORDER, Access::READ | Access::WRITE)?;
        call(&CreateSpace { sel: space, pd: ROOT_PD, kind: SpaceKind::Guest as u64 })?;
        call(&Delegate {
            src: MACHINE_MEMORY,
            dst: space,
            src_base: physical / PAGE,
            dst_base: 0,
            order: ORDER,
            rights: u64::from((Access::READ | Access::WRITE | Access::EXEC).bits()),
        })?;
        let address = addresses(0);
        call(&CreateVcpu { sel: vcpu, pd: ROOT_PD, guest: space, host: ROOT_HOST, address, core })?;
        let state = core::ptr::with_exposed_provenance_mut(address as usize);
        let mut guest = Self { vcpu, space, memory, state };
        guest.state().load = all_groups();
        guest.state().store = [all_groups(); 32];
        Ok(guest)
    }

    /// The state page. The kernel touches it in hypercalls only.
    pub fn state(&mut self) -> &mut VcpuState {
        // SAFETY: the kernel mapped the page here for this program.
        unsafe { &mut *self.state }
    }

    /// Where the state page is mapped.
    #[must_use]
    pub fn state_address(&self) -> u64 {
        self.state.expose_provenance() as u64
    }

    /// Writes guest memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        assert!(address + bytes.len() as u64 <= SIZE);
        for (place, byte) in (self.memory + address..).zip(bytes) {
            let place: *mut u8 = core::ptr::with_exposed_provenance_mut(place as usize);
            // SAFETY: in the guest's memory, which is mapped here.
            unsafe { place.write_volatile(*byte) };
        }
    }

    /// Reads a byte of guest memory.
    #[must_use]
    pub fn read(&self, address: u64) -> u8 {
        assert!(address < SIZE);
        let place: *const u8 = core::ptr::with_exposed_provenance((self.memory + address) as usize);
        // SAFETY: in the guest's memory, which is mapped here.
        unsafe { place.read_volatile() }
    }

    /// Runs the guest to its next exit, or fails after two seconds.
    ///
    /// # Errors
    /// As `VcpuRun`.
    pub fn run(&mut self) -> Result<ExitReason, Status> {
        if self.state().deadline == 0 {
            self.state().deadline = crate::time::after(2_000_000);
        }
        let (reason, _) = call(&VcpuRun { vcpu: self.vcpu })?;
        self.state().deadline = 0;
        ExitReason::from_raw(reason).ok_or(Status::BadParameter)
    }

    /// Goes past the instruction that exited.
    pub fn skip(&mut self) {
        let state = self.state();
        state.rip += state.instruction_length;
        state.load |= Groups::RIP.bits();
    }

    /// Destroys VCPU and space.
    pub fn destroy(&self) {
        crate::thread::destroy(self.vcpu);
        crate::thread::destroy(self.space);
    }
}

const fn segment(access: u32, limit: u32) -> Segment {
    Segment { selector: 0, reserved: 0, access, limit, reserved2: 0, base: 0 }
}
