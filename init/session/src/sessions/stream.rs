// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text and bytes: LOG, Terminal, Report.

use crate::{Bytes, CHUNK, Cap};

interface! {
    /// Lines for people.
    pub trait Log, client LogClient, server LogServer {
        /// Writes text of at most [`CHUNK`] bytes. Each line gets the session's label in front; without a line end at the
        /// end, one is added.
        1 => fn write(text: &str) -> ();
    }
}

interface! {
    /// A console: bytes to and from people.
    pub trait Terminal, client TerminalClient, server TerminalServer {
        /// Takes what was typed, at most [`CHUNK`] bytes; empty if there is nothing.
        1 => fn read() -> Bytes<CHUNK>;
        /// Writes at most [`CHUNK`] bytes; answers how many were taken.
        2 => fn write(data: &[u8]) -> u64;
        /// Sets the signal that says that there is something to read, or that writing goes on.
        3 => fn signal_handler(handler: Option<Cap>) -> ();
        /// Columns and rows, as `columns << 32 | rows`; 0 if unknown.
        4 => fn size() -> u64;
    }
}

interface! {
    /// A component's state for others to see.
    pub trait Report, client ReportClient, server ReportServer {
        /// The memory into which a report is written.
        1 => fn dataspace() -> Cap;
        /// Says that a new report of so many bytes is there.
        2 => fn submit(size: u64) -> ();
    }
}
