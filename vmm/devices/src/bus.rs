// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port and memory-mapped I/O buses: which device answers at an address.
//!
//! A bus is a sorted list of ranges, each with a device behind a lock. It is built when the VM is built and does not
//! change while the guest runs (PCI devices move behind the one range of their root), so that a lookup takes no lock:
//! it is a binary search over some dozen ranges, and nothing is allocated.
//!
//! Neighbours: [`PortDevice`] and [`MmioDevice`] are what a device model implements; devices whose registers are all
//! one byte wide implement [`ByteDevice`] and are wrapped in [`Bytewise`].
//!
//! Values travel in registers, not in slices: an access is at most eight bytes and most are one.
//!
//! Rule: unclaimed reads give all ones, unclaimed writes vanish, as on a bus with pull-ups. An access that crosses
//! the end of a range is split into bytes, each answered by whoever owns it.

use crate::bits::{byte, lo8, lo16, lo32};
use crate::lock;
use std::sync::{Arc, Mutex};

/// How many bytes an access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes; never used by port I/O.
    Qword,
}

impl Width {
    /// The width of an access of `bytes` bytes, if there is one.
    #[must_use]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    /// Number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    /// All ones in this width: also the value of an unclaimed read.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
            Self::Qword => u64::MAX,
        }
    }
}

/// A device on the port bus. `offset` counts from the base of the range that was hit.
pub trait PortDevice: Send {
    /// Answers a read; bits beyond `width` are ignored.
    fn read(&mut self, offset: u16, width: Width) -> u32;
    /// Takes a write; bits beyond `width` are zero.
    fn write(&mut self, offset: u16, width: Width, value: u32);
}

/// A device on the memory bus. `offset` counts from the base of the range that was hit.
pub trait MmioDevice: Send {
    /// Answers a read; bits beyond `width` are ignored.
    fn read(&mut self, offset: u64, width: Width) -> u64;
    /// Takes a write; bits beyond `width` are zero.
    fn write(&mut self, offset: u64, width: Width, value: u64);
}

/// A port device with byte-wide registers only; see [`Bytewise`].
pub trait ByteDevice: Send {
    /// Reads the register at `offset`.
    fn read_byte(&mut self, offset: u16) -> u8;
    /// Writes the register at `offset`.
    fn write_byte(&mut self, offset: u16, value: u8);
}

/// Puts a [`ByteDevice`] on the port bus: wider accesses become byte accesses at rising ports, as the ISA bus does.
#[derive(Debug, Clone)]
pub struct Bytewise<D>(pub D);

impl<D: ByteDevice> PortDevice for Bytewise<D> {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        if width == Width::Byte {
            return u32::from(self.0.read_byte(offset));
        }
        let mut value = 0u32;
        for i in 0..lo16(u64::from(width.bytes().min(4))) {
            let byte = self.0.read_byte(offset.wrapping_add(i));
            value |= u32::from(byte) << (u32::from(i).wrapping_mul(8));
        }
        value
    }

    fn write(&mut self, offset: u16, width: Width, value: u32) {
        if width == Width::Byte {
            return self.0.write_byte(offset, lo8(u64::from(value)));
        }
        for i in 0..lo16(u64::from(width.bytes().min(4))) {
            self.0.write_byte(offset.wrapping_add(i), byte(u64::from(value), u32::from(i)));
        }
    }
}

/// A [`ByteDevice`] that is shared: with the list of devices that act by themselves, or with the thread that types.
#[derive(Debug)]
pub struct Shared<D>(pub Arc<Mutex<D>>);

impl<D> Clone for Shared<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: ByteDevice> ByteDevice for Shared<D> {
    fn read_byte(&mut self, offset: u16) -> u8 {
        lock(&self.0).read_byte(offset)
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        lock(&self.0).write_byte(offset, value);
    }
}

/// Why a range could not be put on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The range is empty.
    Empty,
    /// The range goes beyond the end of the address space.
    TooHigh {
        /// First address of the range.
        base: u64,
    },
    /// Part of the range belongs to somebody else.
    Overlap {
        /// First address of the range that was to be added.
        base: u64,
        /// First address of the range that is there.
        with: u64,
    },
}

impl std::fmt::Display for BusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "an empty address range cannot be put on a bus"),
            Self::TooHigh { base } => write!(f, "the range at {base:#x} exceeds the address space"),
            Self::Overlap { base, with } => write!(f, "the range at {base:#x} overlaps the one at {with:#x}"),
        }
    }
}

impl std::error::Error for BusError {}

struct Range<D: ?Sized> {
    base: u64,
    last: u64,
    device: Arc<Mutex<D>>,
}

struct Ranges<D: ?Sized> {
    /// Sorted by base, disjoint.
    sorted: Vec<Range<D>>,
}

