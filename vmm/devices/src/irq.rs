// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt lines and messages, as a device sees them.
//!
//! An [`IrqLine`] is one device's end of a wire: the wire is high while any of its ends is high, so that lines can
//! be shared (level) or pulsed (edge). The other end is an [`IrqSink`], which counts. A [`MsiSink`] takes messages
//! (PCI 3.0 section 6.8). The interrupt fabric is both; tests use the [`Recorder`].

use crate::lock;
use std::sync::{Arc, Mutex};

/// Where interrupt lines end. Pins are global system interrupts (ACPI 6.5 section 5.2.13).
pub trait IrqSink: Send + Sync {
    /// One more (`true`) or one fewer (`false`) of the ends of pin `gsi` is high.
    fn drive(&self, gsi: u32, high: bool);
}

/// Where message-signalled interrupts go.
pub trait MsiSink: Send + Sync {
    /// Delivers the message that a device writes as `data` to `address` (SDM volume 3 section 11.11).
    fn msi(&self, address: u64, data: u32);
}

/// One device's end of an interrupt line.
pub struct IrqLine {
    sink: Arc<dyn IrqSink>,
    gsi: u32,
    high: bool,
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IrqLine").field("gsi", &self.gsi).field("high", &self.high).finish_non_exhaustive()
    }
}

impl IrqLine {
    /// A new end, low, of the line `gsi`.
    #[must_use]
    pub fn new(sink: Arc<dyn IrqSink>, gsi: u32) -> Self {
        Self { sink, gsi, high: false }
    }

    /// A line that leads nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        struct Nowhere;
        impl IrqSink for Nowhere {
            fn drive(&self, _gsi: u32, _high: bool) {}
        }
        Self::new(Arc::new(Nowhere), 0)
    }

    /// Another end of the same line.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::new(Arc::clone(&self.sink), self.gsi)
    }

    /// The global system interrupt.
    #[must_use]
    pub const fn gsi(&self) -> u32 {
        self.gsi
    }

    /// True while this end is high.
    #[must_use]
    pub const fn is_high(&self) -> bool {
        self.high
    }

    /// Sets this end high or low; nothing happens if it is so already.
    pub fn set(&mut self, high: bool) {
        if self.high != high {
            self.high = high;
            self.sink.drive(self.gsi, high);
        }
    }

    /// An edge: low to high, and low again.
    pub fn pulse(&mut self) {
        self.set(false);
        self.set(true);
        self.set(false);
    }
}

impl Drop for IrqLine {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What a [`Recorder`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqEvent {
    /// An end of a line changed.
    Line(u32, bool),
    /// A message: address and data.
    Msi(u64, u32),
}

/// A sink that writes down what it gets: for tests of devices.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<IrqEvent>>);

impl Recorder {
    /// What came since the last call.
    pub fn take(&self) -> Vec<IrqEvent> {
        std::mem::take(&mut *lock(&self.0))
    }

    /// How many times a line went high since the last call of this or of [`Self::take`].
    pub fn rises(&self) -> usize {
        self.take().iter().filter(|e| matches!(e, IrqEvent::Line(_, true))).count()
    }
}

impl IrqSink for Recorder {
    fn drive(&self, gsi: u32, high: bool) {
        lock(&self.0).push(IrqEvent::Line(gsi, high));
    }
}

impl MsiSink for Recorder {
    fn msi(&self, address: u64, data: u32) {
        lock(&self.0).push(IrqEvent::Msi(address, data));
    }
}

#[cfg(test)]
mod tests {
    use super::{IrqEvent, IrqLine, Recorder};
    use std::sync::Arc;

    #[test]
    fn a_line_tells_changes_only_and_goes_low_when_its_device_dies() {
        let recorder = Arc::new(Recorder::default());
        let mut line = IrqLine::new(recorder.clone(), 4);
        line.set(false);
        line.set(true);
        line.set(true);
        assert_eq!(recorder.take(), [IrqEvent::Line(4, true)]);
        drop(line.sibling());
        assert_eq!(recorder.take(), []);
        drop(line);
        assert_eq!(recorder.take(), [IrqEvent::Line(4, false)]);
    }

    #[test]
    fn a_pulse_is_one_rising_edge() {
        let recorder = Arc::new(Recorder::default());
        IrqLine::new(recorder.clone(), 8).pulse();
        assert_eq!(recorder.rises(), 1);
    }
}
