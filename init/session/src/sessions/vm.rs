// SPDX-License-Identifier: MIT OR Apache-2.0
//! VM: a guest's physical memory and its virtual CPUs.

use crate::{Attach, Cap, Object};

interface! {
    /// One virtual machine. What it costs in the kernel (nested page tables, VCPUs) is paid by the session's donation.
    pub trait Vm, client VmClient, server VmServer {
        /// Attaches (a part of) a dataspace to guest-physical memory; an address must be given.
        1 => fn attach(dataspace: Object, place: Attach) -> ();
        /// Detaches all that is attached in this range of guest-physical memory. Attachments are cut. In bytes, whole pages.
        2 => fn detach(address: u64, size: u64) -> ();
        /// Creates a virtual CPU. Its state page is mapped at `state` (page-aligned, in a range that the PD reserved) into
        /// the PD. Its capability allows to run and to kick it; that is done by hypercalls.
        3 => fn create_vcpu(pd: Object, state: u64, core: u32) -> Cap;
    }
}
