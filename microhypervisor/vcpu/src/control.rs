// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back end must know of its control structure, and what is the same for all.
//!
//! A back end implements the first half of [`Control`]; the second half follows from it. All of it is meant to be inlined:
//! [`Control::get`] and [`Control::set`] are always called with a constant name, so that nothing of the choice is left in
//! the machine code. Loading and storing test the groups that nearly every exit touches inline; all others wait behind
//! one test in a function of their own, so that the shortest way (only `rip`) stays short.

use crate::limits::Limits;
use crate::load::load;
use crate::page::StatePage;
use crate::store::store;
use cloister_abi::arch::x86_64::vcpu::{Controls, ExitReason, Groups, Segment, VcpuState};
use core::mem::offset_of;

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

/// What [`Control::take`] leaves to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The monitor gave a new FPU image.
    pub fpu: bool,
    /// The monitor gave something that no processor takes: report `InvalidState`, do not enter.
    pub refused: bool,
}

/// The guest's registers that no control structure has, and what the kernel remembers for it.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Registers {
    /// General-purpose registers by encoding; those that the back end has elsewhere (`rsp` always) mean nothing here.
    pub gpr: [u64; 16],
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// XCR0.
    pub xcr0: u64,
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
    pub const fn new() -> Self {
        Self { gpr: [0; 16], dr: [0; 4], xcr0: 1, controls: Controls::empty(), debug: false, refused: false }
    }
}

impl Default for Registers {
    fn default() -> Self {
        Self::new()
    }
}

/// Words that back ends keep in their own ways, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of registers")]
pub enum Field {
    Rax,
    Rsp,
    Rip,
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
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
    /// The registers that are not in the control structure.
    fn registers(&self) -> &Registers;
    /// As above, to change them.
    fn registers_mut(&mut self) -> &mut Registers;
    /// The machine's limits.
    fn limits(&self) -> &Limits;
    /// Number of exits so far.
    fn exits(&self) -> u64;
    /// A register's value.
    fn get(&self, field: Field) -> u64;
    /// Sets a register.
    fn set(&mut self, field: Field, value: u64);
    /// A segment register.
    fn segment(&self, name: SegmentName) -> Segment;
    /// Sets a segment register.
    fn set_segment(&mut self, name: SegmentName, segment: Segment);
    /// Interruptibility: `SHADOW_*` bits.
    fn shadow(&self) -> u64;
    /// Sets the interruptibility.
    fn set_shadow(&mut self, shadow: u64);
    /// The event that the next entry delivers, 0 for none.
    fn event(&self) -> u64;
    /// Sets it; it is of a type that exists.
    fn set_event(&mut self, event: u64);
    /// Makes the guest exit at what the monitor asks for. The registers still have the old wishes.
    fn set_controls(&mut self, controls: Controls);
    /// These groups, among them some beyond the most frequent, were set: a place for what follows from several.
    fn loaded(&mut self, groups: Groups);
    /// Three words of detail of the last exit.
    fn qualification(&self, reason: ExitReason) -> [u64; 3];
    /// Length of the instruction that exited, 0 if nothing tells.
    fn length(&self) -> u64;
    /// Says what the last exit means.
    fn classify(&mut self) -> Exit;
    /// Makes the next entry forget all translations of this guest (after its nested page table lost or changed one).
    fn flush_tlb(&mut self);

    /// Takes the groups that the page's `load` names, and clears it.
    #[inline]
    fn take(&mut self, page: StatePage) -> Taken
    where
        Self: Sized,
    {
        let groups = Groups::from_bits_truncate(read!(page, load));
        write!(page, load, 0);
        load(self, groups, page);
        Taken { fpu: groups.contains(Groups::FPU), refused: core::mem::take(&mut self.registers_mut().refused) }
    }

    /// Writes groups to the page (`VcpuSync`). The FPU image is the kernel's to write.
    fn sync(&self, page: StatePage, groups: Groups)
    where
        Self: Sized,
    {
        store(self, groups, page, || 0);
    }

    /// Tells the monitor why the guest exited. Answers whether it wants the FPU image, which is the kernel's to write.
    #[inline]
    fn report(&self, page: StatePage, reason: ExitReason) -> bool
    where
        Self: Sized,
    {
        let [first, second, third] = self.qualification(reason);
        let groups = page.read_element::<{ offset_of!(VcpuState, store) }, 32>(index(reason));
        let groups = Groups::from_bits_truncate(groups);
        write!(page, reason, reason as u64);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(0, first);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(1, second);
        page.write_element::<{ offset_of!(VcpuState, qualification) }, 3>(2, third);
        write!(page, exits, self.exits());
        // Reasons of the host's own have no instruction.
        store(self, groups, page, || match reason {
            ExitReason::Deadline | ExitReason::Kicked => 0,
            _ => self.length(),
        });
        groups.contains(Groups::FPU)
    }

    /// XCR0 of the guest: to be loaded before it is entered.
    #[inline]
    fn xcr0(&self) -> u64 {
        self.registers().xcr0
    }
}

#[inline]
const fn index(reason: ExitReason) -> usize {
    (reason as u64).to_le_bytes()[0] as usize
}

/// DR7: some breakpoint is enabled.
pub const DR7_ENABLES: u64 = 0xff;
/// Number of `rax` and `rsp` in the state page's `gpr`.
pub(crate) const RAX: usize = 0;
/// As above.
pub(crate) const RSP: usize = 4;
/// Offset of the general-purpose registers in the page.
pub(crate) const GPR: usize = offset_of!(VcpuState, gpr);

/// Groups of most exits.
pub(crate) const COMMON: Groups = Groups::GPR.union(Groups::RIP).union(Groups::RFLAGS);
/// Segment and table registers.
pub const SEGMENTS: Groups =
    Groups::CS_SS.union(Groups::DS_ES).union(Groups::FS_GS).union(Groups::TR_LDTR).union(Groups::TABLES);
/// Interrupts and what belongs to them.
pub(crate) const EVENTS: Groups = Groups::EVENT.union(Groups::SHADOW).union(Groups::CONTROL).union(Groups::TPR);

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
