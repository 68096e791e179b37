// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server side of sessions: what a component needs to provide a service.
//!
//! A server says what a session is by [`Service`], and owns [`Sessions`]. That announces the service, takes requests from
//! the parent when its signal is raised, and keeps for each open session the component's own state and a portal. Calls
//! on the portal arrive in the component's `call`, which finds the state with [`Sessions::get_mut`] and lets the
//! generated `dispatch` of the interface do the rest:
//!
//! ```text
//! fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
//!     match self.sessions.get_mut(object) {
//!         Some(session) => TerminalServer::dispatch(session, request, reply),
//!         None => entry::refuse(reply, Error::NoSuchObject),
//!     }
//! }
//!
//! fn signals(&mut self, bits: u64) {
//!     if self.sessions.is_asked(bits) {
//!         self.sessions.serve(&mut self.driver);
//!     }
//! }
//! ```
//!
//! A server does not trust its clients: a session that costs memory takes it from the donation, which
//! [`NewSession::donation`] names, and an identity of a closed session finds nothing. Nor does it depend on the order in
//! which the parent asks: what it does not know is closed already.
//!
//! Neighbours: `cloister-base` has the portals, `cloister-sandbox` is the parent on the other side.
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod door;
mod sessions;

pub use door::{Door, Framework};
pub use sessions::{NewSession, Service, Sessions};

#[cfg(test)]
mod tests;
