// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypercalls: numbers, arguments, results. One structure per call, decoded once.
//!
//! A call has a number, up to six argument registers and up to three result registers ([`Args`], [`Results`]); which machine
//! registers these are says [`crate::arch`]. A selector argument that has bits above 32 set is a bad parameter.
//! Deadlines are absolute, in ticks of the core's time-stamp counter; 0 means none.

use crate::cap::Selector;
use bitflags::bitflags;

/// Argument registers in order.
pub type Args = [u64; 6];

/// Result registers: status, and two values.
pub type Results = [u64; 3];

/// A hypercall: its number, and how its arguments lie in registers.
pub trait Call: Sized {
    /// Number of the call.
    const NUMBER: u64;
    /// Name of the call, as in the reference.
    const NAME: &'static str;
    /// Names of the arguments in the order of their registers, as in the reference.
    const ARGUMENTS: &'static [&'static str] = &[];
    /// Arguments as registers.
    fn encode(&self) -> Args;
    /// Registers as arguments; `None` if one has bits set that its type has not.
    fn decode(args: &Args) -> Option<Self>;
}

/// How one argument lies in a register.
trait Argument: Sized {
    fn into_register(self) -> u64;
    fn from_register(register: u64) -> Option<Self>;
}

impl Argument for u64 {
    #[inline]
    fn into_register(self) -> u64 {
        self
    }
    #[inline]
    fn from_register(register: u64) -> Option<Self> {
        Some(register)
    }
}

impl Argument for u32 {
    #[inline]
    fn into_register(self) -> u64 {
        u64::from(self)
    }
    #[inline]
    fn from_register(register: u64) -> Option<Self> {
        Self::try_from(register).ok()
    }
}

macro_rules! call {
    ($name:ident = $number:literal; $($field:ident),+) => {
        impl Call for $name {
            const NUMBER: u64 = $number;
            const NAME: &'static str = stringify!($name);
            const ARGUMENTS: &'static [&'static str] = &[$(stringify!($field)),+];
            #[inline]
            fn encode(&self) -> Args {
                let mut args = [0; 6];
                for (register, value) in args.iter_mut().zip([$(Argument::into_register(self.$field)),+]) {
                    *register = value;
                }
                args
            }
            #[inline]
            fn decode(args: &Args) -> Option<Self> {
                let mut registers = args.iter();
                Some(Self { $($field: Argument::from_register(*registers.next()?)?),+ })
            }
        }
    };
}

/// The shortest call: does nothing, answers the contract's version in the first value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Null;

impl Call for Null {
    const NUMBER: u64 = 0;
    const NAME: &'static str = "Null";
    #[inline]
    fn encode(&self) -> Args {
        [0; 6]
    }
    #[inline]
    fn decode(_: &Args) -> Option<Self> {
        Some(Self)
    }
}

/// Calls a portal. The message is in the caller's UTCB; the reply comes there. The first value of the result is the
/// header of the reply. The caller waits until the callee answers; its time runs the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcCall {
    /// Portal (`PT_CALL`).
    pub portal: Selector,
    /// [`crate::utcb::Header`] of the message.
    pub header: u64,
    /// [`IpcFlags`].
    pub flags: u64,
}
call!(IpcCall = 1; portal, header, flags);

/// Answers the caller of the calling local EC, and waits for the next call. Does not return: the EC goes on at a
/// portal's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcReply {
    /// [`crate::utcb::Header`] of the reply.
    pub header: u64,
}
call!(IpcReply = 2; header);

/// Creates a PD with its object, host-memory and port space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatePd {
    /// Where the PD goes; the object space goes to `sel + 1`, the host space to `sel + 2`, the port space to `sel +
    /// 3`.
    pub sel: Selector,
    /// PD that pays and out of whose budget the new one's comes (`PD_CHILDREN`).
    pub pd: Selector,
    /// Kernel memory for the new PD, bytes.
    pub budget: u64,
    /// How many priorities, from the lowest on, the new PD has: at most as many as the one that pays; 0 for as many.
    pub priorities: u32,
}
call!(CreatePd = 3; sel, pd, budget, priorities);

