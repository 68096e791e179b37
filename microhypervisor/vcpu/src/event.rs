// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events that are delivered to a guest, in the form that the contract shares with both extensions (AMD APM vol. 2, 15.20;
//! Intel SDM vol. 3C, 25.8.3): which of them processors take, and which are delivered again after an exit in their midst.

use cloister_abi::arch::x86_64::vcpu::Event;

/// Bits of the type.
pub const TYPE: u64 = 7 << 8;
/// Type: software interrupt.
pub const SOFTWARE: u64 = 4 << 8;
/// Vector, type, error code valid, valid, error code.
const MASK: u64 = 0xffff_ffff_8000_0fff;

/// The event with nothing but what exists of it, 0 for none; `None` if it is of no type that exists.
#[must_use]
pub const fn checked(event: u64) -> Option<u64> {
    if event & Event::VALID == 0 {
        return Some(0);
    }
    let event = event & MASK;
    let vector = event & 0xff;
    let plain = event & 0xffff_ffff & !Event::ERROR_VALID;
    match event & TYPE {
        Event::INTERRUPT | SOFTWARE => Some(plain),
        Event::NMI => Some(plain & !0xff | 2),
        Event::EXCEPTION if vector >= 32 || vector == 2 => None,
        Event::EXCEPTION => Some(if event & Event::ERROR_VALID != 0 { event } else { plain }),
        _ => None,
    }
}

/// An event whose delivery an exit interrupted, as it is delivered at the next entry, unless the monitor says otherwise. Software
/// interrupts, #BP and #OF come again by themselves when their instruction does: 0.
#[must_use]
pub const fn repeated(event: u64) -> u64 {
    match (event & TYPE, event & 0xff) {
        (SOFTWARE, _) | (Event::EXCEPTION, 3 | 4) => 0,
        _ => match checked(event) {
            Some(event) => event,
            None => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{checked, repeated};
    use cloister_abi::arch::x86_64::vcpu::Event;

    #[test]
    fn only_types_that_exist_are_taken() {
        for (given, taken) in [
            (Event::NONE.0, Some(0)),
            (0x1234, Some(0)),
            (Event::VALID | Event::NMI | 0x55, Some(0x8000_0202)),
            (Event::exception(14, Some(2)).0, Some(0x2_8000_0b0e)),
            (Event::interrupt(0x31).0 | 0x7fff_f800 | 9 << 32, Some(0x8000_0031)),
            (Event::VALID | 1 << 8, None),
            (Event::VALID | 5 << 8, None),
            (Event::VALID | Event::EXCEPTION | 2, None),
            (Event::VALID | Event::EXCEPTION | 32, None),
        ] {
            assert_eq!(checked(given), taken, "{given:#x}");
        }
    }

    #[test]
    fn what_comes_again_by_itself_is_not_repeated() {
        for (interrupted, again) in [
            (Event::interrupt(0x40).0, 0x8000_0040),
            (Event::nmi().0, 0x8000_0202),
            (Event::exception(14, Some(6)).0, 0x6_8000_0b0e),
            (Event::VALID | 4 << 8 | 0x80, 0),
            (Event::VALID | 5 << 8 | 1, 0),
            (Event::VALID | 6 << 8 | 3, 0),
            (Event::exception(3, None).0, 0),
            (0, 0),
        ] {
            assert_eq!(repeated(interrupted), again, "{interrupted:#x}");
        }
    }
}
