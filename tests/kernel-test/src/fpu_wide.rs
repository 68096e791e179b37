// SPDX-License-Identifier: MIT OR Apache-2.0
//! AVX-512: registers of 512 bits, sixteen more of them, and masks, apart between threads; and what guests do to them, which have no such
//! registers: nothing.
//!
//! QEMU emulates no such processor, and the model that Bochs has in the tests is an older one: they are for the model `corei7_skylake_x` of
//! Bochs with `xsave=standard` on the kernel's command line, tried by hand, and for real machines.

use crate::guest_guards::needed;
use crate::harness::{Failure, Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups};
use cloister_abi::hypercall::Yield;
use cloister_abi::status::Status;
use cloister_bare::guest::Guest;
use cloister_bare::kernel::call;
use cloister_bare::thread::{Context, Options, QUANTUM, prepare, start};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub(crate) static TESTS: [Test; 2] =
    [("fpu-wide-registers-are-kept-apart", apart), ("fpu-wide-of-guests-and-threads-apart", guests)];

static DONE: AtomicU32 = AtomicU32::new(0);
static BAD: AtomicU64 = AtomicU64::new(0);
static LOOKED: AtomicU64 = AtomicU64::new(0);

/// State components of AVX-512: masks, upper halves, further registers (Intel SDM vol. 1, 13.1), and those that they need.
const COMPONENTS: u32 = 0xe7;

/// Skips the test if the processor or the kernel has no AVX-512.
fn wanted() -> Outcome {
    let [basic, extended] = [1, 7].map(|leaf| core::arch::x86_64::__cpuid_count(leaf, 0));
    if basic.ecx >> 27 & 1 == 0 || extended.ebx >> 16 & 1 == 0 {
        return Err(Failure::Skipped("no AVX-512"));
    }
    let low: u32;
    // SAFETY: XGETBV is there, as CPUID just said.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nostack, nomem)) };
    // What the processor has the kernel switches on.
    equal!(low & COMPONENTS, COMPONENTS);
    Ok(())
}

/// Loads a mask, the upper half of a register, and one of the further ones.
fn load(value: u64) {
    // SAFETY: this program is compiled without vector registers: they hold nothing of it; the caller has looked for AVX-512.
    unsafe {
        asm!(
            "kmovw k3, {0:e}",
            "vmovq xmm1, {0}",
            "vinserti64x4 zmm9, zmm9, ymm1, 1",
            "vpbroadcastq zmm30, {0}",
            in(reg) value,
            options(nostack, nomem)
        );
    }
}

/// What is in them: mask, upper half, last word of the further one.
fn stored() -> [u64; 3] {
    let (mask, upper, further): (u64, u64, u64);
    // SAFETY: as above.
    unsafe {
        asm!(
            "kmovw {0:e}, k3",
            "vextracti64x4 ymm1, zmm9, 1",
            "vmovq {1}, xmm1",
            "vextracti32x4 xmm1, zmm30, 3",
            "vpsrldq xmm1, xmm1, 8",
            "vmovq {2}, xmm1",
            out(reg) mask,
            out(reg) upper,
            out(reg) further,
            options(nostack, nomem)
        );
    }
    [mask, upper, further]
}

fn note(good: bool) {
    BAD.fetch_add(u64::from(!good), Relaxed);
    LOOKED.fetch_add(1, Relaxed);
}

fn all(value: u64) -> [u64; 3] {
    [value & 0xffff, value, value]
}

