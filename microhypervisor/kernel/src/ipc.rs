// SPDX-License-Identifier: MIT OR Apache-2.0
//! Call and reply.
//!
//! A call copies the message from UTCB to UTCB and makes the callee current: the scheduling context stays, so the callee runs on the
//! caller's time. A callee that is busy is helped: the caller's time runs whoever the callee waits for, and the call is tried
//! again when the callee is idle. No lock is taken on the way. A callee on another core is [`journey`]'s matter.

use crate::arch::Frame;
use crate::journey;
use crate::object::ec::State;
use crate::object::space::object;
use crate::object::{Ec, Object, Pt};
use crate::percore::{Core, RESCHEDULE};
use crate::syscall::{found, refuse, selected};
use crate::width::index;
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hypercall::IpcFlags;
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, Item, WORDS};

/// Calls a portal.
pub(crate) extern "C" fn call(core: &Core, ec: &Ec, frame: &mut Frame) {
    let Some(portal) = selected::<Pt>(ec, frame.rdi, Perms::PT_CALL) else { return refuse(frame) };
    let callee = &*portal.ec;
    let header = frame.rsi;
    // A message without items is the usual one. An idle EC is alive.
    if header > WORDS as u64 || callee.state.get() != State::Idle || callee.core != core.id {
        return call_otherwise(core, ec, frame, portal);
    }
    ec.utcb.copy_words(&callee.utcb, index(header));
    ec.state.set(State::Calling);
    enter(core, ec, callee, portal, Header(header));
}

/// Calls with items, callees that are busy, and all that is wrong.
#[cold]
extern "C" fn call_otherwise(core: &Core, ec: &Ec, frame: &mut Frame, portal: &Pt) {
    if let Err(status) = call_with_care(core, ec, portal, frame) {
        frame.rax = status as u64;
    }
}

fn call_with_care(core: &Core, ec: &Ec, portal: &Pt, frame: &Frame) -> Result<(), Status> {
    let header = Header(frame.rsi);
    let callee = &*portal.ec;
    if !header.is_valid() {
        return Err(Status::BadParameter);
    }
    if !callee.header().is_alive() {
        return Err(Status::BadCapability);
    }
    if callee.core != core.id {
        return journey::depart(core, ec, portal, header, frame.rdx);
    }
    if callee.state.get() != State::Idle {
        let flags = IpcFlags::from_bits(frame.rdx).ok_or(Status::BadParameter)?;
        return if flags.contains(IpcFlags::NONBLOCKING) { Err(Status::Timeout) } else { help(core, ec, callee) };
    }
    items(ec, callee, header.items())?;
    ec.utcb.copy_words(&callee.utcb, header.words());
    ec.state.set(State::Calling);
    enter(core, ec, callee, portal, header);
    Ok(())
}

/// Makes the callee, which is the portal's EC and idle, run at the portal's entry, with `ec`, the current one, waiting for it.
#[inline]
pub(crate) fn enter(core: &Core, ec: &Ec, callee: &Ec, portal: &Pt, header: Header) {
    callee.caller.set(Some(ec.into()));
    ec.callee.set(Some(callee.into()));
    start(callee, portal, header);
    core.hand_over(ec, callee);
}

/// Lets an idle callee run at the portal's entry, when it has time.
#[inline]
pub(crate) fn start(callee: &Ec, portal: &Pt, header: Header) {
    let registers = callee.registers();
    registers.rip = portal.ip;
    registers.rdi = portal.id;
    registers.rsi = header.0;
    callee.state.set(State::Running);
}

/// Lets `ec`, which is current, help a callee that is busy, until it can try again.
///
/// # Errors
/// Help would be in vain.
#[cold]
pub(crate) fn help(core: &Core, ec: &Ec, callee: &Ec) -> Result<(), Status> {
    if callee.state.get() == State::Stopped {
        return Err(Status::Aborted);
    }
    // A callee that waits for the caller could never answer, and a chain that long is followed by nobody.
    if callee.path().is_none_or(|(leaf, _)| core::ptr::eq(leaf, ec)) {
        return Err(Status::Busy);
    }
    callee.helpers.push_back(ec);
    ec.callee.set(Some(callee.into()));
    ec.state.set(State::Helping);
    core.request(RESCHEDULE);
    Ok(())
}

