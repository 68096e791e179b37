// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sleep control and status registers of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).

use cloister_devices::bus::ByteDevice;
use cloister_devices::power::{PowerEvent, PowerLatch};

/// Port of the sleep control register; the status register follows.
pub(crate) const SLEEP_PORT: u16 = 0x640;
/// Number of ports.
pub(crate) const SLEEP_PORTS: u64 = 2;
const SLP_EN: u8 = 1 << 5;
/// SLP_TYP of S5, as the tables say.
const S5: u8 = 5;

/// The two registers.
#[derive(Debug)]
pub(crate) struct SleepRegisters(pub(crate) PowerLatch);

impl ByteDevice for SleepRegisters {
    fn read_byte(&mut self, _offset: u16) -> u8 {
        0
    }

    fn write_byte(&mut self, offset: u16, value: u8) {
        if offset == 0 && value & SLP_EN != 0 && value >> 2 & 7 == S5 {
            self.0.request(PowerEvent::Off);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SleepRegisters;
    use cloister_devices::bus::ByteDevice;
    use cloister_devices::power::{PowerEvent, PowerLatch};

    #[test]
    fn acpi_4_8_3_7_only_s5_with_enable_switches_off() {
        let latch = PowerLatch::new();
        let mut registers = SleepRegisters(latch.clone());
        registers.write_byte(0, 5 << 2);
        registers.write_byte(0, 1 << 2 | 1 << 5);
        registers.write_byte(1, 5 << 2 | 1 << 5);
        assert_eq!(latch.peek(), None);
        registers.write_byte(0, 5 << 2 | 1 << 5);
        assert_eq!(latch.peek(), Some(PowerEvent::Off));
    }
}
