// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a component stands on.
//!
//! Without features this crate allocates nothing and takes over nothing: [`Link`] carries session calls over the
//! microhypervisor's IPC, [`env`] names the sessions that every component has, [`session`] opens others, [`signal`] waits.
//! That part also serves programs with a run-time of their own (the Linux personality).
//!
//! With the feature `component` it is the whole run-time of a freestanding program: start, heap, panic handler, log, and
//! the [`component!`] macro that runs a [`Component`]. Such a program is linked by `component.ld`; its build script says
//!
//! ```text
//! if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
//!     println!("cargo:rustc-link-arg=-T{}/../../init/base/component.ld", env!("CARGO_MANIFEST_DIR"));
//! }
//! ```
//!
//! and it is compiled with `-C relocation-model=static`.
//!
//! Rule of concurrency: all state of a component is touched by one thread of execution, its *entrypoint*. Calls of clients run
//! there on the clients' time; the main thread waits for signals and deadlines and hands them to the entrypoint by a
//! call of its own. So no component has locks.
#![no_std]
#![expect(unsafe_code, reason = "the message page, the hypercalls, and the start of a program")]

#[cfg(feature = "component")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arch;
pub mod dataspace;
pub mod entry;
pub mod env;
mod link;
mod registry_id;
pub mod rom;
pub mod selectors;
pub mod session;
pub mod signal;
pub mod time;

#[cfg(feature = "component")]
pub mod heap;
#[cfg(feature = "component")]
mod logger;
#[cfg(feature = "component")]
mod registry;
#[cfg(feature = "component")]
mod run;

pub use link::Link;
#[cfg(feature = "component")]
pub use logger::Line;
#[cfg(feature = "component")]
pub use registry::Registry;
pub use registry_id::ObjectId;
#[cfg(feature = "component")]
pub use run::{Component, Portal, panicked, run, stack, started};

pub use cloister_session as sessions;
pub use cloister_session::{Cap, Error, Object};
