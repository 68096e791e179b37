// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end must know of its control structure, and what is the same for all.
//!
//! A back end implements the first half of [`Control`]; the second half follows from it. All of it is meant to be inlined:
//! [`Control::get`] and [`Control::set`] are always called with a constant name, so that nothing of the choice is left in
//! the machine code.

use crate::debug;
use crate::limits::{EFER_LMA, Limits};
use crate::page::StatePage;
use crate::transfer::transfer;
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, Segment, VcpuState};
use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

/// What follows an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt, NMI, SMI or INIT waits for the host. The kernel lets it in and goes on as after any
    /// interrupt.
    Interrupt,
    /// A machine check happened in the guest; the host's handler has not run.
    MachineCheck,
    /// The kernel has done what was to do; the guest can go on. A guest can cause these at will and without end: interrupts
    /// must be let in between.
    Resume,
    /// The monitor shall see it.
    Monitor(ExitReason),
}

/// What each virtual CPU has beside its control structure.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Registers {
    /// General-purpose registers by encoding; those that the back end has elsewhere (`rsp` always) mean nothing here.
    pub gpr: [u64; 16],
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// XCR0.
    pub xcr0: u64,
    /// Number of exits so far.
    pub exits: u64,
    /// What the guest may have.
    pub limits: Limits,
    /// What the monitor asked for.
    pub controls: Controls,
    /// The guest uses debug registers: they go with the world switch.
    pub debug: bool,
    /// The monitor gave something that no processor takes.
    pub refused: bool,
}

impl Registers {
    /// As after RESET.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        let controls = Controls::empty();
        Self { gpr: [0; 16], dr: [0; 4], xcr0: 1, exits: 0, limits, controls, debug: false, refused: false }
    }

    /// The place of a register that lies here.
    #[inline(always)]
    pub const fn place(&mut self, field: Field) -> &mut u64 {
        match field {
            Field::Gpr(index) => &mut self.gpr[index & 15],
            _ => &mut self.xcr0,
        }
    }
}

/// Registers that are words, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of registers")]
pub enum Field {
    /// A general-purpose register, by its encoding.
    Gpr(usize),
    Rip,
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Xcr0,
    Efer,
    Pat,
    Dr6,
    Dr7,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    KernelGsBase,
    TscOffset,
}

/// Segment and table registers, in the order of their encoding in VMX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of registers")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
    Gdtr,
    Idtr,
}

/// A back end's virtual CPU. Values that are set are masked already; the back end adds what is the host's, and takes it
/// away from what it answers.
pub trait Control {
    /// What is not in the control structure.
    fn registers(&mut self) -> &mut Registers;
    /// A register's value.
    fn get(&mut self, field: Field) -> u64;
    /// Sets a register.
    fn set(&mut self, field: Field, value: u64);
    /// A segment register.
    fn segment(&mut self, name: SegmentName) -> Segment;
    /// Sets a segment register.
    fn set_segment(&mut self, name: SegmentName, segment: Segment);
    /// Interruptibility: `SHADOW_*` bits.
    fn shadow(&mut self) -> u64;
    /// Sets the interruptibility.
    fn set_shadow(&mut self, shadow: u64);
    /// The event that the next entry delivers, 0 for none.
    fn event(&mut self) -> u64;
    /// Sets it; it is of a type that exists.
    fn set_event(&mut self, event: u64);
    /// Makes the guest exit at what the monitor asks for. The registers still have the old wishes.
    fn set_controls(&mut self, controls: Controls);
    /// Makes the guest exit at its accesses to debug registers, or not.
    fn watch_debug(&mut self, on: bool);
    /// These groups, among them some beyond the most frequent, were set: a place for what follows from several.
    fn loaded(&mut self, groups: Groups);
    /// Makes the next entry forget all translations of this guest (after its nested page table lost or changed one).
    fn flush_tlb(&mut self);

    /// The state after RESET (SDM vol. 3A, table 10-1; APM vol. 2, 14.1.3).
    fn reset(&mut self)
    where
        Self: Sized,
    {
        use SegmentName::{Cs, Ds, Es, Fs, Gdtr, Gs, Idtr, Ldtr, Ss, Tr};
        let mut set = |name, selector, access, base| {
            self.set_segment(name, Segment { selector, access, limit: 0xffff, base, ..Segment::default() });
        };
        set(Cs, 0xf000, 0x9b, 0xffff_0000);
        set(Ldtr, 0, 0x82, 0);
        set(Tr, 0, 0x8b, 0);
        for (names, access) in [(&[Ds, Es, Ss, Fs, Gs][..], 0x93), (&[Gdtr, Idtr], 0)] {
            names.iter().for_each(|name| set(*name, 0, access, 0));
        }
        for field in [Field::Cr3, Field::Cr4, Field::Efer, Field::Gpr(4)] {
            self.set(field, 0);
        }
        for field in [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip] {
            self.set(field, 0);
        }
        for (field, value) in [
            (Field::Cr0, 0x6000_0010),
            (Field::Dr6, 0xffff_0ff0),
            (Field::Dr7, 0x400),
            (Field::Rip, 0xfff0),
            (Field::Rflags, 2),
            (Field::Pat, 0x0007_0406_0007_0406),
        ] {
            self.set(field, value);
        }
    }

