// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each core has of its own for the processor's sake: GDT, TSS, kernel stack, GS base.
//!
//! GS base points at the core's [`Head`] in kernel mode and at the current EC's UTCB in user mode; `swapgs` at the border
//! exchanges them. Sources: AMD APM vol. 2, 4.8 (descriptors), 8.2 (vectors), 12.2.5 (TSS), 6.1.1 (STAR).

use super::entry::Way;
use super::idt;
use crate::memory;
use crate::width::low16;
use core::arch::asm;
use core::mem::offset_of;
use x86::bits64::task::TaskStateSegment;
use x86::dtables::{DescriptorTablePointer, lgdt};
use x86::msr::{IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_STAR, wrmsr};
use x86::segmentation::SegmentSelector;
use x86::task::load_tr;

/// Size of a kernel stack, bytes.
pub(crate) const STACK_SIZE: usize = 32 * 1024;

/// A kernel stack, with a page before it that is not mapped: who runs over its end faults instead of writing elsewhere.
#[repr(C, align(4096))]
pub(crate) struct Stack {
    guard: [u8; GUARD],
    body: core::cell::UnsafeCell<[u8; STACK_SIZE]>,
}

const GUARD: usize = 4096;

// SAFETY: only the core that runs on it touches a stack.
unsafe impl Sync for Stack {}

/// Stacks of the boot core, that for all that the kernel does first; those of others come out of the pool.
pub(crate) static STACKS: [Stack; 3] = [const { Stack::new() }; 3];

impl Stack {
    const fn new() -> Self {
        Self { guard: [0; GUARD], body: core::cell::UnsafeCell::new([0; STACK_SIZE]) }
    }

    fn top(&self) -> u64 {
        self.body.get().expose_provenance() as u64 + STACK_SIZE as u64
    }
}

/// Offset of the end of a stack.
pub(crate) const STACK_END: usize = size_of::<Stack>();

/// Addresses of the pages before the stacks, which must not be mapped.
pub(crate) fn guard_pages() -> [u64; 3] {
    STACKS.each_ref().map(|stack| core::ptr::from_ref(&stack.guard).addr() as u64)
}

/// Kernel code segment; kernel data is the one after.
pub(crate) const KERNEL_CS: u16 = 0x08;
/// User data segment with privilege level 3.
pub(crate) const USER_SS: u64 = 0x1b;
/// User code segment with privilege level 3.
pub(crate) const USER_CS: u64 = 0x23;
const TSS_SELECTOR: SegmentSelector = SegmentSelector::from_raw(0x28);

/// Tops of stacks for a further core, out of the pool.
///
/// # Errors
/// The pool is too small.
pub(super) fn new_stacks() -> Result<[u64; 3], &'static str> {
    let [kernel, fault, nmi] = [STACK_SIZE, STACK_SIZE / 2, STACK_SIZE / 2].map(|size| {
        let frames = memory::POOL.reserve(size / 4096).map_err(|_| "the kernel's pool is too small for stacks")?;
        Ok::<_, &str>(super::paging::map_stack(frames, size)? + size as u64)
    });
    Ok([kernel?, fault?, nmi?])
}

/// What the entry code needs of a core; the first part of [`crate::percore::Core`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    /// Address of this structure.
    pub(crate) this: u64,
    /// Top of the kernel stack.
    pub(crate) stack: u64,
    /// Saves the user's stack pointer for some instructions.
    pub(crate) scratch: u64,
    gdt: [u64; 7],
    /// Stack pointers for the processor: RSP0 is the end of the current EC's frame.
    pub(crate) tss: TaskStateSegment,
    /// Port bitmap of the TSS and the byte of ones after it: of the port space whose bitmap was loaded last. Whether it holds
    /// for the current EC says [`TaskStateSegment::iomap_base`].
    ports: [u8; 8193],
}

/// Offset of the port bitmap in the TSS.
const IO_MAP: u16 = low16(size_of::<TaskStateSegment>() as u64);
/// Offset beyond the TSS: no port is allowed.
const NO_IO_MAP: u16 = u16::MAX;
const _: () = assert!(offset_of!(Head, this) == 0);
const _: () = assert!(offset_of!(Head, ports) == offset_of!(Head, tss) + size_of::<TaskStateSegment>());

impl Head {
    /// A head that [`Head::prepare`] completes.
    pub(crate) const fn new() -> Self {
        let tss = TaskStateSegment { iomap_base: NO_IO_MAP, ..TaskStateSegment::new() };
        Self { this: 0, stack: 0, scratch: 0, gdt: [0; 7], tss, ports: [0xff; 8193] }
    }

