// SPDX-License-Identifier: MIT OR Apache-2.0
//! Call and reply.
//!
//! A call copies the message from UTCB to UTCB and makes the callee current: the scheduling context stays, so the callee runs on the
//! caller's time. A callee that is busy is helped: the caller's time runs whoever the callee waits for, and the call is tried
//! again when the callee is idle. No lock is taken on the way.

use crate::arch::Frame;
use crate::object::ec::State;
use crate::object::{Ec, Object, Pt};
use crate::percore::{Core, RESCHEDULE};
use crate::syscall::selected;
use cloister_abi::cap::{Kind, Perms, Selector};
use cloister_abi::hypercall::IpcFlags;
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, Item, WORDS};

/// Calls a portal.
pub(crate) extern "C" fn call(core: &Core, ec: &Ec, frame: &mut Frame) {
    let portal = match selected::<Pt>(ec, frame.rdi, Perms::PT_CALL) {
        Ok(portal) => portal,
        Err(status) => {
            frame.rax = status as u64;
            return;
        }
    };
    let callee = &*portal.ec;
    // An idle EC is alive; a message without items is the usual one.
    if callee.state.get() == State::Idle && callee.core == core.id && frame.rsi <= WORDS as u64 {
        words(ec, callee, frame.rsi as usize);
        ec.state.set(State::Calling);
        enter(core, ec, portal, Header(frame.rsi));
    } else if let Err(status) = call_otherwise(core, ec, portal, frame) {
        frame.rax = status as u64;
    }
}

/// Calls with items, callees that are busy, and all that is wrong.
#[cold]
fn call_otherwise(core: &Core, ec: &Ec, portal: &Pt, frame: &Frame) -> Result<(), Status> {
    let header = Header(frame.rsi);
    let callee = &*portal.ec;
    if !header.is_valid() {
        return Err(Status::BadParameter);
    }
    if !callee.header().is_alive() {
        return Err(Status::BadCapability);
    }
    if callee.core != core.id {
        return Err(Status::BadCore);
    }
    if callee.state.get() != State::Idle {
        return busy(core, ec, callee, frame.rdx);
    }
    items(ec, callee, header.items())?;
    words(ec, callee, header.words());
    ec.state.set(State::Calling);
    enter(core, ec, portal, header);
    Ok(())
}

/// Makes the callee run at the portal's entry, with `ec` waiting for it.
#[inline]
pub(crate) fn enter(core: &Core, ec: &Ec, portal: &Pt, header: Header) {
    let callee = &*portal.ec;
    let registers = callee.registers();
    registers.rip = portal.ip;
    registers.rdi = portal.id;
    registers.rsi = header.0;
    callee.caller.set(Some(ec.into()));
    ec.callee.set(Some(callee.into()));
    callee.state.set(State::Running);
    core.switch(callee);
}

/// The callee is busy: helps it, or says so.
#[cold]
fn busy(core: &Core, ec: &Ec, callee: &Ec, flags: u64) -> Result<(), Status> {
    let flags = IpcFlags::from_bits(flags).ok_or(Status::BadParameter)?;
    if flags.contains(IpcFlags::NONBLOCKING) {
        return Err(Status::Timeout);
    }
    if callee.state.get() == State::Stopped {
        return Err(Status::Aborted);
    }
    if core::ptr::eq(callee.leaf(), ec) {
        // The callee waits for the caller: nobody could ever answer.
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
        // Only local ECs are ever called, so who has a caller is one.
        if caller.state.get() == State::Calling && frame.rdi <= WORDS as u64 && !core.helping.get() {
            words(ec, caller, frame.rdi as usize);
            let registers = caller.registers();
            registers.rax = Status::Success as u64;
            registers.rdi = frame.rdi;
            ec.caller.set(None);
            ec.state.set(State::Idle);
            caller.callee.set(None);
            caller.state.set(State::Running);
            core.switch(caller);
            return;
        }
    }
    reply_otherwise(core, ec, frame);
}

