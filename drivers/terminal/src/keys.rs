// SPDX-License-Identifier: MIT OR Apache-2.0
//! The escape key.

/// Ctrl-a.
const ESCAPE: u8 = 1;

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Nothing yet.
    Nothing,
    /// Bytes for the stream in focus.
    Send(Option<u8>, Option<u8>),
    /// The focus goes to the stream of that index.
    Focus(usize),
}

#[derive(Debug)]
pub(crate) struct Keys {
    escaped: bool,
}

impl Keys {
    pub(crate) const fn new() -> Self {
        Self { escaped: false }
    }

    /// Takes a byte. With only one stream there is no focus to be moved, and everything is meant for it.
    pub(crate) fn typed(&mut self, byte: u8, several: bool) -> Key {
        let escaped = core::mem::replace(&mut self.escaped, false);
        match (escaped, byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                Key::Nothing
            }
            (false, _) => Key::Send(Some(byte), None),
            (true, ESCAPE) => Key::Send(Some(ESCAPE), None),
            (true, b'1'..=b'9') if several => Key::Focus(usize::from(byte.wrapping_sub(b'1'))),
            (true, _) if several => Key::Nothing,
            (true, _) => Key::Send(Some(ESCAPE), Some(byte)),
        }
    }
}
