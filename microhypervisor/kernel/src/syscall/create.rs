// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creation of objects. Each is paid by the PD that the call names; the new capability has all permissions.
//!
//! A failure changes nothing. So the place for the capability, which once made stays, is made last; an object that finds none goes as
//! any object does that nobody refers to, and its memory is back before the caller runs again.

use super::{Answer, lookup};
use crate::arch::{iommu, timer};
use crate::object::ec::Start;
use crate::object::pd::Spaces;
use crate::object::space::Content;
use crate::object::{Ec, Object, Pd, Pt, Ref, Sc, Sm, Space, Vcpu, Work, status, tell};
use crate::percore;
use crate::width::low8;
use crate::{arch::paging, remote};
use cloister_abi::cap::{NONE, Perms, Selector, SpaceKind};
use cloister_abi::hypercall as abi;
use cloister_abi::status::Status;
use cloister_abi::{PAGE_SIZE, USER_END};
use cloister_mechanism::bitmap::Bitmap;
use cloister_mechanism::capability::Table;
use cloister_mechanism::radix::PageTable;
use spin::Mutex;

/// Puts a new object into the caller's object space. If there is no room, the object goes.
fn place<T: Object>(ec: &Ec, selector: Selector, object: Ref<T>) -> Answer {
    let raw = object.into_raw();
    // SAFETY: the reference that `into_raw` kept is what the capability takes over.
    ec.objects.insert(selector, unsafe { raw.as_ref() }.header(), Perms::ALL)?;
    Ok((0, 0))
}

fn user_page(address: u64) -> Result<(), Status> {
    let ok = address.is_multiple_of(PAGE_SIZE as u64) && address != 0 && address < USER_END;
    ok.then_some(()).ok_or(Status::BadParameter)
}

fn user_address(address: u64) -> Result<(), Status> {
    (address < USER_END).then_some(()).ok_or(Status::BadParameter)
}

/// The spaces of a new PD, paid by itself.
pub(crate) fn spaces(pd: &Pd) -> Result<Spaces, Status> {
    let spaces = Spaces {
        // SAFETY: the frame is the space's from now on.
        objects: Space::with_root(pd, |root| Content::Objects(unsafe { Table::new(root) }))?,
        host: Space::with_root(pd, |root| {
            paging::share_kernel_half(root);
            // SAFETY: the frame is the space's from now on.
            Content::Host(unsafe { PageTable::new(root) })
        })?,
        ports: Space::create(pd, None, Content::Ports(Mutex::new(Bitmap::empty())))?,
    };
    pd.set_spaces(spaces.clone());
    Ok(spaces)
}

pub(super) fn pd(ec: &Ec, call: &abi::CreatePd) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_CHILDREN)?;
    let last = call.sel.checked_add(3).ok_or(Status::BadParameter)?;
    let priorities = if call.priorities == 0 { payer.priorities } else { call.priorities };
    if priorities > payer.priorities {
        return Err(Status::BadParameter);
    }
    payer.budget().shrink(call.budget).map_err(status)?;
    let child = match Ref::create(payer, Pd::new(call.budget, priorities)) {
        Ok(child) => child,
        Err(why) => {
            payer.budget().grow(call.budget);
            return Err(why);
        }
    };
    let spaces = spaces(&child).and_then(|spaces| ec.objects.prepare(call.sel, last).map(|()| spaces));
    // Otherwise child and spaces would keep each other.
    let spaces = spaces.inspect_err(|_| crate::object::destroy(child.header(), &mut Work::piece()))?;
    place(ec, call.sel, child)?;
    place(ec, call.sel + 1, spaces.objects)?;
    place(ec, call.sel + 2, spaces.host)?;
    place(ec, call.sel + 3, spaces.ports)
}

pub(super) fn space(ec: &Ec, call: &abi::CreateSpace) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_CONTEXTS)?;
    let kind = SpaceKind::from_raw(call.kind).ok_or(Status::BadParameter)?;
    let space = match kind {
        // SAFETY: the frame is the space's from now on.
        SpaceKind::Guest => Space::with_root(payer, |root| Content::Guest(unsafe { PageTable::new(root) }))?,
        SpaceKind::Dma => {
            let format = iommu::limits().ok_or(Status::BadFeature)?.format;
            // SAFETY: the frame is the space's from now on.
            Space::with_root(payer, |root| Content::Dma(unsafe { iommu::Tables::new(format, root) }))?
        }
        // A PD has its own; MSR spaces need machinery that is not here yet.
        SpaceKind::Object | SpaceKind::Host | SpaceKind::Pio => return Err(Status::BadParameter),
        SpaceKind::Msr => return Err(Status::BadFeature),
    };
    place(ec, call.sel, space)
}