/// Replies with items, to exceptions, to callers that have gone or whose time this is not, and all that is wrong.
#[cold]
fn reply_otherwise(core: &Core, ec: &Ec, frame: &mut Frame) {
    if ec.global {
        frame.rax = Status::BadParameter as u64;
        return;
    }
    let header = Header(frame.rdi);
    ec.state.set(State::Idle);
    core.request(RESCHEDULE);
    // The caller may have gone meanwhile.
    let Some(caller) = ec.caller.take() else { return };
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
                words(ec, caller, header.words());
                registers.rax = Status::Success as u64;
                registers.rdi = header.0;
            }
            Err(status) => registers.rax = status as u64,
        }
    }
    caller.unpark();
}

/// Copies words from UTCB to UTCB, in steps of four: at most three more than asked, which lie in the same page.
#[inline]
fn words(from: &Ec, to: &Ec, count: usize) {
    if count == 0 {
        return;
    }
    let (source, target) = (from.utcb.as_ptr(), to.utcb.as_ptr());
    // SAFETY: both are frames of the kernel's; raw pointers, since the components may write to them at any time.
    let (source, target) = unsafe { (&raw const (*source).words, &raw mut (*target).words) };
    let (source, target) = (source.cast::<u64>(), target.cast::<u64>());
    let mut at = 0;
    while at < count {
        // SAFETY: the count is at most 480, a multiple of four.
        unsafe {
            let (a, b) = (source.add(at).read_volatile(), source.add(at + 1).read_volatile());
            let (c, d) = (source.add(at + 2).read_volatile(), source.add(at + 3).read_volatile());
            target.add(at).write_volatile(a);
            target.add(at + 1).write_volatile(b);
            target.add(at + 2).write_volatile(c);
            target.add(at + 3).write_volatile(d);
        }
        at += 4;
    }
}

/// Hands over the items of a message.
#[cold]
fn items(from: &Ec, to: &Ec, count: usize) -> Result<(), Status> {
    // SAFETY: UTCBs are frames of the kernel's; read and written by value.
    let (base, window) = unsafe {
        (
            (&raw const (*to.utcb.as_ptr()).window_base).read_volatile(),
            (&raw const (*to.utcb.as_ptr()).window_count).read_volatile(),
        )
    };
    let mut used = 0;
    for index in 0..count {
        // SAFETY: the header was checked: the index is below the number of items.
        let sent = unsafe { (&raw const (*from.utcb.as_ptr()).items[index]).read_volatile() };
        let received = item(from, to, sent, base, window, &mut used)?;
        // SAFETY: as above.
        unsafe { (&raw mut (*to.utcb.as_ptr()).items[index]).write_volatile(received) };
    }
    Ok(())
}

fn item(from: &Ec, to: &Ec, sent: Item, base: Selector, window: u32, used: &mut u32) -> Result<Item, Status> {
    let nothing = Item { value: 0, attr: Item::NOTHING };
    if !matches!(sent.kind(), Item::DELEGATE | Item::TRANSLATE) {
        return Ok(nothing);
    }
    let found = Selector::try_from(sent.value).ok().and_then(|selector| from.objects.capability(selector));
    let Some((header, perms)) = found else { return Ok(nothing) };
    if sent.kind() == Item::TRANSLATE && header.kind() == Kind::Pt as u8 {
        if let Ok(portal) = from.objects.lookup::<Pt>(sent.value as Selector, Perms::empty()) {
            if core::ptr::eq(&*portal.ec.pd, &*to.pd) {
                return Ok(Item { value: portal.id, attr: Item::TRANSLATE });
            }
        }
    }
    let Some(selector) = base.checked_add(*used).filter(|_| *used < window) else { return Ok(nothing) };
    header.acquire();
    to.objects.insert(selector, header, perms & sent.perms()).map_err(|status| match status {
        Status::OutOfBudget => Status::PeerOutOfBudget,
        _ => status,
    })?;
    *used += 1;
    Ok(Item { value: u64::from(selector), attr: Item::DELEGATE | u64::from((perms & sent.perms()).bits()) << 8 })
}
