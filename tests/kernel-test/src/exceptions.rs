// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions of threads: what the handler is told, what its answer changes, and what happens without one.

use crate::harness::{Outcome, Test};
use crate::make::{down_for, rest, semaphore, up};
use crate::{check, equal};
use cloister_abi::arch::x86_64::exception::WORDS;
use cloister_abi::cap::NONE;
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;
use cloister_bare::kernel::{ipc, message};
use cloister_bare::memory::{PAGE, addresses, frames, map};
use cloister_bare::thread::{Context, Options, QUANTUM, prepare, server, start};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 7] = [
    ("exception-page-fault", page_fault),
    ("exception-vectors", vectors),
    ("exception-privileged-instructions", privileged),
    ("exception-pager", pager),
    ("exception-without-handler", no_handler),
    ("exception-in-a-server", in_server),
    ("exception-handler-busy-is-helped", busy_handler),
];

pub(crate) type Code = extern "C" fn(u64) -> !;

/// Declares code that begins with the instruction under test. `rdi` is the argument.
macro_rules! code {
    ($($name:ident: $($line:literal),+;)+) => {
        $(#[unsafe(naked)]
        extern "C" fn $name(_: u64) -> ! {
            naked_asm!($($line,)+ "ud2")
        })+
    };
}

/// The store under test.
#[unsafe(naked)]
pub(crate) extern "C" fn store(_: u64) -> ! {
    naked_asm!("mov [rdi], rax", "ud2")
}

code! {
    load: "mov rax, [rdi]";
    jump: "jmp rdi";
    undefined: "ud2";
    divide: "div dil";
    halt: "hlt";
    breakpoint: "int3";
    interrupt: "int 0x80";
    port_in: "in al, 0x60";
    port_out: "out 0x70, al";
    disable: "cli";
    read_msr: "rdmsr";
    write_cr3: "mov cr3, rdi";
    load_gdt: "lgdt [rdi]";
    swap: "swapgs";
    sysret: "sysretq";
    vmrun: "vmrun rax";
    clgi: "clgi";
    vmmcall: "vmmcall";
    single_step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "pushfq", "and qword ptr [rsp], -0x101", "popfq";
}

/// Words of an exception message.
const VECTOR: usize = 0;
const ERROR: usize = 1;
const ADDRESS: usize = 2;
pub(crate) const RIP: usize = 3;
pub(crate) const RFLAGS: usize = 5;
pub(crate) const RAX: usize = 6;
const RDI: usize = 11;

static SEEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
pub(crate) static DONE: AtomicU32 = AtomicU32::new(0);
pub(crate) static RESULT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn seen(word: usize) -> u64 {
    SEEN[word].load(Ordering::Relaxed)
}

/// Where a thread goes on after its exception.
pub(crate) extern "C" fn recovered(value: u64) -> ! {
    RESULT.store(value, Ordering::Relaxed);
    let _ = up(DONE.load(Ordering::Relaxed));
    rest()
}

pub(crate) fn note() {
    for (index, word) in SEEN.iter().enumerate() {
        word.store(message().get(index), Ordering::Relaxed);
    }
}

fn handle(_: u64, header: Header) -> Header {
    note();
    message().set(RIP, recovered as *const () as u64);
    message().set(RDI, header.words() as u64);
    Header::new(WORDS, 0)
}

/// Runs code in a thread with that handler, until the thread has recovered.
pub(crate) fn fault_with(code: Code, argument: u64, handler: cloister_bare::thread::Handler) -> Result<(), Status> {
    let done = semaphore(0)?;
    DONE.store(done, Ordering::Relaxed);
    let pager = server(handler, &Options::default())?;
    let event = pager.portal(0)?;
    let mut thread = prepare(code, argument, &Options { event, ..Options::default() })?;
    start(&mut thread, 100, QUANTUM)?;
    let result = down_for(done, 1_000_000);
    thread.destroy();
    pager.destroy();
    cloister_bare::thread::destroy(done);
    result.map(drop)
}

fn fault(code: Code, argument: u64) -> Outcome {
    fault_with(code, argument, handle)?;
    equal!(RESULT.load(Ordering::Relaxed), WORDS as u64);
    equal!(seen(RIP), code as *const () as u64);
    Ok(())
}

fn page_fault() -> Outcome {
    let hole = addresses(0);
    let text = page_fault as *const () as u64;
    // Error bits: present 0, write 1, user 2, instruction 4.
    let cases: [(Code, u64, u64); 6] = [
        (load, hole, 4),
        (store, hole, 6),
        (store, text, 7),
        (load, 0, 4),
        (load, 0xffff_ffff_8000_0000, 5),
        (load, 0xffff_8000_0010_0000, 5),
    ];
    for (code, address, error) in cases {
        fault(code, address)?;
        equal!((seen(VECTOR), seen(ADDRESS)), (14, address));
        // Whether the kernel's half is present there is the kernel's secret.
        equal!(seen(ERROR) | 1, error | 1);
        check!(address >> 47 != 0 || seen(ERROR) == error);
    }
    // Data are not executable.
    let (data, _) = cloister_bare::memory::pages(0)?;
    fault_with(jump, data, handle)?;
    equal!((seen(VECTOR), seen(ERROR), seen(ADDRESS), seen(RIP)), (14, 0x15, data, data));
    Ok(())
}

static STEPS: AtomicU64 = AtomicU64::new(0);

