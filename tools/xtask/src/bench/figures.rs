// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others take, measured in the same emulator in the same way, and the limits that we set ourselves.
//!
//! NOVA is release 24.35. KVM is Linux 6.1 on the emulated machine, measured with kvm-unit-tests' `vmexit`. The boot
//! was measured with Debian's cloud kernel, a 1 MB busybox initramfs, one VCPU and 256 MiB, from the monitor's start to
//! a line of the guest's first process.

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

const fn nova(name: &'static str, what: &'static str, limit: u64) -> Reference {
    Reference { name, what, limit, source: "NOVA 24.35" }
}

/// All that has something to be held against.
pub(crate) const REFERENCES: &[Reference] = &[
    nova("null", "shortest hypercall", 90),
    nova("ipc-same-1", "call and reply, same space, 1 word", 262),
    nova("ipc-same-64", "call and reply, same space, 64 words", 892),
    nova("ipc-other-1", "call and reply, other space, 1 word", 282),
    nova("ipc-other-64", "call and reply, other space, 64 words", 912),
    nova("semaphore-up", "semaphore up", 156),
    nova("semaphore-down", "semaphore down, not blocking", 167),
    nova("semaphore-create", "create a semaphore", 272),
    nova("delegate-cap", "delegate an object capability", 346),
    nova("delegate-page", "delegate a page", 977),
    nova("vm-exit-min", "VM exit (CPUID), smallest state", 444),
    nova("vm-exit-gpr", "VM exit (CPUID), general-purpose registers", 544),
    Reference {
        name: "port-read",
        what: "port read by a device model in the VMM",
        limit: 1000,
        source: "own limit; KVM in the kernel 1439, by QEMU 4970",
    },
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

/// What a benchmark of this name is held against.
pub(crate) fn find(name: &str) -> Option<&'static Reference> {
    REFERENCES.iter().find(|reference| reference.name == name)
}