/// Creates a guest-memory, DMA or MSR space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateSpace {
    /// Where the space goes.
    pub sel: Selector,
    /// PD that pays (`PD_CONTEXTS`).
    pub pd: Selector,
    /// [`crate::cap::SpaceKind`].
    pub kind: u64,
}
call!(CreateSpace = 4; sel, pd, kind);

/// Creates an execution context. It runs in `pd`; its UTCB is mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateEc {
    /// Where the EC goes.
    pub sel: Selector,
    /// PD in which it runs and that pays (`PD_CONTEXTS`).
    pub pd: Selector,
    /// [`EcFlags`], core number in bits 8..16, selector of the exception portal (`PT_EVENT`, or [`crate::cap::NONE`])
    /// in bits 32..64.
    pub flags: u64,
    /// Page-aligned address of the UTCB in the PD, not mapped yet.
    pub utcb: u64,
    /// Initial stack pointer.
    pub sp: u64,
    /// Initial instruction pointer (global ECs; 0 for local ones).
    pub ip: u64,
}
call!(CreateEc = 5; sel, pd, flags, utcb, sp, ip);

/// Creates a scheduling context bound to a global EC, which starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateSc {
    /// Where the SC goes.
    pub sel: Selector,
    /// PD that pays (`PD_CONTEXTS`).
    pub pd: Selector,
    /// Global EC without SC (`EC_SCHED`).
    pub ec: Selector,
    /// One of those that both PDs have, the one that pays and the EC's; below [`crate::PRIORITIES`].
    pub priority: u32,
    /// Time slice in microseconds, at least 1.
    pub quantum: u64,
}
call!(CreateSc = 6; sel, pd, ec, priority, quantum);

/// Creates a portal into a local EC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatePt {
    /// Where the portal goes.
    pub sel: Selector,
    /// PD that pays (`PD_OBJECTS`).
    pub pd: Selector,
    /// Local EC (`EC_PORTALS`).
    pub ec: Selector,
    /// Entry point.
    pub ip: u64,
    /// Identity, given to the callee at each call.
    pub id: u64,
}
call!(CreatePt = 7; sel, pd, ec, ip, id);

/// Creates a semaphore, or a signal: a semaphore whose ups set a bit in the word of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateSm {
    /// Where the semaphore goes.
    pub sel: Selector,
    /// PD that pays (`PD_OBJECTS`).
    pub pd: Selector,
    /// Initial counter (0 for signals).
    pub count: u64,
    /// [`crate::cap::NONE`], or the semaphore to which a signal goes (`SM_BIND`).
    pub target: Selector,
    /// Bit number in the target's word, below 64.
    pub bit: u32,
}
call!(CreateSm = 8; sel, pd, count, target, bit);

/// Creates a virtual CPU in a guest space. Its state page is mapped into a host space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateVcpu {
    /// Where the VCPU goes.
    pub sel: Selector,
    /// PD that pays (`PD_CONTEXTS`).
    pub pd: Selector,
    /// Guest space (`SPACE_ASSIGN`).
    pub guest: Selector,
    /// Host space for the state page (`SPACE_GRANT`).
    pub host: Selector,
    /// Page-aligned address of the state page there, not mapped yet.
    pub address: u64,
    /// Core on which it runs.
    pub core: u32,
}
call!(CreateVcpu = 9; sel, pd, guest, host, address, core);

