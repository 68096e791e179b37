// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's own commands among what is typed, behind Ctrl-a as in other consoles: `x` leaves, a second Ctrl-a
//! types one. Any other key goes to the console together with its Ctrl-a: it may mean something there.

const CTRL_A: u8 = 1;

/// What has been typed so far matters only when it ended with a Ctrl-a.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    after_ctrl_a: bool,
}

/// What to do with some typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    /// To the console, first.
    pub(crate) forward: Vec<u8>,
    /// The user wants to leave.
    pub(crate) leave: bool,
}

impl Keys {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Typed {
        let mut forward = Vec::new();
        for &byte in bytes {
            match (self.after_ctrl_a, byte) {
                (false, CTRL_A) => self.after_ctrl_a = true,
                (false, _) => forward.push(byte),
                (true, b'x' | b'X') => return Typed { forward, leave: true },
                (true, CTRL_A) => {
                    forward.push(CTRL_A);
                    self.after_ctrl_a = false;
                }
                (true, _) => {
                    forward.extend_from_slice(&[CTRL_A, byte]);
                    self.after_ctrl_a = false;
                }
            }
        }
        Typed { forward, leave: false }
    }
}

#[cfg(test)]
mod tests {
    use super::{Keys, Typed};

    fn typed(forward: &[u8], leave: bool) -> Typed {
        Typed { forward: forward.to_vec(), leave }
    }

    #[test]
    fn ctrl_a_x_leaves_even_in_two_pieces() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"ls\x01"), typed(b"ls", false));
        assert_eq!(keys.feed(b"x never seen"), typed(b"", true));
    }

    #[test]
    fn ctrl_a_twice_types_one() {
        assert_eq!(Keys::default().feed(b"\x01\x01x"), typed(b"\x01x", false));
    }

    #[test]
    fn other_keys_go_through_with_their_ctrl_a() {
        assert_eq!(Keys::default().feed(b"\x012x"), typed(b"\x012x", false));
    }
}