    /// Saves the guest's debug registers. Those of a guest that has no breakpoint enabled need not go with the next switch.
    #[cold]
    fn leave_debug(&mut self) {
        self.registers().dr = debug::save();
        if self.get(Field::Dr7) & DR7_ENABLES == 0 {
            self.registers().debug = false;
            self.watch_debug(true);
        }
    }

    /// Takes the groups that the page's `load` names, and clears it. Answers whether the monitor gave a new FPU image, which is the kernel's
    /// to take, and whether it gave something that no processor takes: report `InvalidState`, do not enter.
    #[inline]
    fn take(&mut self, page: StatePage) -> (bool, bool)
    where
        Self: Sized,
    {
        let groups = Groups::from_bits_truncate(read!(page, load));
        write!(page, load, 0);
        transfer::<true>(self, groups, page);
        (groups.contains(Groups::FPU), core::mem::take(&mut self.registers().refused))
    }

    /// Writes groups to the page (`VcpuSync`). The FPU image is the kernel's to write.
    fn sync(&mut self, page: StatePage, groups: Groups)
    where
        Self: Sized,
    {
        transfer::<false>(self, groups, page);
        if groups.contains(Groups::RIP) {
            write!(page, instruction_length, 0);
        }
    }

    /// XCR0 of the guest: to be loaded before it is entered.
    #[inline]
    fn xcr0(&mut self) -> u64 {
        self.registers().xcr0
    }
}

/// What exits of a back end's virtual CPU mean.
pub trait Exits: Control + Sized {
    /// Says what the last exit means.
    fn classify(&mut self) -> Exit;
    /// Three words of detail of the last exit.
    fn qualification(&mut self, reason: ExitReason) -> [u64; 3];
    /// Length of the instruction that exited, 0 if nothing tells.
    fn length(&mut self) -> u64;

    /// The guest gets #UD.
    fn undefined(&mut self) {
        self.set_event(Event::exception(6, None).0);
    }

    /// An exception ended the guest: it gets it, unless it is the host's or the monitor wants to see it.
    fn exception(&mut self, vector: u64) -> Exit {
        let again = match vector {
            18 => return Exit::MachineCheck,
            1 if !self.registers().controls.contains(Controls::DEBUG) => Event::exception(1, None),
            17 => Event::exception(17, Some(0)),
            _ => return Exit::Monitor(ExitReason::Exception),
        };
        self.set_event(again.0);
        Exit::Resume
    }

    /// The guest touches a debug register. Unless the monitor wants to see that, they become the guest's.
    fn debug_register(&mut self) -> Exit {
        if self.registers().controls.contains(Controls::DR) {
            return Exit::Monitor(ExitReason::Dr);
        }
        self.registers().debug = true;
        self.watch_debug(false);
        Exit::Resume
    }

    /// Address size of the code segment, bytes.
    fn address_size(&mut self) -> u64 {
        let access = self.segment(SegmentName::Cs).access;
        match (access & 1 << 13 != 0 && self.get(Field::Efer) & EFER_LMA != 0, access & 1 << 14 != 0) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        }
    }

    /// Tells the monitor why the guest exited. Answers whether it wants the FPU image, which is the kernel's to write.
    #[inline]
    fn report(&mut self, page: StatePage, reason: ExitReason) -> bool {
        let groups = &page.array::<{ offset_of!(VcpuState, store) }, 32>()[index(reason)];
        let groups = Groups::from_bits_truncate(groups.load(Relaxed));
        write!(page, reason, reason as u64);
        let details = page.array::<{ offset_of!(VcpuState, qualification) }, 3>();
        for (place, value) in details.iter().zip(self.qualification(reason)) {
            place.store(value, Relaxed);
        }
        write!(page, exits, self.registers().exits);
        transfer::<false>(self, groups, page);
        if groups.contains(Groups::RIP) {
            // Reasons of the host's own have no instruction.
            let is_own = matches!(reason, ExitReason::Deadline | ExitReason::Kicked);
            write!(page, instruction_length, if is_own { 0 } else { self.length() });
        }
        groups.contains(Groups::FPU)
    }
}

#[inline]
const fn index(reason: ExitReason) -> usize {
    (reason as u64 & 31) as usize
}

/// Exception vectors that always exit: #DB and #AC because a guest can make their delivery an endless loop in the
/// processor's microcode (CVE-2015-8104, CVE-2015-5307), #MC because it is the host's.
pub const GUARD_EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;
/// #BP, as a bit of those.
pub const BREAKPOINT: u32 = 1 << 3;
/// DR7: some breakpoint is enabled.
pub const DR7_ENABLES: u64 = 0xff;
/// Segment and table registers.
pub const SEGMENTS: Groups =
    Groups::CS_SS.union(Groups::DS_ES).union(Groups::FS_GS).union(Groups::TR_LDTR).union(Groups::TABLES);
macro_rules! read {
    ($page:expr, $field:ident) => {
        $page.read::<{ offset_of!(VcpuState, $field) }>()
    };
}
macro_rules! write {
    ($page:expr, $field:ident, $value:expr) => {
        $page.write::<{ offset_of!(VcpuState, $field) }>($value)
    };
}
pub(crate) use {read, write};
