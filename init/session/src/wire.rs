// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words and items of a message: writing them one after the other, reading them back with every step checked.
//!
//! Both sides work on slices. In a component these are the UTCB itself (client) or a copy of it (server: a server makes
//! calls of its own while it handles a request); in a test they are arrays.

use crate::{Bytes, Error, Text};
use cloister_abi::cap::Selector;
use cloister_abi::utcb::{Header, ITEMS, Item, WORDS};
use core::mem::size_of;
use zerocopy::IntoBytes;

/// Writes a message.
#[derive(Debug)]
pub struct Encoder<'m> {
    words: &'m mut [u64],
    items: &'m mut [Item],
    word_count: usize,
    item_count: usize,
}

/// Reads a message.
#[derive(Debug)]
pub struct Decoder<'m> {
    words: &'m [u64],
    items: &'m [Item],
    accepted: bool,
}

/// A type that can be put into a message.
pub trait Encode {
    /// Writes the value.
    ///
    /// # Errors
    /// [`Error::TooLong`] if the message is full.
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error>;
}

/// A type that can be read from a message.
pub trait Decode<'m>: Sized {
    /// Most capabilities that the value brings with it: how large the receive window must be.
    const CAPS: u32 = 0;

    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none.
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error>;
}

impl<'m> Encoder<'m> {
    /// Starts a message.
    #[must_use]
    pub fn new(words: &'m mut [u64], items: &'m mut [Item]) -> Self {
        Self { words, items, word_count: 0, item_count: 0 }
    }

    /// Adds a word.
    ///
    /// # Errors
    /// [`Error::TooLong`] if there is no room.
    pub fn word(&mut self, value: u64) -> Result<(), Error> {
        *self.words.get_mut(self.word_count).ok_or(Error::TooLong)? = value;
        self.word_count = self.word_count.saturating_add(1);
        Ok(())
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`Error::TooLong`] if there is no room.
    pub fn item(&mut self, item: Item) -> Result<(), Error> {
        *self.items.get_mut(self.item_count).ok_or(Error::TooLong)? = item;
        self.item_count = self.item_count.saturating_add(1);
        Ok(())
    }

    /// Adds bytes: their number, then the bytes, padded with zeros to whole words.
    ///
    /// # Errors
    /// [`Error::TooLong`] if there is no room.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let count = bytes.len().div_ceil(size_of::<u64>());
        let start = self.word_count.saturating_add(1);
        let end = start.checked_add(count).ok_or(Error::TooLong)?;
        if end > self.words.len() {
            return Err(Error::TooLong);
        }
        self.word(u64::try_from(bytes.len()).map_err(|_| Error::TooLong)?)?;
        let room = self.words.get_mut(start..end).ok_or(Error::TooLong)?;
        if let Some(last) = room.last_mut() {
            *last = 0;
        }
        room.as_mut_bytes().get_mut(..bytes.len()).ok_or(Error::TooLong)?.copy_from_slice(bytes);
        self.word_count = end;
        Ok(())
    }

    /// Forgets what was written.
    pub fn restart(&mut self) {
        self.word_count = 0;
        self.item_count = 0;
    }

    /// Header of what was written.
    #[must_use]
    pub fn header(&self) -> Header {
        Header::new(self.word_count, self.item_count)
    }
}

impl<'m> Decoder<'m> {
    /// Starts to read a message of this header. Nothing if the header says more than a message can have or than is there.
    #[must_use]
    pub fn new(words: &'m [u64], items: &'m [Item], header: Header) -> Option<Self> {
        if header.words() > WORDS || header.items() > ITEMS {
            return None;
        }
        Some(Self { words: words.get(..header.words())?, items: items.get(..header.items())?, accepted: false })
    }

    /// Takes a word.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none.
    pub fn word(&mut self) -> Result<u64, Error> {
        let (first, rest) = self.words.split_first().ok_or(Error::Malformed)?;
        self.words = rest;
        Ok(*first)
    }

    /// Takes an item.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none.
    pub fn item(&mut self) -> Result<Item, Error> {
        let (first, rest) = self.items.split_first().ok_or(Error::Malformed)?;
        self.items = rest;
        Ok(*first)
    }

    /// Takes bytes, without copying them.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the number says more than there is.
    pub fn bytes(&mut self) -> Result<&'m [u8], Error> {
        let length = usize::try_from(self.word()?).map_err(|_| Error::Malformed)?;
        let (packed, rest) = self.words.split_at_checked(length.div_ceil(size_of::<u64>())).ok_or(Error::Malformed)?;
        self.words = rest;
        packed.as_bytes().get(..length).ok_or(Error::Malformed)
    }

    /// Says that the message has to end here. From now on the capabilities that came with it belong to the receiver's code.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is more.
    pub fn finish(&mut self) -> Result<(), Error> {
        if !self.words.is_empty() || !self.items.is_empty() {
            return Err(Error::Malformed);
        }
        self.accepted = true;
        Ok(())
    }

    /// Whether [`Self::finish`] was reached. If not, who received the message drops the capabilities in it.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.accepted
    }
}

/// Selectors of the capabilities that a message brought.
pub fn delegated(items: &[Item]) -> impl Iterator<Item = Selector> + '_ {
    items.iter().filter(|item| item.kind() == Item::DELEGATE).filter_map(|item| Selector::try_from(item.value).ok())
}

macro_rules! integers {
    ($($ty:ty),+) => {$(
        impl Encode for $ty {
            fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
                message.word(u64::from(*self))
            }
        }
        impl<'m> Decode<'m> for $ty {
            fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
                Self::try_from(message.word()?).map_err(|_| Error::Malformed)
            }
        }
    )+};
}
integers!(u8, u16, u32, u64);

impl Encode for i64 {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.word(self.cast_unsigned())
    }
}

impl<'m> Decode<'m> for i64 {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        message.word().map(u64::cast_signed)
    }
}

impl Encode for bool {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.word(u64::from(*self))
    }
}

impl<'m> Decode<'m> for bool {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        match message.word()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Malformed),
        }
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Encoder<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl<'m> Decode<'m> for () {
    fn decode(_: &mut Decoder<'m>) -> Result<Self, Error> {
        Ok(())
    }
}

impl Encode for &[u8] {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.bytes(self)
    }
}

impl<'m> Decode<'m> for &'m [u8] {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        message.bytes()
    }
}

impl Encode for &str {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.bytes(self.as_bytes())
    }
}

impl<'m> Decode<'m> for &'m str {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        core::str::from_utf8(message.bytes()?).map_err(|_| Error::Malformed)
    }
}

impl<const N: usize> Encode for Text<N> {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.bytes(self.as_bytes())
    }
}

impl<'m, const N: usize> Decode<'m> for Text<N> {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        Self::try_from(<&str>::decode(message)?).map_err(|_| Error::Malformed)
    }
}

impl<const N: usize> Encode for Bytes<N> {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        message.bytes(self)
    }
}

impl<'m, const N: usize> Decode<'m> for Bytes<N> {
    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        Self::from_slice(message.bytes()?).map_err(|_| Error::Malformed)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, message: &mut Encoder<'_>) -> Result<(), Error> {
        self.is_some().encode(message)?;
        self.as_ref().map_or(Ok(()), |value| value.encode(message))
    }
}

impl<'m, T: Decode<'m>> Decode<'m> for Option<T> {
    const CAPS: u32 = T::CAPS;

    fn decode(message: &mut Decoder<'m>) -> Result<Self, Error> {
        bool::decode(message)?.then(|| T::decode(message)).transpose()
    }
}
