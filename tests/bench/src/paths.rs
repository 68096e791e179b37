// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths of calls that one thread makes.

use crate::calls::{echo, shortest};
use crate::report;
use cloister_abi::cap::{Access, NONE, Perms, Selector};
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_EC, ROOT_HOST, ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{CreateSm, Delegate, IpcCall, Null, Revoke, SmDown, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, selector};
use cloister_bare::memory::{PAGE, addresses, frames};
use cloister_bare::thread::{Context, Options, destroy, server};

pub(crate) fn null() {
    report("null", shortest(|| Null {}));
}

fn silent(_: u64, header: Header) -> Header {
    header
}

fn round_trip(server: &Context, words: usize) -> Result<u64, Status> {
    let portal = server.portal_at(echo as *const () as u64, 0)?;
    Ok(shortest(|| IpcCall { portal, header: Header::new(words, 0).0, flags: 0 }))
}

/// Call and reply, to a server in the same and in another address space.
pub(crate) fn ipc() -> Result<(), Status> {
    let same = server(silent, &Options::default())?;
    for (name, words) in [("ipc-same-1", 1), ("ipc-same-8", 8), ("ipc-same-64", 64)] {
        report(name, round_trip(&same, words)?);
    }
    let domain = Domain::with_image(0x20_0000)?;
    let other = domain.server(silent)?;
    for (name, words) in [("ipc-other-1", 1), ("ipc-other-8", 8), ("ipc-other-64", 64)] {
        report(name, round_trip(&other, words)?);
    }
    Ok(())
}

fn semaphore(sel: Selector) -> CreateSm {
    CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 }
}

/// Up and down without waiting, and creation in a slab that has room.
pub(crate) fn semaphores() -> Result<(), Status> {
    let sm = selector();
    call(&semaphore(sm))?;
    report("semaphore-up", shortest(|| SmUp { sm }));
    report("semaphore-down", shortest(|| SmDown { sm, flags: 0, deadline: 0 }));
    let new = selector();
    call(&semaphore(new))?;
    let create = shortest(|| {
        destroy(new);
        semaphore(new)
    });
    report("semaphore-create", create);
    Ok(())
}

/// One capability, and one page whose table is there.
pub(crate) fn delegation() -> Result<(), Status> {
    let to = u64::from(selector());
    let capability = shortest(|| {
        let _ = call(&Revoke { space: ROOT_OBJECTS, base: to, order: 0 });
        Delegate {
            src: ROOT_OBJECTS,
            dst: ROOT_OBJECTS,
            src_base: ROOT_EC.into(),
            dst_base: to,
            order: 0,
            rights: Perms::ALL.bits().into(),
        }
    });
    report("delegate-cap", capability);
    let (src_base, dst_base) = (frames(0) / PAGE, addresses(0) / PAGE);
    let page = shortest(|| {
        let _ = call(&Revoke { space: ROOT_HOST, base: dst_base, order: 0 });
        let rights = (Access::READ | Access::WRITE).bits().into();
        Delegate { src: MACHINE_MEMORY, dst: ROOT_HOST, src_base, dst_base, order: 0, rights }
    });
    report("delegate-page", page);
    Ok(())
}
