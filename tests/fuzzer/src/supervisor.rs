// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes hostile components one after the other, watches them and their victim, and counts the memory when they are gone.

use crate::entry;
use crate::hostile::restart;
use crate::layout::{
    ANSWERS, COMPLAINT, CORES, FOREIGN, LARGE, PAGE, RECORD, RECORD_ORDER, SLOTS, SMALL, SMALL_ORDER, STACK_AREA,
    STACK_AREA_ORDER, STACK_BITS, STATE_AREA, Thing, UTCB_BITS, UTCBS, given, record, take_slot,
};
use crate::random::mix;
use crate::victim::{Victim, give};
use cloister_abi::cap::{Access, NONE, Perms, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, ROOT_PD, features};
use cloister_abi::hypercall::{
    CreateEc, CreatePd, CreateSc, CreateSm, CreateSpace, CreateVcpu, Delegate, Destroy, Drop, EcFlags, MachineControl,
    MachineOp, PdInfo, SmDown,
};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::domain::Domain;
use cloister_bare::entry::hip;
use cloister_bare::kernel::{call, selector, selectors};
use cloister_bare::memory::{frames, map};
use cloister_bare::thread::{Options, server};
use cloister_bare::time;
use core::sync::atomic::Ordering::Relaxed;

/// Selectors of the component's own things, from its PD on: PD, spaces, then these.
const GUEST: Selector = 4;
const VCPU: Selector = 5;
const FIRST_EC: Selector = 8;
const FIRST_SC: Selector = 12;
const SELECTORS: u32 = 16;
/// Microseconds between two looks, and looks without a call before a thread is given up.
const LOOK: u64 = 1000;
const PATIENCE: u64 = 10;
/// Threads given up one after the other before the component is.
const VAIN: u32 = 9;
/// Looks in a generation at most.
const LOOKS: u64 = 4000;
/// Priority of the component's first threads: some of the others are above, some below.
const PRIORITY: u32 = 60;
/// Priorities of the component: all above are for those who watch.
const BAND: u32 = 100;
/// Microseconds in which memory must be back.
const RETURN: u64 = 3_000_000;

/// Sums over all generations.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    pub(crate) generations: u64,
    pub(crate) respawns: u64,
    /// Components that made themselves unable to live.
    pub(crate) ruined: u64,
    pub(crate) faults: u64,
    pub(crate) strayed: u64,
    pub(crate) digest: u64,
    /// Ticks of the longest `Destroy` of a component, and its number of calls.
    pub(crate) longest_destroy: u64,
    pub(crate) most_destroys: u64,
    pub(crate) longest_answer: u64,
    pub(crate) seen: [[u64; ANSWERS]; FOREIGN + 1],
}

impl Sums {
    pub(crate) const fn new() -> Self {
        Self {
            calls: 0,
            generations: 0,
            respawns: 0,
            ruined: 0,
            faults: 0,
            strayed: 0,
            digest: 0,
            longest_destroy: 0,
            most_destroys: 0,
            longest_answer: 0,
            seen: [[0; ANSWERS]; FOREIGN + 1],
        }
    }
}

