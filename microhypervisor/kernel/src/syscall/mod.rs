// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls: from the registers to the handler and back.
//!
//! A handler reads top to bottom: decode, look up, validate, act. It answers two values or the status of the guard that failed; then
//! nothing was changed. A system call that is no hypercall goes to the component's own foreign entry.

mod control;
mod create;
mod device;
mod map;

pub(crate) use control::Machine;
pub(crate) use create::spaces;

use crate::arch::Frame;
use crate::object::{Ec, Header, Object, Sm};
use crate::percore::{self, Core, RESCHEDULE};
use crate::width::index;
use crate::{ipc, sched, trace};
use cloister_abi::arch::current::HYPERCALL_BASE;
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hypercall::{self as abi, Call, DownFlags};
use cloister_abi::status::Status;
use cloister_abi::{USER_END, VERSION};
use cloister_mechanism::capability::Capability;
use cloister_mechanism::semaphore::Closed;

/// What a handler answers.
type Answer = Result<(u64, u64), Status>;

/// Handles one hypercall of an EC.
pub(crate) type Handler = extern "C" fn(&Core, &Ec, &mut Frame);

/// The handlers of the fast paths, by number; all others go to [`slow`]. A table of functions, so that each has only the stack frame that
/// it needs.
pub(crate) static HANDLERS: [Handler; abi::CALLS.len()] = handlers();

const fn handlers() -> [Handler; abi::CALLS.len()] {
    let mut table: [Handler; abi::CALLS.len()] = [slow; abi::CALLS.len()];
    table[index(abi::Null::NUMBER)] = null;
    table[index(abi::IpcCall::NUMBER)] = ipc::call;
    table[index(abi::IpcReply::NUMBER)] = ipc::reply;
    table[index(abi::CreateSm::NUMBER)] = create_sm;
    table[index(abi::Delegate::NUMBER)] = delegate;
    table[index(abi::SmUp::NUMBER)] = sm_up;
    table[index(abi::SmDown::NUMBER)] = sm_down;
    table[index(abi::VcpuRun::NUMBER)] = crate::guest::enter::<false>;
    table
}

/// Does the hypercall of an EC once more that could not be done when it was made. (At first it comes straight from `arch::entry`.)
pub(crate) fn dispatch(core: &Core, ec: &Ec, frame: &mut Frame) {
    match usize::try_from(frame.rax.wrapping_sub(HYPERCALL_BASE)).ok().and_then(|number| HANDLERS.get(number)) {
        Some(_) if trace::is_on() => trace::call(core, ec, frame),
        Some(handle) => handle(core, ec, frame),
        None => foreign(core, ec, frame),
    }
}

extern "C" fn null(_: &Core, _: &Ec, frame: &mut Frame) {
    frame.rax = Status::Success as u64;
    frame.rdi = u64::from(VERSION);
}

/// A system call that is not a hypercall: goes on at the component's foreign entry, if it has one.
pub(crate) extern "C" fn foreign(_: &Core, ec: &Ec, frame: &mut Frame) {
    let entry = ec.utcb.foreign_entry();
    if entry == 0 || entry >= USER_END {
        frame.rax = Status::BadHypercall as u64;
        return;
    }
    ec.utcb.set_foreign(frame.rip, frame.rflags);
    frame.rip = entry;
}

extern "C" fn sm_up(_: &Core, ec: &Ec, frame: &mut Frame) {
    let Some(sm) = selected::<Sm>(ec, frame.rdi, Perms::SM_UP) else { return refuse(frame) };
    frame.rax = Status::Success as u64;
    sm.up();
}

extern "C" fn sm_down(_: &Core, ec: &Ec, frame: &mut Frame) {
    let Some(sm) = selected::<Sm>(ec, frame.rdi, Perms::SM_DOWN) else { return refuse(frame) };
    if frame.rsi == 0 && sm.semaphore.take_one() {
        frame.rax = Status::Success as u64;
        frame.rdi = 1;
        return;
    }
    sm_down_otherwise(ec, sm, frame);
}

/// Counts down in the other ways, or waits.
#[cold]
extern "C" fn sm_down_otherwise(ec: &Ec, sm: &Sm, frame: &mut Frame) {
    if let Err(status) = sm_wait(ec, sm, frame) {
        frame.rax = status as u64;
    }
}

fn sm_wait(ec: &Ec, sm: &Sm, frame: &mut Frame) -> Result<(), Status> {
    let flags = DownFlags::from_bits(frame.rsi).ok_or(Status::BadParameter)?;
    let most = if flags.contains(DownFlags::ZERO) { u64::MAX } else { 1 };
    let deadline = frame.rdx;
    let waits = !flags.contains(DownFlags::NONBLOCKING) && (deadline == 0 || deadline > crate::arch::cpu::ticks());
    let taken = if waits {
        sm.semaphore.take_or_wait(most, ec).map_err(|Closed| Status::Aborted)?
    } else {
        Some(sm.semaphore.take(most).ok_or(Status::Timeout)?)
    };
    if let Some(taken) = taken {
        frame.rax = Status::Success as u64;
        frame.rdi = taken;
        return Ok(());
    }
    // The registers are written when it wakes.
    ec.semaphore.set(Some(sm.into()));
    ec.state.set(crate::object::ec::State::Blocked);
    if deadline != 0 {
        ec.deadline.set(deadline);
        percore::core().timeouts.insert(ec);
    }
    percore::core().request(RESCHEDULE);
    Ok(())
}

