// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services that a runtime environment offers to its children by itself: interposition.
//!
//! A program that wraps a service of core opens a session of core's for itself, offers the same interface under the same
//! service name, and passes on what it likes. Its children are unchanged: a route with the target `local` leads to it.

use alloc::vec::Vec;

use cloister_base::Error;
use cloister_base::sessions::{Decoder, Encoder};

use crate::platform::{ChildId, SessionId, SessionRequest};
use crate::quota::Quota;

/// Services of the program's own.
pub trait LocalServices {
    /// Their names.
    fn services(&self) -> Vec<&'static str>;

    /// A child opens a session. The donation is in our own account until `close`.
    ///
    /// # Errors
    ///
    /// The client gets this as its answer.
    fn open(&mut self, session: SessionId, client: ChildId, request: SessionRequest<'_>) -> Result<(), Error>;

    /// A call on a session, to be answered by the `dispatch` of its interface.
    fn call(&mut self, session: SessionId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>);

    /// The donation of a session grew.
    ///
    /// # Errors
    ///
    /// The client keeps the addition.
    fn upgrade(&mut self, _session: SessionId, _more: Quota) -> Result<(), Error> {
        Ok(())
    }

    /// A session ends; what the donation was used for must be free afterwards.
    fn close(&mut self, session: SessionId);
}

/// A program without services of its own, as init is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl LocalServices for NoServices {
    fn services(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn open(&mut self, _: SessionId, _: ChildId, _: SessionRequest<'_>) -> Result<(), Error> {
        Err(Error::NotFound)
    }

    fn call(&mut self, _: SessionId, _: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        cloister_base::entry::refuse(reply, Error::NoSuchObject);
    }

    fn close(&mut self, _: SessionId) {}
}