    /// Completes it, with the tops of the core's stacks: for all that the kernel does, for double faults and machine checks, and for
    /// non-maskable interrupts.
    ///
    /// # Safety
    /// The head stays where it is, and the stacks are its core's alone and not in use.
    pub(super) unsafe fn prepare(&mut self, [kernel, fault, nmi]: [u64; 3]) {
        let base = core::ptr::from_mut(self).expose_provenance() as u64;
        self.this = base;
        self.stack = kernel;
        for (place, top) in [0, 1].into_iter().zip([fault, nmi]) {
            // Above the frame the entry code finds the core, whatever GS base is then.
            let end = top - 16;
            // SAFETY: the caller vouches for the stack.
            unsafe { core::ptr::with_exposed_provenance_mut::<u64>(crate::width::index(end)).write(base) };
            self.tss.ist[place] = end;
        }
        let tss = base + offset_of!(Self, tss) as u64;
        let limit = size_of::<TaskStateSegment>() as u64 + 8192;
        self.gdt = [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            limit | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
            tss >> 32,
        ];
    }

    /// Makes this the head of the core that runs: segments, TSS, GS base, system-call entry, interrupt table.
    ///
    /// # Safety
    /// Called once per core, after [`Head::prepare`].
    pub(super) unsafe fn activate(&mut self) {
        // Segment registers stay as they are: the table that was loaded at boot has the kernel's segments in the same places.
        // SAFETY: the descriptors are flat, the table stays where it is.
        unsafe { lgdt(&DescriptorTablePointer::new(&self.gdt)) };
        self.load_task();
        idt::load();
        for (register, value) in [
            (IA32_GS_BASE, self.this),
            (IA32_KERNEL_GSBASE, 0),
            // SYSRET loads CS from bits 48.. plus 16 and SS plus 8, SYSCALL CS from bits 32.. and SS plus 8.
            (IA32_STAR, (0x10 | 3) << 48 | u64::from(KERNEL_CS) << 32),
            (IA32_LSTAR, Way::chosen().syscall),
            // Interrupts off, direction up, no trap, no nested task, no alignment check.
            (IA32_FMASK, 0x0004_7700),
        ] {
            // SAFETY: the registers take the addresses of entry code and head, and what goes with them.
            unsafe { wrmsr(register, value) };
        }
    }
}

impl Head {
    /// Where the processor and the entry code put the registers of the current EC.
    #[inline]
    pub(crate) fn set_frame_end(&mut self, end: u64) {
        self.tss.rsp[0] = end;
    }

    /// Loads the task register again, with its whole limit.
    pub(crate) fn load_task(&mut self) {
        // The processor has marked the segment as busy, and refuses one that is.
        let [.., low, _] = &mut self.gdt;
        *low &= !(2 << 40);
        // SAFETY: the descriptor is that of this core's task segment.
        unsafe { load_tr(TSS_SELECTOR) };
    }

    /// Says whether the loaded port bitmap holds for the current EC.
    #[inline]
    pub(crate) fn use_ports(&mut self, loaded: bool) {
        self.tss.iomap_base = if loaded { IO_MAP } else { NO_IO_MAP };
    }

    /// Loads a port bitmap for the current EC.
    ///
    /// # Safety
    /// The frames hold a bitmap of 65,536 ports.
    pub(crate) unsafe fn load_ports(&mut self, bitmap: [core::ptr::NonNull<u8>; 2]) {
        for (half, frame) in self.ports[..8192].chunks_exact_mut(4096).zip(bitmap) {
            // SAFETY: the caller vouches for the frames.
            half.copy_from_slice(unsafe { core::slice::from_raw_parts(frame.as_ptr(), 4096) });
        }
        self.use_ports(true);
    }
}

/// FS base of the EC that ran last.
#[inline]
pub(crate) fn fs_base() -> u64 {
    let base: u64;
    // SAFETY: FSGSBASE is on.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// Sets what an EC finds in GS base (its UTCB) and FS base (its own) in user mode.
#[inline]
pub(crate) fn set_thread(utcb: u64, fs: u64) {
    // SAFETY: FSGSBASE is on; between the two SWAPGS nothing uses the kernel's GS. Both addresses are canonical: the one was
    // checked at creation, the other was in the register before.
    unsafe {
        asm!(
            "wrfsbase {fs}", "swapgs", "wrgsbase {utcb}", "swapgs",
            utcb = in(reg) utcb, fs = in(reg) fs, options(nomem, nostack, preserves_flags)
        );
    }
}

/// Makes the boot core's head the processor's.
///
/// # Safety
/// Called once, at boot.
pub(crate) unsafe fn activate_boot_core() {
    // SAFETY: the head is static, and only this core uses it.
    let head = unsafe { &mut *crate::percore::BOOT_CORE.head.get() };
    // SAFETY: the stacks are static, too, and not in use but for the first, whose end is not.
    unsafe { head.prepare(STACKS.each_ref().map(Stack::top)) };
    // SAFETY: the caller says that this is the only call.
    unsafe { head.activate() };
}

/// The structure of the core that runs.
#[inline]
pub(crate) fn this() -> *const crate::percore::Core {
    let this;
    // SAFETY: in the kernel GS base is the head of this core, of which the first word is its address.
    unsafe { asm!("mov {}, gs:[0]", out(reg) this, options(pure, nomem, nostack, preserves_flags)) };
    this
}