/// All calls that are not on a fast path.
extern "C" fn slow(core: &Core, ec: &Ec, frame: &mut Frame) {
    let args = arguments(frame);
    let number = frame.rax.wrapping_sub(HYPERCALL_BASE);
    // Who asks how much is used gets the number after all is back that can be.
    let asks = number == abi::PdInfo::NUMBER
        || number == abi::MachineControl::NUMBER && args[1] == abi::MachineOp::Memory as u64;
    if asks && sched::reap_and_retry(core, ec) {
        return;
    }
    let answer = match number {
        abi::CreatePd::NUMBER => with(&args, |call| create::pd(ec, &call)),
        abi::CreateSpace::NUMBER => with(&args, |call| create::space(ec, &call)),
        abi::CreateEc::NUMBER => with(&args, |call| create::ec(ec, &call)),
        abi::CreateSc::NUMBER => with(&args, |call| create::sc(ec, &call)),
        abi::CreatePt::NUMBER => with(&args, |call| create::pt(ec, &call)),
        abi::CreateVcpu::NUMBER => with(&args, |call| create::vcpu(ec, &call)),
        abi::Revoke::NUMBER => with(&args, |call| map::revoke(ec, &call)),
        abi::Drop::NUMBER => with(&args, |call| map::drop_selectors(ec, &call)),
        abi::Destroy::NUMBER => with(&args, |call| control::destroy(ec, &call)),
        abi::MoveBudget::NUMBER => with(&args, |call| control::move_budget(ec, &call)),
        abi::PdInfo::NUMBER => with(&args, |call| control::pd_info(ec, &call)),
        abi::ScTime::NUMBER => with(&args, |call| control::sc_time(ec, &call)),
        abi::VcpuSync::NUMBER => with(&args, |call| crate::guest::sync(core, ec, &call)),
        abi::VcpuKick::NUMBER => with(&args, |call| crate::guest::kick(core, ec, &call)),
        abi::IrqBind::NUMBER => with(&args, |call| control::irq_bind(ec, &call)),
        abi::BindMsi::NUMBER => with(&args, |call| control::bind_msi(ec, &call)),
        abi::TraceControl::NUMBER => with(&args, |call| control::trace(ec, &call)),
        abi::IrqAck::NUMBER => with(&args, |call| control::irq_ack(ec, &call)),
        abi::AssignDevice::NUMBER => with(&args, |call| device::assign(ec, &call)),
        abi::DeviceFault::NUMBER => with(&args, |call| device::fault(ec, &call)),
        abi::MachineControl::NUMBER => with(&args, |call| control::machine(ec, &call)),
        abi::Yield::NUMBER => {
            sched::yield_now();
            Ok((0, 0))
        }
        _ => Err(Status::BadHypercall),
    };
    finish(core, ec, frame, answer);
}

/// Puts the answer into the registers.
#[inline]
fn finish(core: &Core, ec: &Ec, frame: &mut Frame, answer: Answer) {
    match answer {
        Ok((first, second)) => {
            frame.rax = Status::Success as u64;
            frame.rdi = first;
            frame.rsi = second;
        }
        Err(status) => fail(core, ec, frame, status),
    }
}

/// Answers an error. What failed for want of memory, or of a place that a dead object still has, is tried once more when the dead are gone.
#[cold]
fn fail(core: &Core, ec: &Ec, frame: &mut Frame, status: Status) {
    let wants = match status {
        Status::OutOfBudget | Status::OutOfMemory | Status::PeerOutOfBudget => true,
        // The message page of an EC, or the state page of a VCPU, is mapped until its memory is given back.
        Status::Busy => maps(frame.rax.wrapping_sub(HYPERCALL_BASE)),
        _ => false,
    };
    if !wants || !sched::reap_and_retry(core, ec) {
        frame.rax = status as u64;
    }
}

/// Whether a call maps something at an address that it is given.
const fn maps(number: u64) -> bool {
    matches!(number, abi::CreateEc::NUMBER | abi::CreateVcpu::NUMBER | abi::Delegate::NUMBER)
}

/// Arguments as the registers have them.
#[inline]
const fn arguments(frame: &Frame) -> abi::Args {
    [frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9]
}

extern "C" fn create_sm(core: &Core, ec: &Ec, frame: &mut Frame) {
    let answer = with(&arguments(frame), |call| create::sm(ec, &call));
    finish(core, ec, frame, answer);
}

extern "C" fn delegate(core: &Core, ec: &Ec, frame: &mut Frame) {
    let answer = with(&arguments(frame), |call| map::delegate(ec, &call));
    finish(core, ec, frame, answer);
}

#[inline]
fn with<C: Call>(args: &abi::Args, handle: impl FnOnce(C) -> Answer) -> Answer {
    handle(C::decode(args).ok_or(Status::BadParameter)?)
}

/// The object at a selector of the calling EC.
#[inline]
pub(crate) fn lookup<T: Object>(ec: &Ec, selector: Selector, perms: Perms) -> Result<&T, Status> {
    selected(ec, u64::from(selector), perms).ok_or(Status::BadCapability)
}

/// The object at a selector in a register. If there is none, [`refuse`] says why.
#[inline]
pub(crate) fn selected<T: Object>(ec: &Ec, register: u64, perms: Perms) -> Option<&T> {
    crate::object::space::object(&found(ec, register)?, perms)
}

/// The capability at a selector in a register, whatever it is.
#[inline]
pub(crate) fn found(ec: &Ec, register: u64) -> Option<Capability<'_, Header>> {
    // SAFETY: the EC holds its object space, and what is found stays to the end of the handler.
    unsafe { ec.table.get(register) }
}

/// Answers a call whose first argument is a selector with which [`selected`] found nothing.
#[cold]
pub(crate) extern "C" fn refuse(frame: &mut Frame) {
    let status = if frame.rdi > u64::from(Selector::MAX) { Status::BadParameter } else { Status::BadCapability };
    frame.rax = status as u64;
}
