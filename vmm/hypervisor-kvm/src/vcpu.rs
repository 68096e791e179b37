// SPDX-License-Identifier: MIT OR Apache-2.0
//! A KVM virtual processor: entry, exits, injection, state.

use core::fmt;

use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{Access, Bus, Error, Event, Exit, Unhandled, Vcpu};
use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_run, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::Kicker;
use crate::ioctl::{self, refused};
use crate::signal::Attached;

/// A KVM VCPU.
pub struct KvmVcpu {
    /// Before `fd`, so that the handler forgets the run page before it is unmapped.
    attached: Option<Attached>,
    fd: VcpuFd,
    run: *mut kvm_run,
    kicker: Kicker,
    tsc_khz: u32,
}

// SAFETY: the run page belongs to the VCPU file, which may be used by any one thread at a time.
unsafe impl Send for KvmVcpu {}

impl fmt::Debug for KvmVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmVcpu").field("tsc_khz", &self.tsc_khz).finish_non_exhaustive()
    }
}

impl KvmVcpu {
    pub(crate) fn new(mut fd: VcpuFd, tsc_khz: u32) -> Result<Self, Error> {
        ioctl::zero_tsc_offset(&fd)?;
        let run = &raw mut *fd.get_kvm_run();
        Ok(Self { attached: None, fd, run, kicker: Kicker::default(), tsc_khz })
    }

    /// Ties this thread to the VCPU if it isn't, and arms the deadline. Some exit if there is no point in entering.
    fn prepare(&mut self, deadline: Option<Tsc>) -> Result<Option<Exit>, Error> {
        if !self.attached.as_ref().is_some_and(|a| a.is_here()) {
            self.attached = Some(Attached::new(self.run, &self.kicker)?);
        }
        // A signal that came since the last exit used up the timer, perhaps a little before its time.
        if self.fd.get_kvm_run().immediate_exit != 0
            && let Some(attached) = &mut self.attached
        {
            attached.fired();
        }
        self.fd.set_kvm_immediate_exit(0);
        if self.kicker.take() {
            return Ok(Some(Exit::Kicked));
        }
        if let (Some(deadline), Some(attached)) = (deadline, &mut self.attached) {
            let ticks = deadline.since(Tsc::now());
            if ticks == 0 {
                return Ok(Some(Exit::Deadline));
            }
            attached.arm(deadline.0, ticks, self.tsc_khz);
        }
        Ok(None)
    }

    fn interrupted(&mut self, deadline: Option<Tsc>) -> Exit {
        if let Some(attached) = &mut self.attached {
            attached.fired();
        }
        if self.kicker.take() {
            return Exit::Kicked;
        }
        match deadline {
            Some(deadline) if Tsc::now() >= deadline => Exit::Deadline,
            _ => Exit::Again,
        }
    }

    fn unhandled(&self, reason: String) -> Result<Exit, Error> {
        // SAFETY: the page is mapped while `fd` lives, and the kernel does not write to it outside of KVM_RUN.
        let code = unsafe { (*self.run).exit_reason };
        let (regs, sregs) = (self.regs()?, self.sregs()?);
        Ok(Exit::Unhandled(Box::new(Unhandled { reason, code: [u64::from(code), 0, 0], regs, sregs })))
    }
}

/// The size of one item of a port access with these flags of the run page.
fn io_size(run: *mut kvm_run) -> usize {
    // SAFETY: the page is mapped while the VCPU's file lives.
    let detail = unsafe { (*run).__bindgen_anon_1 };
    // SAFETY: the exit reason was KVM_EXIT_IO, for which this is the field in use.
    let size = unsafe { detail.io.size };
    usize::from(size.clamp(1, 4))
}

fn port_in<B: Bus>(bus: &mut B, port: u16, size: usize, data: &mut [u8]) {
    for item in data.chunks_mut(size) {
        let value = bus.io_in(port, u8::try_from(item.len()).unwrap_or(4)).to_le_bytes();
        item.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }
}

fn port_out<B: Bus>(bus: &mut B, port: u16, size: usize, data: &[u8]) {
    for item in data.chunks(size) {
        let mut value = [0; 4];
        value.iter_mut().zip(item).for_each(|(to, from)| *to = *from);
        bus.io_out(port, u8::try_from(item.len()).unwrap_or(4), u32::from_le_bytes(value));
    }
}

impl Vcpu for KvmVcpu {
    type Kicker = Kicker;

