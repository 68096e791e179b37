// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device reaches: memory that was given to its DMA space, and nothing else. The device is QEMU's `edu`, driven by this program.
//!
//! QEMU 7.2 emulates AMD-Vi without its event log (it takes the log to be full from the beginning, and tells no page fault of an entry that is
//! empty), so that faults are told on the machine with VT-d only; that nothing is reached holds on both.

use crate::edu::{Edu, amd_unit, fault, forget_faults, give, space};
use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, semaphore, signal, try_down};
use crate::{check, equal};
use cloister_abi::cap::{Access, Selector};
use cloister_abi::hip::{MACHINE, features};
use cloister_abi::hypercall::{Delegate, DeviceFault, IrqAck, IrqBind, Revoke, SmDown};
use cloister_abi::status::Status;
use cloister_bare::kernel::call;
use cloister_bare::memory::{PAGE, pages, read, write};
use cloister_bare::thread::destroy;
use cloister_bare::time;
use core::sync::atomic::{AtomicBool, Ordering};

pub(crate) static TESTS: [Test; 11] = [
    ("device-memory-of-firmware", firmware),
    ("device-reaches-what-it-was-given", reaches),
    ("device-reaches-nothing-else", nothing_else),
    ("device-without-space-reaches-nothing", without_space),
    ("device-obeys-rights", obeys),
    ("device-after-revocation", revoked),
    ("device-after-removal", removed),
    ("device-after-destruction", destroyed),
    ("device-fault-counts-up", counts_up),
    ("device-interrupt-by-line", line),
    ("device-interrupts-of-others", others),
];

const READ_WRITE: Access = Access::READ.union(Access::WRITE);
/// Where the device's memory is for itself.
const HERE: u64 = 0x40_0000;
const THERE: u64 = 0x1234_5000;
/// Bytes of a transfer: what `edu` can, which is a little less than its buffer.
const SIZE: u64 = 2048;
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

/// A page of memory with one word in it again and again. Answers address and physical address.
fn page(word: u64) -> Result<(u64, u64), Status> {
    let (address, physical) = pages(0)?;
    fill(address, word);
    Ok((address, physical))
}

fn fill(address: u64, word: u64) {
    for offset in (0..SIZE).step_by(8) {
        // SAFETY: a page of this program's.
        unsafe { write(address + offset, word) };
    }
}

fn is_all(address: u64, word: u64) -> bool {
    // SAFETY: a page of this program's.
    (0..SIZE).step_by(8).all(|offset| unsafe { read(address + offset) } == word)
}

/// Whether the emulated IOMMU tells of faults.
fn tells() -> bool {
    amd_unit().is_none()
}

/// The kernel has a record of that access, if the IOMMU tells.
fn told(edu: &Edu, address: u64, is_write: bool, cause: u8) -> Outcome {
    if !tells() {
        return Ok(());
    }
    let (at, record) = fault()?;
    // A device in no space is in none, or where firmware's memory for it is.
    let cause = if cause == 2 && AT_HOME.load(Ordering::Relaxed) { 1 } else { cause };
    equal!((u32::from(record.device), record.cause, record.write), (edu.function.0, cause, is_write));
    equal!(at & !(PAGE - 1), address);
    forget_faults();
    Ok(())
}

/// A device in a space, with its buffer full of `PATTERN`.
fn loaded(edu: &Edu) -> Result<Selector, Failure> {
    let space = space()?;
    edu.assign(space)?;
    let (_, source) = page(PATTERN)?;
    give(space, source, HERE, Access::READ)?;
    edu.fetch(HERE, SIZE)?;
    call(&Revoke { space, base: HERE / PAGE, order: 0 })?;
    forget_faults();
    Ok(space)
}

fn reaches() -> Outcome {
    let edu = Edu::find()?;
    let space = space()?;
    let ((source, first), (target, second)) = (page(PATTERN)?, page(0)?);
    give(space, first, HERE, Access::READ)?;
    edu.assign(space)?;
    // What comes into the space afterwards counts too.
    give(space, second, THERE, READ_WRITE)?;
    forget_faults();
    edu.fetch(HERE, SIZE)?;
    edu.store(THERE, SIZE)?;
    check!(is_all(target, PATTERN) && is_all(source, PATTERN));
    equal!(fault().err(), Some(Status::Timeout));
    destroy(space);
    Ok(())
}

