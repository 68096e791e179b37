// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running a virtual CPU: a call that an ordinary thread makes, and that returns when the guest exits.
//!
//! Physical interrupts end the guest, are let in, and the guest goes on, unless there is other work: then the thread is switched like
//! any other and comes back here when it has the processor again ([`Resume::Guest`]). The guest's time is the thread's.
//!
//! A run that ends at its first exit is one handler, which needs no reference to the VCPU. One is taken before anything that other
//! cores could take for the handler's end: interrupts are let in, or the thread is switched ([`Vcpu::hold`]).

use crate::arch::guest::{self as machine, Machine, with_machine};
use crate::arch::{Frame, cpu, fpu, machine_check, power, speculation};
use crate::object::ec::{Resume, State};
use crate::object::{Ec, Object, Vcpu};
use crate::percore::Core;
use crate::syscall::{lookup, refuse, selected};
use crate::{sched, trace};
use cloister_abi::arch::current::vcpu::{ExitReason, Groups};
use cloister_abi::cap::Perms;
use cloister_abi::hypercall as abi;
use cloister_abi::status::Status;
use cloister_vcpu::{Control as _, Exit, fpu as image};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// `VcpuRun`, traced or not.
pub(crate) extern "C" fn enter<const TRACED: bool>(core: &Core, ec: &Ec, frame: &mut Frame) {
    let Some(vcpu) = selected::<Vcpu>(ec, frame.rdi, Perms::VCPU_RUN) else { return refuse(frame) };
    if vcpu.core != core.id {
        frame.rax = Status::BadCore as u64;
        return;
    }
    if vcpu.runner.get().is_some() {
        frame.rax = Status::Busy as u64;
        return;
    }
    vcpu.runner.set(Some(ec.into()));
    ec.vcpu.set(Some(vcpu.into()));
    ec.resume.set(Resume::Guest);
    with_machine!(vcpu, cpu => begin::<TRACED, _>(core, ec, vcpu, cpu));
}

#[inline(always)]
fn begin<const TRACED: bool, M: Machine>(core: &Core, ec: &Ec, vcpu: &Vcpu, cpu: &mut M) {
    cpu.activate_on(core);
    let (fpu, refused) = cpu.take(vcpu.page);
    if fpu {
        load_fpu(core, vcpu);
    }
    if refused {
        return end(core, ec, vcpu, cpu, ExitReason::InvalidState);
    }
    go_on::<TRACED, M>(core, ec, vcpu, cpu);
}

/// Runs the guest until it exits to its monitor, or until there is other work.
pub(crate) fn run<const TRACED: bool>(core: &Core, ec: &Ec) {
    let Some(vcpu) = ec.vcpu.get() else {
        ec.resume.set(Resume::User);
        return;
    };
    // SAFETY: the run holds a reference, taken when it was interrupted.
    let vcpu = unsafe { vcpu.as_ref() };
    if !vcpu.header().is_alive() {
        return abort(ec, vcpu);
    }
    with_machine!(vcpu, cpu => {
        cpu.activate_on(core);
        go_on::<TRACED, _>(core, ec, vcpu, cpu);
    });
}

/// The VCPU or its guest's memory was destroyed.
#[cold]
fn abort(ec: &Ec, vcpu: &Vcpu) {
    leave(ec, vcpu);
    ec.answer(Status::Aborted, 0);
}

#[inline(always)]
fn go_on<const TRACED: bool, M: Machine>(core: &Core, ec: &Ec, vcpu: &Vcpu, cpu: &mut M) {
    // What is mapped in a guest space that was destroyed cannot be taken back any more, so nobody may run in it.
    if !vcpu.guest.header().is_alive() {
        return abort(ec, vcpu);
    }
    loop {
        if core.is_pending() {
            vcpu.hold();
            core.request(crate::percore::RESUME);
            return;
        }
        if vcpu.kicked.load(Relaxed) && vcpu.kicked.swap(false, Relaxed) {
            return end(core, ec, vcpu, cpu, ExitReason::Kicked);
        }
        let deadline = vcpu.deadline();
        let now = cpu::ticks();
        if deadline != 0 && now >= deadline {
            return end(core, ec, vcpu, cpu, ExitReason::Deadline);
        }
        sched::arm(core, now, if cpu.has_timer() { 0 } else { deadline });
        // When the guest must be left at the latest.
        let until = if deadline == 0 { core.armed.get() } else { core.armed.get().min(deadline) };
        vcpu.take_fpu();
        if TRACED {
            trace::guest_enter(vcpu, ec);
        }
        speculation::enter_guest();
        machine::enter(core, vcpu, cpu, until, ec.utcb.address());
        speculation::leave_guest();
        let exit = cpu.classify();
        if TRACED {
            trace::guest_exit(vcpu, ec, &exit);
        }
        match exit {
            Exit::Monitor(reason) => return finish(core, ec, vcpu, cpu, reason),
            Exit::Interrupt | Exit::Resume => {
                vcpu.hold();
                power::take_interrupts();
            }
            Exit::MachineCheck => machine_check::raised("in a guest", 0),
        }
    }
}

