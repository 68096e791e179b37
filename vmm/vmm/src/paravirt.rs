// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paravirtual MSRs that guests know from KVM: a clock that need not be calibrated, the time of day at start, and the
//! end of interrupt told by memory. (The kernel's Documentation/virt/kvm/x86/msr.rst.)
//!
//! The clock is written once, when the guest registers its page: the counter runs at one rate and the guest computes the
//! rest. For the end of interrupt, a bit in guest memory is set when an interrupt is injected after which nothing waits;
//! a guest that finds it set clears it instead of writing to its local APIC, which spares the exit. The VMM looks at the
//! bit before it decides about the next interrupt, and takes the offer back if something came in between, so that the
//! guest's end of interrupt makes an exit at which it can be injected.

use cloister_devices::fabric::Fabric;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::board::Board;
use crate::clock::{HostTime, TscClock};

const WALL_CLOCK: u32 = 0x4b56_4d00;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const EOI: u32 = 0x4b56_4d04;
const ENABLE: u64 = 1;
/// The flag in the clock page: the counters of all VCPUs agree.
const TSC_STABLE: u8 = 1;
/// Even: the page is consistent.
const VERSION: u32 = 2;

/// One VCPU's paravirtual state.
#[derive(Debug, Default)]
pub(crate) struct Paravirt {
    wall_clock: u64,
    system_time: u64,
    eoi: u64,
    /// The end-of-interrupt bit is set in guest memory.
    offered: bool,
}

impl Paravirt {
    pub(crate) const fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            WALL_CLOCK => Some(self.wall_clock),
            SYSTEM_TIME => Some(self.system_time),
            EOI => Some(self.eoi),
            _ => None,
        }
    }

    /// Takes a write. False if this is none of the MSRs, or a value that it does not take. A page that is not guest
    /// memory is taken and never written.
    pub(crate) fn write(&mut self, board: &Board, msr: u32, value: u64) -> bool {
        match msr {
            WALL_CLOCK => {
                self.wall_clock = value;
                write_wall_clock(&board.memory, &board.clock, value);
            }
            SYSTEM_TIME => {
                self.system_time = value;
                if value & ENABLE != 0 {
                    write_system_time(&board.memory, &board.clock, value & !ENABLE);
                }
            }
            EOI if value & 2 == 0 => {
                self.eoi = value;
                self.offered = false;
            }
            _ => return false,
        }
        true
    }

    /// Where the end-of-interrupt bit is, if the guest wants it.
    fn eoi_place(&self) -> Option<GuestAddress> {
        (self.eoi & ENABLE != 0).then_some(GuestAddress(self.eoi & !3))
    }

    /// `vector` is about to be injected: offers the guest to end it by memory, if that is enough.
    pub(crate) fn offer_end(&mut self, board: &Board, vcpu: usize, vector: u8) {
        let Some(place) = self.eoi_place() else { return };
        let alone = board.fabric.lapic(vcpu).and_then(|l| l.pv_eoi_candidate()) == Some(vector);
        if alone {
            self.offered = board.memory.write_obj(1_u8, place).is_ok();
        }
    }

    /// Finds out whether the guest ended its interrupt by memory; takes the offer back if something waits by now.
    pub(crate) fn collect_end(&mut self, memory: &GuestMemoryMmap, fabric: &Fabric, vcpu: usize) {
        if !self.offered {
            return;
        }
        let place = self.eoi_place();
        let ended = place.is_some_and(|p| memory.read_obj::<u8>(p).is_ok_and(|b| b & 1 == 0));
        if ended {
            self.offered = false;
            fabric.eoi(vcpu);
        } else if fabric.lapic(vcpu).is_some_and(|l| l.pv_eoi_candidate().is_none()) {
            self.offered = false;
            if let Some(place) = place {
                let _gone = memory.write_obj(0_u8, place);
            }
        }
    }
}

/// The time of day at the VM's start: version, seconds, nanoseconds.
fn write_wall_clock(memory: &GuestMemoryMmap, clock: &TscClock, address: u64) {
    let since_start = cloister_devices::clock::Clock::now(clock);
    let start = HostTime::unix_ns().saturating_sub(since_start);
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let (seconds, rest) = (low(start / 1_000_000_000), low(start % 1_000_000_000));
    let bytes: Vec<u8> = [VERSION, seconds, rest].iter().flat_map(|v| v.to_le_bytes()).collect();
    let _no_such_memory = memory.write_slice(&bytes, GuestAddress(address));
}

/// Version, padding, counter, nanoseconds at that counter, multiplier, shift, flags, padding: 32 bytes.
fn write_system_time(memory: &GuestMemoryMmap, clock: &TscClock, address: u64) {
    let scale = clock.scale();
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&clock.origin().0.to_le_bytes());
    bytes.extend_from_slice(&0_u64.to_le_bytes());
    bytes.extend_from_slice(&scale.multiplier.to_le_bytes());
    bytes.extend_from_slice(&scale.shift.to_le_bytes());
    bytes.extend_from_slice(&[TSC_STABLE, 0, 0]);
    let _no_such_memory = memory.write_slice(&bytes, GuestAddress(address));
}

#[cfg(test)]
#[path = "paravirt_tests.rs"]
mod tests;