impl<D: ?Sized> Ranges<D> {
    fn insert(&mut self, base: u64, len: u64, limit: u64, device: Arc<Mutex<D>>) -> Result<(), BusError> {
        let span = len.checked_sub(1).ok_or(BusError::Empty)?;
        let last = base.checked_add(span).filter(|last| *last <= limit).ok_or(BusError::TooHigh { base })?;
        let at = self.sorted.partition_point(|r| r.last < base);
        if let Some(next) = self.sorted.get(at)
            && next.base <= last
        {
            return Err(BusError::Overlap { base, with: next.base });
        }
        self.sorted.insert(at, Range { base, last, device });
        Ok(())
    }

    /// The range that holds `address`.
    #[inline]
    fn find(&self, address: u64) -> Option<&Range<D>> {
        let at = self.sorted.partition_point(|r| r.last < address);
        self.sorted.get(at).filter(|r| r.base <= address)
    }
}

impl<D: ?Sized> Range<D> {
    /// The offset of `address`, if an access of `width` there stays in the range.
    #[inline]
    fn offset(&self, address: u64, width: Width) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        let room = self.last.wrapping_sub(address);
        (room >= u64::from(width.bytes()).wrapping_sub(1)).then_some(offset)
    }
}

macro_rules! bus {
    ($(#[$doc:meta])* $name:ident, $device:ident, $addr:ty, $value:ty, $limit:expr, $cut:ident) => {
        $(#[$doc])*
        pub struct $name {
            ranges: Ranges<dyn $device>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { ranges: Ranges { sorted: Vec::new() } }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_list().entries(self.ranges.sorted.iter().map(|r| (r.base, r.last))).finish()
            }
        }

        impl $name {
            /// An empty bus.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Gives `len` addresses from `base` to `device`. One device may own several ranges.
            ///
            /// # Errors
            /// See [`BusError`].
            pub fn insert(&mut self, base: $addr, len: u64, device: Arc<Mutex<dyn $device>>) -> Result<(), BusError> {
                self.ranges.insert(u64::from(base), len, $limit, device)
            }

            /// True if a device owns `address`.
            #[must_use]
            pub fn claims(&self, address: $addr) -> bool {
                self.ranges.find(u64::from(address)).is_some()
            }

            /// Reads; bits beyond `width` are zero in the answer.
            pub fn read(&self, address: $addr, width: Width) -> $value {
                match self.ranges.find(u64::from(address)) {
                    None => $cut(width.mask()),
                    Some(range) => match range.offset(u64::from(address), width) {
                        Some(offset) => {
                            lock(&range.device).read(Self::narrow(offset), width) & $cut(width.mask())
                        }
                        None => self.read_split(address, width),
                    },
                }
            }

            /// Writes the low `width` bytes of `value`.
            pub fn write(&self, address: $addr, width: Width, value: $value) {
                let value = value & $cut(width.mask());
                if let Some(range) = self.ranges.find(u64::from(address)) {
                    match range.offset(u64::from(address), width) {
                        Some(offset) => lock(&range.device).write(Self::narrow(offset), width, value),
                        None => self.write_split(address, width, value),
                    }
                }
            }

            /// An access across the end of a range, byte by byte.
            #[cold]
            fn read_split(&self, address: $addr, width: Width) -> $value {
                let mut value = 0;
                for i in 0..width.bytes() {
                    let byte = match address.checked_add(<$addr>::from(lo8(u64::from(i)))) {
                        Some(a) => self.read(a, Width::Byte),
                        None => 0xff,
                    };
                    value |= byte << i.wrapping_mul(8);
                }
                value
            }

            #[cold]
            fn write_split(&self, address: $addr, width: Width, value: $value) {
                for i in 0..width.bytes() {
                    if let Some(a) = address.checked_add(<$addr>::from(lo8(u64::from(i)))) {
                        self.write(a, Width::Byte, <$value>::from(byte(u64::from(value), i)));
                    }
                }
            }
        }
    };
}

bus!(
    /// The port bus: 64 Ki ports.
    PortBus, PortDevice, u16, u32, 0xffff, lo32
);
bus!(
    /// The bus for memory-mapped devices; addresses are guest-physical.
    MmioBus, MmioDevice, u64, u64, u64::MAX, same
);

const fn same(value: u64) -> u64 {
    value
}

impl PortBus {
    const fn narrow(offset: u64) -> u16 {
        lo16(offset)
    }

    /// Ports have no 8-byte accesses; gives the low four bytes of what a slice of 1, 2 or 4 bytes reads.
    /// Slices of other lengths are filled with ones.
    pub fn read_slice(&self, port: u16, data: &mut [u8]) {
        match Width::from_bytes(data.len()) {
            Some(width) if width <= Width::Dword => {
                let value = self.read(port, width).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(d, v)| *d = v);
            }
            _ => data.fill(0xff),
        }
    }

    /// Writes a slice of 1, 2 or 4 bytes; others vanish.
    pub fn write_slice(&self, port: u16, data: &[u8]) {
        if let Some(width) = Width::from_bytes(data.len()).filter(|w| *w <= Width::Dword) {
            let value = data.iter().rev().fold(0u32, |v, b| (v << 8) | u32::from(*b));
            self.write(port, width, value);
        }
    }
}

impl MmioBus {
    const fn narrow(offset: u64) -> u64 {
        offset
    }

