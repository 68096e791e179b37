// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports: who was given one reaches it, and nobody else, also when it is taken back while it is in use.

use crate::cores::another;
use crate::exceptions::{DONE, RIP, note, recovered, seen};
use crate::harness::{Outcome, Test};
use crate::make::{down_for, semaphore};
use crate::{check, equal, refused};
use cloister_abi::hip::{MACHINE_PIO, ROOT_PIO};
use cloister_abi::hypercall::{Delegate, Revoke};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{call, message};
use cloister_bare::thread::{Options, QUANTUM, destroy, prepare, server, start};
use cloister_bare::time;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 4] = [
    ("ports", ports),
    ("ports-of-the-kernel", kernel_ports),
    ("ports-revoked", || revoked(0)),
    ("cores-ports-revoked", || revoked(another()?)),
];

/// A port that shows codes of the power-on self-test, nothing else.
const PORT: u64 = 0x80;
const GENERAL_PROTECTION: u64 = 13;

const DELEGATION: Delegate =
    Delegate { src: MACHINE_PIO, dst: ROOT_PIO, src_base: PORT, dst_base: PORT, order: 0, rights: 1 };

fn ports() -> Outcome {
    let ports = DELEGATION;
    call(&ports)?;
    // SAFETY: see `PORT`.
    unsafe { core::arch::asm!("out 0x80, al", in("al") 0u8, options(nostack, nomem)) };
    refused!(BadParameter, Delegate { src_base: 0x80, dst_base: 0x81, ..ports });
    refused!(BadParameter, Delegate { rights: 0, ..ports });
    refused!(BadParameter, Delegate { rights: 3, ..ports });
    refused!(BadParameter, Delegate { src_base: 0x1_0000, dst_base: 0x1_0000, ..ports });
    refused!(BadParameter, Delegate { src_base: u64::MAX, dst_base: u64::MAX, ..ports });
    refused!(BadCapability, Delegate { src: ROOT_PIO, dst: MACHINE_PIO, ..ports });
    call(&Revoke { space: ROOT_PIO, base: PORT, order: 0 })?;
    Ok(())
}

/// The kernel's console is one of the two serial ports; all of it is refused, and what is around it with it.
fn kernel_ports() -> Outcome {
    let mut refusals = 0;
    for base in [0x2f8, 0x3f8] {
        let range = Delegate { src_base: base, dst_base: base, order: 3, ..DELEGATION };
        match call(&range) {
            Ok(_) => drop(call(&Revoke { space: ROOT_PIO, base, order: 3 })?),
            Err(why) => {
                equal!(why, Status::BadDevice);
                refusals += 1;
                for port in base..base + 8 {
                    refused!(BadDevice, Delegate { src_base: port, dst_base: port, order: 0, ..range });
                }
                refused!(BadDevice, Delegate { src_base: 0x200, dst_base: 0x200, order: 9, ..range });
            }
        }
    }
    equal!(refusals, 1);
    Ok(())
}

static READS: AtomicU64 = AtomicU64::new(0);

extern "C" fn reader(_: u64) -> ! {
    loop {
        // SAFETY: see `PORT`. When it is taken away, the exception ends this.
        unsafe { core::arch::asm!("in al, 0x80", out("al") _, options(nostack, nomem)) };
        READS.fetch_add(1, Relaxed);
    }
}

fn handle(_: u64, _: Header) -> Header {
    note();
    message().set(RIP, recovered as *const () as u64);
    Header::new(cloister_abi::arch::x86_64::exception::WORDS, 0)
}

/// When a port was taken away no thread reaches it any more, on whatever core it runs.
fn revoked(core: u8) -> Outcome {
    for _ in 0..10 {
        let done = semaphore(0)?;
        DONE.store(done, Relaxed);
        call(&DELEGATION)?;
        let pager = server(handle, &Options { core, ..Options::default() })?;
        let mut thread = prepare(reader, 0, &Options { core, event: pager.portal(0)?, ..Options::default() })?;
        let before = READS.load(Relaxed);
        start(&mut thread, 60, QUANTUM)?;
        let end = time::after(10_000_000);
        while READS.load(Relaxed) == before {
            check!(time::now() < end);
            let _ = down_for(done, 100);
        }
        call(&Revoke { space: ROOT_PIO, base: PORT, order: 0 })?;
        let reads = READS.load(Relaxed);
        down_for(done, 5_000_000)?;
        equal!(seen(0), GENERAL_PROTECTION);
        // One read may have been done, and not yet counted.
        check!(READS.load(Relaxed) <= reads + 1);
        thread.destroy();
        pager.destroy();
        destroy(done);
    }
    Ok(())
}
