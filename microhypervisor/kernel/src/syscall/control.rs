// SPDX-License-Identifier: MIT OR Apache-2.0
//! Destruction, budgets, time, interrupts, the machine.

use super::{Answer, found, lookup};
use crate::arch::power;
use crate::memory::{Own, POOL, booked, firmware, pool_size};
use crate::object::{Ec, Header, Pd, Sc, Sm, Space, Work, destroy as destroy_object, status};
use crate::width::{index, low8};
use crate::{interrupt, percore, sched, trace};
use cloister_abi::cap::{Kind, Perms};
use cloister_abi::hypercall::{self as abi, IrqFlags, MachineOp, MemoryPart};
use cloister_abi::status::Status;
use cloister_abi::trace::{NAME, TraceOp};
use cloister_abi::utcb::WORDS;
use cloister_mechanism::FRAME;

/// The machine as an object: stands for the right to its interrupts, its power and its console.
#[repr(C, align(64))]
pub(crate) struct Machine {
    header: Header,
}

impl Machine {
    /// The machine.
    pub(crate) const fn new() -> Self {
        Self { header: Header::new(Kind::Machine) }
    }
}

pub(super) fn destroy(ec: &Ec, call: &abi::Destroy) -> Answer {
    let found =
        found(ec, call.sel.into()).filter(|found| found.allows(Perms::CTRL.bits()) && found.target().is_alive());
    let header = found.ok_or(Status::BadCapability)?.target();
    if header.kind() == Kind::Machine as u8 {
        return Err(Status::BadCapability);
    }
    if let Ok(pd) = lookup::<Pd>(ec, call.sel, Perms::CTRL) {
        if ec.pd.is(pd) {
            // Nobody saws off the branch it sits on: whoever created a PD destroys it.
            return Err(Status::BadParameter);
        }
        if pd.dismantle() {
            return Err(Status::Again);
        }
    }
    if let Ok(space) = lookup::<Space>(ec, call.sel, Perms::CTRL) {
        if space.belongs_to_pd() {
            // Threads run in it: it goes with its PD.
            return Err(Status::BadParameter);
        }
        if space.strip(&mut Work::piece()) {
            return Err(Status::Again);
        }
    }
    destroy_object(header, &mut Work::piece());
    ec.objects.table()?.remove(call.sel.into());
    Ok((0, 0))
}

pub(super) fn move_budget(ec: &Ec, call: &abi::MoveBudget) -> Answer {
    let from = lookup::<Pd>(ec, call.from, Perms::PD_CHILDREN)?;
    let to = lookup::<Pd>(ec, call.to, Perms::CTRL)?;
    from.budget().shrink(call.bytes).map_err(status)?;
    to.budget().grow(call.bytes);
    Ok((0, 0))
}

pub(super) fn pd_info(ec: &Ec, call: &abi::PdInfo) -> Answer {
    let pd = lookup::<Pd>(ec, call.pd, Perms::CTRL)?;
    Ok((pd.budget().limit(), pd.budget().used()))
}

pub(super) fn sc_time(ec: &Ec, call: &abi::ScTime) -> Answer {
    let sc = lookup::<Sc>(ec, call.sc, Perms::CTRL)?;
    Ok((sched::time_used(sc), 0))
}

pub(super) fn irq_bind(ec: &Ec, call: &abi::IrqBind) -> Answer {
    lookup::<Machine>(ec, call.machine, Perms::MACHINE_IRQ)?;
    let sm = lookup::<Sm>(ec, call.sm, Perms::SM_BIND)?;
    let flags = IrqFlags::from_bits(call.flags & !0xff00).ok_or(Status::BadParameter)?;
    interrupt::bind_line(call.gsi, low8(call.flags >> 8), sm, flags)?;
    Ok((0, 0))
}

pub(super) fn bind_msi(ec: &Ec, call: &abi::BindMsi) -> Answer {
    lookup::<Machine>(ec, call.machine, Perms::MACHINE_IRQ)?;
    let sm = lookup::<Sm>(ec, call.sm, Perms::SM_BIND)?;
    let core = u8::try_from(call.core).map_err(|_| Status::BadCore)?;
    interrupt::bind_message(call.device, core, sm)
}

pub(super) fn irq_ack(ec: &Ec, call: &abi::IrqAck) -> Answer {
    let sm = lookup::<Sm>(ec, call.sm, Perms::SM_DOWN)?;
    interrupt::acknowledge(sm)?;
    Ok((0, 0))
}

pub(super) fn machine(ec: &Ec, call: &abi::MachineControl) -> Answer {
    let operation = MachineOp::from_raw(call.operation).ok_or(Status::BadParameter)?;
    let needed = match operation {
        MachineOp::PowerOff | MachineOp::Reset => Perms::MACHINE_POWER,
        MachineOp::Console => Perms::MACHINE_CONSOLE,
        MachineOp::Memory | MachineOp::Idle => Perms::CTRL,
    };
    lookup::<Machine>(ec, call.machine, needed)?;
    match operation {
        MachineOp::PowerOff => power::off(call.value),
        MachineOp::Reset => power::reset(),
        MachineOp::Memory => {
            let part = MemoryPart::from_raw(call.value).ok_or(Status::BadParameter)?;
            Ok(match part {
                MemoryPart::Pool => (pool_size(), POOL.available() * FRAME as u64),
                MemoryPart::Machine => firmware(),
                MemoryPart::Cores => (booked(Own::Cores), booked(Own::Tables)),
                MemoryPart::Other => (booked(Own::Other), crate::arch::iommu::memory()),
            })
        }
        MachineOp::Idle => {
            let core = u8::try_from(call.value).ok().and_then(percore::get).ok_or(Status::BadCore)?;
            Ok((sched::time_idle(core), 0))
        }
        MachineOp::Console => {
            if call.value > 8 * WORDS as u64 {
                return Err(Status::BadParameter);
            }
            crate::console::write(ec.utcb.bytes(index(call.value)));
            Ok((0, 0))
        }
    }
}

pub(super) fn trace(ec: &Ec, call: &abi::TraceControl) -> Answer {
    let operation = TraceOp::from_raw(call.operation).ok_or(Status::BadParameter)?;
    lookup::<Machine>(ec, call.machine, Perms::CTRL)?;
    match operation {
        TraceOp::Read => Ok(trace::ring(call.argument as usize).ok_or(Status::BadFeature)?.read(call.value, &ec.utcb)),
        TraceOp::Name if call.value > NAME as u64 => Err(Status::BadParameter),
        TraceOp::Name => {
            let named = lookup::<Ec>(ec, call.argument, Perms::empty())?;
            let core = usize::from(percore::core().id);
            trace::name(core, named, &ec.utcb, index(call.value)).then_some((0, 0)).ok_or(Status::BadFeature)
        }
    }
}
