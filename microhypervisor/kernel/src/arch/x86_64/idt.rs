// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt descriptor table, one for all cores. AMD APM vol. 2, 4.8.4 (gate descriptors).

use super::entry::Way;
use super::percore::KERNEL_CS;
use x86::dtables::{DescriptorTablePointer, lidt};

/// Vectors below this one are exceptions.
pub(crate) const EXCEPTIONS: u64 = 32;
/// First vector of devices; the legacy controllers' spurious ones are below.
pub(crate) const FIRST_DEVICE: u64 = 0x30;
/// Vector of the local timer. It and those above are let in while devices are held back.
pub(crate) const TIMER: u64 = 0xf0;
/// Vector by which cores ask each other for work.
pub(crate) const WORK: u64 = 0xf1;
/// Vector of the IOMMU's own interrupt.
pub(crate) const IOMMU: u64 = 0xf2;
/// Vector of the local APIC's own errors.
pub(crate) const APIC_ERROR: u64 = 0xf3;
/// Vector of spurious interrupts.
pub(crate) const SPURIOUS: u64 = 0xff;

/// Vectors with a stack of their own: double fault and machine check, NMI.
const fn stack(vector: usize) -> u64 {
    match vector {
        8 | 18 => 1,
        2 => 2,
        _ => 0,
    }
}

/// The gate of a vector. User mode can raise none but the breakpoint and overflow vectors by itself.
fn gate(vector: usize) -> [u64; 2] {
    let entry = Way::chosen().vectors + 16 * vector as u64;
    let level: u64 = if matches!(vector, 3 | 4) { 3 } else { 0 };
    let low = entry & 0xffff | u64::from(KERNEL_CS) << 16 | stack(vector) << 32 | (0x8e | level << 5) << 40;
    [low | (entry >> 16 & 0xffff) << 48, entry >> 32]
}

/// Makes it the table of the core that runs.
pub(super) fn load() {
    static TABLE: spin::Once<[[u64; 2]; 256]> = spin::Once::new();
    let table = TABLE.call_once(|| core::array::from_fn(gate));
    // SAFETY: it is static and complete, and its gates lead to the entry code.
    unsafe { lidt(&DescriptorTablePointer::new(table)) };
}