    fn run<B: Bus>(&mut self, bus: &mut B, deadline: Option<Tsc>) -> Result<Exit, Error> {
        if let Some(exit) = self.prepare(deadline)? {
            return Ok(exit);
        }
        let run = self.run;
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => return Ok(self.interrupted(deadline)),
            Err(e) => return self.unhandled(format!("KVM_RUN failed: {e}")),
        };
        let access = match exit {
            VcpuExit::IoIn(port, data) => {
                port_in(bus, port, io_size(run), data);
                Access::PortRead(port)
            }
            VcpuExit::IoOut(port, data) => {
                port_out(bus, port, io_size(run), data);
                Access::PortWrite(port)
            }
            VcpuExit::MmioRead(address, data) => {
                bus.mmio_read(address, data);
                Access::MmioRead(address)
            }
            VcpuExit::MmioWrite(address, data) => {
                bus.mmio_write(address, data);
                Access::MmioWrite(address)
            }
            VcpuExit::X86Rdmsr(msr) => {
                match bus.rdmsr(msr.index) {
                    Ok(value) => *msr.data = value,
                    Err(_) => *msr.error = 1,
                }
                Access::MsrRead(msr.index)
            }
            VcpuExit::X86Wrmsr(msr) => {
                *msr.error = u8::from(bus.wrmsr(msr.index, msr.data).is_err());
                Access::MsrWrite(msr.index)
            }
            VcpuExit::Hlt => return Ok(Exit::Halt),
            VcpuExit::IrqWindowOpen => return Ok(Exit::InterruptWindow),
            VcpuExit::Shutdown => return Ok(Exit::Shutdown),
            VcpuExit::Intr | VcpuExit::SetTpr => return Ok(Exit::Again),
            other => {
                let reason = format!("KVM exit {other:?}");
                return self.unhandled(reason);
            }
        };
        Ok(Exit::Access(access))
    }

    fn can_take_interrupt(&self) -> bool {
        // SAFETY: the page is mapped while `fd` lives, and the kernel does not write to it outside of KVM_RUN.
        unsafe { (*self.run).ready_for_interrupt_injection != 0 }
    }

    fn inject(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Interrupt(vector) => {
                ioctl::interrupt(&self.fd, vector)?;
                // Until KVM says so after the next entry: a second one would replace the first.
                self.fd.get_kvm_run().ready_for_interrupt_injection = 0;
                Ok(())
            }
            Event::Nmi => self.fd.nmi().map_err(refused("KVM_NMI")),
            Event::Exception { vector, error_code } => {
                let mut events = self.fd.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?;
                events.exception.injected = 1;
                events.exception.nr = vector;
                events.exception.has_error_code = u8::from(error_code.is_some());
                events.exception.error_code = error_code.unwrap_or(0);
                self.fd.set_vcpu_events(&events).map_err(refused("KVM_SET_VCPU_EVENTS"))
            }
        }
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.fd.get_kvm_run().request_interrupt_window = u8::from(wanted);
    }

    fn kicker(&self) -> Kicker {
        self.kicker.clone()
    }

    fn set_cpuid(&mut self, entries: &[kvm_cpuid_entry2]) -> Result<(), Error> {
        let list = CpuId::from_entries(entries).map_err(|_| Error::Unsupported("so many CPUID leaves"))?;
        self.fd.set_cpuid2(&list).map_err(refused("KVM_SET_CPUID2"))
    }

    fn regs(&self) -> Result<kvm_regs, Error> {
        self.fd.get_regs().map_err(refused("KVM_GET_REGS"))
    }

    fn set_regs(&mut self, regs: &kvm_regs) -> Result<(), Error> {
        self.fd.set_regs(regs).map_err(refused("KVM_SET_REGS"))
    }

    fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(refused("KVM_GET_SREGS"))
    }

    fn set_sregs(&mut self, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd.set_sregs(sregs).map_err(refused("KVM_SET_SREGS"))
    }

    fn msrs(&self, entries: &mut [kvm_msr_entry]) -> Result<(), Error> {
        let mut list = Msrs::from_entries(entries).map_err(|_| Error::Unsupported("so many MSRs"))?;
        let n = self.fd.get_msrs(&mut list).map_err(refused("KVM_GET_MSRS"))?;
        if n != entries.len() {
            return Err(Error::Unsupported("one of the MSRs asked for"));
        }
        entries.copy_from_slice(list.as_slice());
        Ok(())
    }

    fn set_msrs(&mut self, entries: &[kvm_msr_entry]) -> Result<(), Error> {
        let list = Msrs::from_entries(entries).map_err(|_| Error::Unsupported("so many MSRs"))?;
        match self.fd.set_msrs(&list).map_err(refused("KVM_SET_MSRS"))? {
            n if n == entries.len() => Ok(()),
            _ => Err(Error::Unsupported("one of the MSRs to be set")),
        }
    }
}
