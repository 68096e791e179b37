// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86_64: the time-stamp counter and the processor's own CPUID.

use core::arch::x86_64::{__cpuid_count, _rdtsc};

/// A point in time: a value of the host's time-stamp counter, in its ticks.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Tsc(pub u64);

impl Tsc {
    /// The counter now.
    #[inline]
    #[must_use]
    pub fn now() -> Self {
        // SAFETY: RDTSC has no operands and no effect but its result; user mode may execute it (CR4.TSD is clear).
        Self(unsafe { _rdtsc() })
    }

    /// Ticks from `earlier` to `self`, zero if `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The host processor's own answer to CPUID `leaf`, `subleaf`: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

#[cfg(test)]
mod tests {
    use super::{Tsc, cpuid};

    #[test]
    fn the_counter_counts() {
        let a = Tsc::now();
        let b = Tsc::now();
        assert!(b >= a);
        assert_eq!(a.since(b), if a == b { 0 } else { a.0.saturating_sub(b.0) });
    }

    #[test]
    fn cpuid_names_a_vendor() {
        let [max, b, c, d] = cpuid(0, 0);
        assert!(max >= 1);
        assert!((b | c | d) != 0);
    }
}
