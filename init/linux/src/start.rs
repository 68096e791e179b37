// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a program on Cloister: from the framework's start (a stack, and the parent at a selector) to libc's start (a stack
//! with arguments, environment and auxiliary vector).

use crate::program::{self, LAYOUT};
use crate::{arch, env};
use cloister_base::Error;
use cloister_base::sessions::Text;
use cloister_personality::clock::Clock;
use cloister_personality::memory::{PAGE, Request};
use cloister_personality::stack::{self, Content, auxv};
use cloister_personality::{Errno, Kernel, Prot};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

/// Stack of the first thread, bytes.
const STACK: u64 = 256 << 10;
/// What libc and `std` need until the program's `main` runs, bytes.
const LIBC: u64 = 256 << 10;
/// Bytes at its end in which arguments and environment are put.
const STRINGS: u64 = PAGE;
/// What glibc and `std` are told: one heap for all threads, no restartable sequences, and stacks that cost little (memory
/// is there from the start, not when it is touched).
const ENVIRONMENT: [&str; 3] =
    ["GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.pthread.rseq=0", "RUST_MIN_STACK=262144", "RUST_BACKTRACE=0"];
/// Longest message about a start that failed, bytes.
const LINE: usize = 160;
/// Name of the program.
const NAME: &str = "program";

static ON_CLOISTER: AtomicBool = AtomicBool::new(false);

/// Whether the program runs as a component of Cloister.
#[must_use]
pub fn is_cloister() -> bool {
    ON_CLOISTER.load(Ordering::Relaxed)
}

/// First Rust code of the program, on the stack that the parent made. Answers the stack pointer for libc's start.
pub(crate) extern "sysv64" fn boot() -> u64 {
    // SAFETY: nothing came before, and this function calls nothing else before.
    unsafe { arch::relocate() };
    match prepare() {
        Ok(stack) => stack,
        Err(error) => {
            let mut line = Text::<LINE>::new();
            // Each error fits; a text that is cut says enough.
            let _ = write!(line, "the program can't be started: {error}");
            let _ = env::log().write(&line);
            env::exit(-1, &line)
        }
    }
}

fn prepare() -> Result<u64, Error> {
    env::fetch()?;
    ON_CLOISTER.store(true, Ordering::Relaxed);
    arch::prepare();
    arch::set_slot(0);
    env::pd().reserve(Some(LAYOUT.start), LAYOUT.end - LAYOUT.start)?;
    env::pd().reserve(Some(LAYOUT.brk_start), LAYOUT.brk_end - LAYOUT.brk_start)?;
    let info = env::cpu().info()?;
    let mut prepared = Ok(());
    // SAFETY: this is the first thread, and libc has not been started.
    unsafe {
        program::set_up(Clock::new(info.tsc_hz, info.boot_time), |world| prepared = world.prepare(info.cores));
    }
    prepared?;
    bounce_here();
    // Said here, where it can be said: libc's start crashes without memory.
    let left = available();
    let out_of_ram = Error::OutOfRam { needed: STACK + LIBC, available: left };
    if left < STACK + LIBC {
        return Err(out_of_ram);
    }
    first_stack().map_err(|_| out_of_ram)
}

/// RAM that is left, bytes.
fn available() -> u64 {
    env::pd().quota().map_or(0, |quota| quota.ram_available())
}

/// Tells the kernel where system calls of the first thread go.
pub(crate) fn bounce_here() {
    // SAFETY: the page belongs to this thread, and nobody else refers to it here.
    unsafe { (*cloister_stubs::utcb()).foreign_entry = arch::entry_address() };
}

/// Makes the first thread's stack. Answers its stack pointer.
pub(crate) fn first_stack() -> Result<u64, Errno> {
    let program = program::program();
    let kernel = program.kernel();
    let mut memory = program.memory();
    // A page that is not mapped below.
    let area = Request { size: STACK + PAGE, prot: Prot::None, fixed: None, stack: true };
    let base = memory.map(kernel, &area)?;
    memory.protect(kernel, base + PAGE, STACK, Prot::Write)?;
    drop(memory);
    let mut random = [0; 16];
    for (to, from) in
        random.iter_mut().zip([kernel.entropy(), kernel.entropy()].iter().flat_map(|word| word.to_ne_bytes()))
    {
        *to = from;
    }
    let [first, second] = arch::auxiliary();
    let [headers, size, count] = program_headers();
    let auxv = [
        (auxv::PHDR, headers),
        (auxv::PHENT, size),
        (auxv::PHNUM, count),
        (auxv::PAGESZ, PAGE),
        (auxv::ENTRY, arch::libc_start()),
        (auxv::UID, 0),
        (auxv::EUID, 0),
        (auxv::GID, 0),
        (auxv::EGID, 0),
        (auxv::CLKTCK, 100),
        (auxv::SECURE, 0),
        first,
        second,
    ];
    let content = Content { args: &[NAME], env: &ENVIRONMENT, auxv: &auxv, random };
    let strings = base + PAGE + STACK - STRINGS;
    let address = usize::try_from(strings).map_err(|_| Errno::NOMEM)?;
    let size = usize::try_from(STRINGS).map_err(|_| Errno::NOMEM)?;
    // SAFETY: the stack was mapped just now, and nobody else knows of it.
    let bytes = unsafe { core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(address), size) };
    stack::build(bytes, strings, &content)
}

/// Address, entry size and number of the program headers, out of the ELF header that the linker put at the image's start
/// (ELF-64 object file format, section 4).
fn program_headers() -> [u64; 3] {
    let header = arch::image_header();
    if header == 0 {
        return [0; 3];
    }
    let kernel = program::program().kernel();
    let (mut offset, mut size, mut count) = ([0; 8], [0; 2], [0; 2]);
    kernel.read(header + 32, &mut offset);
    kernel.read(header + 54, &mut size);
    kernel.read(header + 56, &mut count);
    [header + u64::from_le_bytes(offset), u16::from_le_bytes(size).into(), u16::from_le_bytes(count).into()]
}