/// Copies an aligned range of one space to another of a kind that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Source space (`SPACE_TAKE`).
    pub src: Selector,
    /// Destination space (`SPACE_GRANT`).
    pub dst: Selector,
    /// First unit in the source, aligned to the order.
    pub src_base: u64,
    /// First unit in the destination, aligned to the order.
    pub dst_base: u64,
    /// Log2 of the number of units.
    pub order: u32,
    /// [`crate::cap::Access`] for memory, [`crate::cap::Perms`] for capabilities, 1 for ports.
    pub rights: u64,
}
call!(Delegate = 10; src, dst, src_base, dst_base, order, rights);

/// Removes an aligned range from a space. What was not there is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// Space (`SPACE_GRANT`).
    pub space: Selector,
    /// First unit, aligned to the order.
    pub base: u64,
    /// Log2 of the number of units.
    pub order: u32,
}
call!(Revoke = 11; space, base, order);

/// Removes selectors from the caller's own object space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// First selector.
    pub base: Selector,
    /// How many, at most 512.
    pub count: u32,
}
call!(Drop = 12; base, count);

/// Destroys an object: it is dead for all who hold capabilities to it. Answers `Again` while there is work left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destroy {
    /// Object (`CTRL`).
    pub sel: Selector,
}
call!(Destroy = 13; sel);

/// Moves kernel-memory budget between two PDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveBudget {
    /// PD whose free budget shrinks (`PD_CHILDREN`).
    pub from: Selector,
    /// PD whose budget grows (`CTRL`).
    pub to: Selector,
    /// How much.
    pub bytes: u64,
}
call!(MoveBudget = 14; from, to, bytes);

/// Answers the budget (first value) and what is used of it (second value), bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdInfo {
    /// PD (`CTRL`).
    pub pd: Selector,
}
call!(PdInfo = 15; pd);

/// Answers the time that an SC has used, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScTime {
    /// SC (`CTRL`).
    pub sc: Selector,
}
call!(ScTime = 16; sc);

/// Counts up, or sets the signal's bit; wakes the first that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmUp {
    /// Semaphore (`SM_UP`).
    pub sm: Selector,
}
call!(SmUp = 17; sm);

/// Counts down, or takes the word of signals; waits while it is 0. The first value is the counter or word that was
/// taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmDown {
    /// Semaphore (`SM_DOWN`).
    pub sm: Selector,
    /// [`DownFlags`].
    pub flags: u64,
    /// Ticks, 0 for none.
    pub deadline: u64,
}
call!(SmDown = 18; sm, flags, deadline);

/// Runs a VCPU on the caller's time until it exits. Why and with what is in the state page; the first value is the
/// exit reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuRun {
    /// VCPU (`VCPU_RUN`).
    pub vcpu: Selector,
}
call!(VcpuRun = 19; vcpu);

/// Writes further groups of the state of a VCPU that is not running to its state page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuSync {
    /// VCPU (`VCPU_RUN`).
    pub vcpu: Selector,
    /// Groups of state.
    pub groups: u64,
}
call!(VcpuSync = 20; vcpu, groups);

/// Makes a VCPU leave the guest, or not enter it the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuKick {
    /// VCPU (`VCPU_KICK`).
    pub vcpu: Selector,
}
call!(VcpuKick = 21; vcpu);

/// Binds an interrupt line to a semaphore: each is an up. A level-triggered one stays masked until acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqBind {
    /// The machine (`MACHINE_IRQ`).
    pub machine: Selector,
    /// Semaphore (`SM_BIND`).
    pub sm: Selector,
    /// Global system interrupt.
    pub gsi: u32,
    /// [`IrqFlags`], core in bits 8..16.
    pub flags: u64,
}
call!(IrqBind = 22; machine, sm, gsi, flags);

/// Acknowledges an interrupt that was taken, so that the next can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqAck {
    /// Semaphore to which an interrupt is bound (`SM_DOWN`).
    pub sm: Selector,
}
call!(IrqAck = 23; sm);

/// Controls the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineControl {
    /// The machine (permission by operation).
    pub machine: Selector,
    /// [`MachineOp`].
    pub operation: u64,
    /// Argument of the operation.
    pub value: u64,
}
call!(MachineControl = 24; machine, operation, value);

