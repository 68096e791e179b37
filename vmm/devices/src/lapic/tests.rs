// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of one LAPIC, named after the sections of the SDM, volume 3.

use super::{ApicMode, BROADCAST, Delivery, Effect, GpFault, Lapic, TimerConfig};
use crate::bus::Width;

const D: Width = Width::Dword;

fn enabled() -> Lapic {
    let mut l = Lapic::new(2, true, TimerConfig { tsc_per_bus_tick: 1, min_period: 10 });
    l.mmio_write(0xf0, D, 0x1ff, 0);
    l
}

fn x2() -> Lapic {
    let mut l = Lapic::new(0x23, true, TimerConfig::default());
    l.set_apic_base(l.apic_base() | 0xc00).unwrap();
    l.msr_write(0x80f, 0x1ff, 0).unwrap();
    l
}

fn fixed(l: &mut Lapic, vector: u8) {
    l.accept(Delivery::Fixed, vector, false);
}

#[test]
fn s11_4_7_1_state_after_reset() {
    let mut l = Lapic::new(5, false, TimerConfig::default());
    assert_eq!(l.mmio_read(0x20, D, 0), 5 << 24);
    assert_eq!(l.mmio_read(0x30, D, 0), 0x0005_0014);
    assert_eq!(l.mmio_read(0xe0, D, 0), 0xffff_ffff);
    assert_eq!(l.mmio_read(0xf0, D, 0), 0xff);
    for lvt in (0x320..=0x370).step_by(16) {
        assert_eq!(l.mmio_read(lvt, D, 0), 0x1_0000, "entry at {lvt:#x}");
    }
    assert_eq!(l.apic_base(), 0xfee0_0800);
    assert!(l.waits_for_start_up());
}

#[test]
fn s11_4_7_2_software_disabled_takes_no_vectors_and_masks_its_lvt() {
    let mut l = Lapic::new(0, true, TimerConfig::default());
    fixed(&mut l, 0x40);
    assert_eq!(l.pending_vector(), None);
    l.mmio_write(0x320, D, 0x40, 0);
    assert_eq!(l.mmio_read(0x320, D, 0), 0x1_0040);
    l.mmio_write(0xf0, D, 0x1ff, 0);
    l.mmio_write(0x320, D, 0x40, 0);
    assert_eq!(l.mmio_read(0x320, D, 0), 0x40);
    l.mmio_write(0xf0, D, 0xff, 0);
    assert_eq!(l.mmio_read(0x320, D, 0), 0x1_0040);
    assert!(l.accept(Delivery::Nmi, 0, false), "NMIs pass");
}

#[test]
fn s11_8_3_1_priorities() {
    let mut l = enabled();
    fixed(&mut l, 0x31);
    fixed(&mut l, 0x45);
    assert_eq!(l.pending_vector(), Some(0x45));
    l.ack(0x45);
    assert_eq!(l.ppr(), 0x40);
    assert_eq!(l.pending_vector(), None, "class 3 waits for class 4");
    fixed(&mut l, 0x4f);
    assert_eq!(l.pending_vector(), None, "same class waits");
    fixed(&mut l, 0x50);
    assert_eq!(l.pending_vector(), Some(0x50));
    l.mmio_write(0x80, D, 0x55, 0);
    assert_eq!((l.pending_vector(), l.mmio_read(0xa0, D, 0), l.cr8()), (None, 0x55, 5));
    l.set_cr8(0);
    assert_eq!(l.mmio_read(0x80, D, 0), 0);
    l.ack(0x50);
    assert_eq!(l.eoi(), Effect::Nothing);
    assert_eq!(l.mmio_write(0xb0, D, 0, 0), Effect::Nothing);
    assert_eq!(l.pending_vector(), Some(0x4f));
}

#[test]
fn s11_8_4_registers_show_the_sets() {
    let mut l = enabled();
    l.accept(Delivery::Fixed, 0x61, true);
    assert_eq!(l.mmio_read(0x230, D, 0), 2);
    assert_eq!(l.mmio_read(0x1b0, D, 0), 2);
    l.ack(0x61);
    assert_eq!((l.mmio_read(0x230, D, 0), l.mmio_read(0x130, D, 0)), (0, 2));
    l.unack(0x61);
    assert_eq!(l.pending_vector(), Some(0x61));
}

