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
use cloister_abi::cap::{Kind, Perms, Selector};
use cloister_abi::hypercall::IpcFlags;
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, Item};

/// Calls a portal.
#[inline]
pub(crate) fn call(core: &Core, ec: &Ec, frame: &mut Frame) -> Result<(), Status> {
    let selector = Selector::try_from(frame.rdi).map_err(|_| Status::BadParameter)?;
    let header = Header(frame.rsi);
    let portal = ec.objects.lookup::<Pt>(selector, Perms::PT_CALL)?;
    if !header.is_valid() {
        return Err(Status::BadParameter);
    }
    let callee = &*portal.ec;
    if !callee.header().is_alive() {
        return Err(Status::BadCapability);
    }
    if callee.core != core.id {
        return Err(Status::BadCore);
    }
    if callee.state.get() != State::Idle {
        return busy(core, ec, callee, frame.rdx);
    }
    let received = transfer(ec, callee, header)?;
    ec.state.set(State::Calling);
    enter(core, ec, portal, received);
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
#[inline]
pub(crate) fn reply(core: &Core, ec: &Ec, frame: &mut Frame) -> Result<(), Status> {
    if ec.global {
        return Err(Status::BadParameter);
    }
    let header = Header(frame.rdi);
    let Some(caller) = ec.caller.take() else {
        // The caller has gone meanwhile.
        ec.state.set(State::Idle);
        core.request(RESCHEDULE);
        return Ok(());
    };
    // SAFETY: a caller is severed from its callee before it goes.
    let caller = unsafe { caller.as_ref() };
    caller.callee.set(None);
    ec.state.set(State::Idle);
    if caller.state.get() == State::Faulted {
        caller.state.set(State::Running);
        crate::exception::resume(caller, ec, header);
        core.request(RESCHEDULE);
        return Ok(());
    }
    let result = if header.is_valid() { transfer(ec, caller, header) } else { Err(Status::Aborted) };
    let registers = caller.registers();
    match result {
        Ok(header) => {
            registers.rax = Status::Success as u64;
            registers.rdi = header.0;
        }
        Err(status) => registers.rax = status as u64,
    }
    caller.state.set(State::Running);
    if core.helping.get() {
        // The time belongs to somebody else, who tries again now.
        core.request(RESCHEDULE);
        caller.unpark();
        return Ok(());
    }
    core.switch(caller);
    Ok(())
}

/// Copies words and items. Answers the header that the receiver sees.
#[inline]
fn transfer(from: &Ec, to: &Ec, header: Header) -> Result<Header, Status> {
    if header.items() != 0 {
        items(from, to, header.items())?;
    }
    let (source, target) = (from.utcb.as_ptr(), to.utcb.as_ptr());
    // SAFETY: both are frames of the kernel's; raw pointers, since the components may write to them at any time.
    let (mut source, mut target) =
        unsafe { ((&raw const (*source).words).cast::<[u64; 4]>(), (&raw mut (*target).words).cast::<[u64; 4]>()) };
    // In steps of four words: a few words too many are copied, which lie in the same page.
    let mut left = header.words();
    while left > 0 {
        // SAFETY: 480 is a multiple of 4, and the header says no more than 480.
        unsafe {
            target.write_volatile(source.read_volatile());
            source = source.add(1);
            target = target.add(1);
        }
        left = left.saturating_sub(4);
    }
    Ok(header)
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
