// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roll-back of what concerns devices: DMA spaces and what is delegated into them, with memory that runs out at each allocation; and devices
//! in spaces, of which there can be so many and no more.

use crate::edu::{has_iommu, space};
use crate::harness::{Failure, Outcome, Test};
use crate::make::used;
use crate::rollback::{Failed, fresh, squeezed, tries};
use crate::{check, equal, refused};
use cloister_abi::cap::{Access, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_PD};
use cloister_abi::hypercall::{AssignDevice, CreateSpace, Delegate, DeviceFlags, Drop};
use cloister_abi::status::Status;
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, selector, selectors};
use cloister_bare::memory::{PAGE, frames};
use cloister_bare::thread::destroy;

pub(crate) static TESTS: [Test; 4] = [
    ("rollback-dma-space", dma_space),
    ("rollback-delegate-dma-pages", dma_pages),
    ("rollback-assign-devices", devices),
    ("rollback-assign-spaces", spaces),
];

/// Requester ids of devices that are not there, which can be assigned all the same.
const FIRST: u32 = 0x8000;
/// More than there can be.
const MANY: u32 = 400;

fn needed() -> Outcome {
    if has_iommu() { Ok(()) } else { Err(Failure::Skipped("no IOMMU")) }
}

fn new(sel: Selector, pd: Selector) -> Result<(), Status> {
    call(&CreateSpace { sel, pd, kind: SpaceKind::Dma as u64 }).map(drop)
}

fn dma_space() -> Outcome {
    needed()?;
    squeezed(2, 1, &|pd, sel| new(sel, pd))
}

fn dma_pages() -> Outcome {
    needed()?;
    let rights = (Access::READ | Access::WRITE).bits().into();
    for order in [0, 4, 9] {
        let (domain, dma) = (Domain::empty(0x20_0000)?, selector());
        let (src_base, dst_base) = (frames(order) / PAGE, (1 << 38) / PAGE);
        let before = used(domain.pd)?;
        let tried = tries(domain.pd, fresh(), &|pd, _| {
            // The root of the space too, since it goes when the mapping fails.
            new(dma, pd)?;
            let mapped = call(&Delegate { src: MACHINE_MEMORY, dst: dma, src_base, dst_base, order, rights }).map(drop);
            if mapped.is_err() {
                destroy(dma);
                call(&Drop { base: dma, count: 1 })?;
            }
            mapped
        });
        match tried {
            // Slot and root, and tables below of two levels or three, of which the lowest is for small pages.
            Ok(pages) => check!((3..=5).contains(&(pages + u64::from(order == 9)))),
            Err(Failed::Status(status)) => return Err(status.into()),
            Err(Failed::Changed(pages)) => equal!(("changed with pages", pages), ("changed with pages", u64::MAX)),
        }
        destroy(dma);
        call(&Drop { base: dma, count: 1 })?;
        equal!(used(domain.pd)?, before);
        destroy(domain.pd);
        call(&Drop { base: domain.pd, count: 4 })?;
    }
    Ok(())
}

fn assign(space: Selector, device: u32, flags: DeviceFlags) -> Result<(), Status> {
    call(&AssignDevice { machine: MACHINE, space, device, flags: flags.bits() }).map(drop)
}

/// Puts one device after the other somewhere until that is refused. Answers how many there are.
fn crowd(place: impl Fn(u32) -> Selector) -> Result<u32, Failure> {
    for count in 0..MANY {
        match assign(place(count), FIRST + count, DeviceFlags::empty()) {
            Ok(()) => {}
            Err(Status::OutOfMemory) => return Ok(count),
            Err(other) => return Err(other.into()),
        }
    }
    Err(Failure::Skipped("there is no end of devices"))
}

/// One space full of devices.
fn devices() -> Outcome {
    needed()?;
    let before = used(ROOT_PD)?;
    let mut most = None;
    for _ in 0..2 {
        let (space, other) = (space()?, space()?);
        let own = used(ROOT_PD)?;
        let count = crowd(|_| space)?;
        check!(count >= 64 && most.is_none_or(|most| most == count));
        most = Some(count);
        // The one that was refused is in no space, and the other space took nothing for it.
        let device = FIRST + count;
        let good = AssignDevice { machine: MACHINE, space: other, device, flags: 0 };
        for _ in 0..3 {
            refused!(OutOfMemory, good);
        }
        equal!(assign(space, device, DeviceFlags::REMOVE), Err(Status::BadDevice));
        equal!(used(ROOT_PD)?, own);
        // One goes, and there is room for it.
        assign(space, FIRST, DeviceFlags::REMOVE)?;
        call(&good)?;
        refused!(OutOfMemory, AssignDevice { device: FIRST, ..good });
        destroy(space);
        destroy(other);
    }
    // Two tables of selectors at most.
    check!(used(ROOT_PD)? <= before + 2 * PAGE);
    Ok(())
}

/// Many spaces with one device each.
fn spaces() -> Outcome {
    needed()?;
    let mut most = None;
    for _ in 0..2 {
        let domain = Domain::empty(u64::from(MANY) * 2 * PAGE)?;
        let first = selectors(MANY);
        for sel in first..first + MANY {
            new(sel, domain.pd)?;
        }
        let own = used(domain.pd)?;
        let count = crowd(|index| first + index)?;
        check!(count >= 64 && most.is_none_or(|most| most == count));
        most = Some(count);
        let device = FIRST + count;
        let good = AssignDevice { machine: MACHINE, space: first + count, device, flags: 0 };
        for _ in 0..3 {
            refused!(OutOfMemory, good);
        }
        equal!(used(domain.pd)?, own);
        // A space without a device takes none from others.
        assign(first, FIRST, DeviceFlags::REMOVE)?;
        call(&good)?;
        // All goes with who pays.
        destroy(domain.pd);
        call(&Drop { base: domain.pd, count: 4 })?;
        for sel in (first..first + MANY).step_by(100) {
            call(&Drop { base: sel, count: 100 })?;
        }
    }
    Ok(())
}
