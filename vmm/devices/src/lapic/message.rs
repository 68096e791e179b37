// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt messages: what travels between LAPICs, from the IOAPIC and from devices to LAPICs.
//!
//! A [`Message`] says to whom, what and how. It is made from an interrupt command register ([`Ipi`], SDM volume 3
//! section 11.6.1), from a redirection entry (82093AA section 3.2.4) or from an MSI (section 11.11).

use crate::bits::{lo8, lo32};

/// What a message does at its receiver (SDM volume 3 section 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Raise the vector.
    Fixed,
    /// Raise the vector at the one receiver with the lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// Reset to wait-for-SIPI.
    Init,
    /// Start-up at the page named by the vector.
    StartUp,
    /// Ask the 8259 for the vector.
    ExtInt,
}

impl Delivery {
    /// Decodes the three-bit field; `None` for the reserved value.
    #[must_use]
    pub const fn decode(field: u32) -> Option<Self> {
        match field & 7 {
            0 => Some(Self::Fixed),
            1 => Some(Self::LowestPriority),
            2 => Some(Self::Smi),
            4 => Some(Self::Nmi),
            5 => Some(Self::Init),
            6 => Some(Self::StartUp),
            7 => Some(Self::ExtInt),
            _ => None,
        }
    }
}

/// The physical destination that is everybody.
pub const BROADCAST: u32 = u32::MAX;

/// An interrupt on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// APIC ID, or a logical address, or [`BROADCAST`].
    pub destination: u32,
    /// True if `destination` is a logical address.
    pub logical: bool,
    /// What it does.
    pub delivery: Delivery,
    /// The vector.
    pub vector: u8,
    /// True if it is level-triggered: its end is then broadcast to the IOAPICs.
    pub level: bool,
}

impl Message {
    /// Decodes an MSI (SDM volume 3 section 11.11): `None` if `address` is not that of a LAPIC, or the delivery mode
    /// is one that messages cannot have.
    #[must_use]
    pub const fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != 0xfee {
            return None;
        }
        let delivery = match Delivery::decode(data >> 8) {
            None | Some(Delivery::StartUp) => return None,
            Some(delivery) => delivery,
        };
        let destination = widen_broadcast(lo8(address >> 12));
        let level = data & (1 << 15) != 0;
        // A de-assert message of a level-triggered source has no effect on a LAPIC.
        if level && data & (1 << 14) == 0 {
            return None;
        }
        // The redirection hint asks for one receiver among those that the address names.
        let delivery = match delivery {
            Delivery::Fixed if address & 8 != 0 && address & 4 != 0 => Delivery::LowestPriority,
            other => other,
        };
        Some(Self { destination, logical: address & 4 != 0, delivery, vector: lo8(data as u64), level })
    }
}

/// An eight-bit destination in the 32-bit form: 0xff is everybody.
#[must_use]
pub const fn widen_broadcast(destination: u8) -> u32 {
    if destination == 0xff { BROADCAST } else { destination as u32 }
}

/// Destination shorthand of an interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// None: the message's destination counts.
    None,
    /// The sender.
    Myself,
    /// All, the sender included.
    All,
    /// All but the sender.
    Others,
}

/// An inter-processor interrupt, as commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// The message.
    pub message: Message,
    /// Who gets it instead of the message's destination.
    pub shorthand: Shorthand,
}

impl Ipi {
    /// Decodes an interrupt command register. `None` for those that do nothing: reserved delivery modes and the
    /// INIT level de-assert, which processors since the Pentium 4 ignore (SDM volume 3 section 11.6.1).
    #[must_use]
    pub const fn from_icr(icr: u64, x2apic: bool) -> Option<Self> {
        let low = lo32(icr);
        let delivery = match Delivery::decode(low >> 8) {
            None => return None,
            Some(delivery) => delivery,
        };
        let (level, assert) = (low & (1 << 15) != 0, low & (1 << 14) != 0);
        if matches!(delivery, Delivery::Init) && level && !assert {
            return None;
        }
        let destination = if x2apic { lo32(icr >> 32) } else { widen_broadcast(lo8(icr >> 56)) };
        let shorthand = match (low >> 18) & 3 {
            0 => Shorthand::None,
            1 => Shorthand::Myself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        let logical = low & (1 << 11) != 0;
        // The trigger mode of other commands than the above is ignored: they are edges.
        let message = Message { destination, logical, delivery, vector: lo8(low as u64), level: false };
        Some(Self { message, shorthand })
    }
}

#[cfg(test)]
mod tests {
    use super::{BROADCAST, Delivery, Ipi, Message, Shorthand};

    #[test]
    fn sdm3_11_11_msi_fields() {
        let m = Message::from_msi(0xfee0_3000, 0x0041).unwrap();
        assert_eq!((m.destination, m.logical, m.delivery, m.vector, m.level), (3, false, Delivery::Fixed, 0x41, false));
        let m = Message::from_msi(0xfeef_f00c, 0xc141).unwrap();
        assert_eq!((m.destination, m.logical, m.delivery, m.level), (BROADCAST, true, Delivery::LowestPriority, true));
        assert_eq!(Message::from_msi(0xfed0_0000, 0x41), None);
        assert_eq!(Message::from_msi(0xfee0_0000, 0x341), None);
    }

    #[test]
    fn sdm3_11_6_1_icr_fields() {
        let ipi = Ipi::from_icr(0x0200_0000_0000_08fd, false).unwrap();
        assert_eq!((ipi.message.destination, ipi.message.logical, ipi.message.vector), (2, true, 0xfd));
        assert_eq!(Ipi::from_icr(0x0000_0007_0000_00fd, true).unwrap().message.destination, 7);
        assert_eq!(Ipi::from_icr(0x000c_4500, false).unwrap().shorthand, Shorthand::Others);
        assert_eq!(Ipi::from_icr(0x000c_8500, false), None, "INIT level de-assert");
        assert_eq!(Ipi::from_icr(0x300, false), None, "reserved mode");
    }
}
