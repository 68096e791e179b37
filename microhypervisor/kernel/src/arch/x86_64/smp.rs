// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting further cores, and interrupting them.
//!
//! A core is started by INIT and start-up IPIs in real mode, in a page below 1 MiB into which [`prepare`] has copied code of
//! [`super::boot`]; through protected mode it comes to the boot page tables, to the kernel's own, and to [`start`] on its own stack. All
//! are reset at once, since they need a while for that; then they are started one after the other, so that one set of variables serves. A
//! core's time-stamp counter is then set to what the boot core's shows, as far as two cores can agree on that.
//!
//! Sources: Intel SDM vol. 3, 8.4 (initialization); AMD APM vol. 2, 16.5 (IPIs).

use super::{acpi, apic, cpu, idt, percore, timer};
use crate::memory::{self, DIRECT_MAP};
use crate::percore::{CORES, Core};
use crate::width::{index, low32};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

unsafe extern "C" {
    static smp_code: u8;
    static smp_code_end: u8;
}

/// Where the start-up code is; 0 for nowhere.
static PAGE: AtomicU64 = AtomicU64::new(0);
/// Page-table root of the core that is being started, and its structure.
pub(super) static ROOT: AtomicU64 = AtomicU64::new(0);
pub(super) static CORE: AtomicPtr<Core> = AtomicPtr::new(core::ptr::null_mut());
static RUNNING: AtomicBool = AtomicBool::new(false);
/// For the time-stamp counters: a question of the new core, and the answer of the boot core.
static ASKED: AtomicU64 = AtomicU64::new(0);
static ANSWER: AtomicU64 = AtomicU64::new(0);

/// How often the counters are compared at most.
const COMPARISONS: u64 = 32;

/// Copies the start-up code into a page below 1 MiB that nobody uses, if there is one. The boot direct map must still be there.
pub(crate) fn prepare(page: Option<u64>) {
    let Some(page) = page else { return };
    let (first, end) = ((&raw const smp_code).addr(), (&raw const smp_code_end).addr());
    let from: *const u8 = core::ptr::with_exposed_provenance(index(DIRECT_MAP) + first);
    let to: *mut u8 = core::ptr::with_exposed_provenance_mut(index(DIRECT_MAP + page));
    // SAFETY: the boot direct map covers both; the page is free, and the first MiB is kept free of all else.
    unsafe { core::ptr::copy_nonoverlapping(from, to, end - first) };
    PAGE.store(page, Ordering::Relaxed);
}

/// Starts the other cores that the firmware's tables tell of, at most `most` in all. Answers how many run, with this one.
pub(crate) fn start_all(most: usize) -> usize {
    let tables = acpi::tables();
    let own = apic::id();
    crate::percore::BOOT_CORE.apic_id.store(own, Ordering::Relaxed);
    let all = || tables.local_apics.iter().copied();
    let others = || all().filter(|id| *id != own && apic::can_name(*id));
    if !all().all(apic::can_name) {
        log::warn!("cores with identities above 254 are left alone: the local APICs know none");
    }
    let most = if PAGE.load(Ordering::Relaxed) == 0 { 1 } else { most.min(CORES) };
    others().take(most - 1).for_each(|id| apic::send(id, apic::INIT));
    pause(10_000);
    let mut running = 1;
    for apic_id in others() {
        let started = if running < most { start_one(running, apic_id) } else { Err("enough run, or no page for it") };
        match started {
            Ok(()) => running += 1,
            Err(why) => log::warn!("core with APIC {apic_id} is left alone: {why}"),
        }
    }
    running
}