/// Finds nothing at first, then what it loaded, whoever ran in between.
extern "C" fn user(value: u64) -> ! {
    note(stored() == [0; 3]);
    for round in 0..50 {
        load(value + round);
        let _ = call(&Yield {});
        note(stored() == all(value + round));
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

fn launch(code: extern "C" fn(u64) -> !, value: u64) -> Result<Context, Status> {
    let mut thread = prepare(code, value, &Options { fpu: true, ..Options::default() })?;
    start(&mut thread, 10, QUANTUM)?;
    Ok(thread)
}

/// Waits for these threads, and looks at what they found.
fn end(threads: &[Context]) -> Outcome {
    for _ in threads {
        check!(down_for(DONE.load(Relaxed), 10_000_000).is_ok());
    }
    equal!(BAD.load(Relaxed), 0);
    check!(LOOKED.load(Relaxed) > 0);
    threads.iter().for_each(Context::destroy);
    Ok(())
}

fn prepared() -> Outcome {
    wanted()?;
    DONE.store(semaphore(0)?, Relaxed);
    [&BAD, &LOOKED].iter().for_each(|count| count.store(0, Relaxed));
    Ok(())
}

fn apart() -> Outcome {
    prepared()?;
    end(&[launch(user, 0x1000_1111)?, launch(user, 0x2000_2222)?, launch(user, 0x3000_3333)?])?;
    // Nothing is left to a new one.
    end(&[launch(user, 0x4000_4444)?])
}

/// The components that a guest has at most: its monitor sees them in the state page.
const GUESTS: u64 = 7;

/// A guest that asks for all components, and goes on at that code.
fn asking(code: &[u8]) -> Result<Guest, Status> {
    let ask = [
        0x31, 0xc9, // xor ecx, ecx
        0x31, 0xd2, // xor edx, edx
        0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, 0xe7
        0x0f, 0x01, 0xd1, // xsetbv
    ];
    let mut guest = Guest::long(&ask)?;
    guest.write(cloister_bare::guest::CODE + ask.len() as u64, code);
    // OSXSAVE.
    guest.state().cr4 |= 1 << 18;
    Ok(guest)
}

/// Runs it to an exit that is not its question, which is answered with all that there is.
fn answer(guest: &mut Guest) -> Result<ExitReason, Status> {
    loop {
        let reason = guest.run()?;
        if reason != ExitReason::Xsetbv {
            return Ok(reason);
        }
        guest.state().xcr0 = u64::from(COMPONENTS);
        guest.state().load |= Groups::CR.bits();
        guest.skip();
    }
}

/// Again and again it tells in RAX what it finds in a register, puts RBX there, and halts.
const TELL: [u8; 13] = [
    0xc4, 0xe1, 0xf9, 0x7e, 0xc0, // vmovq rax, xmm0
    0xc4, 0xe1, 0xf9, 0x6e, 0xc3, // vmovq xmm0, rbx
    0xf4, // hlt
    0xeb, 0xf3, // jmp to the first vmovq
];

/// Runs two guests in turn, with registers of its own.
extern "C" fn runner(value: u64) -> ! {
    if let Err(status) = run_guests(value) {
        BAD.fetch_add(1000 + status as u64, Relaxed);
    }
    let _ = up(DONE.load(Relaxed));
    rest()
}

fn run_guests(value: u64) -> Result<(), Status> {
    let mut guests = [asking(&TELL)?, asking(&TELL)?];
    let mut expected = [0; 2];
    for round in 1..30 {
        load(value + round);
        for (place, guest) in expected.iter_mut().zip(&mut guests) {
            let next = 0x6e00_0000 + value / 7 + 0x100 * round + u64::from(guest.vcpu % 256);
            guest.state().gpr[3] = next;
            guest.state().load |= (Groups::GPR_ACDB | Groups::RIP).bits();
            note(answer(guest)? == ExitReason::Hlt && guest.state().gpr[0] == *place);
            note(guest.state().xcr0 == GUESTS && stored() == all(value + round));
            *place = next;
            guest.skip();
        }
        let _ = call(&Yield {});
    }
    guests.iter().for_each(Guest::destroy);
    Ok(())
}

/// Guests have none of it, and do nothing to what threads have.
fn guests() -> Outcome {
    needed()?;
    prepared()?;
    end(&[launch(runner, 0x5000_5555)?, launch(runner, 0x7000_7777)?, launch(user, 0x9000_9999)?])?;
    end(&[launch(user, 0xa000_aaaa)?])?;
    // kmovw eax, k3: an exception, for which this guest has no handler.
    let mut guest = asking(&[0xc5, 0xf8, 0x93, 0xc3, 0xf4])?;
    equal!(answer(&mut guest)?, ExitReason::Shutdown);
    guest.destroy();
    Ok(())
}
