// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated board of a PC guest.
//!
//! What a guest finds on a q35-like mainboard besides its PCI devices: the port and memory [`bus`]es, the interrupt
//! controllers ([`lapic`], [`ioapic`], [`pic`]) tied together by the interrupt [`fabric`], the timers ([`pit`],
//! [`rtc`], [`acpi_pm`]), the [`serial`] port, the keyboard controller ([`i8042`]) and the ways to switch the machine
//! off ([`power`]).
//!
//! Neighbours: the VMM program calls the buses from its VCPU threads and asks the fabric what to inject; the virtio
//! crate puts its PCI root behind the same buses and its interrupts behind the same fabric.
//!
//! Rules. The guest is hostile: no access, of any width, order or value, may panic, hang or allocate without bound;
//! the lints below hold that. Time is never taken but given: by a [`clock::Clock`] or by a parameter. Locks are
//! always taken in the order device, PIC or IOAPIC, LAPIC, and none is held while the VMM is called back, except by a
//! device which holds its own.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod acpi_pm;
pub mod bits;
pub mod bus;
pub mod clock;
pub mod fabric;
pub mod i8042;
pub mod ioapic;
pub mod irq;
pub mod lapic;
pub mod pic;
pub mod pit;
pub mod power;
pub mod rtc;
#[cfg(test)]
mod rubbish;
pub mod serial;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also when another thread panicked while it held it: device state is plain data that is valid after
/// each statement, so that the guest of a wounded VMM may still be saved or reset.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