/// Why the run ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused something to the supervisor.
    Refused(Status),
    /// Something is not as it was.
    Wrong(&'static str),
    /// Kernel memory that did not come back, bytes: of the supervisor's account, and of the pool.
    Lost(i64, i64),
    /// An answer that the reference does not list: [`crate::layout::Record::complaint`].
    Undocumented,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// What stays the same from generation to generation.
#[derive(Debug)]
pub(crate) struct Supervisor {
    victim: Victim,
    cores: u32,
    base: Selector,
    /// Portals that answer, and that repair threads, by core.
    answer: Selector,
    repair: [Selector; CORES],
    clock: Selector,
    memory: [(u64, u64, u32); 4],
    /// Used of the own account, and free in the pool, between generations.
    settled: Option<(u64, u64)>,
}

fn echo(_: u64, header: Header) -> Header {
    header
}

impl Supervisor {
    /// Makes the victim and all that is needed for hostile components on so many cores.
    ///
    /// # Errors
    /// The kernel's status.
    pub(crate) fn new(cores: u32) -> Result<Self, Status> {
        let places = [(RECORD, RECORD_ORDER), (STACK_AREA, STACK_AREA_ORDER), (LARGE, 9), (SMALL, SMALL_ORDER)];
        let memory = places.map(|(place, order)| (place, frames(order), order));
        map(memory[0].1, RECORD, RECORD_ORDER, Access::READ | Access::WRITE)?;
        let mut repair = [NONE; CORES];
        for (core, portal) in repair.iter_mut().enumerate().take(cores as usize) {
            *portal = server(restart, &Options { core: core as u8, ..Options::default() })?.portal(0)?;
        }
        let answer = server(echo, &Options::default())?.portal(0)?;
        let clock = selector();
        call(&CreateSm { sel: clock, pd: ROOT_PD, count: 0, target: NONE, bit: 0 })?;
        let victim = Victim::new(cores)?;
        let base = selectors(SELECTORS);
        Ok(Self { victim, cores, base, answer, repair, clock, memory, settled: None })
    }

    fn sleep(&self, micros: u64) {
        let _ = call(&SmDown { sm: self.clock, flags: 0, deadline: time::after(micros) });
    }

    /// A component makes so many calls, and goes.
    ///
    /// # Errors
    /// Something went wrong: the run is over.
    pub(crate) fn generation(&mut self, seed: u64, calls: u64, sums: &mut Sums) -> Result<(), Failure> {
        let ticks = self.victim.ticks().0;
        let start = time::now();
        self.reset(seed);
        self.populate(seed)?;
        let watched = self.watch(calls, sums);
        self.destroy(sums)?;
        self.add(sums);
        watched?;
        if record().complaint[COMPLAINT].load(Relaxed) != 0 {
            return Err(Failure::Undocumented);
        }
        self.examine(sums)?;
        let long = time::now().saturating_sub(start) > time::micros(50_000);
        if long && self.victim.ticks().0 == ticks {
            return Err(Failure::Wrong("the victim's threads got no time"));
        }
        self.account()
    }

    /// An empty record.
    fn reset(&self, seed: u64) {
        let words = ((PAGE << RECORD_ORDER) / 8) as usize;
        let first: *mut u64 = core::ptr::with_exposed_provenance_mut(RECORD as usize);
        for index in 0..words {
            // SAFETY: the record's pages, which nobody uses between generations.
            unsafe { first.wrapping_add(index).write_volatile(0) };
        }
        let record = record();
        record.seed.store(seed, Relaxed);
        record.ticks.store(time::micros(1), Relaxed);
        record.cores.store(self.cores, Relaxed);
        record.random.iter().zip(1u64..).for_each(|(random, slot)| random.store(mix(seed ^ mix(slot)), Relaxed));
        let things = [
            (given::PD, Thing::Pd),
            (given::OBJECTS, Thing::Objects),
            (given::HOST, Thing::Host),
            (given::PORTS, Thing::Ports),
            (given::VICTIM, Thing::Portal),
            (given::SUPERVISOR, Thing::Portal),
            (given::REPAIR, Thing::Handler),
            (given::SHARED, Thing::Semaphore),
            (given::SC, Thing::Sc),
            (given::GUEST, Thing::Guest),
            (given::VCPU, Thing::Vcpu),
        ];
        for (sel, thing) in things {
            record.things[sel as usize].store(thing as u8, Relaxed);
        }
    }

    /// The component, with what it is given.
    fn populate(&self, seed: u64) -> Result<(), Status> {
        let base = self.base;
        // Poor ones and rich ones.
        let budget = [0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000][mix(seed) as usize % 4];
        call(&CreatePd { sel: base, pd: ROOT_PD, budget, priorities: BAND })?;
        let domain = Domain { pd: base, objects: base + 1, host: base + 2, ports: base + 3 };
        domain.share_code()?;
        for (place, physical, order) in self.memory {
            let rights = u64::from((Access::READ | Access::WRITE).bits());
            let (src_base, dst_base) = (physical / PAGE, place / PAGE);
            call(&Delegate { src: MACHINE_MEMORY, dst: domain.host, src_base, dst_base, order, rights })?;
        }
        let own = if mix(seed ^ 1).is_multiple_of(2) { Perms::ALL } else { Perms::ALL.difference(Perms::CTRL) };
        let things = [
            (base, given::PD, own),
            (domain.objects, given::OBJECTS, Perms::ALL),
            (domain.host, given::HOST, Perms::ALL),
            (domain.ports, given::PORTS, Perms::ALL),
            (self.victim.portal, given::VICTIM, Perms::PT_CALL),
            (self.answer, given::SUPERVISOR, Perms::PT_CALL),
            (self.repair[0], given::REPAIR, Perms::PT_EVENT),
            (self.victim.bell, given::BELL, Perms::SM_UP),
            (self.victim.locked, given::LOCKED, Perms::empty()),
            (self.victim.shared, given::SHARED, Perms::SM_UP | Perms::SM_DOWN),
        ];
        for (sel, to, perms) in things {
            give(domain.objects, sel, to as u32, perms)?;
        }
        if hip().features & (features::SVM | features::VMX) != 0 {
            call(&CreateSpace { sel: base + GUEST, pd: base, kind: SpaceKind::Guest as u64 })?;
            let vcpu = CreateVcpu {
                sel: base + VCPU,
                pd: base,
                guest: base + GUEST,
                host: domain.host,
                address: STATE_AREA,
                core: 0,
            };
            call(&vcpu)?;
            give(domain.objects, base + GUEST, given::GUEST as u32, Perms::SPACE_GRANT | Perms::SPACE_ASSIGN)?;
            give(domain.objects, base + VCPU, given::VCPU as u32, Perms::VCPU_RUN | Perms::VCPU_KICK)?;
        }
        (0..self.cores).try_for_each(|core| self.spawn(core))?;
        give(domain.objects, base + FIRST_SC, given::SC as u32, Perms::CTRL)
    }

    /// Starts the first thread of a core.
    fn spawn(&self, core: u32) -> Result<(), Status> {
        let (base, slot) = (self.base, take_slot());
        record().first[core as usize].store(slot as u32, Relaxed);
        call(&CreateEc {
            sel: base + FIRST_EC + core,
            pd: base,
            flags: CreateEc::pack(EcFlags::GLOBAL | EcFlags::FPU, core as u8, self.repair[core as usize]),
            utcb: UTCBS + (slot << UTCB_BITS),
            sp: STACK_AREA + ((slot + 1) << STACK_BITS),
            ip: entry::thread as *const () as u64,
        })?;
        let sc = CreateSc {
            sel: base + FIRST_SC + core,
            pd: base,
            ec: base + FIRST_EC + core,
            priority: PRIORITY,
            quantum: 1000,
        };
        call(&sc).map(drop)
    }

    /// Starts it anew, since it got stuck in something. The component may have spent what this costs.
    fn respawn(&self, core: u32) {
        for sel in [self.base + FIRST_SC + core, self.base + FIRST_EC + core] {
            let _ = call(&Destroy { sel });
        }
        let _ = self.spawn(core);
    }

    /// Looks at the component until it has made so many calls.
    fn watch(&self, calls: u64, sums: &mut Sums) -> Result<(), Failure> {
        let made = |slot: usize| record().made[slot].load(Relaxed);
        let mut last = [(0, 0, 0); CORES];
        for look in 0..LOOKS {
            self.sleep(LOOK);
            if (0..SLOTS).map(made).sum::<u64>() >= calls || record().complaint[COMPLAINT].load(Relaxed) != 0 {
                return Ok(());
            }
            for (core, (count, since, vain)) in (0..self.cores).zip(&mut last) {
                let now = made(record().first[core as usize].load(Relaxed) as usize);
                if *count != now {
                    (*count, *since, *vain) = (now, look, 0);
                } else if look - *since > PATIENCE {
                    *since = look;
                    *vain += 1;
                    sums.respawns += 1;
                    self.respawn(core);
                }
            }
            if last.iter().any(|(_, _, vain)| *vain > VAIN) {
                // It has done away with what it needs to live.
                sums.ruined += 1;
                return Ok(());
            }
            if look % 8 == 7 {
                self.examine(sums)?;
            }
        }
        Ok(())
    }

    /// The victim, by its own word and ours.
    fn examine(&self, sums: &mut Sums) -> Result<(), Failure> {
        let (wrong, time) = self.victim.check();
        sums.longest_answer = sums.longest_answer.max(time);
        wrong.or_else(|| self.victim.greet()).map_or(Ok(()), |wrong| Err(Failure::Wrong(wrong)))
    }

    /// Ends the component.
    fn destroy(&self, sums: &mut Sums) -> Result<(), Failure> {
        let (mut more, mut count) = (true, 0);
        while more {
            let start = time::now();
            let answer = call(&Destroy { sel: self.base });
            sums.longest_destroy = sums.longest_destroy.max(time::now().saturating_sub(start));
            more = answer == Err(Status::Again);
            count += 1;
            if !more {
                answer?;
            }
        }
        sums.most_destroys = sums.most_destroys.max(count);
        call(&Drop { base: self.base, count: SELECTORS })?;
        Ok(())
    }

    fn add(&self, sums: &mut Sums) {
        let record = record();
        sums.generations += 1;
        sums.faults += record.faults.load(Relaxed);
        sums.strayed += record.strayed.load(Relaxed);
        for slot in 0..SLOTS {
            sums.calls += record.made[slot].load(Relaxed);
            sums.digest = mix(sums.digest ^ record.digest[slot].load(Relaxed));
        }
        for (sum, seen) in sums.seen.iter_mut().flatten().zip(record.seen.iter().flatten()) {
            *sum += u64::from(seen.load(Relaxed));
        }
    }

    /// Whether all memory is back.
    fn account(&mut self) -> Result<(), Failure> {
        let measure = || {
            let memory = call(&MachineControl { machine: MACHINE, operation: MachineOp::Memory as u64, value: 0 })?;
            Ok::<_, Status>((call(&PdInfo { pd: ROOT_PD })?.1, memory.1))
        };
        let mut found = measure()?;
        let Some(settled) = self.settled else {
            // The first one has grown the tables of this program's own spaces.
            self.sleep(100_000);
            self.settled = Some(measure()?);
            return Ok(());
        };
        let end = time::after(RETURN);
        while found != settled && time::now() < end {
            self.sleep(LOOK);
            found = measure()?;
        }
        if found != settled {
            return Err(Failure::Lost((found.0 - settled.0).cast_signed(), (settled.1 - found.1).cast_signed()));
        }
        Ok(())
    }
}
