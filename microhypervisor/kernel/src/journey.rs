// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls to a server on another core.
//!
//! The contract is that of a call on one core: the callee runs on the caller's time, with its priority, and a callee that is busy is
//! helped. So the scheduling context travels: it leaves with the call ([`depart`]), is an SC of the callee's core like any other
//! ([`next`]), and comes home with the reply ([`send_home`], [`arrive`]). Where it is and what for is its [`Journey`]. A callee that calls a
//! third core sends the same SC on; what it had to do where it was is kept by the EC that waits there.
//!
//! Help ends at the border: an SC of one core that waits for an EC that is away waits with it, and its priority is not inherited there.
//! Nor is a circle of calls over several cores found out: who waits in it waits until one of them is destroyed.
//!
//! All of this is state of the SC, which belongs to the core that it is on; caller and callee are each touched on their own core,
//! but for message pages and object spaces, which any core may use. The journey holds references to both. A visit is on as long as the
//! callee has the SC as its visitor: a callee whose visitor is away on a further leg may be destroyed, or answer on the time of
//! somebody who helps it, without the SC, which finds out when it is back.

use crate::ipc;
use crate::object::ec::State;
use crate::object::{Ec, Object, Pt, Ref, Sc};
use crate::percore::{self, Core, RESCHEDULE};
use crate::remote::{self, START};
use crate::{sched, trace};
use cloister_abi::hypercall::IpcFlags;
use cloister_abi::status::Status;
use cloister_abi::trace::Event;
use cloister_abi::utcb::Header;
use core::ptr::NonNull;

/// A call that has come from another core.
pub(crate) struct Visit {
    portal: Ref<Pt>,
    caller: Ref<Ec>,
    header: Header,
    /// It does not wait for a callee that is busy.
    hurried: bool,
}

/// Where an SC is, and what for.
#[derive(Default)]
pub(crate) enum Journey {
    /// On the core of its EC, whose time it is.
    #[default]
    Home,
    /// With a call that the callee has not taken yet.
    Arriving(Visit),
    /// The callee runs on its time.
    Visiting(Visit),
    /// On the way back to the caller, with status and header of the reply.
    Returning(Ref<Ec>, Status, Header),
}

/// What an SC has to run.
pub(crate) enum Next<'a> {
    /// This EC, and whether that is help.
    Run(&'a Ec, bool),
    /// Nothing until this EC runs again.
    Wait(&'a Ec),
    /// It is no more on this core.
    Gone,
}

/// The current SC leaves with a call of the current EC.
///
/// # Errors
/// The portal's EC has gone, or there is no time to call with.
pub(crate) fn depart(core: &Core, ec: &Ec, portal: &Pt, header: Header, flags: u64) -> Result<(), Status> {
    let flags = IpcFlags::from_bits(flags).ok_or(Status::BadParameter)?;
    let there = percore::get(portal.ec.core).ok_or(Status::BadCore)?;
    let sc = core.sc().ok_or(Status::Aborted)?;
    sched::leave(core);
    ec.state.set(State::Away);
    ec.journey.set(sc.journey.take());
    let hurried = flags.contains(IpcFlags::NONBLOCKING);
    sc.journey.set(Journey::Arriving(Visit { portal: Ref::of(portal), caller: Ref::of(ec), header, hurried }));
    travel(sc, there);
    core.request(RESCHEDULE);
    Ok(())
}

/// It is the other core's from here on.
fn travel(sc: &Sc, to: &Core) {
    sc.set_core(to.id);
    remote::send(to, sc.header(), START);
}

/// An SC has come to this core, or was made for it.
pub(crate) fn arrive(sc: &Sc) {
    let mut journey = sc.journey.take();
    if let Journey::Returning(caller, status, header) = &journey {
        let before = caller.journey.take();
        if caller.state.get() == State::Away {
            caller.state.set(State::Running);
            caller.answer(*status, header.0);
            caller.unpark();
        }
        journey = before;
    }
    sc.journey.set(journey);
    if !sc.header().is_alive() {
        // It was destroyed on this leg. There may be others behind it.
        return cancel(percore::core(), sc);
    }
    sched::enqueue(sc, false);
}

/// The visitor of an EC, if it is here rather than away on a further leg. It is none from here on.
fn dismiss(core: &Core, ec: &Ec) -> Option<Ref<Sc>> {
    ec.visitor.take().filter(|sc| sc.core() == core.id)
}

/// Whether an EC's visitor is that SC.
fn is_visitor(ec: &Ec, sc: &Sc) -> bool {
    let visitor = ec.visitor.take();
    let is = visitor.as_ref().is_some_and(|visitor| visitor.is(sc));
    ec.visitor.set(visitor);
    is
}

/// What is to run on an SC's time.
pub(crate) fn next<'a>(core: &Core, sc: &'a Sc) -> Next<'a> {
    let journey = sc.journey.take();
    let chosen = match &journey {
        Journey::Home | Journey::Returning(..) => Ok((NonNull::from(&*sc.ec), false)),
        Journey::Visiting(visit) if is_visitor(&visit.portal.ec, sc) => Ok((NonNull::from(&*visit.portal.ec), false)),
        Journey::Visiting(_) => Err(Status::Aborted),
        Journey::Arriving(visit) => knock(sc, visit).map(|taken| (NonNull::from(&*visit.portal.ec), !taken)),
    };
    let (start, helping) = match chosen {
        Ok(chosen) => chosen,
        Err(status) => {
            send_home(core, sc, journey, status, Header(0));
            return Next::Gone;
        }
    };
    sc.journey.set(match journey {
        Journey::Arriving(visit) if !helping => Journey::Visiting(visit),
        other => other,
    });
    // SAFETY: what the journey refers to stays while the SC has it.
    let start: &'a Ec = unsafe { start.as_ref() };
    match start.path() {
        Some((leaf, helps)) if leaf.is_runnable() => Next::Run(leaf, helping || helps),
        path => Next::Wait(path.map_or(start, |(leaf, _)| leaf)),
    }
}

