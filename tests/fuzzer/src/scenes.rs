// SPDX-License-Identifier: MIT OR Apache-2.0
//! Things that take several calls: threads, servers, nested domains, guests, faults, and pages of others written to.

use crate::entry;
use crate::hostile::Hostile;
use crate::layout::{
    DYNAMIC, FOREIGN, KNOWN, LARGE, PAGE, SLOTS, SMALL, STATE_AREA, STATES, Thing, UTCBS, WINDOW, after, given, record,
};
use crate::single::{made, one};
use cloister_abi::USER_END;
use cloister_abi::arch::x86_64::vcpu::{Groups, VcpuState};
use cloister_abi::cap::NONE;
use cloister_abi::hypercall::{self as abi, Args, Call};
use cloister_abi::status::Status;
use cloister_bare::kernel::message;
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

/// A thread with time.
pub(crate) fn thread(hostile: Hostile) {
    one(hostile, abi::CreateEc::NUMBER);
    one(hostile, abi::CreateSc::NUMBER);
}

/// A server with portals, and a call.
pub(crate) fn server(hostile: Hostile) {
    one(hostile, abi::CreateEc::NUMBER);
    one(hostile, abi::CreatePt::NUMBER);
    for _ in 0..hostile.random.below(6) {
        one(hostile, abi::IpcCall::NUMBER);
    }
}

/// Domains in domains, with something in each.
pub(crate) fn nest(hostile: Hostile) {
    let random = hostile.random;
    let (mut pd, mut budget) = (given::PD, 40 + random.below(30));
    for _ in 0..=random.below(4) {
        let sel = (DYNAMIC + random.below(KNOWN as u64 - DYNAMIC)) & !3;
        if !made(hostile, abi::CreatePd::NUMBER, [sel, pd, budget << 12, 0, 0, 0], None) {
            break;
        }
        for to in 0..random.below(4) {
            let sm = [DYNAMIC + random.below(KNOWN as u64 - DYNAMIC), sel, 1, NONE.into(), 0, 0];
            made(hostile, abi::CreateSm::NUMBER, sm, Some(Thing::Semaphore));
            // What it holds may be above it, or it itself.
            let _ =
                hostile.call(abi::Delegate::NUMBER, [given::OBJECTS, sel + 1, sel + to, 32 + to, 0, random.below(32)]);
        }
        let from = SMALL / PAGE + random.below(60);
        let _ = hostile.call(abi::Delegate::NUMBER, [given::HOST, sel + 2, from, random.next() >> 30, 0, 3]);
        (pd, budget) = (sel, budget - 8);
    }
}

/// Semaphores until there is no memory left, in a domain of its own or in this one.
pub(crate) fn exhaust(hostile: Hostile) {
    let random = hostile.random;
    let pd = hostile.find(Thing::Pd);
    let (first, what) = (512 + random.below(4) * 512, random.below(3));
    for selector in 0..random.below(200) {
        let number = [abi::CreateSm::NUMBER, abi::CreateSpace::NUMBER, abi::CreatePt::NUMBER][what as usize % 3];
        let args = match number {
            abi::CreateSm::NUMBER => [first + selector, pd, 0, NONE.into(), 0, 0],
            abi::CreateSpace::NUMBER => [first + selector, pd, 2, 0, 0, 0],
            _ => [first + selector, pd, hostile.find(Thing::Server), entry::server as *const () as u64, 0, 0],
        };
        if hostile.call(number, args).is_err() {
            break;
        }
    }
    if !random.once_in(8) {
        let _ = hostile.call(abi::Drop::NUMBER, [first, 256, 0, 0, 0, 0]);
    }
}

/// A guest of a few pages with a virtual CPU, and a few exits.
pub(crate) fn guest(hostile: Hostile) {
    let random = hostile.random;
    if random.once_in(3) {
        let space = DYNAMIC + random.below(KNOWN as u64 - DYNAMIC);
        made(hostile, abi::CreateSpace::NUMBER, [space, given::PD, 2, 0, 0, 0], Some(Thing::Guest));
        let from = (LARGE / PAGE) + (random.below(32) << 4);
        let _ = hostile.call(abi::Delegate::NUMBER, [given::HOST, space, from, 0, 4, 7]);
        let (vcpu, place) = (DYNAMIC + random.below(KNOWN as u64 - DYNAMIC), STATE_AREA + random.below(STATES) * PAGE);
        let core = random.below(u64::from(record().cores.load(Relaxed)));
        made(hostile, abi::CreateVcpu::NUMBER, [vcpu, given::PD, space, given::HOST, place, core], Some(Thing::Vcpu));
    }
    for _ in 0..random.below(6) {
        one(hostile, abi::VcpuRun::NUMBER);
    }
}

