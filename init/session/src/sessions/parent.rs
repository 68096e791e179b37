// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parent: the one capability that a component starts with.
//!
//! A parent answers each call at once and never waits for a child. What takes longer is announced by a signal
//! ([`ParentSignal`]), upon which the child asks again.
//!
//! A component that provides a service announces it, installs a handler for [`ParentSignal::SessionRequests`], and upon it
//! takes the requests one by one with `session_request`. It answers each with `deliver_session_cap` or `session_response`.
//! (Requests as a typed call rather than as a ROM in HID: a server needs neither a parser nor an allocator for it, and
//! can't misread them.)

use crate::{ARGS, Cap, LABEL, SERVICE, Text};

/// Session identifiers that every component has from the start. A component's own sessions start at [`id::FIRST_FREE`].
pub mod id {
    /// Its PD session.
    pub const PD: u64 = 1;
    /// Its CPU session.
    pub const CPU: u64 = 2;
    /// Its LOG session.
    pub const LOG: u64 = 3;
    /// Its binary, a ROM session.
    pub const BINARY: u64 = 4;
    /// First identifier that a component may use as it likes.
    pub const FIRST_FREE: u64 = 16;
}

wire_struct! {
    /// Where in a grid of cores a session's threads may run. All zero: anywhere.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Affinity {
        /// First column.
        pub x: u32,
        /// First row.
        pub y: u32,
        /// Columns.
        pub width: u32,
        /// Rows.
        pub height: u32,
    }
}

wire_struct! {
    /// RAM and capabilities.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Resources {
        /// Bytes.
        pub ram: u64,
        /// Capabilities.
        pub caps: u64,
    }
}

wire_enum! {
    /// What a parent tells a child by a signal.
    pub enum ParentSignal {
        /// A session that was asked for is there or denied: ask `session_cap`.
        SessionReady = 0,
        /// There are requests for a service that the child announced: take them with `session_request`.
        SessionRequests = 1,
        /// Resources that were asked for have come, or will not.
        ResourceAvail = 2,
        /// The parent wants resources back: see `yield_request`.
        Yield = 3,
        /// The parent wants to know whether the child is alive: answer `heartbeat_response`.
        Heartbeat = 4,
    }
}

wire_enum! {
    /// What a parent wants of a server.
    pub enum RequestKind {
        /// Create a session. Answer: `deliver_session_cap`, or `session_response`.
        Create = 0,
        /// More quota was donated to the session. Answer: `session_response` with `Ok`.
        Upgrade = 1,
        /// Close the session. Answer: `session_response` with `Closed`.
        Close = 2,
    }
}

wire_enum! {
    /// What a server answers to a request, other than with a capability.
    pub enum SessionResponse {
        /// The upgrade is taken.
        Ok = 0,
        /// The session is closed, its quota free.
        Closed = 1,
        /// The session is refused.
        Denied = 2,
        /// The donated RAM does not suffice.
        InsufficientRam = 3,
        /// The donated capabilities do not suffice.
        InsufficientCaps = 4,
    }
}

wire_struct! {
    /// A request to a server.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SessionRequest {
        /// Names the session between this server and its parent.
        pub id: u64,
        /// What to do.
        pub kind: RequestKind,
        /// Which of the announced services.
        pub service: Text<SERVICE>,
        /// Who asks.
        pub label: Text<LABEL>,
        /// Arguments, `key=value, …`.
        pub args: Text<ARGS>,
        /// What was donated (for an upgrade: what comes on top).
        pub donation: Resources,
        /// Where the client may run.
        pub affinity: Affinity,
    }
}

interface! {
    /// What a component asks of its parent.
    pub trait Parent, client ParentClient, server ParentServer {
        /// Asks for a session. The child chooses `id` (at least [`id::FIRST_FREE`]) and donates quota out of its PD. Answers
        /// the session's capability if it is there at once; else a [`ParentSignal::SessionReady`] follows.
        1 => fn session(
            id: u64, service: &str, label: &str, args: &str, donation: Resources, affinity: Affinity,
        ) -> Option<Cap>;
        /// The capability of a session: nothing as long as it is not ready. A session that was refused answers why and is
        /// forgotten: `Denied`, `OutOfRam` or `OutOfCaps` (the donation was too small), `NotFound` (no such ROM or service).
        2 => fn session_cap(id: u64) -> Option<Cap>;
        /// Donates more to a session.
        3 => fn upgrade(id: u64, donation: Resources) -> ();
        /// Closes a session; its donation comes back.
        4 => fn close(id: u64) -> ();
        /// Offers a service.
        5 => fn announce(service: &str) -> ();
        /// The oldest request that has not been answered and whose number in the queue is at least `skip`, counted from 0.
        6 => fn session_request(skip: u64) -> Option<SessionRequest>;
        /// Answers a request to create a session.
        7 => fn deliver_session_cap(id: u64, session: Cap) -> ();
        /// Answers a request otherwise.
        8 => fn session_response(id: u64, response: SessionResponse) -> ();
        /// Says that the component is done: 0 for success, and a reason for people. The parent decides what follows.
        9 => fn exit(code: i64, reason: &str) -> ();
        /// Asks for more quota. The answer comes as [`ParentSignal::ResourceAvail`].
        10 => fn resource_request(wanted: Resources) -> ();
        /// What the parent wants back at present.
        11 => fn yield_request() -> Resources;
        /// Says that the child gave back what it could.
        12 => fn yield_response() -> ();
        /// Sets (or takes away) the signal for one kind of news.
        13 => fn signal_handler(kind: ParentSignal, handler: Option<Cap>) -> ();
        /// Says that the child is alive.
        14 => fn heartbeat_response() -> ();
    }
}