pub(super) fn ec(ec: &Ec, call: &abi::CreateEc) -> Answer {
    let pd = lookup::<Pd>(ec, call.pd, Perms::PD_CONTEXTS)?;
    let flags = call.ec_flags().ok_or(Status::BadParameter)?;
    user_page(call.utcb)?;
    user_address(call.sp)?;
    user_address(call.ip)?;
    if usize::from(call.core()) >= percore::count() {
        return Err(Status::BadCore);
    }
    let event = match call.event() {
        NONE => None,
        selector => {
            let portal = lookup::<Pt>(ec, selector, Perms::PT_EVENT)?;
            // Exceptions are handled where they happen.
            if portal.ec.core != call.core() {
                return Err(Status::BadCore);
            }
            Some(Ref::of(portal))
        }
    };
    let spaces = pd.spaces().ok_or(Status::BadCapability)?;
    let start = Start { utcb: call.utcb, sp: call.sp, ip: call.ip, core: call.core(), flags, event };
    place(ec, call.sel, Ec::create(pd, spaces, start)?)
}

pub(super) fn sc(ec: &Ec, call: &abi::CreateSc) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_CONTEXTS)?;
    let target = lookup::<Ec>(ec, call.ec, Perms::EC_SCHED)?;
    // Who pays must have the priority, so that nobody makes others urgent; and the EC's PD, so that nobody can be tricked into making
    // it more urgent than who created it wants.
    let limit = payer.priorities.min(target.pd.priorities);
    if call.priority >= limit || call.quantum == 0 || !target.global {
        return Err(Status::BadParameter);
    }
    let quantum = timer::from_micros(call.quantum).max(1);
    let sc = Ref::create(payer, Sc::new(Ref::of(target), low8(call.priority.into()), quantum))?;
    if !target.bind(&sc) {
        crate::object::destroy(sc.header(), &mut Work::piece());
        return Err(Status::Busy);
    }
    // Nothing can fail when it begins to run.
    place(ec, call.sel, sc.clone())?;
    tell(sc.header(), remote::START, &mut Work::of(0));
    Ok((0, 0))
}

pub(super) fn pt(ec: &Ec, call: &abi::CreatePt) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_OBJECTS)?;
    let target = lookup::<Ec>(ec, call.ec, Perms::EC_PORTALS)?;
    user_address(call.ip)?;
    if target.global {
        return Err(Status::BadParameter);
    }
    let portal = Ref::create(payer, Pt::new(Ref::of(target), call.ip, call.id))?;
    place(ec, call.sel, portal)
}

pub(super) fn sm(ec: &Ec, call: &abi::CreateSm) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_OBJECTS)?;
    let semaphore = if call.target == NONE {
        if call.bit != 0 {
            return Err(Status::BadParameter);
        }
        Sm::new(call.count, None, 0)
    } else {
        let target = lookup::<Sm>(ec, call.target, Perms::SM_BIND)?;
        if call.count != 0 || call.bit >= 64 || target.target.is_some() {
            return Err(Status::BadParameter);
        }
        Sm::new(0, Some(Ref::of(target)), 1 << call.bit)
    };
    let semaphore = Ref::create(payer, semaphore)?;
    place(ec, call.sel, semaphore)
}

pub(super) fn vcpu(ec: &Ec, call: &abi::CreateVcpu) -> Answer {
    let payer = lookup::<Pd>(ec, call.pd, Perms::PD_CONTEXTS)?;
    let guest = lookup::<Space>(ec, call.guest, Perms::SPACE_ASSIGN)?;
    let host = lookup::<Space>(ec, call.host, Perms::SPACE_GRANT)?;
    user_page(call.address)?;
    if !crate::arch::guest::is_supported() {
        return Err(Status::BadFeature);
    }
    if !matches!(guest.content, Content::Guest(_)) || !matches!(host.content, Content::Host(_)) {
        return Err(Status::BadCapability);
    }
    let core = u8::try_from(call.core).ok().filter(|core| usize::from(*core) < percore::count());
    let core = core.ok_or(Status::BadCore)?;
    let vcpu = Vcpu::create(payer, Ref::of(guest), (Ref::of(host), call.address), core)?;
    place(ec, call.sel, vcpu)
}
