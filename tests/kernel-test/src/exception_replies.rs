// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the answer of an exception handler changes, and what it cannot.

use crate::exceptions::{DONE, RAX, RESULT, RFLAGS, RIP, fault_with, note, recovered, seen, store};
use crate::harness::{Outcome, Test};
use crate::make::{down_for, semaphore};
use crate::{check, equal};
use cloister_abi::arch::x86_64::exception::WORDS;
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::message;
use cloister_bare::thread::{Options, QUANTUM, prepare, server, start};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 3] = [
    ("exception-reply-changes-registers", registers),
    ("exception-flags-are-masked", flags),
    ("exception-bad-reply", bad_reply),
];

#[unsafe(naked)]
extern "C" fn add(_: u64) -> ! {
    naked_asm!("ud2", "lea rdi, [rax + rbx]", "add rdi, r15", "add rdi, rbp", "jmp {}", sym recovered)
}

fn set_registers(_: u64, _: Header) -> Header {
    note();
    message().set(RIP, seen(RIP) + 2);
    for (word, value) in [(RAX, 1), (7, 20), (12, 300), (20, 4000)] {
        message().set(word, value);
    }
    Header::new(WORDS, 0)
}

fn registers() -> Outcome {
    fault_with(add, 0, set_registers)?;
    equal!(RESULT.load(Ordering::Relaxed), 4321);
    Ok(())
}

#[unsafe(naked)]
extern "C" fn show_flags(_: u64) -> ! {
    naked_asm!("ud2", "pushfq", "pop rdi", "jmp {}", sym recovered)
}

fn set_flags(_: u64, _: Header) -> Header {
    note();
    message().set(RIP, seen(RIP) + 2);
    // All but the trap flag, which would stop the thread at once.
    message().set(RFLAGS, !0x100);
    Header::new(WORDS, 0)
}

/// A handler sets the arithmetic flags; interrupts, I/O privilege and the like are not its to change.
fn flags() -> Outcome {
    fault_with(show_flags, 0, set_flags)?;
    let flags = RESULT.load(Ordering::Relaxed);
    equal!(flags & 0x8d5, 0x8d5);
    equal!(flags & 0x2_3200, 0x200);
    check!(seen(RFLAGS) & 0x200 != 0);
    Ok(())
}

static BAD: AtomicU64 = AtomicU64::new(0);

fn answer_badly(_: u64, _: Header) -> Header {
    match BAD.load(Ordering::Relaxed) {
        0 => message().set(RIP, 0xffff_8000_0000_0000),
        1 => message().set(RIP, 1 << 63),
        2 => return Header(u64::MAX),
        _ => message().set(4, 1 << 63),
    }
    Header::new(WORDS, 0)
}

/// Answers that make no sense stop the thread or send it into its next exception; nobody else notices.
fn bad_reply() -> Outcome {
    for case in 0..4 {
        BAD.store(case, Ordering::Relaxed);
        // The store would fault again and again at the same place; its thread must not starve this one.
        let done = semaphore(0)?;
        DONE.store(done, Ordering::Relaxed);
        let pager = server(answer_badly, &Options::default())?;
        let event = pager.portal(0)?;
        let mut thread = prepare(store, 0, &Options { event, ..Options::default() })?;
        start(&mut thread, 1, QUANTUM)?;
        equal!(down_for(done, 5_000), Err(Status::Timeout));
        thread.destroy();
        pager.destroy();
    }
    Ok(())
}