/// Gives the rest of the time slice to others of the same priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yield;

impl Call for Yield {
    const NUMBER: u64 = 25;
    const NAME: &'static str = "Yield";
    #[inline]
    fn encode(&self) -> Args {
        [0; 6]
    }
    #[inline]
    fn decode(_: &Args) -> Option<Self> {
        Some(Self)
    }
}

/// Binds a message-signalled interrupt (MSI, or one vector of MSI-X) to a semaphore: each is an up. Answers the address (first
/// value) and the data (second value) that the device's driver writes into the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindMsi {
    /// The machine (`MACHINE_IRQ`).
    pub machine: Selector,
    /// Semaphore (`SM_BIND`).
    pub sm: Selector,
    /// Requester id of the device: PCI segment in bits 16..32, bus in 8..16, device in 3..8, function in 0..3.
    pub device: u32,
    /// Core to which the interrupt goes.
    pub core: u32,
}
call!(BindMsi = 26; machine, sm, device, core);

/// Reads the trace of a core, or names an EC in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceControl {
    /// The machine (`CTRL`).
    pub machine: Selector,
    /// [`crate::trace::TraceOp`].
    pub operation: u64,
    /// By operation: number of the core, or selector of the EC.
    pub argument: u32,
    /// By operation: number of the first record wanted, or length of the name.
    pub value: u64,
}
call!(TraceControl = 27; machine, operation, argument, value);

/// Puts a device into a DMA space, or takes it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignDevice {
    /// The machine (`MACHINE_DEVICE`).
    pub machine: Selector,
    /// DMA space (`SPACE_ASSIGN`).
    pub space: Selector,
    /// Requester id: bus in bits 8..16, device in 3..8, function in 0..3.
    pub device: u32,
    /// [`DeviceFlags`].
    pub flags: u64,
}
call!(AssignDevice = 28; machine, space, device, flags);

/// Takes the oldest fault of a device: the address (first value) and a [`FaultRecord`] (second value). With a semaphore: counts that up at
/// each fault from now on, and takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFault {
    /// The machine (`MACHINE_DEVICE`).
    pub machine: Selector,
    /// [`crate::cap::NONE`], or a semaphore (`SM_BIND`).
    pub sm: Selector,
}
call!(DeviceFault = 29; machine, sm);

/// Arguments of every call by name, in the order of the numbers.
pub const ARGUMENTS: [&[&str]; CALLS.len()] = [
    Null::ARGUMENTS,
    IpcCall::ARGUMENTS,
    IpcReply::ARGUMENTS,
    CreatePd::ARGUMENTS,
    CreateSpace::ARGUMENTS,
    CreateEc::ARGUMENTS,
    CreateSc::ARGUMENTS,
    CreatePt::ARGUMENTS,
    CreateSm::ARGUMENTS,
    CreateVcpu::ARGUMENTS,
    Delegate::ARGUMENTS,
    Revoke::ARGUMENTS,
    Drop::ARGUMENTS,
    Destroy::ARGUMENTS,
    MoveBudget::ARGUMENTS,
    PdInfo::ARGUMENTS,
    ScTime::ARGUMENTS,
    SmUp::ARGUMENTS,
    SmDown::ARGUMENTS,
    VcpuRun::ARGUMENTS,
    VcpuSync::ARGUMENTS,
    VcpuKick::ARGUMENTS,
    IrqBind::ARGUMENTS,
    IrqAck::ARGUMENTS,
    MachineControl::ARGUMENTS,
    Yield::ARGUMENTS,
    BindMsi::ARGUMENTS,
    TraceControl::ARGUMENTS,
    AssignDevice::ARGUMENTS,
    DeviceFault::ARGUMENTS,
];

