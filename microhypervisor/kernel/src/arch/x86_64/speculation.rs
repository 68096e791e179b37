// SPDX-License-Identifier: MIT OR Apache-2.0
//! Speculation: reads what the processor is, lets [`cloister_processor::mitigation`] decide, and does it.
//!
//! What must be done on entry and exit is not in the way of processors that need nothing: at boot, before text becomes read-only, an
//! instruction of the entry code is replaced by a jump to a hook ([`super::entry`]). What is done when address spaces change or guests
//! run is behind a test of [`WAYS`], which never changes after boot.

use super::cpu;
use crate::width::low16;
use cloister_processor::mitigation::{Actions, Facts, NAMES, Plan, Policy, Vendor, Verdict, decide};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const ARCH_CAPABILITIES: u32 = 0x10a;
const FLUSH_CMD: u32 = 0x10b;
const IBRS: u32 = 1 << 0;
const STIBP: u32 = 1 << 1;
const SSBD: u32 = 1 << 2;
const BHI_DIS_S: u32 = 1 << 10;
const AUTO_IBRS: u64 = 1 << 21;

/// What is done, as bits of [`Actions`]. The hooks look at it, too.
pub(super) static ACTIONS: AtomicU32 = AtomicU32::new(0);
/// SPEC_CTRL in the kernel, and in user mode.
pub(super) static SPEC_CTRL_KERNEL: AtomicU32 = AtomicU32::new(0);
/// See [`SPEC_CTRL_KERNEL`].
pub(super) static SPEC_CTRL_USER: AtomicU32 = AtomicU32::new(0);

fn any(actions: Actions) -> bool {
    ACTIONS.load(Relaxed) & actions.bits() != 0
}

/// Whether there is something to do on the paths that cannot be patched. Plain bytes, since a test of an atomic one is an instruction more.
struct Ways {
    switch: bool,
    enter_guest: bool,
    leave_guest: bool,
    monitor: bool,
}

/// See [`Ways`].
struct Fixed(UnsafeCell<Ways>);
// SAFETY: written at boot, before a second core runs, and only read since.
unsafe impl Sync for Fixed {}

static WAYS: Fixed =
    Fixed(UnsafeCell::new(Ways { switch: false, enter_guest: false, leave_guest: false, monitor: false }));

#[inline(always)]
fn ways() -> &'static Ways {
    // SAFETY: nothing writes after boot.
    unsafe { &*WAYS.0.get() }
}

/// The processor's numbers.
fn facts() -> Facts {
    let (zero, one) = (__cpuid(0), __cpuid(1));
    let leaf = |number: u32, sub| {
        let max = __cpuid(number & 0x8000_0000).eax;
        if number <= max { __cpuid_count(number, sub) } else { __cpuid_count(0x4fff_ffff, 0) }
    };
    let seven = |sub| (zero.eax >= 7 && (sub == 0 || __cpuid_count(7, 0).eax >= sub)).then(|| __cpuid_count(7, sub));
    let (family, model) = Facts::family_model(one.eax);
    let leaf7_edx = seven(0).map_or(0, |leaf| leaf.edx);
    let extended = __cpuid(0x8000_0000).eax;
    let threads = one.edx >> 28 & 1 != 0 && zero.eax >= 0xb && low16(u64::from(leaf(0xb, 0).ebx)) > 1;
    Facts {
        vendor: Vendor::of(zero.ebx, zero.edx, zero.ecx),
        family,
        model,
        leaf7_edx,
        leaf7_ebx: seven(0).map_or(0, |leaf| leaf.ebx),
        leaf7_2_edx: seven(2).map_or(0, |leaf| leaf.edx),
        extended8_ebx: if extended >= 0x8000_0008 { __cpuid(0x8000_0008).ebx } else { 0 },
        extended21_eax: if extended >= 0x8000_0021 { __cpuid(0x8000_0021).eax } else { 0 },
        extended21_ecx: if extended >= 0x8000_0021 { __cpuid(0x8000_0021).ecx } else { 0 },
        // SAFETY: the register exists where leaf 7 says so.
        capabilities: if leaf7_edx >> 29 & 1 != 0 { unsafe { rdmsr(ARCH_CAPABILITIES) } } else { 0 },
        threads,
        emulated: is_emulated(one.ecx),
    }
}

