// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others take, measured in the same emulator in the same way, and the limits that we set ourselves.
//!
//! NOVA is release 24.35. KVM is Linux 6.1 on the emulated machine, measured with kvm-unit-tests' `vmexit`. The boot
//! was measured with Debian's cloud kernel, a 1 MB busybox initramfs, one VCPU and 256 MiB, from the monitor's start to
//! a line of the guest's first process.
//!
//! A limit of our own is what the kernel took when it was set, and a tenth: it finds out what has become worse. How figures
//! grow is a matter of two of them ([`Growth`]).

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// The benchmark's name.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) what: &'static str,
    /// At most this is good.
    pub(crate) limit: u64,
    /// Whose figure that is, and what others take.
    pub(crate) source: &'static str,
}

/// Figures that belong together, by a heading.
pub(crate) type Group = (&'static str, &'static [Reference]);

/// How much more one figure may be than another, where what they measure is not to grow; or how much less it must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// The figure with many.
    pub(crate) many: &'static str,
    /// The figure with few.
    pub(crate) few: &'static str,
    /// Hundredths of the latter that the former may be.
    pub(crate) percent: u64,
    /// What that says.
    pub(crate) what: &'static str,
}

const fn nova(name: &'static str, what: &'static str, limit: u64) -> Reference {
    Reference { name, what, limit, source: "NOVA 24.35" }
}

const fn own(name: &'static str, what: &'static str, limit: u64) -> Reference {
    Reference { name, what, limit, source: "own limit" }
}

/// All that has something to be held against.
pub(crate) const GROUPS: &[Group] = &[
    ("Calls of a component", IPC),
    ("Semaphores", SEMAPHORES),
    ("Delegation", DELEGATION),
    ("Exits of a guest", EXITS),
    ("One object of each kind", OBJECTS),
    ("With all barriers against speculation", BARRIERS),
    ("With a trace", TRACED),
    ("Another core", CORES),
    ("Choosing who runs, and time", SCHEDULING),
    ("Per object, with 10, 1,000 and 100,000 of them", GROWTH),
    ("A virtual machine", MACHINES),
];

const IPC: &[Reference] = &[
    nova("null", "shortest hypercall", 90),
    nova("ipc-same-1", "call and reply, same space, 1 word", 262),
    own("ipc-same-8", "the same, 8 words", 300),
    nova("ipc-same-64", "the same, 64 words", 892),
    nova("ipc-other-1", "call and reply, other space, 1 word", 282),
    own("ipc-other-8", "the same, 8 words", 325),
    nova("ipc-other-64", "the same, 64 words", 912),
    own("ipc-idle-server", "call of a server that signals when it is called", 390),
    own("ipc-busy-server", "the same, while it answers another caller, who is helped", 1_500),
];

const SEMAPHORES: &[Reference] = &[
    nova("semaphore-up", "semaphore up", 156),
    nova("semaphore-down", "semaphore down, not blocking", 167),
    nova("semaphore-create", "create a semaphore", 272),
];

const DELEGATION: &[Reference] = &[
    nova("delegate-cap", "delegate an object capability", 346),
    nova("delegate-page", "delegate a page", 977),
    own("revoke-cap", "revoke a capability, the last of its object", 620),
    own("revoke-page", "revoke a page", 655),
    own("drop-last", "drop a capability, the last of its object", 590),
];

const EXITS: &[Reference] = &[
    nova("vm-exit-min", "VM exit (CPUID), smallest state", 444),
    nova("vm-exit-gpr", "VM exit (CPUID), general-purpose registers", 544),
    Reference {
        name: "port-read",
        what: "port read by a device model in the VMM",
        limit: 1000,
        source: "own limit; KVM in the kernel 1439, by QEMU 4970",
    },
    own("guest-cpuid", "CPUID answered by the VMM", 910),
    own("guest-rdmsr", "RDMSR answered by the VMM", 840),
];

const OBJECTS: &[Reference] = &[
    own("pd-create", "create a PD with its three spaces", 2_600),
    own("pd-info", "ask for a budget", 155),
    own("budget-move", "move budget", 170),
    own("ec-create", "create a thread", 1_350),
    own("sc-create", "create a scheduling context", 520),
    own("sc-time", "ask for time used", 205),
    own("pt-create", "create a portal", 310),
    own("space-create", "create a guest space", 950),
    own("vcpu-create", "create a virtual CPU", 3_600),
    own("vcpu-sync", "write all groups of a virtual CPU but FPU", 580),
    own("vcpu-kick", "kick a virtual CPU that does not run", 165),
    own("destroy", "destroy a semaphore", 650),
    own("memory-info", "ask for memory", 165),
];

const BARRIERS: &[Reference] = &[
    own("barriers-null", "shortest hypercall", 106),
    own("barriers-ipc-same-1", "call and reply, same space, 1 word", 351),
    own("barriers-ipc-same-8", "the same, 8 words", 380),
    own("barriers-ipc-same-64", "the same, 64 words", 780),
    own("barriers-ipc-other-1", "call and reply, other space, 1 word", 715),
    own("barriers-ipc-other-8", "the same, 8 words", 745),
    own("barriers-ipc-other-64", "the same, 64 words", 1_145),
    own("barriers-vm-exit-min", "VM exit (CPUID), smallest state", 579),
    own("barriers-vm-exit-gpr", "VM exit (CPUID), general-purpose registers", 707),
];

