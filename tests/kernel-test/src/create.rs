// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creation: each guard of each call. What is created rightly is used by the other areas.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, limited, semaphore, signal};
use crate::refused;
use cloister_abi::cap::{NONE, Perms, SELECTORS, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, ROOT_EC, ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{CreateEc, CreatePd, CreatePt, CreateSc, CreateSm, CreateSpace, EcFlags};
use cloister_abi::status::Status;
use cloister_abi::{PRIORITIES, USER_END};
use cloister_bare::kernel::{call, selector};
use cloister_bare::memory::addresses;
use cloister_bare::thread::{Options, destroy, prepare, server};

pub(crate) static TESTS: [Test; 11] = [
    ("create-pd-guards", pd),
    ("create-space-guards", space),
    ("create-ec-capabilities", ec_capabilities),
    ("create-ec-addresses", ec_addresses),
    ("create-ec-flags", ec_flags),
    ("create-sc-guards", sc),
    ("create-pt-guards", pt),
    ("create-sm-guards", sm),
    ("create-signal-guards", signals),
    ("create-beyond-object-space", beyond),
    ("create-over-old-capability", over),
];

/// A PD capability without that permission.
fn pd_without(perms: Perms) -> Result<Selector, Status> {
    limited(ROOT_PD, Perms::ALL.difference(perms))
}

/// Something that may be created with all permissions of a PD but `needed`, and is not.
fn pd() -> Outcome {
    let sel = cloister_bare::kernel::selectors(4);
    refused!(BadCapability, CreatePd { sel, pd: EMPTY, budget: 0x10000, priorities: 0 });
    refused!(BadCapability, CreatePd { sel, pd: ROOT_EC, budget: 0x10000, priorities: 0 });
    refused!(BadCapability, CreatePd { sel, pd: pd_without(Perms::PD_CHILDREN)?, budget: 0x10000, priorities: 0 });
    refused!(OutOfBudget, CreatePd { sel, pd: ROOT_PD, budget: u64::MAX, priorities: 0 });
    refused!(OutOfBudget, CreatePd { sel, pd: ROOT_PD, budget: 1 << 62, priorities: 0 });
    refused!(OutOfBudget, CreatePd { sel, pd: ROOT_PD, budget: 0, priorities: 0 });
    refused!(BadParameter, CreatePd { sel: u32::MAX - 2, pd: ROOT_PD, budget: 0x10000, priorities: 0 });
    refused!(BadParameter, CreatePd { sel: SELECTORS - 3, pd: ROOT_PD, budget: 0x10000, priorities: 0 });
    Ok(())
}

fn space() -> Outcome {
    let sel = selector();
    let guest = SpaceKind::Guest as u64;
    refused!(BadCapability, CreateSpace { sel, pd: EMPTY, kind: guest });
    refused!(BadCapability, CreateSpace { sel, pd: MACHINE, kind: guest });
    refused!(BadCapability, CreateSpace { sel, pd: pd_without(Perms::PD_CONTEXTS)?, kind: guest });
    for kind in [SpaceKind::Object as u64, SpaceKind::Host as u64, SpaceKind::Pio as u64, 6, 1 << 32, u64::MAX] {
        refused!(BadParameter, CreateSpace { sel, pd: ROOT_PD, kind });
    }
    call(&CreateSpace { sel, pd: ROOT_PD, kind: guest })?;
    destroy(sel);
    Ok(())
}

fn ec(sel: Selector, flags: u64, utcb: u64) -> CreateEc {
    CreateEc { sel, pd: ROOT_PD, flags, utcb, sp: 0x1000, ip: 0x1000 }
}

fn local() -> u64 {
    CreateEc::pack(EcFlags::empty(), 0, NONE)
}

fn ec_capabilities() -> Outcome {
    let (sel, utcb) = (selector(), addresses(0));
    refused!(BadCapability, CreateEc { pd: EMPTY, ..ec(sel, local(), utcb) });
    refused!(BadCapability, CreateEc { pd: pd_without(Perms::PD_CONTEXTS)?, ..ec(sel, local(), utcb) });
    refused!(BadCapability, ec(sel, CreateEc::pack(EcFlags::empty(), 0, EMPTY), utcb));
    refused!(BadCapability, ec(sel, CreateEc::pack(EcFlags::empty(), 0, ROOT_EC), utcb));
    let handler = server(crate::make::silent, &Options::default())?;
    let portal = handler.portal(0)?;
    let weak = limited(portal, Perms::ALL.difference(Perms::PT_EVENT))?;
    refused!(BadCapability, ec(sel, CreateEc::pack(EcFlags::empty(), 0, weak), utcb));
    call(&ec(sel, CreateEc::pack(EcFlags::empty(), 0, portal), utcb))?;
    destroy(sel);
    handler.destroy();
    Ok(())
}

fn ec_addresses() -> Outcome {
    let (sel, utcb) = (selector(), addresses(0));
    for bad in [0, utcb + 1, utcb + 8, USER_END, USER_END + 0x1000, 1 << 47, 0xffff_8000_0000_0000, !0xfff] {
        refused!(BadParameter, ec(sel, local(), bad));
    }
    for bad in [USER_END, 1 << 47, 0x8000_0000_0000_1000, 0xffff_ffff_8000_0000, u64::MAX] {
        refused!(BadParameter, CreateEc { sp: bad, ..ec(sel, local(), utcb) });
        refused!(BadParameter, CreateEc { ip: bad, ..ec(sel, local(), utcb) });
    }
    // Mapped already: this program's text, and the page of another EC.
    refused!(Busy, ec(sel, local(), 0x40_0000));
    call(&ec(sel, local(), utcb))?;
    refused!(Busy, ec(selector(), local(), utcb));
    destroy(sel);
    Ok(())
}

fn ec_flags() -> Outcome {
    let (sel, utcb) = (selector(), addresses(0));
    for bit in [2, 3, 7, 16, 17, 31] {
        refused!(BadParameter, ec(sel, local() | 1 << bit, utcb));
    }
    refused!(BadCore, ec(sel, CreateEc::pack(EcFlags::empty(), 200, NONE), utcb));
    Ok(())
}

fn sc() -> Outcome {
    extern "C" fn never(_: u64) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
    let thread = prepare(never, 0, &Options::default())?;
    let sel = selector();
    let good = CreateSc { sel, pd: ROOT_PD, ec: thread.ec, priority: 0, quantum: 1000 };
    refused!(BadCapability, CreateSc { pd: EMPTY, ..good });
    refused!(BadCapability, CreateSc { pd: pd_without(Perms::PD_CONTEXTS)?, ..good });
    refused!(BadCapability, CreateSc { ec: EMPTY, ..good });
    refused!(BadCapability, CreateSc { ec: ROOT_PD, ..good });
    refused!(BadCapability, CreateSc { ec: limited(thread.ec, Perms::ALL.difference(Perms::EC_SCHED))?, ..good });
    refused!(BadParameter, CreateSc { priority: u32::try_from(PRIORITIES).unwrap_or(u32::MAX), ..good });
    refused!(BadParameter, CreateSc { priority: u32::MAX, ..good });
    refused!(BadParameter, CreateSc { quantum: 0, ..good });
    refused!(Busy, CreateSc { ec: ROOT_EC, ..good });
    let server = server(crate::make::silent, &Options::default())?;
    refused!(BadParameter, CreateSc { ec: server.ec, ..good });
    server.destroy();
    destroy(thread.ec);
    refused!(BadCapability, good);
    Ok(())
}

fn pt() -> Outcome {
    let server = server(crate::make::silent, &Options::default())?;
    let good = CreatePt { sel: selector(), pd: ROOT_PD, ec: server.ec, ip: 0x1000, id: 0 };
    refused!(BadCapability, CreatePt { pd: EMPTY, ..good });
    refused!(BadCapability, CreatePt { pd: pd_without(Perms::PD_OBJECTS)?, ..good });
    refused!(BadCapability, CreatePt { ec: EMPTY, ..good });
    refused!(BadCapability, CreatePt { ec: ROOT_HOST, ..good });
    refused!(BadCapability, CreatePt { ec: limited(server.ec, Perms::ALL.difference(Perms::EC_PORTALS))?, ..good });
    refused!(BadParameter, CreatePt { ec: ROOT_EC, ..good });
    for ip in [USER_END, 1 << 47, u64::MAX, 0xffff_ffff_8000_0000] {
        refused!(BadParameter, CreatePt { ip, ..good });
    }
    call(&good)?;
    server.destroy();
    refused!(BadCapability, good);
    Ok(())
}

fn sm() -> Outcome {
    let good = CreateSm { sel: selector(), pd: ROOT_PD, count: 3, target: NONE, bit: 0 };
    refused!(BadCapability, CreateSm { pd: EMPTY, ..good });
    refused!(BadCapability, CreateSm { pd: pd_without(Perms::PD_OBJECTS)?, ..good });
    refused!(BadParameter, CreateSm { bit: 1, ..good });
    call(&good)?;
    destroy(good.sel);
    Ok(())
}

fn signals() -> Outcome {
    let target = semaphore(0)?;
    let good = CreateSm { sel: selector(), pd: ROOT_PD, count: 0, target, bit: 63 };
    refused!(BadCapability, CreateSm { target: EMPTY, ..good });
    refused!(BadCapability, CreateSm { target: ROOT_EC, ..good });
    refused!(BadCapability, CreateSm { target: limited(target, Perms::ALL.difference(Perms::SM_BIND))?, ..good });
    refused!(BadParameter, CreateSm { bit: 64, ..good });
    refused!(BadParameter, CreateSm { bit: u32::MAX, ..good });
    refused!(BadParameter, CreateSm { count: 1, ..good });
    refused!(BadParameter, CreateSm { target: signal(target, 1)?, ..good });
    call(&good)?;
    destroy(target);
    refused!(BadCapability, good);
    Ok(())
}

fn beyond() -> Outcome {
    for sel in [SELECTORS, SELECTORS + 1, u32::MAX] {
        refused!(BadParameter, CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 });
        refused!(BadParameter, CreateSpace { sel, pd: ROOT_PD, kind: SpaceKind::Guest as u64 });
        refused!(BadParameter, ec(sel, local(), addresses(0)));
    }
    call(&CreateSm { sel: SELECTORS - 1, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
    destroy(SELECTORS - 1);
    Ok(())
}

/// A new capability takes the place of an old one; the old object goes with its last capability.
fn over() -> Outcome {
    let sel = semaphore(5)?;
    call(&CreateSm { sel, pd: ROOT_PD, count: 7, target: NONE, bit: 0 })?;
    crate::equal!(crate::make::down(sel)?, 1);
    let rest = cloister_abi::hypercall::SmDown { sm: sel, flags: 1, deadline: 0 };
    crate::equal!(call(&rest)?.0, 6);
    destroy(sel);
    Ok(())
}
