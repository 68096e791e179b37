// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delegation, revocation, dropping: of capabilities, memory and ports.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, give, limited, semaphore, silent, try_down, up};
use crate::{check, equal, refused};
use cloister_abi::USER_END;
use cloister_abi::cap::{Access, Perms, SELECTORS, SpaceKind};
use cloister_abi::hip::{MACHINE_MEMORY, MemoryKind, ROOT_EC, ROOT_HOST, ROOT_OBJECTS, ROOT_PD, ROOT_PIO};
use cloister_abi::hypercall::{CreateSpace, Delegate, Drop, Revoke};
use cloister_bare::guest::Guest;
use cloister_bare::kernel::{Raw, call, message, selector, selectors};
use cloister_bare::memory::{PAGE, addresses, frames, map, pages, read, write};
use cloister_bare::thread::{Options, destroy, server};
use cloister_bare::{domain::Domain, entry::hip};

pub(crate) static TESTS: [Test; 13] = [
    ("delegate-capability", capability),
    ("delegate-takes-permissions-away", permissions),
    ("delegate-guards", guards),
    ("delegate-range-wraps", wraps),
    ("delegate-destroyed", destroyed),
    ("map-and-unmap", mapping),
    ("map-same-page-twice", aliases),
    ("map-rights", rights),
    ("map-kernel-memory", kernel_memory),
    ("map-pages-shared-with-the-kernel", shared_pages),
    ("map-beyond-user-half", kernel_half),
    ("map-large-pages", large),
    ("drop-selectors", drops),
];

const READ: u64 = Access::READ.bits() as u64;
const READ_WRITE: u64 = Access::READ.union(Access::WRITE).bits() as u64;

fn capability() -> Outcome {
    let sm = semaphore(0)?;
    let base = selectors(16).next_multiple_of(8);
    give(ROOT_OBJECTS, sm, base, Perms::ALL)?;
    up(base)?;
    equal!(try_down(sm)?, 1);
    // A range takes holes along.
    call(&Delegate {
        src: ROOT_OBJECTS,
        dst: ROOT_OBJECTS,
        src_base: base.into(),
        dst_base: u64::from(EMPTY) & !7,
        order: 3,
        rights: Perms::ALL.bits().into(),
    })?;
    up(EMPTY & !7)?;
    equal!(try_down(sm)?, 1);
    call(&Revoke { space: ROOT_OBJECTS, base: u64::from(EMPTY) & !7, order: 3 })?;
    refused!(BadCapability, cloister_abi::hypercall::SmUp { sm: EMPTY & !7 });
    up(base)?;
    destroy(sm);
    Ok(())
}

fn permissions() -> Outcome {
    let sm = semaphore(0)?;
    let upper = limited(sm, Perms::SM_UP)?;
    up(upper)?;
    equal!(try_down(upper), Err(cloister_abi::status::Status::BadCapability));
    // What was taken away does not come back.
    let again = limited(upper, Perms::ALL)?;
    equal!(try_down(again), Err(cloister_abi::status::Status::BadCapability));
    refused!(BadCapability, cloister_abi::hypercall::Destroy { sel: again });
    equal!(try_down(sm)?, 1);
    destroy(sm);
    Ok(())
}

fn base() -> Delegate {
    Delegate { src: MACHINE_MEMORY, dst: ROOT_HOST, src_base: 0, dst_base: 0, order: 0, rights: READ }
}

fn guards() -> Outcome {
    let good = Delegate { src_base: frames(0) / PAGE, dst_base: addresses(0) / PAGE, ..base() };
    refused!(BadCapability, Delegate { src: EMPTY, ..good });
    refused!(BadCapability, Delegate { dst: EMPTY, ..good });
    refused!(BadCapability, Delegate { src: ROOT_PD, ..good });
    refused!(BadCapability, Delegate { dst: ROOT_EC, ..good });
    refused!(BadCapability, Delegate { src: limited(MACHINE_MEMORY, Perms::SPACE_GRANT)?, ..good });
    refused!(BadCapability, Delegate { dst: limited(ROOT_HOST, Perms::SPACE_TAKE)?, ..good });
    // Kinds that do not fit.
    refused!(BadCapability, Delegate { src: ROOT_OBJECTS, ..good });
    refused!(BadCapability, Delegate { dst: ROOT_OBJECTS, ..good });
    refused!(BadCapability, Delegate { src: ROOT_PIO, dst: ROOT_PIO, ..good });
    refused!(BadCapability, Delegate { dst: MACHINE_MEMORY, ..good });
    // Alignment and order.
    refused!(BadParameter, Delegate { src_base: 1, dst_base: 0x20000, order: 1, ..good });
    refused!(BadParameter, Delegate { src_base: 0x20000, dst_base: 1, order: 1, ..good });
    refused!(BadParameter, Delegate { src_base: 0, dst_base: 0, order: 64, ..good });
    refused!(BadParameter, Delegate { src_base: 0, dst_base: 0, order: 53, ..good });
    refused!(BadParameter, Raw::<10>([8, 3, 0, 0, 1 << 32, READ]));
    // Revocation.
    refused!(BadCapability, Revoke { space: EMPTY, base: 0, order: 0 });
    refused!(BadCapability, Revoke { space: limited(ROOT_HOST, Perms::SPACE_TAKE)?, base: 0x10, order: 0 });
    refused!(BadCapability, Revoke { space: MACHINE_MEMORY, base: 0x10, order: 0 });
    refused!(BadParameter, Revoke { space: ROOT_HOST, base: 1, order: 1 });
    refused!(BadParameter, Revoke { space: ROOT_HOST, base: 0, order: 64 });
    // What is not there is no error.
    call(&Revoke { space: ROOT_HOST, base: addresses(0) / PAGE, order: 0 })?;
    Ok(())
}