const TRACED: &[Reference] = &[
    own("traced-null", "shortest hypercall", 210),
    own("traced-ipc-same-1", "call and reply, same space, 1 word", 735),
    own("traced-ipc-same-8", "the same, 8 words", 760),
    own("traced-ipc-same-64", "the same, 64 words", 1_160),
    own("traced-ipc-other-1", "call and reply, other space, 1 word", 760),
    own("traced-ipc-other-8", "the same, 8 words", 785),
    own("traced-ipc-other-64", "the same, 64 words", 1_180),
    own("traced-vm-exit-min", "VM exit (CPUID), smallest state", 640),
    own("traced-vm-exit-gpr", "VM exit (CPUID), general-purpose registers", 750),
];

const CORES: &[Reference] = &[
    own("call-here-least", "call and reply, same core, the shortest of 101", 290),
    own("call-here-median", "the same, the median", 290),
    own("call-there-least", "call and reply across cores, the shortest of 101", 3_000),
    own("call-there-median", "the same, the median", 3_000),
    own("wake-here-least", "wake a thread and be woken by it, same core", 1_450),
    own("wake-here-median", "the same, the median", 1_450),
    own("wake-there-least", "wake a thread and be woken by it, across cores", 3_200),
    own("wake-there-median", "the same, the median", 3_200),
    own("flush-idle-least", "revoke a page, the other core is idle", 840),
    own("flush-idle-median", "the same, the median", 840),
    own("flush-busy-least", "revoke a page, the other core runs in that space", 1_100),
    own("flush-busy-median", "the same, the median", 1_100),
];

const SCHEDULING: &[Reference] = &[
    own("switch-2", "a turn of one who yields, 2 can run", 480),
    own("switch-10", "the same, 10 can run", 480),
    own("switch-100", "the same, 100 can run", 480),
    own("switch-1000", "the same, 1,000 can run", 480),
    own("timer-0", "wait with a deadline, be woken: nobody else waits", 1_350),
    own("timer-0-last", "the same", 1_350),
    own("timer-10", "the same, 10 others wait, for later", 1_400),
    own("timer-10-last", "the same, 10 others wait, for sooner", 1_430),
    own("timer-1000", "the same, 1,000 others wait, for later", 1_400),
    own("timer-1000-last", "the same, 1,000 others wait, for sooner", 1_630),
];

const GROWTH: &[Reference] = &[
    own("create-10", "create a semaphore, 10", 280),
    own("create-1000", "the same, 1,000", 282),
    own("create-100000", "the same, 100,000", 282),
    own("give-10", "delegate a capability, 10: with tables", 370),
    own("give-1000", "the same, 1,000", 295),
    own("give-100000", "the same, 100,000", 295),
    own("map-10", "delegate a page, 10: with tables", 705),
    own("map-1000", "the same, 1,000", 515),
    own("map-100000", "the same, 100,000", 515),
    own("destroy-10", "destroy a PD, per semaphore and page of 10", 3_650),
    own("destroy-1000", "the same, of 1,000", 430),
    own("destroy-100000", "the same, of 100,000", 410),
    own("piece-10", "the longest of the calls that destroy it", 30_500),
    own("piece-1000", "the same, of 1,000", 30_500),
    own("piece-100000", "the same, of 100,000", 30_500),
];

const MACHINES: &[Reference] = &[
    Reference {
        name: "boot-time",
        what: "a guest's boot",
        limit: 1_600_000_000,
        source: "Cloud Hypervisor; Firecracker 1.63 G, QEMU q35 1.91 G, bare 1.53 G",
    },
    Reference {
        name: "boot-exits",
        what: "VM exits of that boot",
        limit: 2564,
        source: "Firecracker; Cloud Hypervisor 3296, QEMU q35 25023",
    },
    Reference {
        name: "vm-overhead",
        what: "memory beside the guest's",
        limit: 5 << 20,
        source: "own limit; alioth 5.4 MiB, Firecracker 6.3, Cloud Hypervisor 8.4",
    },
];

const fn flat(many: &'static str, few: &'static str, percent: u64, what: &'static str) -> Growth {
    Growth { many, few, percent, what }
}

/// What is not to grow.
pub(crate) const GROWTHS: &[Growth] = &[
    flat("switch-1000", "switch-2", 105, "choosing who runs is flat"),
    flat("timer-1000", "timer-10", 105, "a deadline sooner than all others costs the same however many wait"),
    flat("timer-1000-last", "timer-10", 130, "a deadline later than all others costs a logarithm"),
    flat("null", "barriers-null", 90, "barriers of system calls are executed where they are needed"),
    flat("ipc-other-1", "barriers-ipc-other-1", 70, "barriers between components are executed, too"),
    flat("vm-exit-min", "barriers-vm-exit-min", 90, "and those around guests"),
    flat("create-100000", "create-1000", 105, "creation is linear"),
    flat("give-100000", "give-1000", 105, "delegation of capabilities is linear"),
    flat("map-100000", "map-1000", 105, "delegation of memory is linear"),
    flat("destroy-100000", "destroy-1000", 105, "destruction is linear"),
    flat("piece-100000", "piece-10", 105, "nobody's destruction holds the kernel for longer"),
];

/// All references, in order.
pub(crate) fn all() -> impl Iterator<Item = &'static Reference> {
    GROUPS.iter().flat_map(|(_, references)| *references)
}

/// What a benchmark of this name is held against.
pub(crate) fn find(name: &str) -> Option<&'static Reference> {
    all().find(|reference| reference.name == name)
}
