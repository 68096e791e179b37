// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU: threads and entrypoints, and what happens when one of them is stopped by an exception.

use super::Call;
use crate::faults::{self, Event};
use crate::machine::{Core, ONE, SESSION};
use crate::objects::{Cpu as Session, Thing, Thread as State};
use crate::{FAULT_ENTRYPOINT, kernel};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{CreateEc, CreatePt, CreateSc, EcFlags};
use cloister_base::{Cap, Error, ObjectId, selectors, signal};
use cloister_core_model::AccountId;
use cloister_session::{Cpu, CpuInfo, Fault, Object, Resources, Thread, ThreadFlags, ThreadStart, number};

/// Priority of components that are not told otherwise. Core itself runs above, idle things below.
const PRIORITY: u32 = 64;
/// How many priorities components' PDs have: whoever could make threads of a component's, they would not be above this.
pub(crate) const PRIORITIES: u32 = PRIORITY + 1;
/// Longest name of a thread, bytes.
const NAME: usize = 64;
/// Time slice, microseconds.
const QUANTUM: u64 = 10_000;

impl Core {
    /// Opens a CPU session. `priority=` in the arguments counts down from the highest.
    pub(crate) fn open_cpu(
        &mut self,
        donor: AccountId,
        label: &str,
        args: &str,
        donation: Resources,
    ) -> Result<ObjectId, Error> {
        let purse = self.open_purse(donor, donation, SESSION)?;
        let lower = number(args, "priority").and_then(|lower| u32::try_from(lower).ok()).unwrap_or(0);
        let session = Session {
            label: label.to_string(),
            purse,
            priority: PRIORITY.saturating_sub(lower).max(1),
            threads: Vec::new(),
            handler: None,
            fault: None,
        };
        self.add(None, Thing::Cpu(Box::new(session))).inspect_err(|_| self.close_purse(&purse))
    }

    /// Closes a CPU session: its threads go.
    pub(crate) fn close_cpu(&mut self, id: ObjectId) {
        let Ok(cpu) = self.cpu_mut(id) else { return };
        let (threads, handler) = (core::mem::take(&mut cpu.threads), cpu.handler.take());
        for thread in threads {
            self.kill_thread(thread);
        }
        if let Some(handler) = handler {
            selectors::drop_capability(handler.selector);
        }
        if let Some(Thing::Cpu(cpu)) = self.remove(id) {
            self.close_purse(&cpu.purse);
        }
    }

    /// Ends a thread.
    pub(crate) fn kill_thread(&mut self, id: ObjectId) {
        let Some(Thing::Thread(thread)) = self.remove(id) else { return };
        if let Some(sc) = thread.sc {
            kernel::destroy(sc);
            selectors::release(sc, 1);
        }
        for selector in [thread.ec, thread.event] {
            kernel::destroy(selector);
            selectors::release(selector, 1);
        }
        self.drop_kernel_page(thread.pd, thread.utcb);
        self.deposit(thread.pd, ONE);
        if let Ok(pd) = self.pd_mut(thread.pd) {
            pd.threads.retain(|other| *other != id);
        }
        if let Ok(cpu) = self.cpu_mut(thread.cpu) {
            cpu.threads.retain(|other| *other != id);
        }
    }

    /// Makes a thread in a PD, which pays.
    fn make_thread(&mut self, mut thread: State, start: ThreadStart) -> Result<ObjectId, Error> {
        let (pd, cpu) = (thread.pd, thread.cpu);
        self.withdraw(pd, ONE)?;
        let reserved = self.kernel_page(pd, None).and_then(|utcb| {
            thread.utcb = utcb;
            selectors::allocate(2)
        });
        let base = reserved.inspect_err(|_| self.give_up_thread(pd, thread.utcb))?;
        (thread.ec, thread.event) = (base, base + 1);
        let (utcb, global) = (thread.utcb, thread.global);
        let id = self.add(Some(pd), Thing::Thread(Box::new(thread))).inspect_err(|_| {
            selectors::release(base, 2);
            self.give_up_thread(pd, utcb);
        })?;
        self.make_contexts(id, pd, (base, utcb, global), start).inspect_err(|_| self.kill_thread(id))?;
        self.pd_mut(pd)?.threads.push(id);
        self.cpu_mut(cpu)?.threads.push(id);
        self.keep_slack(pd);
        Ok(id)
    }

    fn give_up_thread(&mut self, pd: ObjectId, utcb: u64) {
        if utcb != 0 {
            self.drop_kernel_page(pd, utcb);
        }
        self.deposit(pd, ONE);
    }