/// Memory of this program, at its physical address, and at an address at which there is nothing.
fn nothing_else() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    let (target, physical) = page(7)?;
    edu.store(physical, 8)?;
    told(&edu, physical, true, 1)?;
    check!(is_all(target, 7));
    edu.store(THERE, SIZE)?;
    told(&edu, THERE, true, 1)?;
    edu.fetch(physical, 8)?;
    told(&edu, physical, false, 1)?;
    // What was not read is not there to be written: the buffer is as it was, or empty.
    give(space, physical, HERE, READ_WRITE)?;
    edu.store(HERE, 8)?;
    // SAFETY: a page of this program's.
    check!(unsafe { read(target) } != 7);
    destroy(space);
    Ok(())
}

fn without_space() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    edu.remove(space)?;
    let (target, physical) = page(7)?;
    edu.store(physical, 8)?;
    told(&edu, physical, true, 2)?;
    check!(is_all(target, 7));
    destroy(space);
    Ok(())
}

fn obeys() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    let (target, physical) = page(7)?;
    give(space, physical, HERE, Access::READ)?;
    edu.store(HERE, 8)?;
    told(&edu, HERE, true, 1)?;
    check!(is_all(target, 7));
    // Memory that this program may only read it cannot give more of.
    let read_only = cloister_bare::memory::addresses(0);
    cloister_bare::memory::map(physical, read_only, 0, Access::READ)?;
    let rights = u64::from(READ_WRITE.bits());
    let (src_base, dst_base) = (read_only / PAGE, THERE / PAGE);
    call(&Delegate { src: cloister_abi::hip::ROOT_HOST, dst: space, src_base, dst_base, order: 0, rights })?;
    edu.store(THERE, 8)?;
    told(&edu, THERE, true, 1)?;
    check!(is_all(target, 7));
    destroy(space);
    Ok(())
}

fn revoked() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    let (target, physical) = page(0)?;
    for order in [0, 9] {
        // The translation is in the IOMMU's cache when it is revoked, alone or with the table that it is in.
        give(space, physical, HERE, READ_WRITE)?;
        edu.store(HERE, SIZE)?;
        check!(is_all(target, PATTERN));
        call(&Revoke { space, base: HERE / PAGE, order })?;
        fill(target, 7);
        edu.store(HERE, SIZE)?;
        told(&edu, HERE, true, 1)?;
        check!(is_all(target, 7));
    }
    // And comes back.
    give(space, physical, HERE, READ_WRITE)?;
    edu.store(HERE, SIZE)?;
    check!(is_all(target, PATTERN));
    destroy(space);
    Ok(())
}

fn removed() -> Outcome {
    let edu = Edu::find()?;
    let (first, second) = (loaded(&edu)?, space()?);
    let ((one, its), (other, others)) = (page(0)?, page(0)?);
    give(first, its, HERE, READ_WRITE)?;
    give(second, others, HERE, READ_WRITE)?;
    edu.store(HERE, SIZE)?;
    check!(is_all(one, PATTERN) && is_all(other, 0));
    // The same address is another page in another space.
    fill(one, 7);
    edu.remove(first)?;
    edu.assign(second)?;
    edu.store(HERE, SIZE)?;
    check!(is_all(one, 7) && is_all(other, PATTERN));
    fill(other, 7);
    edu.remove(second)?;
    edu.store(HERE, SIZE)?;
    told(&edu, HERE, true, 2)?;
    check!(is_all(one, 7) && is_all(other, 7));
    destroy(first);
    destroy(second);
    Ok(())
}

fn destroyed() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    let (target, physical) = page(0)?;
    give(space, physical, HERE, READ_WRITE)?;
    edu.store(HERE, SIZE)?;
    check!(is_all(target, PATTERN));
    destroy(space);
    fill(target, 7);
    edu.store(HERE, SIZE)?;
    told(&edu, HERE, true, 2)?;
    check!(is_all(target, 7));
    Ok(())
}

/// A page that the machine's firmware reserves for the device, if the machine is made so (docs/design/iommu.md).
const RESERVED: u64 = 0x2000_0000;
/// It does.
static AT_HOME: AtomicBool = AtomicBool::new(false);