/// Name and number of every call, in the order of the numbers.
pub const CALLS: [(&str, u64); 30] = [
    (Null::NAME, Null::NUMBER),
    (IpcCall::NAME, IpcCall::NUMBER),
    (IpcReply::NAME, IpcReply::NUMBER),
    (CreatePd::NAME, CreatePd::NUMBER),
    (CreateSpace::NAME, CreateSpace::NUMBER),
    (CreateEc::NAME, CreateEc::NUMBER),
    (CreateSc::NAME, CreateSc::NUMBER),
    (CreatePt::NAME, CreatePt::NUMBER),
    (CreateSm::NAME, CreateSm::NUMBER),
    (CreateVcpu::NAME, CreateVcpu::NUMBER),
    (Delegate::NAME, Delegate::NUMBER),
    (Revoke::NAME, Revoke::NUMBER),
    (Drop::NAME, Drop::NUMBER),
    (Destroy::NAME, Destroy::NUMBER),
    (MoveBudget::NAME, MoveBudget::NUMBER),
    (PdInfo::NAME, PdInfo::NUMBER),
    (ScTime::NAME, ScTime::NUMBER),
    (SmUp::NAME, SmUp::NUMBER),
    (SmDown::NAME, SmDown::NUMBER),
    (VcpuRun::NAME, VcpuRun::NUMBER),
    (VcpuSync::NAME, VcpuSync::NUMBER),
    (VcpuKick::NAME, VcpuKick::NUMBER),
    (IrqBind::NAME, IrqBind::NUMBER),
    (IrqAck::NAME, IrqAck::NUMBER),
    (MachineControl::NAME, MachineControl::NUMBER),
    (Yield::NAME, Yield::NUMBER),
    (BindMsi::NAME, BindMsi::NUMBER),
    (TraceControl::NAME, TraceControl::NUMBER),
    (AssignDevice::NAME, AssignDevice::NUMBER),
    (DeviceFault::NAME, DeviceFault::NUMBER),
];

bitflags! {
    /// How a portal is called.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IpcFlags: u64 {
        /// Answer `Timeout` at once if the callee is busy, instead of helping it.
        const NONBLOCKING = 1 << 0;
    }
}

bitflags! {
    /// What kind of EC is created.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EcFlags: u64 {
        /// A thread that gets an SC of its own; else a local one that serves portals on its callers' time.
        const GLOBAL = 1 << 0;
        /// It uses floating-point and vector registers.
        const FPU = 1 << 1;
    }
}

impl CreateEc {
    /// Packs flags, core and exception portal into the argument.
    #[must_use]
    pub const fn pack(flags: EcFlags, core: u8, event: Selector) -> u64 {
        flags.bits() | (core as u64) << 8 | (event as u64) << 32
    }

    /// Flags of the packed argument, `None` if an unknown one is set.
    #[must_use]
    pub const fn ec_flags(&self) -> Option<EcFlags> {
        EcFlags::from_bits(self.flags & 0xffff_00ff)
    }

    /// Core of the packed argument.
    #[must_use]
    pub const fn core(&self) -> u8 {
        (self.flags >> 8 & 0xff) as u8
    }

    /// Exception portal of the packed argument.
    #[must_use]
    pub const fn event(&self) -> Selector {
        (self.flags >> 32) as Selector
    }
}

bitflags! {
    /// How a semaphore is counted down.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DownFlags: u64 {
        /// Take the whole counter instead of one.
        const ZERO = 1 << 0;
        /// Do not wait: answer `Timeout` if it is 0.
        const NONBLOCKING = 1 << 1;
    }
}

bitflags! {
    /// How an interrupt is wired. Without flags as the machine's tables say (ISA: edge, high; PCI: level, low).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqFlags: u64 {
        /// Level-triggered.
        const LEVEL = 1 << 0;
        /// Active low.
        const LOW = 1 << 1;
        /// Trigger and polarity are given by the two bits above, not by the tables.
        const EXPLICIT = 1 << 2;
    }
}

