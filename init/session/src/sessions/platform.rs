// SPDX-License-Identifier: MIT OR Apache-2.0
//! Platform: the machine as a whole.

wire_struct! {
    /// What core has left. Exact: a test compares two of them byte for byte.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MachineInfo {
        /// RAM in all, bytes.
        pub ram: u64,
        /// RAM that no dataspace uses, bytes.
        pub ram_free: u64,
        /// Capabilities in all.
        pub caps: u64,
        /// Capabilities that are not used.
        pub caps_free: u64,
        /// Kernel memory in all, bytes.
        pub kernel: u64,
        /// Kernel memory that is free, bytes.
        pub kernel_free: u64,
    }
}

interface! {
    /// Power and resources of the machine: only for who is routed to it.
    pub trait Platform, client PlatformClient, server PlatformServer {
        /// Powers off. The code is for machines that can pass one on.
        1 => fn power_off(code: u64) -> ();
        /// Resets.
        2 => fn reset() -> ();
        /// What there is, and what is left.
        3 => fn info() -> MachineInfo;
    }
}
