// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dataspaces and region maps.

use crate::{Cap, Object};
use bitflags::bitflags;

bitflags! {
    /// How memory is attached. Never writable and executable at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Readable.
        const READ = 1 << 0;
        /// Writable.
        const WRITE = 1 << 1;
        /// Executable.
        const EXEC = 1 << 2;
        /// Readable and writable.
        const RW = Self::READ.bits() | Self::WRITE.bits();
        /// Readable and executable.
        const RX = Self::READ.bits() | Self::EXEC.bits();
    }
}
wire_flags!(Rights);

wire_struct! {
    /// What part of a dataspace goes where. In bytes, whole pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Attach {
        /// First byte in the dataspace.
        pub offset: u64,
        /// How much; 0 for all behind `offset`.
        pub size: u64,
        /// Where; nothing for anywhere.
        pub address: Option<u64>,
        /// With what rights.
        pub rights: Rights,
    }
}

impl Attach {
    /// All of a dataspace, anywhere.
    #[must_use]
    pub const fn anywhere(rights: Rights) -> Self {
        Self { offset: 0, size: 0, address: None, rights }
    }

    /// All of a dataspace, at this address.
    #[must_use]
    pub const fn at(address: u64, rights: Rights) -> Self {
        Self { offset: 0, size: 0, address: Some(address), rights }
    }
}

wire_struct! {
    /// What a dataspace is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DataspaceInfo {
        /// Bytes, whole pages.
        pub size: u64,
        /// Whether it can be written.
        pub writable: bool,
        /// Log2 of the largest page that it can be mapped with at a suitable address.
        pub page: u32,
    }
}

interface! {
    /// Memory that can be attached.
    pub trait Dataspace, client DataspaceClient, server DataspaceServer {
        /// What it is.
        1 => fn info() -> DataspaceInfo;
    }
}

interface! {
    /// Region-map service: address ranges that are put together out of dataspaces, and attached as one.
    pub trait Rm, client RmClient, server RmServer {
        /// Creates an empty region map of so many bytes. Its kind: [`RegionMap`].
        1 => fn create(size: u64) -> Cap;
        /// Destroys one.
        2 => fn destroy(map: Object) -> ();
    }
}

interface! {
    /// A region map.
    pub trait RegionMap, client RegionMapClient, server RegionMapServer {
        /// Attaches a dataspace; it appears wherever the map is attached.
        1 => fn attach(dataspace: Object, place: Attach) -> u64;
        /// Detaches what is attached at this offset.
        2 => fn detach(address: u64) -> ();
        /// The map as a dataspace.
        3 => fn dataspace() -> Cap;
    }
}
