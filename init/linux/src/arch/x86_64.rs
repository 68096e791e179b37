// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64: what Rust sees of the instructions in [`super::entry_x86_64`]; processor features; relocations of libc.

use super::entry_x86_64::SLOT_WORD;
use cloister_personality::stack::auxv;
use cloister_personality::{Errno, Start};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc, _xgetbv};
use core::mem::size_of;

/// Registers of a system call's caller, as the entry pushed them. The caller's stack pointer is [`RED_ZONE`] above.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r9: u64,
    r8: u64,
    r10: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    flags: u64,
    ip: u64,
}

/// Bytes below the stack pointer that belong to the caller.
const RED_ZONE: u64 = 128;

impl Frame {
    /// Arguments of the system call.
    pub(crate) const fn arguments(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }
}

/// What a new thread finds at its stack pointer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct ThreadBlock {
    foreign_entry: u64,
    slot: u64,
    tls: u64,
    mxcsr: u32,
    fpu_control: u32,
    frame: Frame,
}

unsafe extern "C" {
    fn cloister_entry_xsave();
    fn cloister_entry_fxsave();
    #[cfg(not(feature = "on-linux"))]
    fn cloister_thread();
    fn cloister_leave() -> !;
}

/// State components that are saved: SSE, AVX, and the three of AVX-512 (Intel SDM vol. 1, section 13.1).
const VECTOR_STATES: u64 = 0xe6;

fn has_xsave() -> bool {
    // CPUID 1, ECX bit 27: the system has switched XSAVE on.
    __cpuid(1).ecx >> 27 & 1 == 1
}

