// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state page of a virtual CPU, shared by its monitor and the kernel.
//!
//! The monitor says in [`VcpuState::load`] which groups of state it has changed; `VcpuRun` takes these and clears the word.
//! At an exit the kernel writes the groups that [`VcpuState::store`] names for that exit reason, and the exit's reason and
//! qualification always. Other groups are stale in the page; `VcpuSync` brings them up to date. So one pays for the
//! state that one touches.
//!
//! The kernel takes nothing on trust: bits in control registers that a guest may not have are masked as the manuals say,
//! and a state that the machine refuses ends in [`ExitReason::InvalidState`].

use bitflags::bitflags;

bitflags! {
    /// Groups of state.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Groups: u64 {
        /// `rax`, `rcx`, `rdx`, `rbx`
        const GPR_ACDB = 1 << 0;
        /// `rbp`, `rsi`, `rdi`
        const GPR_BSD = 1 << 1;
        /// `r8` to `r15`
        const GPR_R8_R15 = 1 << 2;
        /// `rsp`
        const RSP = 1 << 3;
        /// `rip`, and at an exit `instruction_length`
        const RIP = 1 << 4;
        /// `rflags`
        const RFLAGS = 1 << 5;
        /// Segments CS, SS, and the privilege level
        const CS_SS = 1 << 6;
        /// Segments DS, ES
        const DS_ES = 1 << 7;
        /// Segments FS, GS
        const FS_GS = 1 << 8;
        /// TR, LDTR
        const TR_LDTR = 1 << 9;
        /// GDTR, IDTR
        const TABLES = 1 << 10;
        /// CR0, CR2, CR3, CR4, XCR0
        const CR = 1 << 11;
        /// CR8: the task-priority register
        const TPR = 1 << 12;
        /// DR0 to DR3, DR6, DR7
        const DR = 1 << 13;
        /// EFER
        const EFER = 1 << 14;
        /// SYSENTER registers
        const SYSENTER = 1 << 15;
        /// STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE
        const SYSCALL = 1 << 16;
        /// PAT
        const PAT = 1 << 17;
        /// Event to inject (load), event whose delivery the exit interrupted (store)
        const EVENT = 1 << 18;
        /// Interruptibility: shadow of STI or MOV SS, NMI blocking
        const SHADOW = 1 << 19;
        /// What makes the guest exit: [`Controls`]
        const CONTROL = 1 << 20;
        /// Offset of the guest's time-stamp counter
        const TSC = 1 << 21;
        /// Floating-point and vector state, in XSAVE format
        const FPU = 1 << 22;

        /// All general-purpose registers.
        const GPR = Self::GPR_ACDB.bits() | Self::GPR_BSD.bits() | Self::GPR_R8_R15.bits() | Self::RSP.bits();
    }
}

bitflags! {
    /// What makes the guest exit, beyond what always does (port and MSR access without permission, CPUID, HLT, XSETBV,
    /// VMMCALL, shutdown, nested page faults, invalidation of the hypervisor's instructions).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Controls: u64 {
        /// Exit as soon as the guest can take an external interrupt.
        const INTERRUPT_WINDOW = 1 << 0;
        /// Exit at RDTSC and RDTSCP.
        const RDTSC = 1 << 1;
        /// Exit at RDPMC.
        const RDPMC = 1 << 2;
        /// Exit at access to debug registers.
        const DR = 1 << 3;
        /// Exit at PAUSE.
        const PAUSE = 1 << 4;
        /// Exit at a debug exception (#DB) and at a breakpoint (#BP).
        const DEBUG = 1 << 5;
    }
}

numbered! {
    /// Why a guest exited; the same on SVM and VMX.
    pub enum ExitReason: u64 {
        /// The deadline of the state page passed.
        Deadline = 0,
        /// `VcpuKick`.
        Kicked = 1,
        /// Port access: `qualification[0]` = [`PortAccess`], `[1]` = address of the next instruction, `[2]` = 0.
        Port = 2,
        /// Access to guest-physical memory that is not mapped so: `qualification[0]` = error bits of a page fault (P, W, U, -, I/D: bits
        /// 0 to 4), `[1]` = guest-physical address.
        Memory = 3,
        /// RDMSR (the register's number is in `rcx`).
        RdMsr = 4,
        /// WRMSR.
        WrMsr = 5,
        /// CPUID.
        Cpuid = 6,
        /// HLT.
        Hlt = 7,
        /// The guest can take an interrupt (asked for by [`Controls::INTERRUPT_WINDOW`]).
        InterruptWindow = 8,
        /// Shutdown: a triple fault.
        Shutdown = 9,
        /// XSETBV.
        Xsetbv = 10,
        /// VMMCALL or VMCALL.
        Hypercall = 11,
        /// An exception that the monitor asked to see: `qualification[0]` = vector, `[1]` = error code.
        Exception = 12,
        /// RDTSC or RDTSCP.
        Rdtsc = 13,
        /// RDPMC.
        Rdpmc = 14,
        /// Access to a debug register.
        Dr = 15,
        /// PAUSE.
        Pause = 16,
        /// INVD or WBINVD.
        CacheControl = 17,
        /// MONITOR or MWAIT.
        Mwait = 18,
        /// An instruction of the virtualization extension (VMRUN, VMXON, …): the guest gets #UD.
        Virtualization = 19,
        /// Task switch.
        TaskSwitch = 20,
        /// The machine refused the guest's state.
        InvalidState = 21,
        /// INIT signal, SMI, or something else that was intercepted and has no reason of its own: `qualification[0]` = the machine's own
        /// exit code.
        Other = 22,
    }
}

