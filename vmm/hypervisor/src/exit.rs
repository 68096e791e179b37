// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a VCPU came back.

use core::fmt;

use kvm_bindings::{kvm_regs, kvm_sregs};

/// A guest access that the bus has already answered; what is left of it is its kind and place, for statistics and
/// traces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Access {
    /// `IN` or `INS` from a port.
    PortRead(u16),
    /// `OUT` or `OUTS` to a port.
    PortWrite(u16),
    /// A read of device memory at a guest-physical address.
    MmioRead(u64),
    /// A write to device memory at a guest-physical address.
    MmioWrite(u64),
    /// `RDMSR`.
    MsrRead(u32),
    /// `WRMSR`.
    MsrWrite(u32),
    /// `CPUID` of a leaf.
    Cpuid(u32),
    /// `XSETBV`.
    Xsetbv,
    /// `VMMCALL` or `VMCALL`.
    Hypercall(u64),
}

/// The reason of one return from [`Vcpu::run`](crate::Vcpu::run).
#[derive(Debug)]
#[non_exhaustive]
pub enum Exit {
    /// A device or MSR access, answered.
    Access(Access),
    /// `HLT`: the guest waits for an interrupt. RIP is behind the instruction.
    Halt,
    /// The guest can take an external interrupt now, as asked by
    /// [`Vcpu::request_interrupt_window`](crate::Vcpu::request_interrupt_window).
    InterruptWindow,
    /// The deadline given to `run` has passed.
    Deadline,
    /// Another thread used the VCPU's [`Kick`](crate::Kick).
    Kicked,
    /// The guest's processor shut down: a triple fault.
    Shutdown,
    /// The back end had to leave for a reason of its own (a host interrupt): run again.
    Again,
    /// Something that neither the back end nor the bus can answer. The VM can't go on.
    Unhandled(Box<Unhandled>),
}

/// All that is known when an exit can't be handled, for the report that ends the VM.
#[derive(Clone)]
pub struct Unhandled {
    /// What happened, in words.
    pub reason: String,
    /// The back end's own numbers for it (exit code, qualification).
    pub code: [u64; 3],
    /// The guest's registers.
    pub regs: kvm_regs,
    /// The guest's special registers.
    pub sregs: kvm_sregs,
}

impl fmt::Debug for Unhandled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Unhandled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, s) = (&self.regs, &self.sregs);
        writeln!(f, "{} (code {:#x} {:#x} {:#x})", self.reason, self.code[0], self.code[1], self.code[2])?;
        writeln!(f, "  rip {:#018x} cs {:#06x} base {:#x} rflags {:#x}", r.rip, s.cs.selector, s.cs.base, r.rflags)?;
        writeln!(f, "  rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(f, "  rsi {:#018x} rdi {:#018x} rbp {:#018x} rsp {:#018x}", r.rsi, r.rdi, r.rbp, r.rsp)?;
        writeln!(f, "  r8  {:#018x} r9  {:#018x} r10 {:#018x} r11 {:#018x}", r.r8, r.r9, r.r10, r.r11)?;
        writeln!(f, "  r12 {:#018x} r13 {:#018x} r14 {:#018x} r15 {:#018x}", r.r12, r.r13, r.r14, r.r15)?;
        write!(f, "  cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}", s.cr0, s.cr2, s.cr3, s.cr4, s.efer)
    }
}

#[cfg(test)]
mod tests {
    use super::Unhandled;

    #[test]
    fn a_report_names_reason_and_registers() {
        let mut u = Unhandled {
            reason: "unknown exit".into(),
            code: [0x42, 1, 2],
            regs: Default::default(),
            sregs: Default::default(),
        };
        u.regs.rip = 0xffff_ffff_8100_0000;
        u.sregs.cr3 = 0x1234_5000;
        let text = u.to_string();
        assert!(text.contains("unknown exit (code 0x42 0x1 0x2)"));
        assert!(text.contains("rip 0xffffffff81000000"));
        assert!(text.contains("cr3 0x12345000"));
    }
}
