// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions of ECs: a message to the EC's exception portal, sent by the kernel on its behalf.

use crate::arch::Frame;
use crate::arch::trap::{PAGE_FAULT, exception_state, set_exception_state};
use crate::flood::Flood;
use crate::ipc;
use crate::object::ec::State;
use crate::object::{Ec, Object};
use crate::percore::{Core, RESCHEDULE, core};
use cloister_abi::USER_END;
use cloister_abi::arch::current::exception::WORDS;
use cloister_abi::utcb::Header;

/// Execution contexts that were stopped.
static STOPPED: Flood = Flood::new();

/// Sends an exception to the EC's handler. Without one, or if it waits for the EC or is gone, the EC is stopped for good.
pub(crate) fn raise(core: &Core, ec: &Ec, frame: &Frame) {
    let state = exception_state(frame, crate::arch::percore::fs_base());
    let handler = ec.event.as_ref().filter(|portal| portal.header().is_alive() && portal.ec.header().is_alive());
    let handler = handler.filter(|portal| portal.ec.core == core.id);
    // One that is busy is helped; the exception is raised again after that.
    let busy = handler.filter(|portal| portal.ec.state.get() != State::Idle);
    if busy.is_some_and(|portal| ipc::help(core, ec, &portal.ec).is_ok()) {
        return;
    }
    let Some(portal) = handler.filter(|_| busy.is_none()) else {
        STOPPED.tell(|count| {
            log::warn!(
                "exception {} (error {:#x}, address {:#x}) at {:#x} without handler: execution context stopped ({count} so far)",
                state.vector,
                state.error,
                state.address,
                state.rip
            );
        });
        stop(ec);
        return;
    };
    let callee = &portal.ec;
    callee.utcb.put_words(0, &state.to_words());
    ec.state.set(State::Faulted);
    ipc::enter(core, ec, callee, portal, Header::new(WORDS, 0));
}

/// The handler was busy when it was called, and need not be any more.
pub(crate) fn again(core: &Core, ec: &Ec) {
    let frame = ec.registers();
    // What a page fault was about is lost meanwhile: the instruction tells it anew.
    if frame.vector != PAGE_FAULT {
        raise(core, ec, frame);
    }
}

/// Stops an EC for good; who waits for it is told.
fn stop(ec: &Ec) {
    ec.stop();
    core().request(RESCHEDULE);
}

/// The handler has replied: the EC goes on, with its new state if the reply has one.
pub(crate) fn resume(ec: &Ec, handler: &Ec, reply: Header) {
    if reply.words() != WORDS {
        return;
    }
    let state = handler.utcb.exception();
    if state.rip < USER_END {
        set_exception_state(ec.registers(), &state);
    } else {
        stop(ec);
    }
}
