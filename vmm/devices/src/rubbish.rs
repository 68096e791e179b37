// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rubbish from the guest: random accesses to a whole board, with time running.
//!
//! What is checked is that nothing panics, that each access returns, and that no device asks to be called at a rate
//! that would keep its VMM busy. A seed that fails is in the message, and fails again.

use crate::acpi_pm::AcpiPm;
use crate::bus::{Bytewise, MmioBus, PortBus, Width};
use crate::clock::{Deadlines, ManualClock};
use crate::fabric::{Fabric, IoApicWindow, NoKick, PicWindow};
use crate::i8042::{I8042, I8042Port};
use crate::ioapic::{IOAPIC_BASE, IOAPIC_LEN};
use crate::irq::{IrqLine, IrqSink, MsiSink};
use crate::lapic::{GpFault, TimerConfig};
use crate::pic::PicPort;
use crate::pit::{Pit, SpeakerPort};
use crate::power::{PowerLatch, ResetControl, SystemControlA};
use crate::rtc::Rtc;
use crate::serial::SerialPort;
use std::sync::{Arc, Mutex};

/// Xorshift64*: small, repeatable, and good enough to be rubbish.
struct Rubbish(u64);

impl Rubbish {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn width(&mut self) -> Width {
        [Width::Byte, Width::Word, Width::Dword, Width::Qword][usize::try_from(self.below(4)).unwrap()]
    }

    /// Values that registers find interesting more often than chance would have them.
    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(0x100),
            1 => 1 << self.below(64),
            2 => u64::MAX << self.below(64),
            _ => self.next(),
        }
    }
}

struct Board {
    ports: PortBus,
    mmio: MmioBus,
    fabric: Arc<Fabric>,
    clock: Arc<ManualClock>,
    deadlines: Deadlines,
    serial: Arc<Mutex<SerialPort<Vec<u8>>>>,
}

fn board() -> Board {
    let clock = Arc::new(ManualClock::default());
    let fabric = Fabric::new(&[0, 1, 5], TimerConfig::default(), Box::new(NoKick));
    let line = |gsi| IrqLine::new(fabric.clone(), gsi);
    let latch = PowerLatch::new();
    let (mut ports, mut mmio, mut deadlines) = (PortBus::new(), MmioBus::new(), Deadlines::default());

    let serial = Arc::new(Mutex::new(SerialPort::new(line(4), Vec::new())));
    ports.insert(0x3f8, 8, serial.clone()).unwrap();
    let pit = Arc::new(Mutex::new(Pit::new(clock.clone(), line(0))));
    let rtc = Arc::new(Mutex::new(Rtc::new(clock.clone(), clock.clone(), line(8))));
    let pm = Arc::new(Mutex::new(AcpiPm::new(clock.clone(), line(9), latch.clone())));
    deadlines.add(pit.clone());
    deadlines.add(rtc.clone());
    deadlines.add(pm.clone());
    ports.insert(0x600, AcpiPm::LEN, pm).unwrap();
    let (data, command) = I8042Port::pair(I8042::new(line(1), latch.clone()));
    for (base, port) in [(0x20, PicPort::First), (0xa0, PicPort::Second), (0x4d0, PicPort::EdgeLevel)] {
        ports.insert(base, 2, Arc::new(Mutex::new(Bytewise(PicWindow(fabric.clone(), port))))).unwrap();
    }
    ports.insert(0x61, 1, Arc::new(Mutex::new(Bytewise(SpeakerPort(pit.clone()))))).unwrap();
    ports.insert(0x60, 1, Arc::new(Mutex::new(Bytewise(data)))).unwrap();
    ports.insert(0x64, 1, Arc::new(Mutex::new(Bytewise(command)))).unwrap();
    ports.insert(0x92, 1, Arc::new(Mutex::new(Bytewise(SystemControlA::new(latch.clone()))))).unwrap();
    ports.insert(0xcf9, 1, Arc::new(Mutex::new(Bytewise(ResetControl::new(latch))))).unwrap();
    ports.insert(0x40, 4, Arc::new(Mutex::new(Bytewise(Shared(pit))))).unwrap();
    ports.insert(0x70, 2, Arc::new(Mutex::new(Bytewise(Shared(rtc))))).unwrap();
    mmio.insert(IOAPIC_BASE, IOAPIC_LEN, Arc::new(Mutex::new(IoApicWindow(fabric.clone())))).unwrap();
    Board { ports, mmio, fabric, clock, deadlines, serial }
}

use crate::bus::Shared;

