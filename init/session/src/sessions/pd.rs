// SPDX-License-Identifier: MIT OR Apache-2.0
//! Protection domain (PD): memory, address space, quota and kernel objects of one component.

use crate::{Attach, Cap, Object, Resources, Rights};

wire_struct! {
    /// State of an account.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Quota {
        /// RAM that belongs to the account, bytes.
        pub ram: u64,
        /// Of it used, bytes.
        pub ram_used: u64,
        /// Capabilities that belong to the account.
        pub caps: u64,
        /// Of these used.
        pub caps_used: u64,
    }
}

impl Quota {
    /// What can still be used.
    #[must_use]
    pub const fn available(&self) -> Resources {
        Resources { ram: self.ram_available(), caps: self.caps_available() }
    }

    /// RAM that can still be used, bytes.
    #[must_use]
    pub const fn ram_available(&self) -> u64 {
        self.ram.saturating_sub(self.ram_used)
    }

    /// Capabilities that can still be used.
    #[must_use]
    pub const fn caps_available(&self) -> u64 {
        self.caps.saturating_sub(self.caps_used)
    }
}

wire_struct! {
    /// A kernel object that core made for the component.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Made {
        /// Names it towards the PD session, for `free_object`.
        pub handle: u64,
        /// The capability.
        pub cap: Cap,
    }
}

interface! {
    /// A component's own means. Its parent holds the same capability and prepares the component with it.
    pub trait Pd, client PdClient, server PdServer {
        /// Allocates zeroed RAM as a dataspace. `size` in bytes is rounded up to pages; `align` is the log2 of the wished alignment
        /// of its physical address (12 to 30; guests like 21), which also is how large the pages can be that it is mapped with.
        1 => fn alloc(size: u64, align: u32) -> Cap;
        /// Frees a dataspace; it vanishes from wherever it is attached.
        2 => fn free(dataspace: Object) -> ();
        /// The account.
        3 => fn quota() -> Quota;
        /// Sets, once, the account with which quota can be exchanged: that of another PD session.
        4 => fn reference_account(pd: Object) -> ();
        /// Moves free quota to another PD session; one of the two must be the reference account of the other.
        5 => fn transfer_quota(pd: Object, amount: Resources) -> ();
        /// Attaches a dataspace to the address space and answers where.
        6 => fn attach(dataspace: Object, place: Attach) -> u64;
        /// Detaches what is attached, or gives free what is reserved, at this address.
        7 => fn detach(address: u64) -> ();
        /// Keeps an address range free: only an `attach` with an explicit address goes there. Without an address one is
        /// chosen. Answers where. `size` in bytes.
        8 => fn reserve(address: Option<u64>, size: u64) -> u64;
        /// Makes a portal into an entrypoint of this PD ([`crate::Cpu::create_entrypoint`]). `entry` is the address that a call
        /// starts at, `identity` what it gets to know of the portal.
        9 => fn alloc_rpc(entrypoint: Object, entry: u64, identity: u64) -> Made;
        /// Makes a signal: raising it sets a bit (below 64) of the notification word.
        10 => fn alloc_signal(bit: u32) -> Made;
        /// Makes a semaphore.
        11 => fn alloc_semaphore(count: u64) -> Made;
        /// Destroys what the three calls above made: it is dead for all who hold a capability to it.
        12 => fn free_object(handle: u64) -> ();
        /// The notification semaphore, whose word the signals set.
        13 => fn notification() -> Cap;
        /// Gives the component its parent (selector 1), before it starts.
        14 => fn assign_parent(parent: Cap) -> ();
        /// Changes the rights of a part of one attachment: the range must lie in what one `attach` made. In bytes, whole pages.
        15 => fn protect(address: u64, size: u64, rights: Rights) -> ();
    }
}
