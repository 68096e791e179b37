// SPDX-License-Identifier: MIT OR Apache-2.0
//! Atomics, cells and locks: those of `core` and `spin`; with the feature `loom` those of loom, which tries every order of steps that the
//! memory model allows, and finds cells that two use without being ordered.
//!
//! The feature is for tests of this crate only: loom's types work in its models alone.

#[cfg(not(feature = "loom"))]
pub(crate) use core::cell::Cell;
#[cfg(not(feature = "loom"))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use spin::{Mutex, MutexGuard};

#[cfg(feature = "loom")]
pub(crate) use loom::cell::Cell;
#[cfg(feature = "loom")]
pub(crate) use loom::sync::MutexGuard;

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A lock that is taken without an answer, as spin's.
#[cfg(feature = "loom")]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(feature = "loom")]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("nobody panics while it is locked")
    }
}

/// A constructor: `const`, but for loom, whose atomics cannot be made so.
macro_rules! constructor {
    ($(#[$meta:meta])* pub fn $name:ident($($argument:ident: $type:ty),*) -> Self $body:block) => {
        $(#[$meta])*
        #[must_use]
        #[cfg(not(feature = "loom"))]
        pub const fn $name($($argument: $type),*) -> Self $body

        $(#[$meta])*
        #[must_use]
        #[cfg(feature = "loom")]
        pub fn $name($($argument: $type),*) -> Self $body
    };
}
pub(crate) use constructor;

/// Runs a model in all orders of steps with at most three preemptions: more find nothing more in practice and cost minutes.
#[cfg(test)]
#[cfg(feature = "loom")]
pub(crate) fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}