/// A word of a page that may not be there; then the thread begins anew.
fn set(page: u64, offset: usize, value: u64) {
    let place: *mut u64 = core::ptr::with_exposed_provenance_mut(page as usize + offset);
    // SAFETY: a page that the kernel shares with this component; it is not part of the program.
    unsafe { place.write_volatile(value) };
}

/// A virtual CPU whose state page was filled with something that may run, and will end.
pub(crate) fn prepared(hostile: Hostile) -> u64 {
    let random = hostile.random;
    let vcpu = hostile.find(Thing::Vcpu);
    let place = record().places.get(vcpu as usize).map_or(0, |place| u64::from(place.load(Relaxed)));
    let page = STATE_AREA + place % STATES * PAGE;
    let load = offset_of!(VcpuState, load);
    match random.below(8) {
        0..3 => set(page, load, random.next() & Groups::all().bits()),
        3 => {
            for _ in 0..24 {
                set(page, 64 + random.below(496) as usize * 8, random.next());
            }
            set(page, load, random.next());
        }
        _ => {
            // 16-bit code at 0x1000, as after a boot loader.
            for (offset, segment) in (208..352).step_by(24).zip([0x9bu64, 0x93, 0x93, 0x93, 0x93, 0x93]) {
                set(page, offset, segment << 32);
                set(page, offset + 8, 0xffff);
                set(page, offset + 16, 0);
            }
            for (offset, value) in [(192, 0x1000), (200, 2), (448, 0x10), (472, 0), (544, 0), (96, 0x8000)] {
                set(page, offset, value);
            }
            set(page, load, (Groups::all() - Groups::FPU).bits());
            (0..8).for_each(|index| set(LARGE + (random.below(32) << 16) + 0x1000, index * 8, random.next()));
        }
    }
    (0..4).for_each(|_| set(page, offset_of!(VcpuState, store) + random.below(32) as usize * 8, random.next()));
    if !random.once_in(64) {
        set(page, offset_of!(VcpuState, deadline), after(random.below(60)));
    }
    vcpu
}

/// A system call that is no hypercall, with an entry for such calls or without.
pub(crate) fn foreign(hostile: Hostile) {
    let random = hostile.random;
    let entry = match random.below(4) {
        0 => 0,
        1 => USER_END + random.next() % (1 << 40),
        _ => entry::foreign as *const () as u64,
    };
    message().set_foreign_entry(entry);
    for _ in 0..random.below(4) {
        no_hypercall(hostile, random.of([0, 1, 60, 500]), &[random.next(); 6]);
    }
    message().set_foreign_entry(0);
}

/// The system call; 0 counts as the answer if it came back through the entry, with the number where it was.
pub(crate) fn no_hypercall(hostile: Hostile, number: u64, args: &Args) {
    let bounced = message().foreign_entry() == entry::foreign as *const () as u64;
    if !bounced {
        message().set_foreign_entry(0);
    }
    let mark = hostile.mark();
    let [status, first, back] = entry::syscall(number, args, mark);
    if !hostile.is_mine(mark, back) {
        return;
    }
    let status = if bounced && status == number { 0 } else { status };
    hostile.count(
        FOREIGN as u64,
        args,
        if bounced || number > 15 { status } else { Status::BadHypercall as u64 },
        first,
    );
}

/// Something that ends in an exception.
pub(crate) fn fault(hostile: Hostile) {
    let random = hostile.random;
    let address = match random.below(6) {
        0 => 0xffff_8000_0000_0000 + (random.next() & 0xffff_f000),
        1 => 1 << 47,
        2 => WINDOW + random.below(64) * PAGE,
        3 => 0x40_0000,
        4 => UTCBS + random.below(1 << 22),
        _ => 0,
    };
    let way = random.below(10);
    // Code that is there would run.
    entry::provoke(way, if way == 6 || address == 0x40_0000 && way != 1 { WINDOW } else { address });
}

/// Writes to message pages of other threads and to state pages, while the kernel may be reading them.
pub(crate) fn scribble(hostile: Hostile) {
    let random = hostile.random;
    for _ in 0..random.below(12) {
        let page = if random.once_in(3) {
            STATE_AREA + random.below(STATES) * PAGE
        } else {
            let newest = u64::from(record().next.load(Relaxed));
            UTCBS + (newest.saturating_sub(random.below(32)) % SLOTS as u64) * PAGE
        };
        // The first words are not the kernel's but the thread's: by them it finds its stack.
        let offset = 7 + random.below(505);
        let value = if random.once_in(2) { random.below(KNOWN as u64) } else { random.next() };
        set(page, offset as usize * 8, value);
    }
}
