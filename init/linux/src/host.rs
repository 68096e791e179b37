// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Kernel`] of the personality on Linux, for tests of it without the machine.
//!
//! Linux plays the microhypervisor: "syscall user dispatch" raises SIGSYS for each system call of the program that does not
//! come out of this module's own instructions, and the handler does what the bounce does: notes where the call came
//! from in a message page (found by GS, as on Cloister), and goes on at the entry. So the entry, the start of
//! threads and all of the personality run as they do on the machine; dataspaces are memory files, semaphores are futexes.

use crate::{access, arch, program, start};
use cloister_abi::utcb::Utcb;
use cloister_personality::clock::{Clock, SECOND};
use cloister_personality::threads::SLOTS;
use cloister_personality::{Errno, Handle, Kernel, Prot, Rom, Start};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

// All instructions that really call Linux lie between two labels, which Linux lets pass.
global_asm!(
    ".global cloister_host_first",
    ".global cloister_host_last",
    "cloister_host_first:",
    // number, then six arguments
    ".global cloister_host_syscall",
    "cloister_host_syscall:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    "ret",
    // stack, message page
    ".global cloister_host_clone",
    "cloister_host_clone:",
    "mov r9, rsi",
    "mov rsi, rdi",
    "mov edi, 0x50f00",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "ret",
    "2:",
    "wrgsbase r9",
    "mov edi, 59",
    "mov esi, 1",
    "lea rdx, [rip + cloister_host_first]",
    "lea r10, [rip + cloister_host_last]",
    "sub r10, rdx",
    "xor r8d, r8d",
    "mov eax, 157",
    "syscall",
    "jmp cloister_thread",
    ".global cloister_host_restore",
    "cloister_host_restore:",
    "mov eax, 15",
    "syscall",
    "ud2",
    "cloister_host_last:",
);

unsafe extern "sysv64" {
    safe fn cloister_host_first();
    safe fn cloister_host_last();
    fn cloister_host_syscall(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
    fn cloister_host_clone(stack: u64, page: u64) -> i64;
    safe fn cloister_host_restore();
}

struct Pages(UnsafeCell<[Utcb; SLOTS]>);

// SAFETY: each page is used by its thread.
unsafe impl Sync for Pages {}

// SAFETY: a page of zeroes is a page.
static PAGES: Pages = Pages(UnsafeCell::new(unsafe { core::mem::zeroed() }));

/// Address of a slot's message page, made ready.
fn page(slot: usize) -> u64 {
    // SAFETY: the thread of the slot is not running yet.
    let pages = unsafe { &mut *PAGES.0.get() };
    let Some(page) = pages.get_mut(slot) else { return 0 };
    page.this = core::ptr::from_mut(page).expose_provenance() as u64;
    page.this
}

fn syscall(number: u64, args: [u64; 6]) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: this module asks Linux only for what a `Kernel` is asked for.
    let result = unsafe { cloister_host_syscall(number, a, b, c, d, e, f) };
    u64::try_from(result).map_err(|_| Errno(i32::try_from(-result).unwrap_or(0)))
}

/// Registers of an interrupted thread (`ucontext_t`): flags, link, alternate stack, then the general registers.
#[repr(C)]
struct Context {
    before: [u64; 5],
    registers: [u64; 23],
}

const IP: usize = 16;
const FLAGS: usize = 17;

/// What the kernel's bounce does.
extern "sysv64" fn bounced(_: u32, _: *const u8, context: &mut Context) {
    let (ip, flags) = (context.registers[IP], context.registers[FLAGS]);
    // SAFETY: GS points at this thread's message page, since `boot` or the start of the thread.
    unsafe {
        asm!(
            "mov gs:[{return}], {ip}",
            "mov gs:[{saved}], {flags}",
            "mov {ip}, gs:[{entry}]",
            return = const offset_of!(Utcb, foreign_return),
            saved = const offset_of!(Utcb, foreign_flags),
            entry = const offset_of!(Utcb, foreign_entry),
            ip = inout(reg) ip => context.registers[IP],
            flags = in(reg) flags,
            options(nostack),
        );
    }
}

/// First code of the program on Linux. Answers the stack for libc's start.
pub(crate) extern "sysv64" fn boot() -> u64 {
    const SIGSYS: u64 = 31;
    /// `SA_SIGINFO | SA_RESTORER | SA_NODEFER`
    const FLAGS: u64 = 4 | 0x0400_0000 | 0x4000_0000;
    // SAFETY: nothing came before.
    unsafe { arch::relocate() };
    arch::prepare();
    // SAFETY: the page is this thread's.
    unsafe { asm!("wrgsbase {}", in(reg) page(0), options(nostack, preserves_flags)) };
    arch::set_slot(0);
    // SAFETY: this is the first thread, and libc has not been started.
    unsafe { program::set_up(Clock::new(SECOND, 0), |_| ()) };
    start::bounce_here();
    let handler: extern "sysv64" fn(u32, *const u8, &mut Context) = bounced;
    let action = [handler as usize as u64, FLAGS, address(cloister_host_restore), 0];
    let set = syscall(13, [SIGSYS, core::ptr::from_ref(&action).expose_provenance() as u64, 0, 8, 0, 0]);
    let first = address(cloister_host_first);
    let on = set.and_then(|_| syscall(157, [59, 1, first, address(cloister_host_last) - first, 0, 0]));
    match on.and_then(|_| start::first_stack()) {
        Ok(stack) => stack,
        Err(Errno(code)) => {
            program::program().kernel().exit(code);
            0
        }
    }
}

fn address(function: extern "sysv64" fn()) -> u64 {
    function as usize as u64
}

