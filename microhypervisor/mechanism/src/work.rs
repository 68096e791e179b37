// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left to do in one piece of the destruction of something large, in units of some 20 instructions: nobody's hypercall takes
//! longer than a piece, however much it is that is destroyed.

/// A piece of work.
#[derive(Debug)]
pub struct Work(usize);

impl Work {
    /// Looking at a place.
    pub const LOOK: usize = 1;
    /// Destroying an object, and giving its memory back.
    pub const OBJECT: usize = 32;
    /// Finding the first of a tree's tables.
    pub const WALK: usize = 256;
    /// Going through a table, and giving it back.
    pub const TABLE: usize = 128;
    /// Giving a frame back.
    pub const FRAME: usize = 3;
    /// Waking somebody who waits at a semaphore.
    pub const WAKE: usize = 48;
    /// Letting somebody go on who waits for an EC.
    pub const RELEASE: usize = 4;
    /// Following a chain of calls to its end.
    pub const CHAIN: usize = 128;

    /// A piece as hypercalls do it.
    #[must_use]
    pub const fn piece() -> Self {
        Self(2048)
    }

    /// A piece of so many units.
    #[must_use]
    pub const fn of(units: usize) -> Self {
        Self(units)
    }

    /// Some of it was done.
    pub const fn spend(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units);
    }

    /// Whether the piece is done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.0 == 0
    }
}
