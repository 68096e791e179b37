// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts as semaphores, with the PIT, which ticks on its own.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, down_for, limited, semaphore, signal};
use crate::{check, equal, refused};
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::hip::{MACHINE, MACHINE_PIO, ROOT_PD, ROOT_PIO};
use cloister_abi::hypercall::{Delegate, IrqAck, IrqBind, Revoke};
use cloister_abi::status::Status;
use cloister_bare::entry::hip;
use cloister_bare::kernel::call;
use cloister_bare::thread::destroy;
use core::arch::asm;

pub(crate) static TESTS: [Test; 4] = [
    ("interrupt-guards", guards),
    ("interrupt-is-an-up", is_an_up),
    ("interrupt-bound-once", bound_once),
    ("interrupt-signals-a-bit", signals),
];

/// The PIT's interrupt: ISA interrupt 0 comes as global interrupt 2 on all PCs with an I/O APIC.
const PIT: u32 = 2;
/// First port of the PIT.
const PORT: u64 = 0x40;

fn out(port: u16, value: u8) {
    // SAFETY: the port belongs to the timer, which is nobody else's.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem)) };
}

fn ports() -> Delegate {
    Delegate { src: MACHINE_PIO, dst: ROOT_PIO, src_base: PORT, dst_base: PORT, order: 2, rights: 1 }
}

/// Lets channel 0 tick every millisecond.
fn start() -> Result<(), Status> {
    call(&ports())?;
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04);
    Ok(())
}

/// Stops it: the channel waits for a count that does not come.
fn stop() -> Result<(), Status> {
    out(0x43, 0x30);
    call(&Revoke { space: ROOT_PIO, base: PORT, order: 2 }).map(drop)
}

fn bind(sm: Selector) -> IrqBind {
    IrqBind { machine: MACHINE, sm, gsi: PIT, flags: 0 }
}

fn guards() -> Outcome {
    let sm = semaphore(0)?;
    let good = bind(sm);
    refused!(BadCapability, IrqBind { machine: ROOT_PD, ..good });
    refused!(BadCapability, IrqBind { machine: EMPTY, ..good });
    refused!(BadCapability, IrqBind { machine: limited(MACHINE, Perms::ALL.difference(Perms::MACHINE_IRQ))?, ..good });
    refused!(BadCapability, IrqBind { sm: EMPTY, ..good });
    refused!(BadCapability, IrqBind { sm: limited(sm, Perms::ALL.difference(Perms::SM_BIND))?, ..good });
    for gsi in [hip().interrupts, hip().interrupts + 1, u32::MAX] {
        refused!(BadDevice, IrqBind { gsi, ..good });
    }
    for flags in [8, 0x10, 1 << 16, 1 << 63] {
        refused!(BadParameter, IrqBind { flags, ..good });
    }
    refused!(BadCore, IrqBind { flags: 200 << 8, ..good });
    // No interrupt is bound to this one.
    check!(call(&IrqAck { sm }).is_err());
    refused!(BadCapability, IrqAck { sm: EMPTY });
    destroy(sm);
    Ok(())
}

fn is_an_up() -> Outcome {
    let sm = semaphore(0)?;
    call(&bind(sm))?;
    start()?;
    for _ in 0..5 {
        check!(down_for(sm, 500_000).is_ok());
        call(&IrqAck { sm })?;
    }
    stop()?;
    refused!(BadCapability, IrqAck { sm: limited(sm, Perms::ALL.difference(Perms::SM_DOWN))? });
    destroy(sm);
    refused!(BadCapability, IrqAck { sm });
    Ok(())
}

fn bound_once() -> Outcome {
    let (first, second) = (semaphore(0)?, semaphore(0)?);
    call(&bind(first))?;
    let again = call(&bind(second));
    check!(matches!(again, Err(Status::BadDevice | Status::Busy)));
    // With its semaphore goes the binding.
    destroy(first);
    call(&bind(second))?;
    start()?;
    check!(down_for(second, 500_000).is_ok());
    stop()?;
    destroy(second);
    Ok(())
}

fn signals() -> Outcome {
    let word = semaphore(0)?;
    let bit = signal(word, 7)?;
    call(&bind(bit))?;
    start()?;
    let take = cloister_abi::hypercall::SmDown { sm: word, flags: 1, deadline: cloister_bare::time::after(500_000) };
    equal!(call(&take)?.0, 1 << 7);
    stop()?;
    destroy(bit);
    // None comes any more, but for one that was under way.
    let _ = call(&cloister_abi::hypercall::SmDown { deadline: 1, ..take });
    equal!(down_for(word, 5_000), Err(Status::Timeout));
    destroy(word);
    Ok(())
}
