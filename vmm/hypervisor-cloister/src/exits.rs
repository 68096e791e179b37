// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answers to exits, but for those of ports with strings ([`crate::string`]) and of device memory ([`crate::memory`]).

use cloister_abi::arch::current::vcpu::{self as abi, ExitReason, Groups, PortAccess, SHADOW_STI};
use cloister_hypervisor::{Access, Bus, CpuidState, Error, Exit, MsrResult};

use crate::calls::Calls;
use crate::vcpu::CloisterVcpu;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;
const LOW: u64 = 0xffff_ffff;
const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;

/// The low half of a register.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(crate) const fn low(value: u64) -> u32 {
    value as u32
}

impl<C: Calls> CloisterVcpu<C> {
    /// IN, OUT, INS, OUTS.
    #[inline]
    pub(crate) fn port<B: Bus>(&mut self, bus: &mut B) -> Result<Exit, Error> {
        let [access, next, _] = self.page.qualification();
        let access = PortAccess(access);
        if access.is_string() {
            return self.string_port(bus, access, next);
        }
        let (port, rax) = (access.port(), self.page.rax());
        let size = if access.size() == 4 { 4 } else { access.size() & 3 };
        let size = if size == 4 { 4_u8 } else { u8::try_from(size).unwrap_or(1).max(1) };
        self.page.set_rip(next);
        if access.is_in() {
            let value = u64::from(bus.io_in(port, size));
            let rax = match size {
                1 => rax & !0xff | value & 0xff,
                2 => rax & !0xffff | value & 0xffff,
                _ => value & LOW,
            };
            self.page.set_register(RAX, rax);
            self.changed(Groups::RIP.union(Groups::GPR_ACDB));
            Ok(Exit::Access(Access::PortRead(port)))
        } else {
            let value = match size {
                1 => low(rax) & 0xff,
                2 => low(rax) & 0xffff,
                _ => low(rax),
            };
            bus.io_out(port, size, value);
            self.changed(Groups::RIP);
            Ok(Exit::Access(Access::PortWrite(port)))
        }
    }

    /// Goes on behind the exited instruction.
    #[inline]
    pub(crate) fn skip(&mut self) -> Result<(), Error> {
        let next = self.page.rip().wrapping_add(self.page.instruction_length());
        self.go_on_at(next);
        Ok(())
    }

    /// The guest gets #GP(0).
    pub(crate) fn refuse(&mut self) {
        self.queue(abi::Event::exception(GENERAL_PROTECTION, Some(0)));
    }

    #[inline]
    pub(crate) fn write_msr<B: Bus>(&mut self, bus: &mut B) -> Result<Exit, Error> {
        let page = self.page;
        let msr = low(page.register(RCX));
        let value = page.register(RDX) << 32 | page.rax() & LOW;
        let taken = match self.keep_msr(msr, value)? {
            Some(taken) => taken,
            None => bus.wrmsr(msr, value).is_ok(),
        };
        if taken {
            self.skip()?
        } else {
            self.refuse()
        }
        Ok(Exit::Access(Access::MsrWrite(msr)))
    }

    pub(crate) fn read_msr<B: Bus>(&mut self, bus: &mut B) -> Result<Exit, Error> {
        let page = self.page;
        let msr = low(page.register(RCX));
        let value: MsrResult<u64> = match self.kept_msr(msr)? {
            Some(value) => Ok(value),
            None => bus.rdmsr(msr),
        };
        match value {
            Ok(value) => {
                page.set_register(RAX, value & LOW);
                page.set_register(RDX, value >> 32);
                self.changed(Groups::GPR_ACDB);
                self.skip()?;
            }
            Err(_) => self.refuse(),
        }
        Ok(Exit::Access(Access::MsrRead(msr)))
    }