static TOKENS: [AtomicU32; SLOTS] = [const { AtomicU32::new(0) }; SLOTS];
static MADE: [AtomicU32; SLOTS] = [const { AtomicU32::new(0) }; SLOTS];

/// The world of a test.
#[derive(Debug)]
pub(crate) struct Host;

impl Host {
    pub(crate) const fn new() -> Self {
        Self
    }

    /// Nothing to prepare: the program does not run on Cloister.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "takes the place of the component's world")]
    pub(crate) fn prepare(&mut self, _: u32) -> Result<(), cloister_base::Error> {
        Ok(())
    }

    fn token(slot: usize) -> &'static AtomicU32 {
        TOKENS.get(slot).unwrap_or(&TOKENS[0])
    }
}

fn word(token: &AtomicU32) -> u64 {
    core::ptr::from_ref(token).expose_provenance() as u64
}

impl Kernel for Host {
    fn ram_alloc(&self, size: u64, _: u64) -> Result<Handle, Errno> {
        let fd = syscall(319, [c"ram".as_ptr().expose_provenance() as u64, 0, 0, 0, 0, 0])?;
        syscall(77, [fd, size, 0, 0, 0, 0])?;
        u32::try_from(fd).map(Handle).map_err(|_| Errno::MFILE)
    }

    fn ram_free(&self, ram: Handle) {
        let _ = syscall(3, [ram.0.into(), 0, 0, 0, 0, 0]);
    }

    fn attach(&self, ds: Handle, offset: u64, address: u64, size: u64, prot: Prot) -> Result<(), Errno> {
        let rights = match prot {
            Prot::None => 0,
            Prot::Read => 1,
            Prot::Write => 3,
            Prot::Exec => 5,
        };
        // MAP_SHARED | MAP_FIXED_NOREPLACE
        syscall(9, [address, size, rights, 0x10_0001, ds.0.into(), offset]).map(|_| ())
    }

    fn detach(&self, address: u64, size: u64) {
        let _ = syscall(11, [address, size, 0, 0, 0, 0]);
    }

    fn rom_open(&self, name: &str) -> Result<Rom, Errno> {
        let mut path = [0; 200];
        for (to, from) in path.iter_mut().zip(b"rom/".iter().chain(name.as_bytes())) {
            *to = *from;
        }
        let at = path.as_ptr().expose_provenance() as u64;
        let fd = syscall(2, [at, 0, 0, 0, 0, 0])?;
        let size = syscall(8, [fd, 0, 2, 0, 0, 0])?;
        Ok(Rom { handle: Handle(u32::try_from(fd).map_err(|_| Errno::MFILE)?), size })
    }

    fn rom_close(&self, rom: Handle) {
        self.ram_free(rom);
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        access::read(address, bytes);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        access::write(address, bytes);
    }

    fn copy(&self, to: u64, from: u64, size: u64) {
        access::copy(to, from, size);
    }

    fn zero(&self, address: u64, size: u64) {
        access::zero(address, size);
    }

    fn load(&self, address: u64) -> u32 {
        access::load(address)
    }

    fn store(&self, address: u64, value: u32) {
        access::store(address, value);
    }

    fn current(&self) -> usize {
        arch::slot()
    }

    fn wait(&self, deadline: Option<u64>) -> bool {
        let token = Self::token(arch::slot());
        loop {
            if token.swap(0, Ordering::AcqRel) != 0 {
                return true;
            }
            let time = deadline.map(|deadline| [deadline / SECOND, deadline % SECOND]);
            let at = time.as_ref().map_or(0, |time| core::ptr::from_ref(time).expose_provenance() as u64);
            // FUTEX_WAIT_BITSET: an absolute time.
            let waited = syscall(202, [word(token), 9, 0, at, 0, u64::from(u32::MAX)]);
            if waited == Err(Errno::TIMEDOUT) {
                return false;
            }
        }
    }

    fn wake(&self, slot: usize) {
        let token = Self::token(slot);
        token.store(1, Ordering::Release);
        let _ = syscall(202, [word(token), 1, 1, 0, 0, 0]);
    }

    fn relax(&self) {
        let _ = syscall(24, [0; 6]);
    }

    fn spawn(&self, slot: usize, start: &Start) -> Result<(), Errno> {
        // SAFETY: the personality hands on what `program::dispatch` gave it, and libc made the stack for the thread.
        let stack = unsafe { arch::prepare_thread(slot, start) }?;
        if slot == 0 || MADE.get(slot).is_some_and(|made| made.swap(1, Ordering::AcqRel) != 0) {
            program::restart(slot, stack);
            return Ok(());
        }
        // SAFETY: the stack was prepared for a thread that starts where this one does.
        let made = unsafe { cloister_host_clone(stack, page(slot)) };
        if made < 0 { Err(Errno::AGAIN) } else { Ok(()) }
    }

    fn processors(&self) -> usize {
        2
    }

    fn ticks(&self) -> u64 {
        let mut time = [0_u64; 2];
        let _ = syscall(228, [1, core::ptr::from_mut(&mut time).expose_provenance() as u64, 0, 0, 0, 0]);
        time[0] * SECOND + time[1]
    }

    fn entropy(&self) -> u64 {
        arch::entropy()
    }

    fn log(&self, line: &[u8]) {
        for part in [b"[log] ".as_slice(), line, b"\n"] {
            let _ = syscall(1, [1, part.as_ptr().expose_provenance() as u64, part.len() as u64, 0, 0, 0]);
        }
    }

    fn exit(&self, code: i32) {
        let _ = syscall(231, [u64::from(code.cast_unsigned()), 0, 0, 0, 0, 0]);
    }
}
