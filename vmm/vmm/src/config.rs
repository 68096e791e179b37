// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a VM is made of, wherever that was read from.

use std::path::PathBuf;

/// How power management and legacy devices are described to the guest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Profile {
    /// No legacy timers and interrupt controllers: for guests that know hardware-reduced ACPI.
    #[default]
    Reduced,
    /// A PC with all that.
    Full,
}

/// A VM's configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VmConfig {
    /// Guest memory in bytes.
    pub memory: u64,
    /// The kernel: a bzImage.
    pub kernel: PathBuf,
    /// The initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
    /// Kind of machine.
    pub profile: Profile,
    /// Count exits by reason and print the counts at the end.
    pub stats: bool,
    /// With `stats`: print the counts so far when the guest's console shows this.
    pub stats_at: Option<String>,
    /// With `stats`: the memory that the parent has given to the VMM, to tell what a VM costs beside its guest's memory.
    pub given: Option<u64>,
    /// Test switch: the VMM crashes after that many milliseconds.
    pub crash_after_ms: Option<u64>,
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            kernel: PathBuf::from("vmlinuz"),
            initrd: None,
            command_line: "console=ttyS0 reboot=t panic=-1".into(),
            profile: Profile::default(),
            stats: false,
            stats_at: None,
            given: None,
            crash_after_ms: None,
        }
    }
}