/// Gives the callee its call, if it is idle. Answers whether it has taken it.
fn knock(sc: &Sc, visit: &Visit) -> Result<bool, Status> {
    let callee = &*visit.portal.ec;
    if !visit.portal.header().is_alive() || !callee.header().is_alive() {
        return Err(Status::BadCapability);
    }
    match callee.state.get() {
        State::Idle => {}
        State::Stopped => return Err(Status::Aborted),
        _ if visit.hurried => return Err(Status::Timeout),
        _ => return Ok(false),
    }
    ipc::items(&visit.caller, callee, visit.header.items())?;
    visit.caller.utcb.copy_words(&callee.utcb, visit.header.words());
    ipc::start(callee, &visit.portal, visit.header);
    callee.visitor.set(Some(Ref::of(sc)));
    trace::crossed(Event::IpcCall, &visit.caller, callee);
    Ok(true)
}

/// The EC replies to a call from another core, if it is one that it serves.
pub(crate) fn reply(core: &Core, ec: &Ec, header: Header) {
    let Some(sc) = dismiss(core, ec) else { return };
    let journey = sc.journey.take();
    if let Journey::Visiting(visit) = &journey {
        trace::crossed(Event::IpcReply, ec, &visit.caller);
    }
    let result = match &journey {
        Journey::Visiting(visit) if header.is_valid() => ipc::items(ec, &visit.caller, header.items())
            .map(|()| ec.utcb.copy_words(&visit.caller.utcb, header.words())),
        _ => Err(Status::Aborted),
    };
    let (status, header) = result.map_or_else(|status| (status, Header(0)), |()| (Status::Success, header));
    send_home(core, &sc, journey, status, header);
}

/// The EC will not reply: whoever called it from another core is told.
pub(crate) fn abort(core: &Core, ec: &Ec) {
    if let Some(sc) = dismiss(core, ec) {
        let journey = sc.journey.take();
        send_home(core, &sc, journey, Status::Aborted, Header(0));
    }
}

/// The SC goes while it is away: its caller is told, and its callee has nobody to reply to.
pub(crate) fn cancel(core: &Core, sc: &Sc) {
    let journey = sc.journey.take();
    if let Journey::Visiting(visit) = &journey {
        let callee = &visit.portal.ec;
        callee.visitor.set(callee.visitor.take().filter(|visitor| !visitor.is(sc)));
    }
    send_home(core, sc, journey, Status::Aborted, Header(0));
}

/// Sends an SC that is on this core for a call back to the caller.
fn send_home(core: &Core, sc: &Sc, journey: Journey, status: Status, header: Header) {
    let (Journey::Arriving(visit) | Journey::Visiting(visit)) = journey else { return sc.journey.set(journey) };
    let Some(home) = percore::get(visit.caller.core) else { return };
    sched::forget(sc);
    sc.journey.set(Journey::Returning(visit.caller, status, header));
    travel(sc, home);
    core.request(RESCHEDULE);
}
