// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector state: saving, restoring, and letting nobody but its owner see it.
//!
//! The unit is switched lazily: CR0.TS is set while the current EC does not own the state in the registers. Where that does not hide them from
//! what is executed ahead, they are changed with the address space ([`crate::percore::Core::hide_fpu`]). Which components there are,
//! and by which instructions they go, is decided by [`cloister_processor::xsave`] so that each area fits in a frame.
//!
//! XSAVEOPT and XSAVES leave out what did not change since XRSTOR from the same address. That is right here, because an area is saved to only by
//! the owner that was restored from it: an owner that goes is forgotten before its frame is another's, and an area that is written
//! otherwise (a monitor's image) belongs to nobody's registers then.
//!
//! Sources: AMD APM vol. 2, 11.5 (XSAVE); vol. 1, 11.4; Intel SDM vol. 1, 13.11 (XSAVES).

use super::cpu::{self, cpuid, feature};
use crate::width::low32;
use cloister_mechanism::FRAME;
use cloister_processor::xsave::{Component, FXSAVE, Layout, Method, choose, usable};
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use x86::msr::wrmsr;

const XSS: u32 = 0xda0;
/// Words of an area: the two halves of the header that restoring looks at.
const XCOMP_BV: usize = 65;

/// The command line wants the standard format (`xsave=standard`).
static STANDARD: AtomicBool = AtomicBool::new(false);
static METHOD: AtomicU8 = AtomicU8::new(Method::Fxsave as u8);
static MASK: AtomicU64 = AtomicU64::new(FXSAVE.mask);

/// Components that are switched on in the host (XCR0).
pub(crate) fn mask() -> u64 {
    MASK.load(Relaxed)
}

fn is(method: Method) -> bool {
    METHOD.load(Relaxed) == method as u8
}

/// What this processor is to do.
fn layout() -> Layout {
    if !cpu::has(feature::XSAVE) {
        return FXSAVE;
    }
    let (low, high) = (cpuid(0xd, 0)[0], cpuid(0xd, 0)[3]);
    let component = |index| {
        let [size, offset, flags, _] = cpuid(0xd, index);
        Component::of(size, offset, flags)
    };
    let instructions = usable(cpuid(0xd, 1)[0], cpu::features(), STANDARD.load(Relaxed));
    choose(u64::from(low) | u64::from(high) << 32, instructions, component, low32(FRAME as u64))
}

/// Reads the command line.
pub(crate) fn init(command_line: &str) {
    STANDARD.store(command_line.split_ascii_whitespace().any(|word| word == "xsave=standard"), Relaxed);
}

/// Switches the components on, on the core that runs.
pub(crate) fn init_core() {
    let layout = layout();
    MASK.store(layout.mask, Relaxed);
    METHOD.store(layout.method as u8, Relaxed);
    if layout.method != Method::Fxsave {
        // SAFETY: the mask has only components that the processor lists, with x87 and SSE among them.
        unsafe { write_xcr0(layout.mask) };
    }
    if layout.method == Method::Supervisor {
        // SAFETY: the register exists where XSAVES does; no supervisor component is used.
        unsafe { wrmsr(XSS, 0) };
    }
}

/// Tells what was decided.
pub(crate) fn announce() {
    let layout = layout();
    log::info!("floating point: {}, components {:#x}, {} bytes", layout.method.name(), layout.mask, layout.size);
    if layout.dropped != 0 {
        log::warn!(
            "floating point: components {:#x} are not offered, their state is larger than a frame",
            layout.dropped
        );
    }
}

/// Writes XCR0.
///
/// # Safety
/// The mask is one that the processor allows.
pub(crate) unsafe fn write_xcr0(mask: u64) {
    let (low, high) = (low32(mask), low32(mask >> 32));
    // SAFETY: the caller vouches for the mask.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack)) };
}

/// Lets floating-point instructions trap, or not.
#[inline]
pub(crate) fn set_trap(trap: bool) {
    if trap {
        // SAFETY: sets TS and nothing else.
        unsafe { asm!("mov {tmp}, cr0", "or {tmp}, 8", "mov cr0, {tmp}", tmp = out(reg) _, options(nomem, nostack)) };
    } else {
        // SAFETY: clears TS and nothing else.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
}

/// Initial state in an area that is zeroed: control words as after reset (x87 0x37f, MXCSR 0x1f80).
pub(crate) fn initialize(area: NonNull<u8>) {
    // SAFETY: the area is a frame, the legacy region is its first 512 bytes, and the x87 control word its first two.
    unsafe { area.cast::<u16>().write(0x37f) };
    // SAFETY: as above, with MXCSR at byte 24.
    unsafe { area.as_ptr().wrapping_add(24).cast::<u32>().write(0x1f80) };
    adopt(area);
}

/// Makes an area whose header is in the standard format one that is restored here.
pub(crate) fn adopt(area: NonNull<u8>) {
    let format = if is(Method::Supervisor) || is(Method::Compacted) { 1 << 63 | mask() } else { 0 };
    // SAFETY: the header is in the area, which is a frame of the owner's.
    unsafe { area.cast::<u64>().as_ptr().wrapping_add(XCOMP_BV).write(format) };
}

macro_rules! with_area {
    ($instruction:literal, $area:expr, $low:expr, $high:expr) => {
        // SAFETY: the caller vouches for the area, which is 64-byte aligned and large enough for all components of XCR0; its header was
        // zeroed at first and written by these instructions since.
        unsafe {
            asm!($instruction, in(reg) $area.as_ptr(), in("eax") $low, in("edx") $high, options(nostack, preserves_flags))
        }
    };
}

/// Saves the registers to an area.
///
/// # Safety
/// The area is a frame of the owner of what is in the registers, and that from which they were restored; the trap is off.
pub(crate) unsafe fn save(area: NonNull<u8>) {
    let (low, high) = (low32(mask()), low32(mask() >> 32));
    match METHOD.load(Relaxed) {
        method if method == Method::Supervisor as u8 => with_area!("xsaves64 [{}]", area, low, high),
        method if method == Method::Compacted as u8 => with_area!("xsavec64 [{}]", area, low, high),
        method if method == Method::Optimized as u8 => with_area!("xsaveopt64 [{}]", area, low, high),
        method if method == Method::Xsave as u8 => with_area!("xsave64 [{}]", area, low, high),
        _ => with_area!("fxsave64 [{}]", area, low, high),
    }
}

/// Loads the registers from an area.
///
/// # Safety
/// The area holds state that `save` or `initialize` wrote, or an image that was `adopt`ed; the trap is off.
pub(crate) unsafe fn restore(area: NonNull<u8>) {
    let (low, high) = (low32(mask()), low32(mask() >> 32));
    if is(Method::Fxsave) {
        with_area!("fxrstor64 [{}]", area, low, high);
    } else if is(Method::Supervisor) {
        with_area!("xrstors64 [{}]", area, low, high);
    } else {
        with_area!("xrstor64 [{}]", area, low, high);
    }
}

/// An area all of whose components are in their initial state.
#[repr(C, align(64))]
struct Nothing([u64; NOTHING]);
/// The legacy region and the header; more is not read of what is in its initial state.
const NOTHING: usize = 576 / 8;

/// Loads the registers with nothing.
pub(crate) fn clear() {
    let mut nothing = Nothing([0; NOTHING]);
    let area = NonNull::from(&mut nothing.0).cast();
    initialize(area);
    // SAFETY: just initialized, and nothing beyond it is read.
    unsafe { restore(area) };
}
