// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts: each bound one is an up of its semaphore. A level-triggered one stays masked until it is acknowledged, so that it
//! cannot storm.

use crate::arch::irq;
use crate::object::{Object, Ref, Sm};
use cloister_abi::hypercall::IrqFlags;
use cloister_abi::status::Status;
use spin::Mutex;

/// A binding.
struct Binding {
    semaphore: core::ptr::NonNull<Sm>,
    level: bool,
}

// SAFETY: a semaphore that goes unbinds its interrupt first; the table is behind a lock.
unsafe impl Send for Binding {}

static BINDINGS: Mutex<[Option<Binding>; irq::MANY as usize]> = Mutex::new([const { None }; irq::MANY as usize]);

/// Binds an interrupt to a semaphore and unmasks it.
///
/// # Errors
/// There is no such interrupt, or it is bound, or the semaphore has one.
pub(crate) fn bind(gsi: u32, sm: &Sm, flags: IrqFlags) -> Result<(), Status> {
    if gsi >= irq::count() {
        return Err(Status::BadDevice);
    }
    let mut bindings = BINDINGS.lock();
    let Some(place) = bindings.get_mut(gsi as usize) else { return Err(Status::BadDevice) };
    if place.is_some() || sm.gsi.get() != 0 {
        return Err(Status::Busy);
    }
    sm.gsi.set(gsi + 1);
    let level = irq::bind(gsi, flags);
    *place = Some(Binding { semaphore: sm.into(), level });
    Ok(())
}

/// Masks an interrupt and forgets its binding.
pub(crate) fn unbind(gsi: u32) {
    irq::set_mask(gsi, true);
    if let Some(place) = BINDINGS.lock().get_mut(gsi as usize) {
        *place = None;
    }
}

/// Lets the next one come.
///
/// # Errors
/// No interrupt is bound to the semaphore.
pub(crate) fn acknowledge(sm: &Sm) -> Result<(), Status> {
    let gsi = sm.gsi.get().checked_sub(1).ok_or(Status::BadDevice)?;
    if BINDINGS.lock().get(gsi as usize).and_then(Option::as_ref).is_some_and(|binding| binding.level) {
        irq::set_mask(gsi, false);
    }
    Ok(())
}

/// An interrupt came.
pub(crate) fn arrived(gsi: u32) {
    let bound = match BINDINGS.lock().get(gsi as usize) {
        Some(Some(binding)) => {
            // SAFETY: a semaphore that goes unbinds its interrupt first.
            Some((Ref::of(unsafe { binding.semaphore.as_ref() }), binding.level))
        }
        _ => None,
    };
    let level = bound.as_ref().is_none_or(|(_, level)| *level);
    if level {
        irq::set_mask(gsi, true);
    }
    irq::end();
    if let Some((semaphore, _)) = bound
        && semaphore.header().is_alive()
    {
        semaphore.up();
    }
}
