// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end must know of its control structure, and what is the same for all.
//!
//! A back end implements the first half of [`Control`]; the second half follows from it. All of it is meant to be inlined:
//! [`Control::get`] and [`Control::set`] are always called with a constant field, so that nothing of the choice is left in
//! the machine code.

use crate::debug;
use crate::field::{Field, Segment};
use crate::limits::{EFER_LMA, Limits};
use crate::page::{StatePage, word};
use crate::transfer::transfer;
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, VcpuState};
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
    /// Registers by their fields, general-purpose ones first. Those that the back end has elsewhere (`rsp` always) mean nothing here.
    pub words: [u64; Field::COUNT],
    /// Number of exits so far.
    pub exits: u64,
    /// What the guest may have.
    pub limits: Limits,
    /// The guest uses debug registers: they go with the world switch.
    pub debug: bool,
    /// The monitor gave something that no processor takes.
    pub refused: bool,
}

impl Registers {
    /// All zero, for [`Control::reset`].
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { words: [0; Field::COUNT], exits: 0, limits, debug: false, refused: false }
    }

    /// The place of a register that lies here.
    #[inline(always)]
    pub const fn place(&mut self, field: Field) -> &mut u64 {
        &mut self.words[field.index()]
    }

    /// What the monitor asked for.
    #[inline]
    #[must_use]
    pub const fn controls(&self) -> Controls {
        Controls::from_bits_truncate(self.words[Field::CONTROLS.index()])
    }
}

/// A back end's virtual CPU. Values that are set are masked already; the back end adds what is the host's, and takes it
/// away from what it answers.
pub trait Control: Sized {
    /// What is not in the control structure.
    fn registers(&mut self) -> &mut Registers;
    /// A register's value.
    fn get(&mut self, field: Field) -> u64;
    /// Sets a register. An event is of a type that exists. Controls make the guest exit at what the monitor asks for.
    fn set(&mut self, field: Field, value: u64);
    /// A segment or table register.
    fn segment(&mut self, name: Field) -> Segment;
    /// Sets a segment or table register.
    fn set_segment(&mut self, name: Field, segment: Segment);
    /// Makes the guest exit at its accesses to debug registers, or not.
    fn watch_debug(&mut self, on: bool);
    /// These groups, among them some beyond the most frequent, were set: a place for what follows from several.
    fn loaded(&mut self, groups: Groups);
    /// Makes the next entry forget all translations of this guest (after its nested page table lost or changed one).
    fn flush_tlb(&mut self);

    /// The state after RESET (SDM vol. 3A, table 10-1; APM vol. 2, 14.1.3), where all is zero before.
    fn reset(&mut self) {
        for (name, access) in [(Field::LDTR, 0x82), (Field::TR, 0x8b), (Field::GDTR, 0), (Field::IDTR, 0)] {
            self.set_segment(name, [access << 32, 0xffff, 0]);
        }
        for name in [Field::DS, Field::ES, Field::SS, Field::FS, Field::GS] {
            self.set_segment(name, [0x93 << 32, 0xffff, 0]);
        }
        self.set_segment(Field::CS, [0xf000 | 0x9b << 32, 0xffff, 0xffff_0000]);
        for (field, value) in [
            (Field::CR0, 0x6000_0010),
            (Field::CR4, 0),
            (Field::EFER, 0),
            (Field::XCR0, 1),
            (Field::DR6, 0xffff_0ff0),
            (Field::DR7, 0x400),
            (Field::RIP, 0xfff0),
            (Field::RFLAGS, 2),
            (Field::PAT, 0x0007_0406_0007_0406),
        ] {
            self.set(field, value);
        }
    }

    /// Saves the guest's debug registers. Those of a guest that has no breakpoint enabled need not go with the next switch.
    #[cold]
    fn leave_debug(&mut self) {
        debug::save(&mut self.registers().words[Field::BREAKPOINTS]);
        if self.get(Field::DR7) & DR7_ENABLES == 0 {
            self.registers().debug = false;
            self.watch_debug(true);
        }
    }

    /// Takes the groups that the page's `load` names, and clears it. Answers whether the monitor gave a new FPU image, which is the kernel's
    /// to take, and whether it gave something that no processor takes: report `InvalidState`, do not enter.
    #[inline]
    fn take(&mut self, page: StatePage) -> (bool, bool) {
        let groups = Groups::from_bits_truncate(word!(page, load).load(Relaxed));
        word!(page, load).store(0, Relaxed);
        transfer::<true>(self, groups, page);
        (groups.contains(Groups::FPU), core::mem::take(&mut self.registers().refused))
    }