/// QEMU without acceleration executes one instruction after the other.
pub(super) fn is_emulated(leaf1_ecx: u32) -> bool {
    let leaf = __cpuid(0x4000_0000);
    leaf1_ecx >> 31 != 0 && [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}

/// Decides, and puts the hooks in. Called once, on the boot core, while the kernel's text is still writable.
pub(crate) fn init(cmdline: &str) {
    let plan = decide(&facts(), Policy::parse(cmdline));
    let actions = plan.actions;
    ACTIONS.store(actions.bits(), Relaxed);
    let ways = Ways {
        switch: actions.intersects(Actions::SWITCH_IBPB | Actions::SWITCH_RSB),
        enter_guest: actions.intersects(Actions::GUEST_L1D | Actions::VERW),
        leave_guest: actions.contains(Actions::GUEST_RSB),
        monitor: actions.contains(Actions::GUEST_IBPB),
    };
    // SAFETY: the boot core alone runs, and nobody has looked yet.
    unsafe { *WAYS.0.get() = ways };
    let mut user = if actions.contains(Actions::STIBP) { STIBP } else { 0 };
    user |= if actions.contains(Actions::SSBD) { SSBD } else { 0 };
    user |= if actions.contains(Actions::BHI_DIS) { BHI_DIS_S } else { 0 };
    user |= if actions.contains(Actions::IBRS) { IBRS } else { 0 };
    SPEC_CTRL_USER.store(user, Relaxed);
    SPEC_CTRL_KERNEL.store(if actions.contains(Actions::ENTRY_IBRS) { user | IBRS } else { user }, Relaxed);
    // SAFETY: the caller says that nothing runs but this, and that text is writable.
    unsafe {
        super::entry::patch(
            actions.intersects(Actions::ENTRY_IBRS | Actions::ENTRY_IBPB),
            actions.intersects(Actions::ENTRY_IBRS | Actions::VERW),
            cpu::has_smap(),
        );
    }
    log::info!("speculation: {}", Line(&plan));
}

/// Sets this core's registers.
pub(crate) fn init_core() {
    let control = SPEC_CTRL_KERNEL.load(Relaxed);
    if control != 0 {
        // SAFETY: the bits are there by CPUID, or the plan would not have them.
        unsafe { wrmsr(SPEC_CTRL, u64::from(control)) };
    }
    if any(Actions::AUTO_IBRS) {
        // SAFETY: the register exists in long mode.
        let efer = unsafe { rdmsr(IA32_EFER) };
        // SAFETY: the bit is there by CPUID.
        unsafe { wrmsr(IA32_EFER, efer | AUTO_IBRS) };
    }
}

/// Another address space is about to be loaded.
#[inline]
pub(crate) fn switch() {
    if ways().switch {
        barrier();
    }
}

#[cold]
fn barrier() {
    if any(Actions::SWITCH_IBPB) {
        // SAFETY: the command is there by CPUID.
        unsafe { wrmsr(PRED_CMD, 1) };
    }
    if any(Actions::SWITCH_RSB) {
        fill_return_stack();
    }
}

/// Puts 32 harmless entries into the return-stack buffer.
#[inline(always)]
fn fill_return_stack() {
    // SAFETY: pushes return addresses and takes them off again; each call's target is the one after its trap.
    unsafe {
        asm!(
            "2: call 3f",
            "int3",
            "3: call 4f",
            "int3",
            "4: dec {count:e}",
            "jnz 2b",
            "add rsp, 32 * 8",
            "lfence",
            count = inout(reg) 16u32 => _,
        );
    }
}

/// A guest is about to be entered.
#[inline]
pub(crate) fn enter_guest() {
    if ways().enter_guest {
        clean();
    }
}

#[cold]
fn clean() {
    if any(Actions::GUEST_L1D) {
        // SAFETY: the command is there by CPUID.
        unsafe { wrmsr(FLUSH_CMD, 1) };
    } else {
        let segment = super::percore::KERNEL_CS + 8;
        // SAFETY: asks about a segment; that it overwrites buffers is what it is for.
        unsafe { asm!("verw word ptr [{}]", in(reg) &raw const segment, options(nostack, readonly)) };
    }
}

/// A guest has exited: before anything returns.
#[inline(always)]
pub(crate) fn leave_guest() {
    if ways().leave_guest {
        fill_return_stack();
    }
}

/// The monitor of a guest that ran goes on.
#[inline]
pub(crate) fn return_to_monitor() {
    if ways().monitor {
        // SAFETY: the command is there by CPUID.
        unsafe { wrmsr(PRED_CMD, 1) };
    }
}

/// What is done, what is not, and what need not be, in one line.
struct Line<'a>(&'a Plan);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "on: ";
        let verdicts = || NAMES.iter().zip(self.0.verdicts);
        for (name, verdict) in verdicts() {
            if let Verdict::On(how) = verdict {
                write!(f, "{separator}{name} by {how}")?;
                separator = ", ";
            }
        }
        separator = if separator == ", " { "; open: " } else { "open: " };
        for (name, verdict) in verdicts() {
            if let Verdict::Open(why) = verdict {
                write!(f, "{separator}{name} ({why})")?;
                separator = ", ";
            }
        }
        let none = verdicts().filter(|(_, verdict)| *verdict == Verdict::None).count();
        if none < NAMES.len() { write!(f, "; {none} not needed") } else { f.write_str("nothing is needed") }
    }
}