#[test]
fn s11_8_5_end_of_a_level_interrupt_is_told() {
    let mut l = enabled();
    l.accept(Delivery::Fixed, 0x61, true);
    l.ack(0x61);
    assert_eq!(l.pv_eoi_candidate(), None);
    assert_eq!(l.eoi(), Effect::EndOfInterrupt(0x61));
    fixed(&mut l, 0x61);
    l.ack(0x61);
    assert_eq!(l.pv_eoi_candidate(), Some(0x61));
    assert_eq!(l.eoi(), Effect::Nothing);
    assert_eq!(l.eoi(), Effect::Nothing);
}

#[test]
fn s11_5_3_errors_show_after_a_write() {
    let mut l = enabled();
    l.mmio_write(0x370, D, 0xfe, 0);
    fixed(&mut l, 3);
    assert_eq!(l.mmio_read(0x280, D, 0), 0);
    assert_eq!(l.pending_vector(), Some(0xfe));
    l.mmio_write(0x280, D, 0, 0);
    assert_eq!(l.mmio_read(0x280, D, 0), 0x40);
    assert_eq!(l.mmio_write(0x300, D, 0x4_0005, 0), Effect::Nothing);
    assert_eq!(l.mmio_read(0x400, D, 0), 0);
    l.mmio_write(0x280, D, 0, 0);
    assert_eq!(l.mmio_read(0x280, D, 0), 0xa0);
    l.mmio_write(0x280, D, 0, 0);
    assert_eq!(l.mmio_read(0x280, D, 0), 0);
}

#[test]
fn s11_6_1_commands_leave_as_effects() {
    let mut l = enabled();
    l.mmio_write(0x310, D, 0x0300_0000, 0);
    let Effect::Send(ipi) = l.mmio_write(0x300, D, 0x40fd, 0) else { panic!("nothing sent") };
    assert_eq!((ipi.message.destination, ipi.message.vector), (3, 0xfd));
    assert_eq!(l.mmio_read(0x300, D, 0), 0x40fd);
    assert_eq!(l.mmio_read(0x310, D, 0), 0x0300_0000);
}

#[test]
fn s11_6_2_2_logical_destinations() {
    let mut l = enabled();
    l.mmio_write(0xd0, D, 0x0200_0000, 0);
    assert!(l.is_addressed(0x06, true) && !l.is_addressed(0x05, true) && l.is_addressed(BROADCAST, true));
    l.mmio_write(0xe0, D, 0, 0);
    l.mmio_write(0xd0, D, 0x3200_0000, 0);
    assert!(l.is_addressed(0x36, true) && !l.is_addressed(0x26, true) && !l.is_addressed(0x35, true));
    assert!(l.is_addressed(2, false) && l.is_addressed(BROADCAST, false) && !l.is_addressed(3, false));
}

#[test]
fn s11_12_10_2_logical_x2apic_ids() {
    let mut l = x2();
    assert_eq!(l.msr_read(0x80d, 0), Ok(0x0002_0008));
    assert!(l.is_addressed(0x0002_000c, true) && !l.is_addressed(0x0001_0008, true));
    assert_eq!(l.msr_write(0x80d, 0, 0), Err(GpFault));
}

#[test]
fn s11_12_1_modes_and_their_changes() {
    let mut l = enabled();
    let base = 0xfee0_0100u64;
    assert_eq!(l.msr_read(0x802, 0), Err(GpFault));
    assert_eq!(l.set_apic_base(base | 0x400), Err(GpFault), "invalid mode");
    assert_eq!(l.set_apic_base(base | 0x801), Err(GpFault), "reserved bit");
    assert_eq!(l.register_page(), Some(0xfee0_0000));
    l.set_apic_base(0xfed0_0900).unwrap();
    assert_eq!(l.register_page(), Some(0xfed0_0000));
    l.set_apic_base(base | 0xc00).unwrap();
    assert_eq!((l.mode(), l.register_page(), l.mmio_read(0x20, D, 0)), (ApicMode::X2Apic, None, 0xffff_ffff));
    assert_eq!(l.set_apic_base(base | 0x800), Err(GpFault), "x2APIC to xAPIC");
    l.set_apic_base(base).unwrap();
    assert!(l.passes_ext_int() && !l.is_addressed(BROADCAST, false));
    assert_eq!(l.set_apic_base(base | 0xc00), Err(GpFault), "off to x2APIC");
    l.set_apic_base(base | 0x800).unwrap();
    assert_eq!(l.mmio_read(0xf0, D, 0), 0xff, "state was lost");
}

