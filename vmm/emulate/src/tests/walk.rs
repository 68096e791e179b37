// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the walk through guest page tables, named after the sections of the SDM, volume 3.

use super::{DEVICE, long, protected};
use crate::{Access, Exception, translate};

#[test]
fn sdm3_4_3_32_bit_paging_with_4_mib_pages_and_pse36() {
    let (mut cpu, mut toy) = protected();
    cpu.cr0 |= 1 << 31;
    cpu.cr3 = 0x8_0000;
    cpu.cr4 = 1 << 4;
    toy.put(0x8_0000 + 4 * 0x300, &(0x0040_0083u32 | (0x12 << 13)).to_le_bytes());
    toy.put(0x8_0000, &0x8_1003u32.to_le_bytes());
    toy.put(0x8_1004, &0x7003u32.to_le_bytes());
    assert_eq!(translate(&cpu, &toy, 0xc012_3456, Access::Read), Ok(0x12_0052_3456));
    assert_eq!(translate(&cpu, &toy, 0x1234, Access::Write), Ok(0x7234));
    assert_eq!((toy.byte(0x8_0000), toy.byte(0x8_1004)), (0x23, 0x63), "accessed, dirty");
    assert_eq!(translate(&cpu, &toy, 0x2000, Access::Write), Err(Exception::Page { address: 0x2000, code: 2 }));
}

#[test]
fn sdm3_4_4_pae_paging() {
    let (mut cpu, mut toy) = protected();
    (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer) = (0x8000_0001, 0x8_0020, 0x20, 0x800);
    toy.entry(0x8_0038, 0x8_1001);
    toy.entry(0x8_1008, (1 << 63) | 0x1_0020_0083);
    toy.entry(0x8_1010, 0x8_2003);
    toy.entry(0x8_2000, 0x7001);
    assert_eq!(translate(&cpu, &toy, 0xc020_1234, Access::Read), Ok(0x1_0020_1234));
    let no_execute = Exception::Page { address: 0xc020_1234, code: 0x11 };
    assert_eq!(translate(&cpu, &toy, 0xc020_1234, Access::Fetch), Err(no_execute));
    assert_eq!(translate(&cpu, &toy, 0xc040_0010, Access::Write), Ok(0x7010), "no WP");
    cpu.cr0 |= 1 << 16;
    assert_eq!(
        translate(&cpu, &toy, 0xc040_0010, Access::Write),
        Err(Exception::Page { address: 0xc040_0010, code: 3 })
    );
}

#[test]
fn sdm3_4_5_four_levels_with_1_gib_pages_and_five_levels() {
    let (mut cpu, mut toy) = long();
    assert_eq!(translate(&cpu, &toy, 0x3fff_ffff, Access::Read), Ok(0x3fff_ffff));
    assert_eq!(toy.byte(0x8_1000) & 0x20, 0x20);
    toy.entry(0x8_5000, 0x8_0007);
    (cpu.cr4, cpu.cr3) = (cpu.cr4 | (1 << 12), 0x8_5000);
    assert_eq!(translate(&cpu, &toy, DEVICE, Access::Read), Ok(DEVICE));
    assert_eq!(translate(&cpu, &toy, 1 << 60, Access::Read), Err(Exception::GeneralProtection));
}

#[test]
fn sdm3_4_6_smap_and_smep() {
    let (mut cpu, mut toy) = long();
    toy.entry(0x8_1000, 0x87);
    cpu.cr4 |= (1 << 20) | (1 << 21);
    assert_eq!(translate(&cpu, &toy, 0x5000, Access::Read), Err(Exception::Page { address: 0x5000, code: 1 }));
    assert_eq!(translate(&cpu, &toy, 0x5000, Access::Fetch), Err(Exception::Page { address: 0x5000, code: 0x11 }));
    cpu.rflags |= 1 << 18;
    assert_eq!(translate(&cpu, &toy, 0x5000, Access::Read), Ok(0x5000));
    cpu.cpl = 3;
    assert_eq!(translate(&cpu, &toy, 0x5000, Access::Write), Ok(0x5000));
}