fn firmware() -> Outcome {
    let edu = Edu::find()?;
    let space = loaded(&edu)?;
    edu.remove(space)?;
    let address = cloister_bare::memory::addresses(0);
    cloister_bare::memory::map(RESERVED, address, 0, READ_WRITE)?;
    fill(address, 7);
    edu.store(RESERVED, SIZE)?;
    forget_faults();
    if is_all(address, 7) {
        destroy(space);
        return Err(Failure::Skipped("firmware reserves no memory for the device"));
    }
    check!(is_all(address, PATTERN));
    AT_HOME.store(true, Ordering::Relaxed);
    // The page beside it is not reserved.
    edu.store(RESERVED + PAGE, 8)?;
    told(&edu, RESERVED + PAGE, true, 2)?;
    for _ in 0..2 {
        // Assigned, it reaches what its space has, and comes home afterwards.
        edu.assign(space)?;
        fill(address, 7);
        edu.store(RESERVED, SIZE)?;
        told(&edu, RESERVED, true, 1)?;
        check!(is_all(address, 7));
        edu.remove(space)?;
        edu.store(RESERVED, SIZE)?;
        check!(is_all(address, PATTERN));
    }
    destroy(space);
    Ok(())
}

fn counts_up() -> Outcome {
    let edu = Edu::find()?;
    if !tells() {
        return Err(Failure::Skipped("this emulated IOMMU tells no faults"));
    }
    let space = loaded(&edu)?;
    let (first, second) = (semaphore(0)?, semaphore(0)?);
    call(&DeviceFault { machine: MACHINE, sm: first })?;
    call(&DeviceFault { machine: MACHINE, sm: second })?;
    edu.store(HERE, 8)?;
    check!(down_for(second, 500_000).is_ok());
    equal!(try_down(first), Err(Status::Timeout));
    destroy(second);
    edu.store(HERE, 8)?;
    told(&edu, HERE, true, 1)?;
    // The kernel keeps some, and tells how many more there were; a device that goes on and on is told of no more.
    for _ in 0..3 {
        edu.store(HERE, SIZE)?;
    }
    check!(fault().is_ok());
    forget_faults();
    destroy(space);
    destroy(first);
    Ok(())
}

/// The lines of PCI devices.
const LINES: core::ops::Range<u32> = 16..24;

fn line() -> Outcome {
    let edu = Edu::find()?;
    let word = semaphore(0)?;
    let mut bound = [0; 8];
    for (gsi, place) in LINES.zip(&mut bound) {
        *place = signal(word, gsi)?;
        call(&IrqBind { machine: MACHINE, sm: *place, gsi, flags: 0 })?;
    }
    edu.set_message(None);
    let take = || call(&SmDown { sm: word, flags: 1, deadline: time::after(300_000) });
    for _ in 0..4 {
        edu.raise();
        let (lines, _) = take()?;
        equal!(lines.count_ones(), 1);
        edu.clear();
        for sm in bound {
            call(&IrqAck { sm })?;
        }
    }
    // It is level-triggered: what is not cleared comes again when it is acknowledged, and not before.
    edu.raise();
    check!(take().is_ok());
    equal!(take(), Err(Status::Timeout));
    for sm in bound {
        call(&IrqAck { sm })?;
    }
    check!(take().is_ok());
    edu.clear();
    for sm in bound {
        destroy(sm);
    }
    destroy(word);
    Ok(())
}

/// An interrupt that is bound for another source (the timer) is not to be had by a message that names its vector, or its entry.
fn others() -> Outcome {
    let edu = Edu::find()?;
    if cloister_bare::entry::hip().features & features::INTERRUPT_REMAPPING == 0 {
        return Err(Failure::Skipped("this IOMMU remaps no interrupts"));
    }
    let sm = semaphore(0)?;
    call(&IrqBind { machine: MACHINE, sm, gsi: 2, flags: 0 })?;
    let send = |address: u64, data: u64| {
        edu.set_message(Some((address, data)));
        edu.raise();
        edu.clear();
    };
    // QEMU 7.2's VT-d lets messages pass that are not in the form for remapping, whatever the kernel says.
    if !tells() {
        (0x30..0xf0).for_each(|vector| send(0xfee0_0000, vector));
    } else {
        (0..256).for_each(|index| send(0xfee0_0010 | index << 5, 0));
    }
    edu.set_message(None);
    // Each that nobody asked for would hold the others up for a millisecond.
    equal!(down_for(sm, 400_000), Err(Status::Timeout));
    forget_faults();
    destroy(sm);
    Ok(())
}
