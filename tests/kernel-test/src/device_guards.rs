// SPDX-License-Identifier: MIT OR Apache-2.0
//! DMA spaces and the assignment of devices: what is refused, and what it costs.

use crate::edu::{Edu, amd_unit, has_iommu, space};
use crate::harness::{Failure, Outcome, Test};
use crate::make::{EMPTY, limited, semaphore, used};
use crate::{check, equal, refused};
use cloister_abi::cap::{Access, NONE, Perms, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{AssignDevice, CreateSpace, Delegate, DeviceFault, Drop, Revoke};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, message, selector, selectors};
use cloister_bare::memory::{PAGE, frames, pages};
use cloister_bare::thread::destroy;

pub(crate) static TESTS: [Test; 6] = [
    ("device-without-iommu", without),
    ("device-guards", guards),
    ("device-fault-guards", fault_guards),
    ("dma-space-rights", rights),
    ("dma-space-limits", limits),
    ("dma-space-account", account),
];

const READ_WRITE: u64 = Access::READ.union(Access::WRITE).bits() as u64;

fn needs_iommu() -> Outcome {
    if has_iommu() { Ok(()) } else { Err(Failure::Skipped("no IOMMU")) }
}

fn without() -> Outcome {
    if has_iommu() {
        return Err(Failure::Skipped("there is an IOMMU"));
    }
    refused!(BadFeature, CreateSpace { sel: selector(), pd: ROOT_PD, kind: SpaceKind::Dma as u64 });
    refused!(BadFeature, AssignDevice { machine: MACHINE, space: ROOT_HOST, device: 0x20, flags: 0 });
    refused!(BadFeature, DeviceFault { machine: MACHINE, sm: NONE });
    Ok(())
}

fn guards() -> Outcome {
    let edu = Edu::find()?;
    let (space, other) = (space()?, space()?);
    let good = AssignDevice { machine: MACHINE, space, device: edu.function.0, flags: 0 };
    refused!(BadCapability, AssignDevice { machine: ROOT_PD, ..good });
    refused!(BadCapability, AssignDevice { machine: limited(MACHINE, !Perms::MACHINE_DEVICE)?, ..good });
    refused!(BadCapability, AssignDevice { space: EMPTY, ..good });
    refused!(BadCapability, AssignDevice { space: ROOT_HOST, ..good });
    refused!(BadCapability, AssignDevice { space: limited(space, !Perms::SPACE_ASSIGN)?, ..good });
    for device in [0x1_0000, u32::MAX] {
        refused!(BadParameter, AssignDevice { device, ..good });
    }
    for flags in [2, 1 << 63] {
        refused!(BadParameter, AssignDevice { flags, ..good });
    }
    // Not in it, twice in one, in two.
    equal!(edu.remove(space), Err(Status::BadDevice));
    edu.assign(space)?;
    equal!(edu.assign(space), Err(Status::Busy));
    equal!(edu.assign(other), Err(Status::Busy));
    equal!(edu.remove(other), Err(Status::BadDevice));
    edu.remove(space)?;
    edu.assign(other)?;
    // With its space it is free again.
    destroy(other);
    edu.assign(space)?;
    destroy(space);
    refused!(BadCapability, good);
    // What is the IOMMU's own.
    if let Some(unit) = amd_unit() {
        refused!(BadDevice, AssignDevice { space: crate::edu::space()?, device: unit.0, ..good });
    }
    Ok(())
}

fn fault_guards() -> Outcome {
    needs_iommu()?;
    let good = DeviceFault { machine: MACHINE, sm: semaphore(0)? };
    refused!(BadCapability, DeviceFault { machine: ROOT_PD, ..good });
    refused!(BadCapability, DeviceFault { machine: limited(MACHINE, !Perms::MACHINE_DEVICE)?, ..good });
    refused!(BadCapability, DeviceFault { sm: EMPTY, ..good });
    refused!(BadCapability, DeviceFault { sm: limited(good.sm, !Perms::SM_BIND)?, ..good });
    call(&good)?;
    destroy(good.sm);
    crate::edu::forget_faults();
    refused!(Timeout, DeviceFault { sm: NONE, ..good });
    Ok(())
}

