// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rubbish at every door: what a guest can do to its monitor.

use crate::random::Random;
use crate::survive;

/// Ports that end or reset the machine, left alone so that the test goes on: the serial port that reports, ACPI's control register,
/// reset registers, the keyboard controller's command.
fn ends(port: u16) -> bool {
    matches!(port, 0x64 | 0x92 | 0xcf8..=0xcf9 | 0x3f8..=0x3ff | 0x600..=0x617 | 0x640..=0x641)
}

/// Accesses of every width at every port.
pub(crate) fn ports(random: &mut Random) {
    for port in (0..=u16::MAX).filter(|port| !ends(*port) && !ends(port.wrapping_add(3))) {
        let value = random.next32();
        match random.below(6) {
            0 => survive!("out dx, al", in("dx") port, in("eax") value),
            1 => survive!("out dx, ax", in("dx") port, in("eax") value),
            2 => survive!("out dx, eax", in("dx") port, in("eax") value),
            3 => survive!("in al, dx", in("dx") port, inout("eax") value => _),
            4 => survive!("in ax, dx", in("dx") port, inout("eax") value => _),
            _ => survive!("in eax, dx", in("dx") port, inout("eax") value => _),
        }
    }
}

/// Registers of the usual ranges and of any number.
pub(crate) fn registers(random: &mut Random) {
    for _ in 0..4000 {
        let register = match random.below(6) {
            0 => random.next32() & 0x1fff,
            1 => 0xc000_0000 | random.next32() & 0x1fff,
            2 => 0xc001_0000 | random.next32() & 0x1fff,
            3 => 0x4b56_4d00 | random.next32() & 0xf,
            4 => 0x800 | random.next32() & 0x3f,
            _ => random.next32(),
        };
        // What the processor itself runs by is left alone: its base addresses, its mode, where exceptions go.
        if matches!(register, 0xc000_0080 | 0xc000_0100..=0xc000_0102 | 0x1b | 0x800..=0x80f | 0x830..=0x83f) {
            continue;
        }
        let (low, high) = (random.next32(), random.next32());
        if random.below(2) == 0 {
            survive!("rdmsr", in("ecx") register, inout("eax") low => _, inout("edx") high => _);
        } else {
            survive!("wrmsr", in("ecx") register, in("eax") low, in("edx") high);
        }
    }
}

/// Accesses where no memory is: holes, PCI's window, interrupt controllers. The loader maps the first 4 GiB.
pub(crate) fn memory(random: &mut Random) {
    for _ in 0..20_000 {
        let address = match random.below(5) {
            0 => 0xfec0_0000 | random.below(0x1000),
            1 => 0xe000_0000 + random.below(0x10_0000),
            2 => 0xc000_0000 + random.below(0x2000_0000),
            3 => 0xfed0_0000 + random.below(0x1000),
            _ => 0xa_0000 + random.below(0x2_0000),
        };
        let value = random.next();
        match random.below(7) {
            0 => survive!("mov [{at}], {value:r}", at = in(reg) address, value = in(reg) value),
            1 => survive!("mov [{at}], {value:e}", at = in(reg) address, value = in(reg) value),
            2 => survive!("mov {value:r}, [{at}]", at = in(reg) address, value = inout(reg) value => _),
            3 => survive!("mov {value:x}, [{at}]", at = in(reg) address, value = inout(reg) value => _),
            4 => survive!("xchg {value:e}, [{at}]", at = in(reg) address, value = inout(reg) value => _),
            5 => survive!("add [{at}], {value:e}", at = in(reg) address, value = in(reg) value),
            _ => {
                survive!("rep movsb", inout("rcx") 9u64 => _, inout("rsi") address => _, inout("rdi") 0x20_0000u64 => _)
            }
        }
    }
}

/// Executes random bytes: most probably ends in a triple fault, a shutdown, or a loop.
pub(crate) fn code(random: &mut Random) {
    const AT: u64 = 0x40_0000;
    let place: *mut u64 = core::ptr::with_exposed_provenance_mut(0x40_0000);
    for index in 0..8192 {
        // SAFETY: the guest's own memory, used for nothing else.
        unsafe { place.wrapping_add(index).write_volatile(random.next()) };
    }
    for _ in 0..5000 {
        let entry = AT + random.below(65_000);
        survive!(
            "call {entry}",
            entry = in(reg) entry,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
}