fn wraps() -> Outcome {
    for page in [u64::MAX, u64::MAX >> 12, 1 << 52, 1 << 63] {
        refused!(BadParameter, Delegate { src_base: page, dst_base: addresses(0) / PAGE, ..base() });
        refused!(BadParameter, Delegate { src_base: frames(0) / PAGE, dst_base: page, ..base() });
        refused!(BadParameter, Revoke { space: ROOT_HOST, base: page, order: 0 });
    }
    let objects = Delegate { src: ROOT_OBJECTS, dst: ROOT_OBJECTS, rights: 0x1f, ..base() };
    for sel in [u64::from(SELECTORS), u64::MAX, 1 << 32, u64::from(u32::MAX)] {
        refused!(BadParameter, Delegate { src_base: sel, dst_base: EMPTY.into(), ..objects });
        refused!(BadParameter, Delegate { src_base: ROOT_EC.into(), dst_base: sel, ..objects });
        refused!(BadParameter, Revoke { space: ROOT_OBJECTS, base: sel, order: 0 });
    }
    for rights in [0x20, 0x80, 0x100, u64::MAX] {
        refused!(BadParameter, Delegate { src_base: ROOT_EC.into(), dst_base: EMPTY.into(), rights, ..objects });
    }
    refused!(BadCapability, Delegate { src_base: EMPTY.into(), dst_base: selector().into(), ..objects });
    Ok(())
}

fn destroyed() -> Outcome {
    let sm = semaphore(0)?;
    let copy = limited(sm, Perms::ALL)?;
    destroy(sm);
    let dead = |sel: u32| Delegate {
        src: ROOT_OBJECTS,
        dst: ROOT_OBJECTS,
        src_base: sel.into(),
        dst_base: EMPTY.into(),
        order: 0,
        rights: 0x1f,
    };
    refused!(BadCapability, dead(sm));
    refused!(BadCapability, dead(copy));
    let domain = Domain::empty(0x2_0000)?;
    destroy(domain.pd);
    let [src_base, dst_base] = [frames(0), addresses(0)].map(|place| place / PAGE);
    refused!(BadCapability, Delegate { dst: domain.host, src_base, dst_base, ..base() });
    refused!(BadCapability, Revoke { space: domain.host, base: 0x10, order: 0 });
    Ok(())
}

fn mapping() -> Outcome {
    let (address, physical) = pages(2)?;
    // SAFETY: the pages were mapped just now.
    unsafe { write(address + 3 * PAGE, 0xabcd) };
    let other = addresses(2);
    map(physical, other, 2, Access::READ)?;
    // SAFETY: as above.
    equal!(unsafe { read(other + 3 * PAGE) }, 0xabcd);
    call(&Revoke { space: ROOT_HOST, base: other / PAGE, order: 2 })?;
    // The place is free again; the first mapping stays.
    map(physical, other, 2, Access::READ)?;
    // SAFETY: as above.
    equal!(unsafe { read(address + 3 * PAGE) }, 0xabcd);
    Ok(())
}

fn aliases() -> Outcome {
    let (address, physical) = pages(0)?;
    let occupied = Delegate { src_base: physical / PAGE, dst_base: address / PAGE, ..base() };
    refused!(Busy, occupied);
    // From one's own space: the same page, with fewer rights at most.
    let other = addresses(0);
    call(&Delegate {
        src: ROOT_HOST,
        dst: ROOT_HOST,
        src_base: address / PAGE,
        dst_base: other / PAGE,
        order: 0,
        rights: READ_WRITE,
    })?;
    // SAFETY: both are mapped.
    unsafe { write(other, 77) };
    // SAFETY: as above.
    equal!(unsafe { read(address) }, 77);
    Ok(())
}

