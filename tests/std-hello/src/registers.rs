// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a system call keeps: all registers but `rax`, `rcx` and `r11`, and the red zone.

use crate::{Check, ensure};
use std::arch::asm;

/// `gettid`: a call without effect.
const GETTID: u64 = 186;
/// `uname`: a call that clears and copies memory, which libc does with vector registers.
const UNAME: u64 = 63;

/// Vector registers, the upper halves of the 256-bit ones where the processor has them.
pub(crate) fn vectors() -> Check {
    let before: [[u64; 4]; 16] = std::array::from_fn(|register| {
        std::array::from_fn(|lane| 0x0101_0101_0101_0101_u64.wrapping_mul(register as u64 * 4 + lane as u64))
    });
    let mut after = [[0_u64; 4]; 16];
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: loads and stores the arrays; all registers that change are named.
        unsafe { through_call_avx(&before, &mut after) };
        ensure!(before == after);
    }
    Ok(())
}

macro_rules! each_register {
    ($instruction:literal, $order:tt) => {
        concat!(
            each_register!(@ $order $instruction "0" "0"), each_register!(@ $order $instruction "1" "32"),
            each_register!(@ $order $instruction "2" "64"), each_register!(@ $order $instruction "3" "96"),
            each_register!(@ $order $instruction "4" "128"), each_register!(@ $order $instruction "5" "160"),
            each_register!(@ $order $instruction "6" "192"), each_register!(@ $order $instruction "7" "224"),
            each_register!(@ $order $instruction "8" "256"), each_register!(@ $order $instruction "9" "288"),
            each_register!(@ $order $instruction "10" "320"), each_register!(@ $order $instruction "11" "352"),
            each_register!(@ $order $instruction "12" "384"), each_register!(@ $order $instruction "13" "416"),
            each_register!(@ $order $instruction "14" "448"), each_register!(@ $order $instruction "15" "480"),
        )
    };
    (@ load $instruction:literal $register:literal $offset:literal) => {
        concat!($instruction, " ymm", $register, ", [{from} + ", $offset, "]\n")
    };
    (@ store $instruction:literal $register:literal $offset:literal) => {
        concat!($instruction, " [{to} + ", $offset, "], ymm", $register, "\n")
    };
}

/// # Safety
/// The processor has AVX.
#[target_feature(enable = "avx")]
unsafe fn through_call_avx(from: &[[u64; 4]; 16], to: &mut [[u64; 4]; 16]) {
    let mut names = [0_u8; 6 * 65];
    // SAFETY: the caller's word; the arrays have room for 16 registers of 32 bytes, and for what `uname` writes.
    unsafe {
        asm!(
            each_register!("vmovdqu", load),
            "syscall",
            each_register!("vmovdqu", store),
            from = in(reg) from,
            to = in(reg) to,
            inout("rax") UNAME => _,
            in("rdi") names.as_mut_ptr(),
            out("rcx") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
}

/// General registers, flags, and the 128 bytes below the stack pointer.
pub(crate) fn general() -> Check {
    let values: [u64; 8] = [0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777, 0x8888];
    let [mut rdi, mut rsi, mut rdx, mut r8, mut r9, mut r10, mut r12, mut r13] = values;
    let (mut red_zone_high, mut red_zone_low, mut carry, mut returned): (u64, u64, u8, u64);
    // SAFETY: the block uses the red zone of its own frame (no option says that there is no stack to keep), and puts all it
    // changes into named registers.
    unsafe {
        asm!(
            "sub rsp, 256",
            "mov [rsp - 8], rdi",
            "mov [rsp - 128], rsi",
            "stc",
            "syscall",
            "setc {carry}",
            "mov {high}, [rsp - 8]",
            "mov {low}, [rsp - 128]",
            "lea rsp, [rsp + 256]",
            carry = out(reg_byte) carry,
            high = out(reg) red_zone_high,
            low = out(reg) red_zone_low,
            inout("rax") GETTID => returned,
            inout("rdi") rdi, inout("rsi") rsi, inout("rdx") rdx, inout("r8") r8, inout("r9") r9, inout("r10") r10,
            inout("r12") r12, inout("r13") r13,
            out("rcx") _, out("r11") _,
        );
    }
    ensure!([rdi, rsi, rdx, r8, r9, r10, r12, r13] == values);
    ensure!((red_zone_high, red_zone_low) == (0x1111, 0x2222));
    ensure!(carry == 1);
    ensure!(returned > 0 && returned < 1 << 30);
    Ok(())
}
