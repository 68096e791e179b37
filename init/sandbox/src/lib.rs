// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosting of components: what init is made of, and every other runtime environment.
//!
//! A [`Sandbox`] starts children according to a [`Config`](cloister_init_config::Config), answers what they ask of their
//! parent, routes their sessions to our own parent, to each other, or to services of the host program itself, moves
//! quota between them, and changes only what changed when another configuration is applied.
//!
//! The sandbox decides, a [`Platform`] does: everything that touches the system goes through that trait. So the
//! decisions are tested on the developer's host against a model that keeps accounts and notices each byte that does
//! not come back.
//!
//! Two rules run through it. A parent never waits for a child: what a child has to answer is remembered and looked at
//! when the answer comes. And a child is never destroyed while it is being served: calls from children only note what
//! is to be done, [`Sandbox::settle`] does it afterwards.
//!
//! Neighbours: `cloister-init-config` has the model of the configuration and the routing tables.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)
)]

extern crate alloc;

mod apply;
mod balance;
mod child;
mod directory;
#[cfg(feature = "host")]
pub mod host;
mod lifecycle;
mod platform;
mod quota;
mod requests;
mod sandbox;
mod session;
mod sessions;

pub use child::{Exit, State};
pub use cloister_session::{Error, ParentSignal, RequestKind, SessionResponse};
pub use platform::{ChildId, LogLevel, Platform, SessionId, SessionRequest};
pub use quota::Quota;
pub use requests::ServerRequest;
pub use sandbox::{ChildInfo, Sandbox};
pub use session::SessionState;

#[cfg(test)]
mod tests;
