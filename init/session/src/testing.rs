// SPDX-License-Identifier: MIT OR Apache-2.0
//! A transport that calls a server in the same program: how servers and wrappers are tested on the host.
//!
//! There is no kernel, so selectors are plain numbers. What the kernel would do with an [`Object`](crate::Object) that the server
//! made itself, the loopback does for selectors that are registered with [`Loopback::own`].

use crate::{Decoder, Encoder, Error, Transport};
use cloister_abi::utcb::{Header, ITEMS, Item, WORDS};
use core::cell::RefCell;

/// A server behind a message buffer.
pub struct Loopback<F> {
    serve: RefCell<F>,
    own: RefCell<heapless::Vec<(u32, u64), 64>>,
}

impl<F> core::fmt::Debug for Loopback<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Loopback").finish_non_exhaustive()
    }
}

impl<F: FnMut(&mut Decoder<'_>, &mut Encoder<'_>)> Loopback<F> {
    /// Wraps a server's dispatch function.
    pub fn new(serve: F) -> Self {
        Self { serve: RefCell::new(serve), own: RefCell::default() }
    }

    /// Says that the capability at this selector is the server's own object of this identity. At most 64 of them are kept.
    pub fn own(&self, selector: u32, identity: u64) {
        let _ = self.own.borrow_mut().push((selector, identity));
    }

    fn receive(&self, item: &mut Item) {
        let own = self.own.borrow();
        let found = own.iter().find(|(selector, _)| u64::from(*selector) == item.value);
        match (item.kind(), found) {
            (Item::TRANSLATE, Some((_, identity))) => *item = Item { value: *identity, attr: Item::TRANSLATE },
            (Item::TRANSLATE | Item::DELEGATE, _) => item.attr = Item::DELEGATE,
            _ => *item = Item::default(),
        }
    }

    /// Sends a message as it is, well formed or not, and hands the answer's words to `read`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the header is impossible, which the kernel would refuse; else what `read` says.
    pub fn raw<R>(
        &self,
        words: &[u64],
        items: &[Item],
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut sent = [Item::default(); ITEMS];
        sent.get_mut(..items.len()).ok_or(Error::Malformed)?.copy_from_slice(items);
        sent.iter_mut().for_each(|item| self.receive(item));
        let header = Header::new(words.len(), items.len());
        let mut request = Decoder::new(words, &sent, header).ok_or(Error::Malformed)?;
        let (mut reply_words, mut reply_items) = ([0; WORDS], [Item::default(); ITEMS]);
        let mut reply = Encoder::new(&mut reply_words, &mut reply_items);
        (self.serve.borrow_mut())(&mut request, &mut reply);
        let header = reply.header();
        reply_items.iter_mut().for_each(|item| item.attr &= 0xff);
        read(&mut Decoder::new(&reply_words, &reply_items, header).ok_or(Error::Malformed)?)
    }
}

impl<F: FnMut(&mut Decoder<'_>, &mut Encoder<'_>)> Transport for Loopback<F> {
    fn exchange<R>(
        &self,
        _: u32,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (mut words, mut items) = ([0; WORDS], [Item::default(); ITEMS]);
        let mut message = Encoder::new(&mut words, &mut items);
        fill(&mut message)?;
        let header = message.header();
        let words = words.get(..header.words()).ok_or(Error::TooLong)?;
        self.raw(words, items.get(..header.items()).ok_or(Error::TooLong)?, read)
    }
}
