// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities in messages.
//!
//! [`Cap`] hands a capability over: the receiver gets a selector of its own, which is its to drop. [`Object`] shows an object
//! to whoever may have made it: the maker gets the object's identity back, anybody else gets the capability. That is how a
//! wrapper of a core service passes a dataspace on to core without knowing whose it is.

use crate::Error;
use crate::wire::{Decode, Decoder, Encode, Encoder};
use cloister_abi::cap::{Perms, Selector};
use cloister_abi::utcb::Item;

/// A capability, by the selector under which it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cap {
    /// Where it is.
    pub selector: Selector,
    /// What the receiver of a copy may do at most. A received capability says [`Perms::ALL`]: what it allows in truth, the
    /// kernel knows.
    pub perms: Perms,
}

impl Cap {
    /// A capability that is handed on with all that its holder may do.
    #[must_use]
    pub const fn new(selector: Selector) -> Self {
        Self { selector, perms: Perms::ALL }
    }

    /// A portal: its receiver may call it, no more.
    #[must_use]
    pub const fn portal(selector: Selector) -> Self {
        Self { selector, perms: Perms::PT_CALL }
    }

    /// A signal: its receiver may raise it, no more.
    #[must_use]
    pub const fn signal(selector: Selector) -> Self {
        Self { selector, perms: Perms::SM_UP }
    }

    /// The same capability with no more than these permissions.
    #[must_use]
    pub const fn limited(self, perms: Perms) -> Self {
        Self { selector: self.selector, perms }
    }

    /// The object that this is a capability to, as an argument.
    #[must_use]
    pub const fn object(self) -> Object {
        Object::Cap(self)
    }
}

impl Encode for Cap {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.item(Item::delegate(self.selector, self.perms))
    }
}

impl<'m> Decode<'m> for Cap {
    const CAPS: u32 = 1;

    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        let item = message.item()?;
        if item.kind() != Item::DELEGATE {
            return Err(Error::Malformed);
        }
        Selector::try_from(item.value).map(Self::new).map_err(|_| Error::Malformed)
    }
}

/// An object that is shown to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// None (or a capability that could not be taken).
    Nothing,
    /// A capability: what a client sends, or what a server gets that did not make the object.
    Cap(Cap),
    /// An object that the receiver itself made: the identity of its portal.
    Own(u64),
}

impl Object {
    /// The identity, if the receiver made the object.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is somebody else's or nothing.
    pub const fn own(self) -> Result<u64, Error> {
        match self {
            Self::Own(identity) => Ok(identity),
            Self::Cap(_) | Self::Nothing => Err(Error::Invalid),
        }
    }
}

impl From<Cap> for Object {
    fn from(cap: Cap) -> Self {
        Self::Cap(cap)
    }
}

impl Encode for Object {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.item(match self {
            Self::Cap(cap) => Item::translate(cap.selector, cap.perms),
            Self::Nothing | Self::Own(_) => Item::default(),
        })
    }
}

impl<'m> Decode<'m> for Object {
    const CAPS: u32 = 1;

    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        let item = message.item()?;
        Ok(match item.kind() {
            Item::TRANSLATE => Self::Own(item.value),
            Item::DELEGATE => Self::Cap(Cap::new(Selector::try_from(item.value).map_err(|_| Error::Malformed)?)),
            _ => Self::Nothing,
        })
    }
}