bitflags! {
    /// What [`AssignDevice`] does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceFlags: u64 {
        /// Take the device out of the space.
        const REMOVE = 1 << 0;
    }
}

/// What is told of a device's fault beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// Requester id of the device.
    pub device: u16,
    /// 1: nothing mapped at the address, or not with that right; 2: the device is in no space; 3: an interrupt that is not its own;
    /// 4: something else.
    pub cause: u8,
    /// It was a write.
    pub write: bool,
    /// Faults that were not kept since the last that was taken.
    pub lost: u32,
}

impl FaultRecord {
    /// As a result's value: device in bits 0..16, cause in 16..24, write in 24, lost in 32..64.
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.device as u64 | (self.cause as u64) << 16 | (self.write as u64) << 24 | (self.lost as u64) << 32
    }

    /// From a result's value.
    #[must_use]
    pub const fn unpack(value: u64) -> Self {
        let [low, high, cause, write, ..] = value.to_le_bytes();
        let device = u16::from_le_bytes([low, high]);
        Self { device, cause, write: write & 1 != 0, lost: (value >> 32) as u32 }
    }
}

/// Operations of [`MachineControl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MachineOp {
    /// Power off (`MACHINE_POWER`). The value is the exit code for machines that have one.
    PowerOff = 0,
    /// Reset (`MACHINE_POWER`).
    Reset = 1,
    /// Write as many bytes as the value says, out of the message words, to the debug console (`MACHINE_CONSOLE`).
    Console = 2,
    /// Answer how much memory is where, bytes; the value is a [`MemoryPart`] (`CTRL`).
    Memory = 3,
    /// Answer the time of a core that no SC used, ticks; the value is the core's number (`CTRL`).
    Idle = 4,
}

/// What [`MachineOp::Memory`] tells of. The pool is the root task's budget (PD information), and what the kernel took for itself at
/// boot: `Cores` and `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MemoryPart {
    /// Size of the kernel's pool, and what is free of it.
    Pool = 0,
    /// Size of the firmware's memory map, which is that of all ranges of the information page; and of the kernel's image.
    Machine = 1,
    /// Of the pool: structures and stacks of cores; page tables of the kernel.
    Cores = 2,
    /// Of the pool: interrupts, devices, guests and tracing. Beside the pool: tables of the IOMMU.
    Other = 3,
}

impl MemoryPart {
    /// The part of that number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::Pool,
            1 => Self::Machine,
            2 => Self::Cores,
            3 => Self::Other,
            _ => return None,
        })
    }
}

impl MachineOp {
    /// The operation of that number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            0 => Self::PowerOff,
            1 => Self::Reset,
            2 => Self::Console,
            3 => Self::Memory,
            4 => Self::Idle,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, CALLS, Call, CreateEc, CreateSm, EcFlags, SmUp};

    #[test]
    fn numbers_are_dense() {
        for (index, (name, number)) in CALLS.iter().enumerate() {
            assert_eq!(index as u64, *number, "{name}");
        }
    }

    #[test]
    fn arguments_survive_registers() {
        let call = CreateSm { sel: 7, pd: 1, count: u64::MAX, target: u32::MAX, bit: 63 };
        assert_eq!(CreateSm::decode(&call.encode()), Some(call));
    }

    #[test]
    fn wide_selector_is_refused() {
        let args: Args = [1 << 32, 0, 0, 0, 0, 0];
        assert_eq!(SmUp::decode(&args), None);
    }

    #[test]
    fn ec_flags_pack() {
        let flags = CreateEc::pack(EcFlags::GLOBAL | EcFlags::FPU, 3, 0x1234);
        let call = CreateEc { sel: 0, pd: 0, flags, utcb: 0, sp: 0, ip: 0 };
        assert_eq!(call.ec_flags(), Some(EcFlags::GLOBAL | EcFlags::FPU));
        assert_eq!(call.core(), 3);
        assert_eq!(call.event(), 0x1234);
    }
}