#[test]
fn s11_12_1_2_msrs_fault_on_what_is_reserved() {
    let mut l = x2();
    assert_eq!(l.msr_read(0x802, 0), Ok(0x23));
    for msr in [0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x8ff] {
        assert_eq!(l.msr_read(msr, 0), Err(GpFault), "read {msr:#x}");
    }
    for (msr, value) in
        [(0x802, 0), (0x80b, 1), (0x808, 0x100), (0x828, 1), (0x832, 1 << 20), (0x80f, 0x200), (0x830, 1 << 13)]
    {
        assert_eq!(l.msr_write(msr, value, 0), Err(GpFault), "write {msr:#x}");
    }
    assert_eq!(l.msr_write(0x80b, 0, 0), Ok(Effect::Nothing));
    assert!(matches!(l.msr_write(0x83f, 0x44, 0), Ok(Effect::Send(_))));
}

#[test]
fn s11_5_4_timer_raises_its_vector() {
    let mut l = enabled();
    l.mmio_write(0x3e0, D, 0xb, 0);
    l.mmio_write(0x320, D, 0xec, 0);
    l.mmio_write(0x380, D, 1000, 100);
    assert_eq!((l.next_deadline(), l.mmio_read(0x390, D, 600)), (Some(1100), 500));
    assert!(!l.advance(1099) && l.advance(1100));
    assert_eq!((l.pending_vector(), l.next_deadline()), (Some(0xec), None));
}

#[test]
fn s11_5_4_masked_timer_counts_silently() {
    let mut l = enabled();
    l.mmio_write(0x3e0, D, 0xb, 0);
    l.mmio_write(0x380, D, 1000, 0);
    assert_eq!((l.next_deadline(), l.mmio_read(0x390, D, 400)), (None, 600));
    l.mmio_write(0x320, D, 0xec, 5000);
    assert_eq!((l.pending_vector(), l.next_deadline()), (None, None));
}

#[test]
fn s11_5_4_1_tsc_deadline_mode() {
    let mut l = enabled();
    l.mmio_write(0x320, D, 0x4_00ec, 0);
    l.set_tsc_deadline(12_345);
    assert_eq!((l.tsc_deadline(), l.next_deadline()), (12_345, Some(12_345)));
    assert!(l.advance(12_345));
    assert_eq!((l.tsc_deadline(), l.pending_vector()), (0, Some(0xec)));
}

#[test]
fn s11_5_1_lint0_as_ext_int_and_as_fixed() {
    let mut l = enabled();
    assert!(!l.passes_ext_int() && !l.lint0_rises());
    l.mmio_write(0x350, D, 0x700, 0);
    assert!(l.passes_ext_int() && l.lint0_rises());
    l.mmio_write(0x350, D, 0x31, 0);
    assert!(!l.passes_ext_int() && l.lint0_rises());
    assert_eq!(l.pending_vector(), Some(0x31));
    l.mmio_write(0x360, D, 0x400, 0);
    assert!(l.lint1_rises() && l.take_nmi() && !l.take_nmi());
}

#[test]
fn s9_4_init_and_start_up() {
    let mut l = enabled();
    fixed(&mut l, 0x40);
    assert!(!l.accept(Delivery::StartUp, 9, false), "not waiting");
    l.accept(Delivery::Init, 0, false);
    assert!(l.waits_for_start_up());
    assert!(l.accept(Delivery::StartUp, 9, false) && !l.accept(Delivery::StartUp, 8, false));
    let s = l.take_signals();
    assert_eq!((s.init, s.start_up, l.signals().is_none()), (true, Some(9), true));
    assert_eq!((l.pending_vector(), l.mmio_read(0xf0, D, 0), l.id()), (None, 0xff, 2));
}

#[test]
fn s11_4_1_odd_accesses() {
    let mut l = enabled();
    assert_eq!(l.mmio_read(0x21, Width::Byte, 0), 0);
    assert_eq!(l.mmio_read(0x23, Width::Byte, 0), 2);
    assert_eq!(l.mmio_read(0x24, D, 0), 0);
    l.mmio_write(0x80, Width::Byte, 0x50, 0);
    assert_eq!(l.cr8(), 0);
}