    /// Writes groups to the page (`VcpuSync`). The FPU image is the kernel's to write.
    fn sync(&mut self, page: StatePage, groups: Groups) {
        transfer::<false>(self, groups, page);
        if groups.contains(Groups::RIP) {
            word!(page, instruction_length).store(0, Relaxed);
        }
    }
}

/// What exits of a back end's virtual CPU mean.
pub trait Exits: Control {
    /// Says what the last exit means.
    fn classify(&mut self) -> Exit;
    /// Three words of detail of the last exit.
    fn qualification(&mut self, reason: ExitReason) -> [u64; 3];
    /// Length of the instruction that exited, 0 if nothing tells.
    fn length(&mut self) -> u64;

    /// The guest gets #UD.
    fn undefined(&mut self) {
        self.set(Field::EVENT, Event::exception(6, None).0);
    }

    /// An exception ended the guest: it gets it, unless it is the host's or the monitor wants to see it.
    fn exception(&mut self, vector: u64) -> Exit {
        let again = match vector {
            18 => return Exit::MachineCheck,
            1 if !self.registers().controls().contains(Controls::DEBUG) => Event::exception(1, None),
            17 => Event::exception(17, Some(0)),
            _ => return Exit::Monitor(ExitReason::Exception),
        };
        self.set(Field::EVENT, again.0);
        Exit::Resume
    }

    /// The guest touches a debug register. Unless the monitor wants to see that, they become the guest's.
    fn debug_register(&mut self) -> Exit {
        if self.registers().controls().contains(Controls::DR) {
            return Exit::Monitor(ExitReason::Dr);
        }
        self.registers().debug = true;
        self.watch_debug(false);
        Exit::Resume
    }

    /// Address size of the code segment, bytes.
    fn address_size(&mut self) -> u64 {
        let [access, ..] = self.segment(Field::CS);
        match (access & 1 << 45 != 0 && self.get(Field::EFER) & EFER_LMA != 0, access & 1 << 46 != 0) {
            (true, _) => 8,
            (false, true) => 4,
            (false, false) => 2,
        }
    }

    /// Tells the monitor why the guest exited. Answers whether it wants the FPU image, which is the kernel's to write.
    #[inline]
    fn report(&mut self, page: StatePage, reason: ExitReason) -> bool {
        let groups = &page[offset_of!(VcpuState, store) / 8 + (reason as usize & 31)];
        let groups = Groups::from_bits_truncate(groups.load(Relaxed));
        word!(page, reason).store(reason as u64, Relaxed);
        for (index, value) in self.qualification(reason).into_iter().enumerate() {
            page[offset_of!(VcpuState, qualification) / 8 + index].store(value, Relaxed);
        }
        word!(page, exits).store(self.registers().exits, Relaxed);
        transfer::<false>(self, groups, page);
        if groups.contains(Groups::RIP) {
            // Reasons of the host's own have no instruction.
            let is_own = matches!(reason, ExitReason::Deadline | ExitReason::Kicked);
            word!(page, instruction_length).store(if is_own { 0 } else { self.length() }, Relaxed);
        }
        groups.contains(Groups::FPU)
    }
}

/// The way of a back end's virtual CPU into its guest and out.
pub trait Enter: Exits {
    /// What a core has for its guests.
    type Host;
    /// Makes this VCPU the one that the core works on: before anything else, and whenever another may have been worked on since.
    ///
    /// # Safety
    /// `host` is this core's, and no other core's since the VCPU was made.
    #[inline]
    unsafe fn activate(&mut self, _: &mut Self::Host) {}
    /// Whether [`Self::enter`] ends at a time by itself, so that the host's timer need not be armed for a guest's deadline.
    #[inline]
    fn has_timer(&self) -> bool {
        false
    }
    /// Runs the guest until something happens, or so many ticks of the time-stamp counter passed, where there is a timer. An exit restores the FS
    /// base and KERNEL_GS_BASE (the thread's GS base, while the kernel has its own) of `thread`.
    ///
    /// # Safety
    /// Interrupts must be off. FPU state and XCR0 must be the guest's. The VCPU must be active on this core, whose `host` is. The
    /// nested page table must map nothing that the guest must not have.
    unsafe fn enter(&mut self, host: &mut Self::Host, thread: [u64; 2], ticks: u64);
    /// Its memory goes: its core forgets it.
    fn retire(&self, _: &mut Self::Host) {}
}

/// Exception vectors that always exit: #DB and #AC because a guest can make their delivery an endless loop in the
/// processor's microcode (CVE-2015-8104, CVE-2015-5307), #MC because it is the host's.
pub const GUARD_EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;
/// #BP, as a bit of those.
pub const BREAKPOINT: u32 = 1 << 3;
/// DR7: some breakpoint is enabled.
pub const DR7_ENABLES: u64 = 0xff;