fn rights() -> Outcome {
    let page = Delegate { src_base: frames(0) / PAGE, dst_base: addresses(0) / PAGE, ..base() };
    let write_exec = (Access::READ | Access::WRITE | Access::EXEC).bits().into();
    refused!(BadParameter, Delegate { rights: write_exec, ..page });
    for rights in [0x20, 0x80, 0x100, u64::MAX] {
        refused!(BadParameter, Delegate { rights, ..page });
    }
    Ok(())
}

fn kernel_memory() -> Outcome {
    let ranges = &hip().ranges[..hip().range_count as usize];
    let mut seen = false;
    for range in ranges.iter().filter(|range| range.kind == MemoryKind::Kernel as u32) {
        seen = true;
        for place in [range.base, range.base + range.size / 2, range.base + range.size - 1] {
            let page = place / PAGE;
            refused!(BadParameter, Delegate { src_base: page, dst_base: addresses(0) / PAGE, ..base() });
            let order = 4;
            let src_base = page & !15;
            refused!(BadParameter, Delegate { src_base, dst_base: addresses(4) / PAGE, order, ..base() });
        }
    }
    check!(seen);
    // The local interrupt controller is the kernel's too, alone and inside a larger range.
    let dst_base = addresses(9) / PAGE;
    refused!(BadParameter, Delegate { src_base: 0xfee00, dst_base, ..base() });
    refused!(BadParameter, Delegate { src_base: 0xfee00, dst_base, order: 9, ..base() });
    Ok(())
}

/// Message pages and state pages are the kernel's frames, which go with their threads and virtual CPUs: nobody hands them on.
fn shared_pages() -> Outcome {
    let domain = Domain::empty(0x10_0000)?;
    let thread = server(silent, &Options::default())?;
    let guest = if crate::guest_guards::supported() { Some(Guest::real(&[0xf4])?) } else { None };
    let dma = selector();
    let has_dma = call(&CreateSpace { sel: dma, pd: ROOT_PD, kind: SpaceKind::Dma as u64 }).is_ok();
    let state = guest.as_ref().map(Guest::state_address);
    for address in [Some(message().address()), Some(thread.utcb), state].into_iter().flatten() {
        let page = address / PAGE;
        let spaces =
            [Some(domain.host), Some(ROOT_HOST), guest.as_ref().map(|guest| guest.space), has_dma.then_some(dma)];
        for dst in spaces.into_iter().flatten() {
            let dst_base = addresses(0) / PAGE;
            refused!(BadParameter, Delegate { src: ROOT_HOST, dst, src_base: page, dst_base, ..base() });
            // Nor as part of a range.
            let (src_base, dst_base) = (page & !1, addresses(1) / PAGE);
            refused!(BadParameter, Delegate { src: ROOT_HOST, dst, src_base, dst_base, order: 1, ..base() });
        }
    }
    guest.iter().for_each(Guest::destroy);
    thread.destroy();
    [domain.pd, dma].into_iter().for_each(destroy);
    Ok(())
}

fn kernel_half() -> Outcome {
    let src_base = frames(0) / PAGE;
    for address in [USER_END, 1 << 47, 0xffff_8000_0000_0000, 0xffff_ffff_8000_0000, !0xfff] {
        refused!(BadParameter, Delegate { src_base, dst_base: address / PAGE, ..base() });
    }
    // The last page is the kernel's choice not to give; the one before is good.
    call(&Delegate { src_base, dst_base: USER_END / PAGE - 1, ..base() })?;
    call(&Revoke { space: ROOT_HOST, base: USER_END / PAGE - 1, order: 0 })?;
    Ok(())
}

fn large() -> Outcome {
    let (address, physical) = pages(9)?;
    // SAFETY: mapped just now.
    unsafe { write(address + 0x10_0000, 0x55) };
    // A part of a large page goes out as small pages.
    let other = addresses(0);
    map(physical + 0x10_0000, other, 0, Access::READ)?;
    // SAFETY: as above.
    equal!(unsafe { read(other) }, 0x55);
    // A part of it does not go alone.
    refused!(Busy, Revoke { space: ROOT_HOST, base: address / PAGE, order: 0 });
    // SAFETY: as above.
    equal!(unsafe { read(address + 0x10_0000) }, 0x55);
    Ok(())
}

fn drops() -> Outcome {
    let sm = semaphore(0)?;
    call(&Drop { base: sm, count: 1 })?;
    refused!(BadCapability, cloister_abi::hypercall::SmUp { sm });
    call(&Drop { base: EMPTY, count: 512 })?;
    call(&Drop { base: EMPTY, count: 0 })?;
    refused!(BadParameter, Drop { base: EMPTY, count: 513 });
    refused!(BadParameter, Drop { base: SELECTORS - 1, count: 2 });
    refused!(BadParameter, Drop { base: u32::MAX, count: 2 });
    refused!(BadParameter, Drop { base: u32::MAX, count: u32::MAX });
    Ok(())
}