/// Ports that belong to somebody, more often than chance would have it.
fn port(r: &mut Rubbish) -> u16 {
    let bases = [0x20, 0x40, 0x60, 0x70, 0x92, 0xa0, 0x3f8, 0x4d0, 0x600, 0x608, 0x610, 0xcf8, 0];
    let at = usize::try_from(r.below(u64::try_from(bases.len()).unwrap())).unwrap();
    let spread = if bases[at] == 0 { 0x1_0000 } else { 9 };
    bases[at] + u16::try_from(r.below(spread)).unwrap()
}

fn lapic(b: &Board, r: &mut Rubbish, tsc: u64) {
    let vcpu = usize::try_from(r.below(4)).unwrap();
    let (offset, width, value) =
        (r.below(0x40) * 16 + if r.below(8) == 0 { r.below(16) } else { 0 }, r.width(), r.value());
    let msr = 0x800 + u32::try_from(r.below(0x44)).unwrap();
    match r.below(12) {
        0..=2 => b.fabric.lapic_write(vcpu, offset, width, value, tsc),
        3 => assert_eq!(b.fabric.lapic_read(vcpu, offset, width, tsc) & !width.mask(), 0),
        4..=6 => _ = b.fabric.msr_write(vcpu, msr, value, tsc),
        7 => _ = b.fabric.msr_read(vcpu, msr, tsc),
        8 if r.below(16) == 0 => {
            let base = 0xfee0_0000 | (r.below(16) << 8);
            let _: Option<Result<(), GpFault>> = b.fabric.lapic(vcpu).map(|mut l| l.set_apic_base(base));
        }
        8 => b.fabric.msi(0xfee0_0000 | (r.value() & 0xf_ffff), crate::bits::lo32(r.value())),
        9 => b.fabric.drive(u32::try_from(r.below(26)).unwrap(), r.below(2) == 0),
        10 => {
            if b.fabric.lapic(vcpu).is_some_and(|mut l| {
                l.set_tsc_deadline(value);
                l.set_cr8(crate::bits::lo8(value));
                l.pv_eoi_candidate().is_some()
            }) {
                b.fabric.eoi(vcpu);
            }
        }
        _ => {
            let pending = b.fabric.pending(vcpu);
            assert_eq!(b.fabric.acknowledge(vcpu).is_some(), pending.is_some());
            assert!(b.fabric.take_signals(vcpu).start_up.is_none() || vcpu < 3);
        }
    }
}

fn run(seed: u64, steps: u32) {
    let b = board();
    let mut r = Rubbish(seed);
    for _ in 0..steps {
        let tsc = crate::clock::Clock::now(b.clock.as_ref());
        match r.below(10) {
            0..=1 => {
                let (width, port) = (r.width().min(Width::Dword), port(&mut r));
                assert_eq!(u64::from(b.ports.read(port, width)) & !width.mask(), 0);
            }
            2..=5 => {
                let (width, port) = (r.width().min(Width::Dword), port(&mut r));
                b.ports.write(port, width, crate::bits::lo32(r.value()));
            }
            6 => {
                let (width, offset) =
                    (r.width(), [0, 0x10, 0x40, r.below(0x1000)][usize::try_from(r.below(4)).unwrap()]);
                let value = if r.below(2) == 0 { r.below(0x40) } else { r.value() };
                b.mmio.write(IOAPIC_BASE + offset, width, value);
                assert_eq!(b.mmio.read(IOAPIC_BASE + offset, width) & !width.mask(), 0);
            }
            7..=8 => lapic(&b, &mut r, tsc),
            _ => {
                let bytes = [0u8; 80];
                crate::lock(&b.serial).input(&bytes[..usize::try_from(r.below(80)).unwrap()]);
                let jump = 1 << r.below(40);
                b.clock.advance(r.below(jump));
                let now = crate::clock::Clock::now(b.clock.as_ref());
                b.deadlines.advance(now);
                assert!(b.deadlines.earliest().is_none_or(|at| at > now), "seed {seed}: a device is due again at once");
                for vcpu in 0..b.fabric.vcpus() {
                    b.fabric.advance_timer(vcpu, now);
                    assert!(b.fabric.timer_deadline(vcpu).is_none_or(|at| at > now), "seed {seed}: timer storm");
                }
            }
        }
    }
    assert!(crate::lock(&b.serial).console().len() <= 4 * usize::try_from(steps).unwrap());
}

#[test]
fn random_accesses_to_each_device_leave_the_board_standing() {
    for seed in [1, 0xdead_beef, 0x1234_5678_9abc, u64::MAX] {
        run(seed, 100_000);
    }
}
