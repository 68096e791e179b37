// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI-X (PCI 3.0 section 6.8.2): a table of messages, one per vector, in a BAR.
//!
//! A vector that is signalled while it, or the function, is masked is remembered in the pending bits and sent when the
//! mask goes.

use cloister_devices::bits::{byte, lo8, lo16, lo32, merge};
use cloister_devices::bus::Width;
use cloister_devices::irq::MsiSink;
use std::sync::Arc;

const ENTRY_SIZE: u64 = 16;
const MASKED: u32 = 1;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

/// The MSI-X state of a function.
pub struct MsiX {
    table: Vec<Entry>,
    pending: Vec<bool>,
    control: u16,
    sink: Arc<dyn MsiSink>,
}

impl std::fmt::Debug for MsiX {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MsiX").field("table", &self.table).field("control", &self.control).finish_non_exhaustive()
    }
}

impl MsiX {
    /// A table of `vectors` (1 to 2048) masked entries, off.
    #[must_use]
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        let vectors = usize::from(vectors.clamp(1, 2048));
        Self {
            table: vec![Entry { address: 0, data: 0, control: MASKED }; vectors],
            pending: vec![false; vectors],
            control: 0,
            sink,
        }
    }

    /// Number of vectors.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        lo16(u64::try_from(self.table.len()).unwrap_or(0))
    }

    /// The body of the capability, after ID and link: the table at `table` and the pending bits at `pba` in BAR `bar`.
    #[must_use]
    pub fn capability(&self, bar: u8, table: u32, pba: u32) -> [u8; 10] {
        let [c0, c1] = self.vectors().wrapping_sub(1).to_le_bytes();
        let [t0, t1, t2, t3] = (table | u32::from(bar & 7)).to_le_bytes();
        let [p0, p1, p2, p3] = (pba | u32::from(bar & 7)).to_le_bytes();
        [c0, c1, t0, t1, t2, t3, p0, p1, p2, p3]
    }

    /// The bits of message control that software may write.
    pub const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_MASK_ALL;

    /// True if the function interrupts by MSI-X.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// Software wrote message control.
    pub fn set_control(&mut self, control: u16) {
        self.control = control & Self::CONTROL_WRITABLE;
        self.send_pending();
    }

    /// Interrupts by vector `vector`, now or when the mask goes. One that is beyond the table is ignored.
    pub fn signal(&mut self, vector: u16) {
        let masked_all = self.control & CONTROL_MASK_ALL != 0;
        if !self.enabled() {
            return;
        }
        let Some(entry) = self.table.get(usize::from(vector)) else { return };
        if masked_all || entry.control & MASKED != 0 {
            if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
                *pending = true;
            }
        } else {
            self.sink.msi(entry.address, entry.data);
        }
    }

    fn send_pending(&mut self) {
        if self.control & Self::CONTROL_WRITABLE != CONTROL_ENABLE {
            return;
        }
        for (entry, pending) in self.table.iter().zip(&mut self.pending) {
            if entry.control & MASKED == 0 && std::mem::take(pending) {
                self.sink.msi(entry.address, entry.data);
            }
        }
    }

    /// Reads at `offset` in the table.
    #[must_use]
    pub fn table_read(&self, offset: u64, width: Width) -> u64 {
        (0..width.bytes()).fold(0, |value, i| {
            value | (u64::from(self.table_byte(offset.wrapping_add(u64::from(i)))) << i.wrapping_mul(8))
        })
    }

    fn table_byte(&self, offset: u64) -> u8 {
        let index = usize::try_from(offset.wrapping_div(ENTRY_SIZE)).unwrap_or(usize::MAX);
        let Some(entry) = self.table.get(index) else { return 0 };
        let within = lo32(offset & 0xf);
        match within {
            0..=7 => byte(entry.address, within),
            8..=11 => byte(u64::from(entry.data), within.wrapping_sub(8)),
            _ => byte(u64::from(entry.control), within.wrapping_sub(12)),
        }
    }

    /// Writes at `offset` in the table. Software must write 4 or 8 bytes at their natural place; others are ignored
    /// (section 6.8.2: undefined).
    pub fn table_write(&mut self, offset: u64, width: Width, value: u64) {
        let bytes = u64::from(width.bytes());
        if width < Width::Dword || offset & bytes.wrapping_sub(1) != 0 {
            return;
        }
        let index = usize::try_from(offset.wrapping_div(ENTRY_SIZE)).unwrap_or(usize::MAX);
        let Some(entry) = self.table.get_mut(index) else { return };
        match (offset & 0xf, width) {
            (0, Width::Qword) => entry.address = value & !3,
            (0, _) => entry.address = merge(entry.address, value & !3, width.mask(), 0),
            (4, _) => entry.address = merge(entry.address, value, width.mask(), 4),
            (8, _) => {
                entry.data = lo32(value);
                if width == Width::Qword {
                    entry.control = lo32(value >> 32) & MASKED;
                }
            }
            _ => entry.control = lo32(value) & MASKED,
        }
        self.send_pending();
    }

    /// Reads at `offset` in the pending bits.
    #[must_use]
    pub fn pba_read(&self, offset: u64, width: Width) -> u64 {
        let first = usize::try_from(offset).unwrap_or(usize::MAX).saturating_mul(8);
        let bits = usize::try_from(width.bytes().wrapping_mul(8)).unwrap_or(0);
        let pending = self.pending.iter().skip(first).take(bits);
        (0u32..).zip(pending).fold(0, |value, (i, p)| value | (u64::from(*p) << (lo8(u64::from(i)) & 63)))
    }

    /// As after reset.
    pub fn reset(&mut self) {
        self.control = 0;
        self.table.iter_mut().for_each(|e| *e = Entry { address: 0, data: 0, control: MASKED });
        self.pending.fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::MsiX;
    use cloister_devices::bus::Width;
    use cloister_devices::irq::{IrqEvent, Recorder};
    use std::sync::Arc;

    fn msix() -> (MsiX, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let mut m = MsiX::new(3, recorder.clone());
        for (offset, value) in [(16, 0xfee0_1000), (20, 0), (24, 0x41), (28, 0)] {
            m.table_write(offset, Width::Dword, value);
        }
        (m, recorder)
    }

    #[test]
    fn pci_6_8_2_vectors_are_sent_when_enabled() {
        let (mut m, r) = msix();
        m.signal(1);
        assert_eq!(r.take(), [], "off");
        m.set_control(0x8000);
        m.signal(1);
        m.signal(7);
        assert_eq!(r.take(), [IrqEvent::Msi(0xfee0_1000, 0x41)]);
        assert_eq!(m.table_read(16, Width::Qword), 0xfee0_1000);
        assert_eq!(m.table_read(26, Width::Byte), 0);
        assert_eq!((m.table_read(28 + 16, Width::Dword), m.table_read(48, Width::Qword)), (1, 0));
    }

    #[test]
    fn pci_6_8_2_masked_vectors_wait_in_the_pending_bits() {
        let (mut m, r) = msix();
        m.set_control(0xc000);
        m.signal(1);
        m.signal(2);
        assert_eq!((r.take(), m.pba_read(0, Width::Qword), m.pba_read(1, Width::Byte)), (vec![], 0b110, 0));
        m.set_control(0x8000);
        assert_eq!((r.rises(), m.pba_read(0, Width::Dword)), (0, 0b100));
        m.table_write(40, Width::Qword, 0x43);
        assert_eq!(r.take(), [IrqEvent::Msi(0, 0x43)]);
    }

    #[test]
    fn odd_writes_are_ignored() {
        let (mut m, _) = msix();
        m.table_write(24, Width::Byte, 0x99);
        m.table_write(22, Width::Dword, 0x99);
        m.table_write(!7, Width::Qword, 0x99);
        assert_eq!(m.table_read(24, Width::Dword), 0x41);
        assert_eq!(m.capability(4, 0x1000, 0x2000), [2, 0, 4, 0x10, 0, 0, 4, 0x20, 0, 0]);
    }
}
