// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypercalls: numbers, arguments, results. One structure per call, decoded once; all of them stand in one table.
//!
//! A call has a number, up to six argument registers and up to three result registers ([`Args`], [`Results`]); which machine
//! registers these are says [`crate::arch`]. A selector argument that has bits above 32 set is a bad parameter.
//! Deadlines are absolute, in ticks of the core's time-stamp counter; 0 means none.

mod values;

use crate::cap::Selector;

pub use values::{DeviceFlags, DownFlags, EcFlags, FaultRecord, IpcFlags, IrqFlags, MachineOp, MemoryPart};

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

/// The table: each call with its number, and its arguments in the order of their registers.
macro_rules! calls {
    ($($(#[$text:meta])+ $name:ident = $number:literal { $($(#[$about:meta])+ $field:ident: $type:ty,)* })+) => {
        $(
            $(#[$text])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$about])+ pub $field: $type,)* }

            impl Call for $name {
                const NUMBER: u64 = $number;
                const NAME: &'static str = stringify!($name);
                const ARGUMENTS: &'static [&'static str] = &[$(stringify!($field)),*];
                #[inline]
                fn encode(&self) -> Args {
                    let mut args = [0; 6];
                    let values: [u64; Self::ARGUMENTS.len()] = [$(u64::from(self.$field)),*];
                    for (register, value) in args.iter_mut().zip(values) {
                        *register = value;
                    }
                    args
                }
                #[inline]
                fn decode(args: &Args) -> Option<Self> {
                    let [$($field,)* ..] = *args;
                    Some(Self { $($field: $field.try_into().ok()?,)* })
                }
            }
        )+

        /// Name and number of every call, in the order of the numbers.
        pub const CALLS: [(&str, u64); [$($number),+].len()] = [$(($name::NAME, $name::NUMBER)),+];

        /// Arguments of every call by name, in the order of the numbers.
        pub const ARGUMENTS: [&[&str]; CALLS.len()] = [$($name::ARGUMENTS),+];
    };
}

calls! {
    /// The shortest call: does nothing, answers the contract's version in the first value.
    Null = 0 {}

    /// Calls a portal. The message is in the caller's UTCB; the reply comes there. The first value of the result is the
    /// header of the reply. The caller waits until the callee answers; its time runs the callee.
    IpcCall = 1 {
        /// Portal (`PT_CALL`).
        portal: Selector,
        /// [`crate::utcb::Header`] of the message.
        header: u64,
        /// [`IpcFlags`].
        flags: u64,
    }

    /// Answers the caller of the calling local EC, and waits for the next call. Does not return: the EC goes on at a
    /// portal's entry.
    IpcReply = 2 {
        /// [`crate::utcb::Header`] of the reply.
        header: u64,
    }

    /// Creates a PD with its object, host-memory and port space.
    CreatePd = 3 {
        /// Where the PD goes; the object space goes to `sel + 1`, the host space to `sel + 2`, the port space to `sel +
        /// 3`.
        sel: Selector,
        /// PD that pays and out of whose budget the new one's comes (`PD_CHILDREN`).
        pd: Selector,
        /// Kernel memory for the new PD, bytes.
        budget: u64,
        /// How many priorities, from the lowest on, the new PD has: at most as many as the one that pays; 0 for as many.
        priorities: u32,
    }

    /// Creates a guest-memory, DMA or MSR space.
    CreateSpace = 4 {
        /// Where the space goes.
        sel: Selector,
        /// PD that pays (`PD_CONTEXTS`).
        pd: Selector,
        /// [`crate::cap::SpaceKind`].
        kind: u64,
    }

    /// Creates an execution context. It runs in `pd`; its UTCB is mapped there.
    CreateEc = 5 {
        /// Where the EC goes.
        sel: Selector,
        /// PD in which it runs and that pays (`PD_CONTEXTS`).
        pd: Selector,
        /// [`EcFlags`], core number in bits 8..16, selector of the exception portal (`PT_EVENT`, or [`crate::cap::NONE`])
        /// in bits 32..64.
        flags: u64,
        /// Page-aligned address of the UTCB in the PD, not mapped yet.
        utcb: u64,
        /// Initial stack pointer.
        sp: u64,
        /// Initial instruction pointer (global ECs; 0 for local ones).
        ip: u64,
    }

    /// Creates a scheduling context bound to a global EC, which starts.
    CreateSc = 6 {
        /// Where the SC goes.
        sel: Selector,
        /// PD that pays (`PD_CONTEXTS`).
        pd: Selector,
        /// Global EC without SC (`EC_SCHED`).
        ec: Selector,
        /// One of those that both PDs have, the one that pays and the EC's; below [`crate::PRIORITIES`].
        priority: u32,
        /// Time slice in microseconds, at least 1.
        quantum: u64,
    }

    /// Creates a portal into a local EC.
    CreatePt = 7 {
        /// Where the portal goes.
        sel: Selector,
        /// PD that pays (`PD_OBJECTS`).
        pd: Selector,
        /// Local EC (`EC_PORTALS`).
        ec: Selector,
        /// Entry point.
        ip: u64,
        /// Identity, given to the callee at each call.
        id: u64,
    }

    /// Creates a semaphore, or a signal: a semaphore whose ups set a bit in the word of another one.
    CreateSm = 8 {
        /// Where the semaphore goes.
        sel: Selector,
        /// PD that pays (`PD_OBJECTS`).
        pd: Selector,
        /// Initial counter (0 for signals).
        count: u64,
        /// [`crate::cap::NONE`], or the semaphore to which a signal goes (`SM_BIND`).
        target: Selector,
        /// Bit number in the target's word, below 64.
        bit: u32,
    }

    /// Creates a virtual CPU in a guest space. Its state page is mapped into a host space.
    CreateVcpu = 9 {
        /// Where the VCPU goes.
        sel: Selector,
        /// PD that pays (`PD_CONTEXTS`).
        pd: Selector,
        /// Guest space (`SPACE_ASSIGN`).
        guest: Selector,
        /// Host space for the state page (`SPACE_GRANT`).
        host: Selector,
        /// Page-aligned address of the state page there, not mapped yet.
        address: u64,
        /// Core on which it runs.
        core: u32,
    }

    /// Copies an aligned range of one space to another of a kind that fits.
    Delegate = 10 {
        /// Source space (`SPACE_TAKE`).
        src: Selector,
        /// Destination space (`SPACE_GRANT`).
        dst: Selector,
        /// First unit in the source, aligned to the order.
        src_base: u64,
        /// First unit in the destination, aligned to the order.
        dst_base: u64,
        /// Log2 of the number of units.
        order: u32,
        /// [`crate::cap::Access`] for memory, [`crate::cap::Perms`] for capabilities, 1 for ports.
        rights: u64,
    }

    /// Removes an aligned range from a space. What was not there is no error.
    Revoke = 11 {
        /// Space (`SPACE_GRANT`).
        space: Selector,
        /// First unit, aligned to the order.
        base: u64,
        /// Log2 of the number of units.
        order: u32,
    }

    /// Removes selectors from the caller's own object space.
    Drop = 12 {
        /// First selector.
        base: Selector,
        /// How many, at most 512.
        count: u32,
    }

    /// Destroys an object: it is dead for all who hold capabilities to it. Answers `Again` while there is work left.
    Destroy = 13 {
        /// Object (`CTRL`).
        sel: Selector,
    }

    /// Moves kernel-memory budget between two PDs.
    MoveBudget = 14 {
        /// PD whose free budget shrinks (`PD_CHILDREN`).
        from: Selector,
        /// PD whose budget grows (`CTRL`).
        to: Selector,
        /// How much.
        bytes: u64,
    }

    /// Answers the budget (first value) and what is used of it (second value), bytes.
    PdInfo = 15 {
        /// PD (`CTRL`).
        pd: Selector,
    }

    /// Answers the time that an SC has used, in ticks.
    ScTime = 16 {
        /// SC (`CTRL`).
        sc: Selector,
    }

    /// Counts up, or sets the signal's bit; wakes the first that waits.
    SmUp = 17 {
        /// Semaphore (`SM_UP`).
        sm: Selector,
    }

    /// Counts down, or takes the word of signals; waits while it is 0. The first value is the counter or word that was
    /// taken.
    SmDown = 18 {
        /// Semaphore (`SM_DOWN`).
        sm: Selector,
        /// [`DownFlags`].
        flags: u64,
        /// Ticks, 0 for none.
        deadline: u64,
    }

    /// Runs a VCPU on the caller's time until it exits. Why and with what is in the state page; the first value is the
    /// exit reason.
    VcpuRun = 19 {
        /// VCPU (`VCPU_RUN`).
        vcpu: Selector,
    }

    /// Writes further groups of the state of a VCPU that is not running to its state page.
    VcpuSync = 20 {
        /// VCPU (`VCPU_RUN`).
        vcpu: Selector,
        /// Groups of state.
        groups: u64,
    }

    /// Makes a VCPU leave the guest, or not enter it the next time.
    VcpuKick = 21 {
        /// VCPU (`VCPU_KICK`).
        vcpu: Selector,
    }

    /// Binds an interrupt line to a semaphore: each is an up. A level-triggered one stays masked until acknowledged.
    IrqBind = 22 {
        /// The machine (`MACHINE_IRQ`).
        machine: Selector,
        /// Semaphore (`SM_BIND`).
        sm: Selector,
        /// Global system interrupt.
        gsi: u32,
        /// [`IrqFlags`], core in bits 8..16.
        flags: u64,
    }

    /// Acknowledges an interrupt that was taken, so that the next can come.
    IrqAck = 23 {
        /// Semaphore to which an interrupt is bound (`SM_DOWN`).
        sm: Selector,
    }

    /// Controls the machine.
    MachineControl = 24 {
        /// The machine (permission by operation).
        machine: Selector,
        /// [`MachineOp`].
        operation: u64,
        /// Argument of the operation.
        value: u64,
    }

    /// Gives the rest of the time slice to others of the same priority.
    Yield = 25 {}

    /// Binds a message-signalled interrupt (MSI, or one vector of MSI-X) to a semaphore: each is an up. Answers the address (first
    /// value) and the data (second value) that the device's driver writes into the device.
    BindMsi = 26 {
        /// The machine (`MACHINE_IRQ`).
        machine: Selector,
        /// Semaphore (`SM_BIND`).
        sm: Selector,
        /// Requester id of the device: PCI segment in bits 16..32, bus in 8..16, device in 3..8, function in 0..3.
        device: u32,
        /// Core to which the interrupt goes.
        core: u32,
    }

    /// Reads the trace of a core, or names an EC in it.
    TraceControl = 27 {
        /// The machine (`CTRL`).
        machine: Selector,
        /// [`crate::trace::TraceOp`].
        operation: u64,
        /// By operation: number of the core, or selector of the EC.
        argument: u32,
        /// By operation: number of the first record wanted, or length of the name.
        value: u64,
    }

    /// Puts a device into a DMA space, or takes it out.
    AssignDevice = 28 {
        /// The machine (`MACHINE_DEVICE`).
        machine: Selector,
        /// DMA space (`SPACE_ASSIGN`).
        space: Selector,
        /// Requester id: bus in bits 8..16, device in 3..8, function in 0..3.
        device: u32,
        /// [`DeviceFlags`].
        flags: u64,
    }

    /// Takes the oldest fault of a device: the address (first value) and a [`FaultRecord`] (second value). With a semaphore: counts that up at
    /// each fault from now on, and takes none.
    DeviceFault = 29 {
        /// The machine (`MACHINE_DEVICE`).
        machine: Selector,
        /// [`crate::cap::NONE`], or a semaphore (`SM_BIND`).
        sm: Selector,
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