/// Ends a run for a reason that is not the guest's.
#[cold]
fn end(core: &Core, ec: &Ec, vcpu: &Vcpu, cpu: &mut impl Machine, reason: ExitReason) {
    finish(core, ec, vcpu, cpu, reason);
}

/// Tells the monitor why the guest exited, and lets its thread go on.
#[inline(always)]
fn finish(core: &Core, ec: &Ec, vcpu: &Vcpu, cpu: &mut impl Machine, reason: ExitReason) {
    if cpu.report(vcpu.page, reason) {
        store_fpu(core, vcpu);
    }
    leave(ec, vcpu);
    speculation::return_to_monitor();
    ec.answer(Status::Success, reason as u64);
}

/// Ends a run.
#[inline]
pub(crate) fn leave(ec: &Ec, vcpu: &Vcpu) {
    ec.vcpu.set(None);
    ec.resume.set(Resume::User);
    vcpu.runner.set(None);
    if vcpu.held.take() {
        vcpu.header().release();
    }
}

/// Takes the monitor's floating-point image.
fn load_fpu(core: &Core, vcpu: &Vcpu) {
    core.forget_fpu(vcpu.header());
    // SAFETY: the area is the VCPU's own frame, larger than an image, and nobody else uses it now.
    let area = unsafe { vcpu.fpu().cast::<image::Image>().as_mut() };
    image::take(vcpu.page, area, fpu::mask(), 0xffff);
    fpu::adopt(vcpu.fpu());
}

/// Gives the monitor the floating-point image.
fn store_fpu(core: &Core, vcpu: &Vcpu) {
    if core.has_fpu(vcpu.header()) {
        core.set_fpu_trap(false);
        core.save_fpu();
        core.set_fpu_trap(true);
    }
    // SAFETY: as `load_fpu`.
    let area = unsafe { vcpu.fpu().cast::<image::Image>().as_ref() };
    image::give(vcpu.page, area);
}

/// `VcpuSync`.
pub(crate) fn sync(core: &Core, ec: &Ec, call: &abi::VcpuSync) -> Result<(u64, u64), Status> {
    let vcpu = lookup::<Vcpu>(ec, call.vcpu, Perms::VCPU_RUN)?;
    let groups = Groups::from_bits(call.groups).ok_or(Status::BadParameter)?;
    if vcpu.core != core.id {
        return Err(Status::BadCore);
    }
    if vcpu.runner.get().is_some() {
        return Err(Status::Busy);
    }
    with_machine!(vcpu, cpu => {
        cpu.activate_on(core);
        cpu.sync(vcpu.page, groups);
    });
    if groups.contains(Groups::FPU) {
        store_fpu(core, vcpu);
    }
    Ok((0, 0))
}

/// `VcpuKick`.
pub(crate) fn kick(core: &Core, ec: &Ec, call: &abi::VcpuKick) -> Result<(u64, u64), Status> {
    let vcpu = lookup::<Vcpu>(ec, call.vcpu, Perms::VCPU_KICK)?;
    vcpu.kicked.store(true, SeqCst);
    // On this core it was preempted, and looks before it enters the guest again. Elsewhere an interrupt brings it out; and keeps it from
    // going in, if it has looked already.
    if let Some(home) = crate::percore::get(vcpu.core).filter(|home| home.id != core.id) {
        crate::arch::smp::interrupt(home);
    }
    Ok((0, 0))
}

/// The EC that runs a VCPU goes.
pub(crate) fn abandon(ec: &Ec) {
    if let Some(vcpu) = ec.vcpu.get() {
        // SAFETY: the run holds a reference, as its thread has been switched.
        leave(ec, unsafe { vcpu.as_ref() });
    }
    debug_assert!(ec.state.get() == State::Stopped);
}
