// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating, controlling and removing one object of each kind.

use crate::calls::{echo, shortest};
use crate::report;
use cloister_abi::arch::x86_64::vcpu::Groups;
use cloister_abi::cap::{NONE, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_HOST, ROOT_OBJECTS, ROOT_PD, ROOT_SC, features};
use cloister_abi::hypercall::{
    CreateEc, CreatePd, CreatePt, CreateSc, CreateSm, CreateSpace, CreateVcpu, Delegate, Destroy, Drop, EcFlags,
    MachineControl, MachineOp, MoveBudget, PdInfo, Revoke, ScTime, VcpuKick, VcpuSync,
};
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, selector, selectors};
use cloister_bare::memory::{PAGE, addresses, frames};
use cloister_bare::thread::destroy;

/// Kernel memory of a domain that is made, bytes.
const BUDGET: u64 = 0x1_0000;

fn domains() -> Result<(), Status> {
    let pd = selectors(4);
    let create = CreatePd { sel: pd, pd: ROOT_PD, budget: BUDGET, priorities: 0 };
    call(&create)?;
    let again = || {
        destroy(pd);
        let _ = call(&Drop { base: pd, count: 4 });
        create
    };
    report("pd-create", shortest(again));
    report("pd-info", shortest(|| PdInfo { pd }));
    report("budget-move", shortest(|| MoveBudget { from: ROOT_PD, to: pd, bytes: 0x1000 }));
    destroy(pd);
    call(&Drop { base: pd, count: 4 })?;
    Ok(())
}

fn threads() -> Result<(), Status> {
    let [local, global, sc, pt] = [(); 4].map(|()| selector());
    let (one, other) = (addresses(0), addresses(0));
    let ec = |sel, flags, utcb| CreateEc {
        sel,
        pd: ROOT_PD,
        flags: CreateEc::pack(flags, 0, NONE),
        utcb,
        sp: 0,
        ip: 0x1000,
    };
    let server = ec(local, EcFlags::empty(), one);
    call(&server)?;
    let create = shortest(|| {
        destroy(local);
        server
    });
    report("ec-create", create);
    call(&ec(global, EcFlags::GLOBAL, other))?;
    let start = CreateSc { sel: sc, pd: ROOT_PD, ec: global, priority: 1, quantum: 1000 };
    call(&start)?;
    let create = shortest(|| {
        destroy(sc);
        start
    });
    report("sc-create", create);
    report("sc-time", shortest(|| ScTime { sc: ROOT_SC }));
    let portal = CreatePt { sel: pt, pd: ROOT_PD, ec: local, ip: echo as *const () as u64, id: 0 };
    call(&portal)?;
    let create = shortest(|| {
        destroy(pt);
        portal
    });
    report("pt-create", create);
    for sel in [pt, sc, global, local] {
        destroy(sel);
    }
    Ok(())
}

fn removal() -> Result<(), Status> {
    let sel = selector();
    let make = || call(&CreateSm { sel, pd: ROOT_PD, count: 0, target: NONE, bit: 0 });
    let dropped = shortest(|| {
        let _ = make();
        Drop { base: sel, count: 1 }
    });
    report("drop-last", dropped);
    let destroyed = shortest(|| {
        let _ = make();
        Destroy { sel }
    });
    report("destroy", destroyed);
    let capability = shortest(|| {
        let _ = make();
        Revoke { space: ROOT_OBJECTS, base: sel.into(), order: 0 }
    });
    report("revoke-cap", capability);
    let (src_base, dst_base) = (frames(0) / PAGE, addresses(0) / PAGE);
    let page = shortest(|| {
        let _ = call(&Delegate { src: MACHINE_MEMORY, dst: ROOT_HOST, src_base, dst_base, order: 0, rights: 3 });
        Revoke { space: ROOT_HOST, base: dst_base, order: 0 }
    });
    report("revoke-page", page);
    Ok(())
}

fn guests() -> Result<(), Status> {
    let (guest, vcpu, address) = (selector(), selector(), addresses(0));
    let space = CreateSpace { sel: guest, pd: ROOT_PD, kind: SpaceKind::Guest as u64 };
    call(&space)?;
    let create = shortest(|| {
        destroy(guest);
        space
    });
    report("space-create", create);
    let cpu = CreateVcpu { sel: vcpu, pd: ROOT_PD, guest, host: ROOT_HOST, address, core: 0 };
    call(&cpu)?;
    let create = shortest(|| {
        destroy(vcpu);
        cpu
    });
    report("vcpu-create", create);
    let groups = (Groups::all() - Groups::FPU).bits();
    report("vcpu-sync", shortest(|| VcpuSync { vcpu, groups }));
    report("vcpu-kick", shortest(|| VcpuKick { vcpu }));
    destroy(vcpu);
    destroy(guest);
    Ok(())
}

/// All kinds.
pub(crate) fn objects() -> Result<(), Status> {
    domains()?;
    threads()?;
    removal()?;
    report(
        "memory-info",
        shortest(|| MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 }),
    );
    if hip().features & features::SVM != 0 {
        guests()?;
    }
    Ok(())
}
