// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a client's message gets to its server and the answer back.

use crate::{Decoder, Encoder, Error};

/// Carries calls to one object.
pub trait Transport {
    /// Sends what `fill` writes, and reads the answer with `read`. Up to `caps` capabilities may come with the answer.
    ///
    /// Neither closure may make calls: both work on the calling thread's message page. Capabilities that came although
    /// `read` fails are dropped.
    ///
    /// # Errors
    /// What `fill` or `read` says, or why the call did not get through.
    fn exchange<R>(
        &self,
        caps: u32,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error>;
}

impl<T: Transport + ?Sized> Transport for &T {
    fn exchange<R>(
        &self,
        caps: u32,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        (**self).exchange(caps, fill, read)
    }
}
