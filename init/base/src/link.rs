// SPDX-License-Identifier: MIT OR Apache-2.0
//! Session calls over IPC.

use crate::{Cap, Error, selectors};
use cloister_abi::cap::Selector;
use cloister_abi::utcb::Header;
use cloister_session::{Decoder, Encoder, Transport, wire};
use cloister_stubs::utcb;

/// A capability to an object of some server, as a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(pub Selector);

impl From<Cap> for Link {
    fn from(cap: Cap) -> Self {
        Self(cap.selector)
    }
}

impl Link {
    /// The capability, to be shown to others.
    #[must_use]
    pub const fn cap(self) -> Cap {
        Cap::new(self.0)
    }

    /// Drops the capability.
    pub fn drop(self) {
        selectors::drop_capability(self.0);
    }
}

impl Transport for Link {
    fn exchange<R>(
        &self,
        caps: u32,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let window = if caps > 0 { selectors::allocate(caps)? } else { 0 };
        exchange_at(self.0, window, caps, fill, read)
    }
}

/// A link whose answers bring their capabilities to a given selector. For the start of a component.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedLink {
    /// Object that is called.
    pub(crate) portal: Selector,
    /// Where a capability goes.
    pub(crate) at: Selector,
}

impl Transport for FixedLink {
    fn exchange<R>(
        &self,
        caps: u32,
        fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        exchange_at(self.portal, self.at, caps, fill, read)
    }
}

fn exchange_at<R>(
    portal: Selector,
    window: Selector,
    caps: u32,
    fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
) -> Result<R, Error> {
    let sent = send(window, caps, fill);
    let called = sent.and_then(|header| Ok(cloister_stubs::call(portal, header)?));
    match called {
        Ok(header) => receive(window, caps, header, read),
        Err(error) => {
            selectors::release(window, caps);
            Err(error)
        }
    }
}

fn send(
    window: Selector,
    caps: u32,
    fill: impl FnOnce(&mut Encoder<'_>) -> Result<(), Error>,
) -> Result<Header, Error> {
    // SAFETY: the page belongs to this thread; nobody else refers to it until the reference ends with this function, and
    // `fill` makes no calls (contract of `Transport`).
    let page = unsafe { &mut *utcb() };
    page.window_base = window;
    page.window_count = caps;
    let mut message = Encoder::new(&mut page.words, &mut page.items);
    fill(&mut message)?;
    Ok(message.header())
}

fn receive<R>(
    window: Selector,
    caps: u32,
    header: Header,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<R, Error>,
) -> Result<R, Error> {
    // SAFETY: as in `send`; the kernel writes to the page only during hypercalls of this thread.
    let page = unsafe { &mut *utcb() };
    page.window_count = 0;
    let items = page.items.get(..header.items()).unwrap_or_default();
    let came = u32::try_from(wire::delegated(items).count()).unwrap_or(caps).min(caps);
    let answer = Decoder::new(&page.words, &page.items, header)
        .ok_or(Error::Malformed)
        .and_then(|mut message| read(&mut message));
    let kept = if answer.is_ok() { came } else { 0 };
    for selector in window + kept..window + came {
        selectors::drop_capability(selector);
    }
    selectors::release(window + came, caps - came);
    answer
}
