// SPDX-License-Identifier: MIT OR Apache-2.0
//! ROM: read-only content by name; may change, which a signal says.

use crate::Cap;

wire_struct! {
    /// Content of a ROM.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RomContent {
        /// Bytes; the rest of the last page is 0.
        pub size: u64,
        /// The memory. Stays valid until the next `content` call on the session.
        pub dataspace: Cap,
    }
}

interface! {
    /// Read-only content. The last element of the session's label names it.
    pub trait Rom, client RomClient, server RomServer {
        /// The present content.
        1 => fn content() -> RomContent;
        /// Sets the signal that says that the content changed.
        2 => fn signal_handler(handler: Option<Cap>) -> ();
    }
}