fn rights() -> Outcome {
    needs_iommu()?;
    let space = space()?;
    let src_base = frames(0) / PAGE;
    let good = Delegate { src: MACHINE_MEMORY, dst: space, src_base, dst_base: 16, order: 0, rights: READ_WRITE };
    for rights in [0, Access::EXEC.bits().into(), READ_WRITE | 4, 1 << 5, 1 << 63] {
        refused!(BadParameter, Delegate { rights, ..good });
    }
    refused!(BadCapability, Delegate { dst: limited(space, !Perms::SPACE_GRANT)?, ..good });
    // Nothing is taken out of it.
    refused!(BadCapability, Delegate { src: space, dst: ROOT_HOST, ..good });
    // The kernel's memory: where interrupts go, a page of its own, the message page, the information page.
    refused!(BadParameter, Delegate { src_base: 0xfee0_0000 / PAGE, ..good });
    refused!(BadParameter, Delegate { src_base: 0xfee5_5000 / PAGE, ..good });
    let own = cloister_bare::entry::hip().ranges.iter().find(|range| range.kind == 6).map_or(0, |range| range.base);
    refused!(BadParameter, Delegate { src_base: own / PAGE, ..good });
    refused!(BadParameter, Delegate { src: ROOT_HOST, src_base: message().address() / PAGE, ..good });
    refused!(BadParameter, Delegate { src: ROOT_HOST, src_base: cloister_abi::hip::ADDRESS / PAGE, ..good });
    // Of its own memory, what it may itself.
    let (address, _) = pages(0)?;
    call(&Delegate { src: ROOT_HOST, src_base: address / PAGE, ..good })?;
    refused!(Busy, good);
    call(&Revoke { space, base: 16, order: 0 })?;
    call(&good)?;
    destroy(space);
    Ok(())
}

fn limits() -> Outcome {
    needs_iommu()?;
    let space = space()?;
    let good = Delegate {
        src: MACHINE_MEMORY,
        dst: space,
        src_base: frames(9) / PAGE,
        dst_base: 1 << 9,
        order: 9,
        rights: READ_WRITE,
    };
    call(&good)?;
    refused!(Busy, Revoke { space, base: 1 << 9, order: 0 });
    refused!(Busy, Delegate { order: 0, ..good });
    call(&Revoke { space, base: 1 << 9, order: 9 })?;
    refused!(BadParameter, Delegate { dst_base: 1 << 36, ..good });
    refused!(BadParameter, Delegate { dst_base: 1, ..good });
    refused!(BadParameter, Delegate { order: 27, src_base: 0, dst_base: 0, ..good });
    refused!(BadParameter, Revoke { space, base: 1, order: 1 });
    destroy(space);
    Ok(())
}

/// What a DMA space takes, its destruction gives back, with and without a device in it.
fn account() -> Outcome {
    needs_iommu()?;
    let edu = Edu::find().ok();
    let domain = Domain::empty(0x20_0000)?;
    let sel = selectors(1);
    let src_base = frames(0) / PAGE;
    let life = |assigned: bool| -> Result<u64, Status> {
        call(&CreateSpace { sel, pd: domain.pd, kind: SpaceKind::Dma as u64 })?;
        if let (true, Some(edu)) = (assigned, &edu) {
            edu.assign(sel)?;
        }
        for dst_base in [0, 0x200, 0x4_0000, 0x400_0000] {
            call(&Delegate { src: MACHINE_MEMORY, dst: sel, src_base, dst_base, order: 0, rights: READ_WRITE })?;
        }
        let most = used(domain.pd)?;
        call(&Revoke { space: sel, base: 0x4_0000, order: 0 })?;
        destroy(sel);
        call(&Drop { base: sel, count: 1 })?;
        Ok(most)
    };
    life(false)?;
    let before = used(domain.pd)?;
    for assigned in [false, true, true] {
        let most = life(assigned)?;
        // A root and tables of three levels, at least.
        check!(most >= before + 6 * PAGE);
        equal!(used(domain.pd)?, before);
    }
    // It goes with who pays, although a device is in it.
    call(&CreateSpace { sel, pd: domain.pd, kind: SpaceKind::Dma as u64 })?;
    if let Some(edu) = &edu {
        edu.assign(sel)?;
    }
    destroy(domain.pd);
    call(&Drop { base: domain.pd, count: 4 })?;
    if let Some(edu) = &edu {
        let space = space()?;
        edu.assign(space)?;
        destroy(space);
    }
    Ok(())
}