    /// All other exits.
    #[inline(never)]
    pub(crate) fn other<B: Bus>(&mut self, bus: &mut B, reason: ExitReason) -> Result<Exit, Error> {
        match reason {
            ExitReason::Cpuid => self.cpuid(),
            ExitReason::Hlt => self.halt(),
            ExitReason::Memory => self.device_memory(bus),
            ExitReason::Xsetbv => self.xsetbv(),
            ExitReason::Hypercall => self.hypercall(bus),
            ExitReason::Shutdown => Ok(Exit::Shutdown),
            // Both only say something about time, or about caches that the guest does not have.
            ExitReason::Pause | ExitReason::CacheControl => self.skip().map(|()| Exit::Again),
            ExitReason::Mwait => {
                self.queue(abi::Event::exception(INVALID_OPCODE, None));
                Ok(Exit::Again)
            }
            ExitReason::Rdpmc => {
                self.refuse();
                Ok(Exit::Again)
            }
            // The kernel has queued what the guest gets.
            ExitReason::Virtualization => Ok(Exit::Again),
            ExitReason::TaskSwitch => self.unhandled("task switch".into()),
            ExitReason::InvalidState => self.unhandled("the processor refuses the guest's state".into()),
            other => self.unhandled(format!("exit {other:?}")),
        }
    }

    fn halt(&mut self) -> Result<Exit, Error> {
        self.skip()?;
        // The instruction is done, and with it the shadow of an STI before it.
        let shadow = self.page.shadow();
        if shadow & SHADOW_STI != 0 {
            self.page.set_shadow(shadow & !SHADOW_STI);
            self.changed(Groups::SHADOW);
        }
        Ok(Exit::Halt)
    }

    fn cpuid(&mut self) -> Result<Exit, Error> {
        let page = self.page;
        let (leaf, subleaf) = (low(page.rax()), low(page.register(RCX)));
        // Only two leaves mirror the processor's state.
        let mirrors = matches!(leaf, 1 | 0xd);
        let state = if mirrors {
            self.need(Groups::CR)?;
            CpuidState { cr4: page.cr4(), xcr0: page.xcr0() }
        } else {
            CpuidState::default()
        };
        let [eax, ebx, ecx, edx] = self.cpuid.answer(leaf, subleaf, state);
        page.set_register(RAX, eax.into());
        page.set_register(RBX, ebx.into());
        page.set_register(RCX, ecx.into());
        page.set_register(RDX, edx.into());
        self.changed(Groups::GPR_ACDB);
        self.skip()?;
        Ok(Exit::Access(Access::Cpuid(leaf)))
    }

    /// XSETBV: Intel SDM volume 2; the processor has checked that the guest has OSXSAVE set.
    fn xsetbv(&mut self) -> Result<Exit, Error> {
        let page = self.page;
        self.need(Groups::CR.union(Groups::CS_SS))?;
        let value = page.register(RDX) << 32 | page.rax() & LOW;
        let index = low(page.register(RCX));
        let known = value & !self.cpuid.xcr0_mask() == 0;
        // x87 always; AVX only with SSE.
        let sound = value & 1 != 0 && (value & 4 == 0 || value & 2 != 0);
        if index == 0 && known && sound && self.privilege() == 0 {
            page.set_xcr0(value);
            self.changed(Groups::CR);
            self.skip()?;
        } else {
            self.refuse();
        }
        Ok(Exit::Access(Access::Xsetbv))
    }

    /// Current privilege level. CS_SS must be valid.
    pub(crate) fn privilege(&self) -> u8 {
        u8::try_from(self.page.ss().access >> 5 & 3).unwrap_or(3)
    }

    fn hypercall<B: Bus>(&mut self, bus: &mut B) -> Result<Exit, Error> {
        /// What KVM answers to callers that are not privileged: EPERM.
        const NOT_PRIVILEGED: u64 = (-1_i64).cast_unsigned();
        let page = self.page;
        let number = page.rax();
        self.need(Groups::CS_SS)?;
        let answer = if self.privilege() == 0 {
            let args = [page.register(RBX), page.register(RCX), page.register(RDX), page.register(RSI)];
            bus.hypercall(number, args)
        } else {
            NOT_PRIVILEGED
        };
        page.set_register(RAX, answer);
        self.changed(Groups::GPR_ACDB);
        self.skip()?;
        Ok(Exit::Access(Access::Hypercall(number)))
    }
}