/// Replies to the caller and waits for the next call.
pub(crate) extern "C" fn reply(core: &Core, ec: &Ec, frame: &mut Frame) {
    if let Some(caller) = ec.caller.get() {
        // SAFETY: a caller is severed from its callee before it goes.
        let caller = unsafe { caller.as_ref() };
        let header = frame.rdi;
        // Only local ECs are ever called, so who has a caller is one.
        if header <= WORDS as u64 && caller.state.get() == State::Calling && !core.helping.get() {
            ec.utcb.copy_words(&caller.utcb, index(header));
            let registers = caller.registers();
            registers.rax = Status::Success as u64;
            registers.rdi = header;
            ec.caller.set(None);
            ec.state.set(State::Idle);
            caller.callee.set(None);
            caller.state.set(State::Running);
            core.hand_over(ec, caller);
            return;
        }
    }
    reply_otherwise(core, ec, frame);
}

/// Replies with items, to exceptions, to callers that have gone or whose time this is not, and all that is wrong.
#[cold]
extern "C" fn reply_otherwise(core: &Core, ec: &Ec, frame: &mut Frame) {
    if ec.global {
        frame.rax = Status::BadParameter as u64;
        return;
    }
    let header = Header(frame.rdi);
    ec.state.set(State::Idle);
    core.request(RESCHEDULE);
    // The caller may have gone meanwhile.
    let Some(caller) = ec.caller.take() else { return journey::reply(core, ec, header) };
    // SAFETY: a caller is severed from its callee before it goes.
    let caller = unsafe { caller.as_ref() };
    caller.callee.set(None);
    let faulted = caller.state.replace(State::Running) == State::Faulted;
    if faulted {
        crate::exception::resume(caller, ec, header);
    } else {
        let result = if header.is_valid() { items(ec, caller, header.items()) } else { Err(Status::Aborted) };
        let registers = caller.registers();
        match result {
            Ok(()) => {
                ec.utcb.copy_words(&caller.utcb, header.words());
                registers.rax = Status::Success as u64;
                registers.rdi = header.0;
            }
            Err(status) => registers.rax = status as u64,
        }
    }
    caller.unpark();
}

/// Hands over the items of a message.
#[cold]
pub(crate) fn items(from: &Ec, to: &Ec, count: usize) -> Result<(), Status> {
    let window = to.utcb.window();
    let mut used = 0;
    for (index, sent) in (0..count).map_while(|index| Some((index, from.utcb.item(index)?))) {
        to.utcb.set_item(index, item(from, to, sent, window, &mut used)?);
    }
    Ok(())
}

fn item(from: &Ec, to: &Ec, sent: Item, (base, window): (Selector, u32), used: &mut u32) -> Result<Item, Status> {
    let nothing = Item { value: 0, attr: Item::NOTHING };
    if !matches!(sent.kind(), Item::DELEGATE | Item::TRANSLATE) {
        return Ok(nothing);
    }
    let found = found(from, sent.value).filter(|found| found.target().is_alive());
    let Some(found) = found else { return Ok(nothing) };
    if sent.kind() == Item::TRANSLATE
        && let Some(portal) = object::<Pt>(&found, Perms::empty())
        && portal.ec.pd.is(&to.pd)
    {
        return Ok(Item { value: portal.id, attr: Item::TRANSLATE });
    }
    let Some(selector) = base.checked_add(*used).filter(|_| *used < window) else { return Ok(nothing) };
    let perms = Perms::from_bits_truncate(found.perms()) & sent.perms();
    found.target().acquire();
    to.objects.insert(selector, found.target(), perms).map_err(|status| match status {
        Status::OutOfBudget => Status::PeerOutOfBudget,
        _ => status,
    })?;
    *used += 1;
    Ok(Item { value: u64::from(selector), attr: Item::DELEGATE | u64::from(perms.bits()) << 8 })
}