    /// Reads a slice of 1, 2, 4 or 8 bytes; slices of other lengths are filled with ones.
    pub fn read_slice(&self, address: u64, data: &mut [u8]) {
        match Width::from_bytes(data.len()) {
            Some(width) => {
                let value = self.read(address, width).to_le_bytes();
                data.iter_mut().zip(value).for_each(|(d, v)| *d = v);
            }
            None => data.fill(0xff),
        }
    }

    /// Writes a slice of 1, 2, 4 or 8 bytes; others vanish.
    pub fn write_slice(&self, address: u64, data: &[u8]) {
        if let Some(width) = Width::from_bytes(data.len()) {
            let value = data.iter().rev().fold(0u64, |v, b| (v << 8) | u64::from(*b));
            self.write(address, width, value);
        }
    }
}

/// A range that swallows writes and reads all ones: POST code port 0x80, absent DMA page registers, probes of
/// hardware that the guest would log about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sink;

impl PortDevice for Sink {
    fn read(&mut self, _offset: u16, _width: Width) -> u32 {
        u32::MAX
    }
    fn write(&mut self, _offset: u16, _width: Width, _value: u32) {}
}

#[cfg(test)]
mod tests {
    use super::{BusError, ByteDevice, Bytewise, MmioBus, MmioDevice, PortBus, Sink, Width};
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Ram([u8; 8]);

    impl ByteDevice for Ram {
        fn read_byte(&mut self, offset: u16) -> u8 {
            self.0[usize::from(offset)]
        }
        fn write_byte(&mut self, offset: u16, value: u8) {
            self.0[usize::from(offset)] = value;
        }
    }

    impl MmioDevice for Ram {
        fn read(&mut self, offset: u64, _width: Width) -> u64 {
            offset | 0x1_0000_0000_0000
        }
        fn write(&mut self, _offset: u64, _width: Width, _value: u64) {}
    }

    fn bus() -> PortBus {
        let mut bus = PortBus::new();
        bus.insert(0x100, 8, Arc::new(Mutex::new(Bytewise(Ram::default())))).unwrap();
        bus.insert(0x108, 4, Arc::new(Mutex::new(Bytewise(Ram([7; 8]))))).unwrap();
        bus
    }

    #[test]
    fn unclaimed_reads_give_all_ones_in_their_width() {
        let bus = bus();
        assert_eq!(bus.read(0x99, Width::Byte), 0xff);
        assert_eq!(bus.read(0x99, Width::Word), 0xffff);
        assert_eq!(bus.read(0xffff, Width::Dword), 0xffff_ffff);
        bus.write(0x99, Width::Dword, 5);
        assert!(!bus.claims(0x10c) && bus.claims(0x10b));
    }

    #[test]
    fn wide_access_to_byte_registers_is_little_endian() {
        let bus = bus();
        bus.write(0x102, Width::Dword, 0x4433_2211);
        assert_eq!(bus.read(0x103, Width::Word), 0x3322);
        let mut two = [0u8; 2];
        bus.read_slice(0x104, &mut two);
        assert_eq!(two, [0x33, 0x44]);
    }

    #[test]
    fn an_access_over_the_end_of_a_range_is_split() {
        let bus = bus();
        bus.write(0x106, Width::Dword, 0x4433_2211);
        assert_eq!(bus.read(0x106, Width::Dword), 0x4433_2211);
        assert_eq!(bus.read(0x108, Width::Byte), 0x33);
        assert_eq!(bus.read(0x10a, Width::Dword), 0xffff_0707);
    }

    #[test]
    fn overlaps_and_bad_ranges_are_refused() {
        let mut bus = bus();
        let sink = || Arc::new(Mutex::new(Sink));
        assert_eq!(bus.insert(0xff, 2, sink()), Err(BusError::Overlap { base: 0xff, with: 0x100 }));
        assert_eq!(bus.insert(0x107, 1, sink()), Err(BusError::Overlap { base: 0x107, with: 0x100 }));
        assert_eq!(bus.insert(0x50, 0x1000, sink()), Err(BusError::Overlap { base: 0x50, with: 0x100 }));
        assert_eq!(bus.insert(0x50, 0, sink()), Err(BusError::Empty));
        assert_eq!(bus.insert(0xffff, 2, sink()), Err(BusError::TooHigh { base: 0xffff }));
        bus.insert(0xffff, 1, sink()).unwrap();
        bus.insert(0xff, 1, sink()).unwrap();
    }

    #[test]
    fn memory_bus_reads_eight_bytes_and_up_to_the_last_address() {
        let mut bus = MmioBus::new();
        bus.insert(u64::MAX - 7, 8, Arc::new(Mutex::new(Ram::default()))).unwrap();
        assert_eq!(bus.read(u64::MAX - 7, Width::Qword), 0x1_0000_0000_0000);
        assert_eq!(bus.read(u64::MAX - 1, Width::Dword), 0xffff_0706);
        let mut odd = [0u8; 3];
        bus.read_slice(u64::MAX - 7, &mut odd);
        assert_eq!(odd, [0xff; 3]);
    }
}