    fn make_contexts(
        &mut self,
        id: ObjectId,
        pd: ObjectId,
        (base, utcb, global): (Selector, u64, bool),
        start: ThreadStart,
    ) -> Result<(), Error> {
        let (sel, event) = (base, base + 1);
        let portal = |payer| {
            let ip = crate::arch::fault_entry();
            kernel::create_pt(&CreatePt { sel: event, pd: payer, ec: FAULT_ENTRYPOINT, ip, id: id.to_raw() })
        };
        self.paid(Some(pd), portal)?;
        let core = u8::try_from(start.core).map_err(|_| Error::Invalid)?;
        let mut flags = EcFlags::empty();
        flags.set(EcFlags::GLOBAL, global);
        flags.set(EcFlags::FPU, start.flags.contains(ThreadFlags::FPU));
        let flags = CreateEc::pack(flags, core, event);
        let ip = if global { start.ip } else { 0 };
        self.paid(Some(pd), |payer| kernel::create_ec(&CreateEc { sel, pd: payer, flags, utcb, sp: start.sp, ip }))
    }

    /// Looks after the exceptions that came.
    pub(crate) fn handle_faults(&mut self) {
        while let Some(event) = faults::next() {
            self.handle_fault(event);
        }
    }

    fn handle_fault(&mut self, Event { thread: id, fault }: Event) {
        let Ok(thread) = self.thread_mut(id) else { return };
        thread.fault = Some(fault);
        let (cpu, name, pd) = (thread.cpu, thread.name.clone(), thread.pd);
        let label = self.label(pd);
        log::error!(
            "{label}: thread \"{name}\" stopped: {} (vector {}, error {:#x}) at ip {:#x}, address {:#x}, sp {:#x}",
            faults::name(fault.vector),
            fault.vector,
            fault.error,
            fault.ip,
            fault.address,
            fault.sp,
        );
        if let Ok(cpu) = self.cpu_mut(cpu) {
            cpu.fault.get_or_insert(fault);
            if let Some(handler) = cpu.handler {
                signal::up(handler.selector);
            }
        }
    }
}

impl Call<'_> {
    fn new_thread(&mut self, pd: Object, name: &str, start: ThreadStart, global: bool) -> Result<Cap, Error> {
        let pd = ObjectId::from_raw(pd.own()?);
        self.core.pd(pd)?;
        if name.len() > NAME {
            return Err(Error::Invalid);
        }
        let own = self.core.cpu(self.id)?.priority;
        let thread = State {
            name: String::from(name),
            pd,
            cpu: self.id,
            ec: 0,
            event: 0,
            sc: None,
            utcb: 0,
            priority: own.saturating_sub(start.priority).max(1),
            global,
            fault: None,
        };
        let id = self.core.make_thread(thread, start)?;
        let label = self.core.label(pd);
        kernel::name_in_trace(self.core.thread(id)?.ec, &alloc::format!("{label}: {name}"));
        self.core.cap(id)
    }
}

impl Cpu for Call<'_> {
    fn create_thread(&mut self, pd: Object, name: &str, start: ThreadStart) -> Result<Cap, Error> {
        self.new_thread(pd, name, start, true)
    }

    fn create_entrypoint(&mut self, pd: Object, name: &str, start: ThreadStart) -> Result<Cap, Error> {
        self.new_thread(pd, name, start, false)
    }

    fn kill(&mut self, thread: Object) -> Result<(), Error> {
        let id = ObjectId::from_raw(thread.own()?);
        if self.core.thread(id)?.cpu != self.id {
            return Err(Error::Denied);
        }
        self.core.kill_thread(id);
        Ok(())
    }

    fn info(&mut self) -> Result<CpuInfo, Error> {
        let hip = self.core.hip;
        let boot_time = hip.boot_time.saturating_mul(1_000_000_000);
        Ok(CpuInfo { cores: hip.cores, tsc_hz: hip.tsc_hz, boot_time, features: hip.features })
    }

    fn exception_handler(&mut self, handler: Option<Cap>) -> Result<(), Error> {
        let cpu = self.core.cpu_mut(self.id)?;
        if let Some(old) = core::mem::replace(&mut cpu.handler, handler) {
            selectors::drop_capability(old.selector);
        }
        if let (Some(handler), Some(_)) = (cpu.handler, cpu.fault) {
            signal::up(handler.selector);
        }
        Ok(())
    }

    fn fault(&mut self) -> Result<Option<Fault>, Error> {
        Ok(self.core.cpu(self.id)?.fault)
    }
}

impl Thread for Call<'_> {
    fn start(&mut self) -> Result<(), Error> {
        let thread = self.core.thread(self.id)?;
        if !thread.global || thread.sc.is_some() {
            return Err(Error::Invalid);
        }
        let (ec, pd, priority) = (thread.ec, thread.pd, thread.priority);
        let sel = selectors::allocate(1)?;
        let start = |payer| kernel::create_sc(&CreateSc { sel, pd: payer, ec, priority, quantum: QUANTUM });
        self.core.paid(Some(pd), start).inspect_err(|_| selectors::release(sel, 1))?;
        self.core.thread_mut(self.id)?.sc = Some(sel);
        Ok(())
    }

    fn time(&mut self) -> Result<u64, Error> {
        let sc = self.core.thread(self.id)?.sc;
        sc.map_or(Ok(0), |sc| kernel::time(sc).map_err(Error::Kernel))
    }

    fn fault(&mut self) -> Result<Option<Fault>, Error> {
        Ok(self.core.thread(self.id)?.fault)
    }
}
