// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counted references to objects, and how an object is made: its first reference.

use super::{Object, Pd, status};
use cloister_abi::status::Status;
use core::ops::Deref;
use core::ptr::NonNull;

/// A counted reference.
#[repr(transparent)]
pub(crate) struct Ref<T: Object>(NonNull<T>);

impl<T: Object> Ref<T> {
    /// Takes a counted reference to an object that is known to be there.
    #[inline]
    pub(crate) fn of(object: &T) -> Self {
        object.header().acquire();
        Self(NonNull::from(object))
    }

    /// The object's address, keeping the count: who takes it owes a release.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// Creates an object that `payer` pays for.
    ///
    /// # Errors
    /// Memory could not be had, or the payer is being destroyed; the value is dropped.
    pub(crate) fn create(payer: &Pd, value: T) -> Result<Self, Status> {
        let place = payer.allocate(size_of::<T>()).map_err(status)?.cast::<T>();
        // SAFETY: the slot is ours, aligned to 64 bytes and large enough.
        unsafe { place.write(value) };
        // SAFETY: just written.
        let header = unsafe { place.as_ref() }.header();
        payer.header().acquire();
        header.payer.set(Some(NonNull::from(payer)));
        if payer.adopt(header) {
            return Ok(Self(place));
        }
        // As after every failure it is dropped without a payer: what it was given, as a PD its budget, is the caller's.
        header.payer.set(None);
        // SAFETY: written above, and nobody knows it.
        unsafe { place.drop_in_place() };
        // SAFETY: allocated above.
        unsafe { payer.deallocate(place.cast(), size_of::<T>()) };
        payer.header().release();
        Err(Status::OutOfBudget)
    }

    /// Whether it refers to that object.
    #[inline]
    pub(crate) fn is(&self, object: &T) -> bool {
        self.0 == NonNull::from(object)
    }
}

impl<T: Object> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self::of(self)
    }
}

impl<T: Object> Deref for Ref<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the reference keeps the object's memory.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Object> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        self.header().release();
    }
}
