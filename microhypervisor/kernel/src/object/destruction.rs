// SPDX-License-Identifier: MIT OR Apache-2.0
//! What destruction means for each kind of object. An EC, SC or VCPU is taken out of its core's queues there: a core that destroys one of
//! another's sends mail. Who waits for what is destroyed is told in pieces, of which the core reminds itself by mail too.

use super::{Header, View, Work};
use crate::journey;
use crate::percore::{self, Core, core};
use crate::remote::{self, KILL, LET_GO, START, WAKE};
use cloister_abi::cap::Kind;
use core::sync::atomic::Ordering::Relaxed;

/// Destroys an object: nobody finds it any more, it is out of all queues, who waits for it is told.
pub(crate) fn destroy(header: &Header, work: &mut Work) {
    // While it is being taken out of the queues nobody may bury it.
    header.acquire();
    if header.kind.swap(Kind::Dead as u8, Relaxed) != Kind::Dead as u8 {
        detach(header, work);
    }
    header.release();
}

/// Takes an object that has just died out of all queues.
fn detach(header: &Header, work: &mut Work) {
    if let Some(payer) = header.payer() {
        payer.disown(header);
    }
    if let View::Sc(sc) = header.view() {
        // Its EC can have another one from now on.
        sc.ec.unbind(sc);
    }
    tell(header, KILL, work);
}

/// Core that an EC, SC or VCPU belongs to.
fn home(header: &Header) -> Option<&'static Core> {
    percore::get(match header.view() {
        View::Ec(ec) => ec.core,
        View::Sc(sc) => sc.core(),
        View::Vcpu(vcpu) => vcpu.core,
        _ => return None,
    })
}

/// Does what destruction means, on the object's core if it has one.
fn kill(view: View<'_>, work: &mut Work) {
    match view {
        View::Pd(pd) => pd.kill(),
        View::Ec(ec) => ec.kill(work),
        View::Sc(sc) => sc.kill(),
        View::Sm(sm) => sm.kill(),
        View::Vcpu(vcpu) => vcpu.kill(),
        View::Space(space) => space.kill(),
        View::Pt(_) | View::Machine(_) | View::Dead => {}
    }
}

/// Has something done with an object that was found or is kept: now, as much as `work` allows, or if it belongs to another core
/// there, by mail.
pub(crate) fn tell(header: &Header, what: u32, work: &mut Work) {
    if let Some(home) = home(header).filter(|home| home.id != core().id) {
        return remote::send(home, header, what);
    }
    let view = header.view();
    match view {
        View::Ec(ec) if what & WAKE != 0 => ec.woken(),
        // One that was destroyed on its way is sent back there, and may be the other core's again.
        View::Sc(sc) if what & START != 0 => return journey::arrive(sc),
        _ => {}
    }
    if what & KILL != 0 {
        kill(view, work);
    }
    match view {
        View::Ec(ec) if what & LET_GO != 0 => ec.let_go(work),
        View::Sm(sm) if what & LET_GO != 0 => sm.let_go(work),
        _ => {}
    }
}