/// Lets the thread go on after each step.
fn count_steps(id: u64, header: Header) -> Header {
    note();
    if seen(VECTOR) == 1 {
        STEPS.fetch_add(1, Ordering::Relaxed);
        return Header::new(0, 0);
    }
    handle(id, header)
}

fn vectors() -> Outcome {
    fault(undefined, 0)?;
    equal!((seen(VECTOR), seen(ERROR)), (6, 0));
    fault(divide, 0)?;
    equal!(seen(VECTOR), 0);
    fault(load, 1 << 63)?;
    equal!((seen(VECTOR), seen(ERROR)), (13, 0));
    // A breakpoint is reported behind its instruction.
    fault_with(breakpoint, 0, handle)?;
    equal!((seen(VECTOR), seen(RIP)), (3, breakpoint as *const () as u64 + 1));
    fault(interrupt, 0)?;
    // The error code names the table's entry; some emulators count it twice as large.
    equal!((seen(VECTOR), seen(ERROR) & 7), (13, 2));
    STEPS.store(0, Ordering::Relaxed);
    fault_with(single_step, 0, count_steps)?;
    equal!((seen(VECTOR), STEPS.load(Ordering::Relaxed)), (6, 4));
    Ok(())
}

fn privileged() -> Outcome {
    let thirteen: [Code; 10] = [halt, port_in, port_out, disable, read_msr, write_cr3, load_gdt, swap, sysret, load];
    for code in thirteen {
        fault(code, 0x8000_0000_0000_0000)?;
        equal!(seen(VECTOR), 13);
    }
    let svm: [Code; 3] = [vmrun, clgi, vmmcall];
    for code in svm {
        fault(code, 0)?;
        check!(matches!(seen(VECTOR), 6 | 13));
    }
    Ok(())
}

static PAGE_AT: AtomicU64 = AtomicU64::new(0);

/// Maps what was missing, and lets the thread try again.
fn fill(_: u64, _: Header) -> Header {
    note();
    if seen(VECTOR) == 14 {
        let _ = map(PAGE_AT.load(Ordering::Relaxed), seen(ADDRESS) & !(PAGE - 1), 0, rights());
        return Header::new(0, 0);
    }
    handle(0, Header::new(WORDS, 0))
}

fn rights() -> cloister_abi::cap::Access {
    cloister_abi::cap::Access::READ | cloister_abi::cap::Access::WRITE
}

fn pager() -> Outcome {
    PAGE_AT.store(frames(0), Ordering::Relaxed);
    let hole = addresses(0);
    // After the store comes the undefined instruction, at which the thread recovers.
    fault_with(store, hole + 8, fill)?;
    equal!((seen(VECTOR), seen(RIP)), (6, store as *const () as u64 + 3));
    Ok(())
}

fn run_without_handler(code: Code, event: u32) -> Result<Context, Status> {
    let mut thread = prepare(code, 0, &Options { event, ..Options::default() })?;
    start(&mut thread, 100, QUANTUM)?;
    Ok(thread)
}

fn no_handler() -> Outcome {
    run_without_handler(undefined, NONE)?.destroy();
    run_without_handler(load, NONE)?.destroy();
    // A handler that was destroyed is none.
    let pager = server(handle, &Options::default())?;
    let event = pager.portal(0)?;
    let mut thread = prepare(undefined, 0, &Options { event, ..Options::default() })?;
    pager.destroy();
    start(&mut thread, 100, QUANTUM)?;
    thread.destroy();
    Ok(())
}

fn crash(_: u64, _: Header) -> Header {
    undefined(0)
}

/// Whoever called a server that crashes is told.
fn in_server() -> Outcome {
    let context = server(crash, &Options::default())?;
    let portal = context.portal(0)?;
    equal!(ipc(portal, 0, 0), Err(Status::Aborted));
    check!(matches!(ipc(portal, 0, 0), Err(Status::Aborted | Status::BadCapability)));
    context.destroy();
    Ok(())
}

static GATE: AtomicU32 = AtomicU32::new(0);

/// As [`handle`], but lets nobody through before the gate opens.
fn gated(id: u64, header: Header) -> Header {
    let vector = message().get(VECTOR);
    let _ = crate::make::down(GATE.load(Ordering::Relaxed));
    SUM.fetch_add(vector, Ordering::Relaxed);
    handle(id, header)
}

static SUM: AtomicU64 = AtomicU64::new(0);

/// Threads whose handler is busy with another one wait for it, instead of being stopped.
fn busy_handler() -> Outcome {
    let (done, gate) = (semaphore(0)?, semaphore(0)?);
    DONE.store(done, Ordering::Relaxed);
    GATE.store(gate, Ordering::Relaxed);
    SUM.store(0, Ordering::Relaxed);
    let pager = server(gated, &Options::default())?;
    let codes: [Code; 4] = [undefined, breakpoint, load, divide];
    let mut threads = [None, None, None, None];
    for (thread, code) in threads.iter_mut().zip(codes) {
        let event = pager.portal(0)?;
        let mut new = prepare(code, 0, &Options { event, ..Options::default() })?;
        start(&mut new, 100, QUANTUM)?;
        *thread = Some(new);
    }
    equal!(down_for(done, 5_000), Err(Status::Timeout));
    for _ in &codes {
        up(gate)?;
        check!(down_for(done, 1_000_000).is_ok());
    }
    // Each came with its own vector, once.
    equal!(SUM.load(Ordering::Relaxed), 6 + 3 + 14);
    threads.iter().flatten().for_each(Context::destroy);
    pager.destroy();
    [done, gate].into_iter().for_each(cloister_bare::thread::destroy);
    Ok(())
}
