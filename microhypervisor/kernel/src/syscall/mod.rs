// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls: from the registers to the handler and back.
//!
//! A handler reads top to bottom: decode, look up, validate, act. It answers two values or the status of the guard that failed; then
//! nothing was changed. A system call that is no hypercall goes to the component's own foreign entry.

mod control;
mod create;
mod map;

pub(crate) use control::Machine;
pub(crate) use create::spaces;

use crate::arch::Frame;
use crate::object::{Ec, Object, Sm};
use crate::percore::{Core, core};
use crate::{ipc, sched};
use cloister_abi::arch::current::HYPERCALL_BASE;
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hypercall::{self as abi, Call, DownFlags};
use cloister_abi::status::Status;
use cloister_abi::{USER_END, VERSION};

/// What a handler answers.
type Answer = Result<(u64, u64), Status>;

/// Entry from the `syscall` instruction.
pub(crate) extern "C" fn handler(frame: &mut Frame) {
    let core = core();
    if let Some(ec) = core.current() {
        dispatch(core, ec, frame);
    }
    if core.is_pending() {
        sched::settle(core);
    }
}

/// Does one hypercall of an EC.
#[inline]
pub(crate) fn dispatch(core: &Core, ec: &Ec, frame: &mut Frame) {
    match frame.rax.wrapping_sub(HYPERCALL_BASE) {
        abi::IpcCall::NUMBER => {
            if let Err(status) = ipc::call(core, ec, frame) {
                frame.rax = status as u64;
            }
        }
        abi::IpcReply::NUMBER => {
            if let Err(status) = ipc::reply(core, ec, frame) {
                frame.rax = status as u64;
            }
        }
        abi::Null::NUMBER => {
            frame.rax = Status::Success as u64;
            frame.rdi = u64::from(VERSION);
        }
        abi::SmUp::NUMBER => frame.rax = sm_up(ec, frame).err().unwrap_or(Status::Success) as u64,
        abi::SmDown::NUMBER => match sm_down(ec, frame) {
            Ok(value) => {
                frame.rax = Status::Success as u64;
                frame.rdi = value;
            }
            // Waiting, or an error: a waiter's registers are written when it wakes.
            Err(status) => frame.rax = status as u64,
        },
        abi::VcpuRun::NUMBER => {
            if let Err(status) = crate::guest::enter(core, ec, frame.rdi) {
                frame.rax = status as u64;
            }
        }
        number if number < abi::CALLS.len() as u64 => slow(core, ec, frame, number),
        _ => foreign(ec, frame),
    }
}

/// A system call that is not a hypercall: goes on at the component's foreign entry, if it has one.
#[inline]
fn foreign(ec: &Ec, frame: &mut Frame) {
    let utcb = ec.utcb.as_ptr();
    // SAFETY: the UTCB is a frame of the kernel's; read by value.
    let entry = unsafe { (&raw const (*utcb).foreign_entry).read_volatile() };
    if entry == 0 || entry >= USER_END {
        frame.rax = Status::BadHypercall as u64;
        return;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*utcb).foreign_return).write_volatile(frame.rip) };
    // SAFETY: as above.
    unsafe { (&raw mut (*utcb).foreign_flags).write_volatile(frame.rflags) };
    frame.rip = entry;
}

#[inline]
fn sm_up(ec: &Ec, frame: &Frame) -> Result<(), Status> {
    let selector = Selector::try_from(frame.rdi).map_err(|_| Status::BadParameter)?;
    ec.objects.lookup::<Sm>(selector, Perms::SM_UP)?.up();
    Ok(())
}

#[inline]
fn sm_down(ec: &Ec, frame: &Frame) -> Result<u64, Status> {
    let selector = Selector::try_from(frame.rdi).map_err(|_| Status::BadParameter)?;
    let flags = DownFlags::from_bits(frame.rsi).ok_or(Status::BadParameter)?;
    let sm = ec.objects.lookup::<Sm>(selector, Perms::SM_DOWN)?;
    let count = sm.count.get();
    if count != 0 {
        let taken = if flags.contains(DownFlags::ZERO) { count } else { 1 };
        sm.count.set(count - taken);
        return Ok(taken);
    }
    if flags.contains(DownFlags::NONBLOCKING) {
        return Err(Status::Timeout);
    }
    let deadline = frame.rdx;
    if deadline != 0 && deadline <= crate::arch::cpu::ticks() {
        return Err(Status::Timeout);
    }
    sm.queue.push_back(ec);
    ec.semaphore.set(Some(sm.into()));
    ec.state.set(crate::object::ec::State::Blocked);
    if deadline != 0 {
        sched::set_timeout(ec, deadline);
    }
    sched::block();
    Err(Status::Success)
}

/// All calls that are not on a fast path.
#[cold]
fn slow(core: &Core, ec: &Ec, frame: &mut Frame, number: u64) {
    let args = [frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9];
    let answer = match number {
        abi::CreatePd::NUMBER => with(&args, |call| create::pd(ec, &call)),
        abi::CreateSpace::NUMBER => with(&args, |call| create::space(ec, &call)),
        abi::CreateEc::NUMBER => with(&args, |call| create::ec(ec, &call)),
        abi::CreateSc::NUMBER => with(&args, |call| create::sc(ec, &call)),
        abi::CreatePt::NUMBER => with(&args, |call| create::pt(ec, &call)),
        abi::CreateSm::NUMBER => with(&args, |call| create::sm(ec, &call)),
        abi::CreateVcpu::NUMBER => with(&args, |call| create::vcpu(ec, &call)),
        abi::Delegate::NUMBER => with(&args, |call| map::delegate(core, ec, &call)),
        abi::Revoke::NUMBER => with(&args, |call| map::revoke(core, ec, &call)),
        abi::Drop::NUMBER => with(&args, |call| map::drop_selectors(ec, &call)),
        abi::Destroy::NUMBER => with(&args, |call| control::destroy(ec, &call)),
        abi::MoveBudget::NUMBER => with(&args, |call| control::move_budget(ec, &call)),
        abi::PdInfo::NUMBER => with(&args, |call| control::pd_info(ec, &call)),
        abi::ScTime::NUMBER => with(&args, |call| control::sc_time(ec, &call)),
        abi::VcpuSync::NUMBER => with(&args, |call| crate::guest::sync(core, ec, &call)),
        abi::VcpuKick::NUMBER => with(&args, |call| crate::guest::kick(ec, &call)),
        abi::IrqBind::NUMBER => with(&args, |call| control::irq_bind(ec, &call)),
        abi::IrqAck::NUMBER => with(&args, |call| control::irq_ack(ec, &call)),
        abi::MachineControl::NUMBER => with(&args, |call| control::machine(ec, &call)),
        abi::Yield::NUMBER => {
            sched::yield_now();
            Ok((0, 0))
        }
        _ => Err(Status::BadHypercall),
    };
    match answer {
        Ok((first, second)) => {
            frame.rax = Status::Success as u64;
            frame.rdi = first;
            frame.rsi = second;
        }
        Err(status) => frame.rax = status as u64,
    }
}

#[inline]
fn with<C: Call>(args: &abi::Args, handle: impl FnOnce(C) -> Answer) -> Answer {
    handle(C::decode(args).ok_or(Status::BadParameter)?)
}

/// The object at a selector of the calling EC.
fn lookup<T: Object>(ec: &Ec, selector: Selector, perms: Perms) -> Result<&T, Status> {
    ec.objects.lookup(selector, perms)
}