fn start_one(number: usize, apic_id: u32) -> Result<(), &'static str> {
    let core = Core::create(number, apic_id)?;
    let stacks = percore::new_stacks()?;
    // SAFETY: the core does not run yet, and nobody else knows of its structure.
    let head = unsafe { &mut *core.head.get() };
    // SAFETY: structure and stacks were made for it, and are kept for ever.
    unsafe { head.prepare(stacks) };
    let root = memory::kernel_root().ok_or("no kernel page table")?;
    ROOT.store(memory::physical(root), Ordering::Relaxed);
    crate::trace::add_core(number);
    CORE.store(core::ptr::from_ref(core).cast_mut(), Ordering::Relaxed);
    RUNNING.store(false, Ordering::Relaxed);
    ASKED.store(0, Ordering::Relaxed);
    ANSWER.store(0, Ordering::SeqCst);
    for _ in 0..2 {
        apic::send(apic_id, apic::START | low32(PAGE.load(Ordering::Relaxed) >> 12));
        pause(200);
    }
    let deadline = cpu::ticks() + timer::from_micros(5_000_000);
    while !RUNNING.load(Ordering::Acquire) {
        answer();
        if cpu::ticks() > deadline {
            // It may come up late: into a reset state with it, so that it does not come up in the next one's place.
            apic::send(apic_id, apic::INIT);
            return Err("it does not start");
        }
        core::hint::spin_loop();
    }
    Ok(())
}

fn pause(micros: u64) {
    let end = cpu::ticks() + timer::from_micros(micros);
    while cpu::ticks() < end {
        core::hint::spin_loop();
    }
}

/// First Rust code of a further core, on its own stack.
pub(super) extern "C" fn start(core: &'static Core) -> ! {
    // SAFETY: this is the core whose structure it is.
    let head = unsafe { &mut *core.head.get() };
    // SAFETY: called once for this head, which `start_one` has prepared.
    unsafe { head.activate() };
    cpu::init_core();
    apic::init();
    let offset = compare_counters();
    if let Err(why) = super::guest::init_core(core) {
        log::warn!("core {} runs no guests: {why}", core.id);
    }
    if let Err(why) = crate::interrupt::add_core(core.id) {
        log::warn!("core {} takes no device interrupts: {why}", core.id);
    }
    apic::start_timer();
    log::info!("core {} (APIC {}) runs; its time-stamp counter was set by {offset}", core.id, core.apic_id());
    core.publish();
    RUNNING.store(true, Ordering::Release);
    // SAFETY: nobody is ready here yet: the scheduler waits until somebody is.
    unsafe { super::first_exit() }
}

/// The boot core's part of the comparison: answers a question that has come.
fn answer() {
    let asked = ASKED.load(Ordering::Acquire);
    if asked != 0 {
        ASKED.store(0, Ordering::Relaxed);
        ANSWER.store(cpu::ticks(), Ordering::Release);
    }
}

/// Sets this core's time-stamp counter to the boot core's, judged by the comparison that took the least time. Answers by how
/// much it was changed.
fn compare_counters() -> i64 {
    let mut best = (u64::MAX, 0i64);
    for _ in 0..COMPARISONS {
        ANSWER.store(0, Ordering::Relaxed);
        let before = cpu::ticks();
        ASKED.store(1, Ordering::Release);
        let answer = loop {
            match ANSWER.load(Ordering::Acquire) {
                0 => core::hint::spin_loop(),
                answer => break answer,
            }
        };
        let took = cpu::ticks().wrapping_sub(before);
        best = best.min((took, answer.wrapping_sub(before.wrapping_add(took / 2)).cast_signed()));
        // Good enough. Where the cores of an emulator wait for each other, each further one takes long.
        if took < timer::from_micros(1) {
            break;
        }
    }
    let (took, offset) = best;
    // Closer than the measurement is as good as equal.
    if offset.unsigned_abs() <= took {
        return 0;
    }
    // SAFETY: sets the counter of this core, before anything here depends on it.
    unsafe { x86::msr::wrmsr(x86::msr::IA32_TIME_STAMP_COUNTER, cpu::ticks().wrapping_add_signed(offset)) };
    offset
}

/// Asks another core for work.
pub(crate) fn interrupt(core: &Core) {
    apic::send(core.apic_id(), apic::FIXED | low32(idt::WORK));
}

/// Stops all other cores for good.
pub(crate) fn stop_others() {
    let own = percore::this();
    for core in crate::percore::all().filter(|core| !core::ptr::eq(*core, own)) {
        core.stopping.store(true, Ordering::SeqCst);
        apic::send(core.apic_id(), apic::NMI);
    }
}