/// Number of exit reasons.
pub const EXIT_REASONS: usize = ExitReason::ALL.len();

/// A port access as the guest made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess(pub u64);

impl PortAccess {
    /// Read (IN, INS) rather than write.
    pub const IN: u64 = 1 << 16;
    /// String instruction (INS, OUTS).
    pub const STRING: u64 = 1 << 17;
    /// REP prefix.
    pub const REP: u64 = 1 << 18;

    /// Packs an access: size in bytes (1, 2, 4), address size in bytes (2, 4, 8), segment register of OUTS (0 ES .. 5 GS).
    #[must_use]
    pub const fn new(port: u16, flags: u64, size: u64, address_size: u64, segment: u64) -> Self {
        Self(port as u64 | flags | (size & 7) << 20 | (address_size & 15) << 24 | (segment & 7) << 28)
    }
}

/// A segment register. Attributes as in Intel SDM vol. 3, table 25-2 (VMX access rights): type 0..3, S 4, DPL 5..6, P 7, AVL 12,
/// L 13, D/B 14, G 15, unusable 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Reserved.
    pub reserved: u16,
    /// Access rights.
    pub access: u32,
    /// Limit in bytes (expanded, not in pages).
    pub limit: u32,
    /// Reserved.
    pub reserved2: u32,
    /// Base address.
    pub base: u64,
}

/// An event to be delivered to the guest: vector 0..7, type 8..10 (0 interrupt, 2 NMI, 3 exception, 4 software interrupt), error
/// code valid 11, valid 31, error code 32..63. (AMD APM vol. 2, 15.20.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Event(pub u64);

impl Event {
    /// No event.
    pub const NONE: Self = Self(0);
    /// The event is to be taken.
    pub const VALID: u64 = 1 << 31;
    /// It has an error code.
    pub const ERROR_VALID: u64 = 1 << 11;
    /// Type: external interrupt.
    pub const INTERRUPT: u64 = 0;
    /// Type: non-maskable interrupt.
    pub const NMI: u64 = 2 << 8;
    /// Type: exception.
    pub const EXCEPTION: u64 = 3 << 8;

    /// Exception without or with an error code.
    #[must_use]
    pub const fn exception(vector: u8, error: Option<u32>) -> Self {
        let base = vector as u64 | Self::EXCEPTION | Self::VALID;
        match error {
            None => Self(base),
            Some(code) => Self(base | Self::ERROR_VALID | (code as u64) << 32),
        }
    }

    /// Whether there is an event.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }
}

/// Interruptibility: an interrupt shadow (STI, MOV SS) holds.
pub const SHADOW_STI: u64 = 1 << 0;
/// Interruptibility: NMIs are blocked (until IRET).
pub const SHADOW_NMI: u64 = 1 << 1;

/// The page. Registers a new VCPU starts with are those after RESET.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct VcpuState {
    /// Monitor: groups that `VcpuRun` shall take from this page ([`Groups`]). Cleared by it.
    pub load: u64,
    /// Monitor: leave the guest at this tick of the host's time-stamp counter; 0 for never.
    pub deadline: u64,
    /// Kernel: reason of the last exit ([`ExitReason`]).
    pub reason: u64,
    /// Kernel: details of the last exit.
    pub qualification: [u64; 3],
    /// Kernel: length of the instruction that exited, 0 if the machine does not tell. For instructions that can only have one
    /// length this is it (prefixes not counted).
    pub instruction_length: u64,
    /// Kernel: number of exits so far, those that the kernel handled itself included.
    pub exits: u64,

    /// General-purpose registers in the order of their encoding: `rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15`.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,

    /// Code segment.
    pub cs: Segment,
    /// Stack segment. Its DPL is the privilege level.
    pub ss: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Global descriptor table: base and limit.
    pub gdtr: Segment,
    /// Interrupt descriptor table: base and limit.
    pub idtr: Segment,

    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8.
    pub cr8: u64,
    /// XCR0.
    pub xcr0: u64,
    /// Debug registers DR0 to DR3.
    pub dr0_3: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,

    /// EFER, as the guest sees it.
    pub efer: u64,
    /// SYSENTER_CS.
    pub sysenter_cs: u64,
    /// SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// PAT.
    pub pat: u64,

    /// Load: event to inject. Store: event whose delivery the exit interrupted.
    pub event: Event,
    /// Interruptibility: [`SHADOW_STI`], [`SHADOW_NMI`].
    pub shadow: u64,
    /// What makes the guest exit ([`Controls`]).
    pub controls: u64,
    /// What is added to the host's time-stamp counter for the guest.
    pub tsc_offset: u64,

    /// Per exit reason, the groups that the kernel writes back ([`Groups`]).
    pub store: [u64; 32],

    /// What RDTSCP and RDPID answer in the guest (`TSC_AUX`, 32 bits). Read whenever the guest is entered; never written back, as only
    /// the monitor changes it.
    pub tsc_aux: u64,

    /// Reserved.
    pub reserved: [u64; 141],

    /// Floating-point and vector state in the standard XSAVE format (Intel SDM vol. 1, 13.4), as far as it fits.
    pub fpu: [u8; 2048],
}

const _: () = assert!(size_of::<VcpuState>() == crate::PAGE_SIZE);
const _: () = assert!(core::mem::offset_of!(VcpuState, fpu) == 2048);