/// Finds out how vector state is saved. Once, before the first bounced system call.
pub(crate) fn prepare() {
    if !has_xsave() {
        return;
    }
    // SAFETY: XSAVE is on, so the instruction exists.
    let on = unsafe { xgetbv() };
    let mask = on & VECTOR_STATES;
    let mut size = 512 + 64;
    for component in 2..8 {
        if mask >> component & 1 == 1 {
            // EAX: size, EBX: offset in the standard form.
            let place = __cpuid_count(0xd, component);
            size = size.max(u64::from(place.eax) + u64::from(place.ebx));
        }
    }
    // SAFETY: the two words are read by the entry only, which is not in use yet.
    unsafe {
        asm!(
            "mov [rip + cloister_vector_state], {size}",
            "mov [rip + cloister_vector_state + 8], {mask}",
            size = in(reg) size,
            mask = in(reg) mask,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// XSAVE is on.
#[target_feature(enable = "xsave")]
unsafe fn xgetbv() -> u64 {
    // SAFETY: the caller's word.
    unsafe { _xgetbv(0) }
}

/// Where the kernel sends system calls that are not its own.
pub(crate) fn entry_address() -> u64 {
    let entry: unsafe extern "C" fn() = if has_xsave() { cloister_entry_xsave } else { cloister_entry_fxsave };
    entry as usize as u64
}

#[cfg(not(feature = "on-linux"))]
/// Where a thread starts whose stack pointer [`prepare_thread`] made.
pub(crate) fn thread_start() -> u64 {
    let start: unsafe extern "C" fn() = cloister_thread;
    start as usize as u64
}

/// Puts onto a new thread's stack what it starts with: the registers of its maker, result 0. Answers the stack pointer to
/// start with.
///
/// # Errors
/// `INVAL` for a stack that is not aligned or too low in memory to be one.
///
/// # Safety
/// `start.frame` is the address of the frame of the calling thread's system call, and the memory below `start.stack` is
/// the new thread's.
pub(crate) unsafe fn prepare_thread(slot: usize, start: &Start) -> Result<u64, Errno> {
    let block = start.stack.checked_sub(RED_ZONE + size_of::<ThreadBlock>() as u64).ok_or(Errno::INVAL)?;
    if block % 8 != 0 || block < 4096 {
        return Err(Errno::INVAL);
    }
    let (mut mxcsr, mut fpu_control) = (0_u32, 0_u32);
    // SAFETY: stores two control registers.
    unsafe {
        asm!(
            "stmxcsr [{mxcsr}]",
            "fnstcw [{fpu}]",
            mxcsr = in(reg) &raw mut mxcsr,
            fpu = in(reg) &raw mut fpu_control,
            options(nostack, preserves_flags),
        );
    }
    // SAFETY: the caller's word.
    let frame = unsafe { *pointer::<Frame>(start.frame) };
    let content =
        ThreadBlock { foreign_entry: entry_address(), slot: slot as u64, tls: start.tls, mxcsr, fpu_control, frame };
    // SAFETY: the caller's word; alignment was checked.
    unsafe { pointer::<ThreadBlock>(block).write(content) };
    Ok(block)
}

/// The calling thread ends: goes on on its message page, with [`crate::program::thread_ended`].
///
/// # Safety
/// Nothing on the present stack is needed any more.
pub(crate) unsafe fn leave_stack() -> ! {
    // SAFETY: the caller's word; the message page's words are not in use outside of session calls.
    unsafe { cloister_leave() }
}

/// Slot of the calling thread.
pub(crate) fn slot() -> usize {
    usize::try_from(cloister_base::env::local(SLOT_WORD)).unwrap_or(0)
}

/// Sets the slot of the calling thread.
pub(crate) fn set_slot(slot: usize) {
    // The page has that word.
    let _ = cloister_base::env::set_local(SLOT_WORD, slot as u64);
}

/// Sets the calling thread's thread pointer (FS base).
pub(crate) fn set_thread_pointer(address: u64) {
    // SAFETY: nothing in here uses FS; the program asked for it.
    unsafe { asm!("wrfsbase {}", in(reg) address, options(nostack, preserves_flags)) };
}

/// The calling thread's thread pointer (FS base).
pub(crate) fn thread_pointer() -> u64 {
    let address: u64;
    // SAFETY: reads a register.
    unsafe { asm!("rdfsbase {}", out(reg) address, options(nostack, preserves_flags, nomem)) };
    address
}

/// Auxiliary entries about the processor: features as Linux shows them.
pub(crate) fn auxiliary() -> [(u64, u64); 2] {
    const FSGSBASE: u64 = 2;
    [(auxv::HWCAP, u64::from(__cpuid(1).edx)), (auxv::HWCAP2, FSGSBASE)]
}

/// Bits from the hardware generator if there is one, always with the time-stamp counter mixed in.
pub(crate) fn entropy() -> u64 {
    // SAFETY: reads a counter.
    let ticks = unsafe { _rdtsc() };
    let seed = (__cpuid_count(7, 0).ebx >> 18 & 1 == 1).then(rdseed).flatten();
    let random = seed.or_else(|| (__cpuid(1).ecx >> 30 & 1 == 1).then(rdrand).flatten());
    random.unwrap_or(0) ^ ticks.rotate_left(32)
}

/// How often a hardware generator is asked before it counts as failed (Intel SDM vol. 1, section 7.3.17).
const TRIES: u32 = 10;

fn rdseed() -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let (value, done): (u64, u8);
        // SAFETY: the caller found the instruction to exist.
        unsafe { asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) done, options(nostack, nomem)) };
        (done == 1).then_some(value)
    })
}

fn rdrand() -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let (value, done): (u64, u8);
        // SAFETY: the caller found the instruction to exist.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) done, options(nostack, nomem)) };
        (done == 1).then_some(value)
    })
}

/// Address of libc's own start.
pub(crate) fn libc_start() -> u64 {
    let address: u64;
    // SAFETY: reads the linker's table.
    unsafe {
        asm!("mov {}, qword ptr [rip + _start@GOTPCREL]", out(reg) address, options(nostack, preserves_flags, readonly));
    }
    address
}

/// Address of the program's ELF header in memory, 0 if the linker left it out.
pub(crate) fn image_header() -> u64 {
    let address: u64;
    // SAFETY: reads the linker's table.
    unsafe {
        asm!(
            ".weak __ehdr_start",
            "mov {}, qword ptr [rip + __ehdr_start@GOTPCREL]",
            out(reg) address,
            options(nostack, preserves_flags, readonly),
        );
    }
    address
}

/// An entry of the table of indirect functions (`Elf64_Rela`).
#[repr(C)]
struct Relocation {
    place: u64,
    info: u64,
    resolver: u64,
}

/// Resolves libc's indirect functions (`memcpy` and its kin choose their variant at the start), because what comes before
/// libc's own start uses them too. libc does the same again later, knowing the processor then; before that its choice is the
/// plainest variant.
///
/// # Safety
/// First of all, by the first thread. Must not call `memcpy` and its kin.
pub(crate) unsafe fn relocate() {
    const IRELATIVE: u64 = 37;
    let (mut at, end): (u64, u64);
    // SAFETY: reads the linker's tables. Programs that are not static have no such symbols; both are 0 then.
    unsafe {
        asm!(
            ".weak __rela_iplt_start",
            ".weak __rela_iplt_end",
            "mov {}, qword ptr [rip + __rela_iplt_start@GOTPCREL]",
            "mov {}, qword ptr [rip + __rela_iplt_end@GOTPCREL]",
            out(reg) at,
            out(reg) end,
            options(nostack, preserves_flags, readonly),
        );
    }
    while at < end {
        // SAFETY: the linker made a table of these between the two symbols.
        let relocation = unsafe { &*pointer::<Relocation>(at).cast_const() };
        if relocation.info & 0xffff_ffff == IRELATIVE {
            let resolver = pointer::<()>(relocation.resolver).cast_const();
            // SAFETY: the linker put the address of a resolver there.
            let resolver = unsafe { core::mem::transmute::<*const (), extern "C" fn() -> u64>(resolver) };
            // SAFETY: the linker names the word that the address of the chosen variant goes to.
            unsafe { pointer::<u64>(relocation.place).write(resolver()) };
        }
        at += size_of::<Relocation>() as u64;
    }
    set_copy_thresholds();
}

/// Gives the plain variants of `memcpy` and its kin the sizes from which on they copy in other ways. glibc sets them from what it
/// knows of the caches, which is nothing yet: with 0 they would take the way for huge copies always, and that way does
/// not work for small ones.
fn set_copy_thresholds() {
    const LARGE: u64 = 768 << 10;
    const REPEAT: u64 = 2048;
    let (non_temporal, stop, movsb, stosb): (u64, u64, u64, u64);
    // SAFETY: reads the linker's table. Where libc has no such variables, the addresses are 0.
    unsafe {
        asm!(
            ".weak __x86_shared_non_temporal_threshold",
            ".weak __x86_rep_movsb_stop_threshold",
            ".weak __x86_rep_movsb_threshold",
            ".weak __x86_rep_stosb_threshold",
            "mov {}, qword ptr [rip + __x86_shared_non_temporal_threshold@GOTPCREL]",
            "mov {}, qword ptr [rip + __x86_rep_movsb_stop_threshold@GOTPCREL]",
            "mov {}, qword ptr [rip + __x86_rep_movsb_threshold@GOTPCREL]",
            "mov {}, qword ptr [rip + __x86_rep_stosb_threshold@GOTPCREL]",
            out(reg) non_temporal,
            out(reg) stop,
            out(reg) movsb,
            out(reg) stosb,
            options(nostack, preserves_flags, readonly),
        );
    }
    for (address, value) in [(non_temporal, LARGE), (stop, LARGE), (movsb, REPEAT), (stosb, REPEAT)] {
        if address != 0 {
            // SAFETY: a `long` of libc, which it sets anew when it starts.
            unsafe { pointer::<u64>(address).write(value) };
        }
    }
}

fn pointer<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
