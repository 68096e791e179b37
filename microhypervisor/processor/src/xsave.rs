// SPDX-License-Identifier: MIT OR Apache-2.0
//! Floating-point and vector state: which components are offered, how large an area they need, and which instructions save them.
//!
//! Areas are of one size, a page frame, so a set of components that needs more is cut down until it fits. PKRU and AMX are not offered: the
//! first is useless to components that have no page-table keys, the second would be two more frames for each thread.
//!
//! Sources: Intel SDM vol. 1, 13.2 to 13.4 (enumeration, layout), 13.7 to 13.11 (instructions); AMD APM vol. 2, 11.5.

use crate::feature::AMD_OLD;

/// Legacy region and header.
const FIXED: u32 = 576;
/// x87 and SSE, which are in the legacy region.
const LEGACY: u64 = 3;
const AVX: u64 = 1 << 2;
/// The three components of AVX-512, which are switched on together.
const AVX512: u64 = 7 << 5;

/// Bits of CPUID 0xd.1 EAX.
const XSAVEOPT: u32 = 1 << 0;
const XSAVEC: u32 = 1 << 1;
const XSAVES: u32 = 1 << 3;

/// How state is saved and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// FXSAVE, FXRSTOR: x87 and SSE.
    Fxsave,
    /// XSAVE, XRSTOR.
    Xsave,
    /// XSAVEOPT, XRSTOR: leaves out what is unused or unchanged.
    Optimized,
    /// XSAVEC, XRSTOR: leaves out what is unused; components close up.
    Compacted,
    /// XSAVES, XRSTORS: both.
    Supervisor,
}

impl Method {
    /// Whether the header of an area says that its components close up (bit 63 of `XCOMP_BV`).
    #[must_use]
    pub const fn is_compacted(self) -> bool {
        matches!(self, Self::Compacted | Self::Supervisor)
    }

    /// Name of the instruction that saves.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fxsave => "FXSAVE",
            Self::Xsave => "XSAVE",
            Self::Optimized => "XSAVEOPT",
            Self::Compacted => "XSAVEC",
            Self::Supervisor => "XSAVES",
        }
    }
}

/// A component by CPUID 0xd: size, offset in the standard format, and whether it is aligned to 64 bytes in the compacted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Bytes.
    pub size: u32,
    /// Offset in the standard format.
    pub offset: u32,
    /// Aligned in the compacted format.
    pub aligned: bool,
}

impl Component {
    /// From the registers EAX, EBX and ECX of its subleaf.
    #[must_use]
    pub const fn of(eax: u32, ebx: u32, ecx: u32) -> Self {
        Self { size: eax, offset: ebx, aligned: ecx >> 1 & 1 != 0 }
    }
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Components that are switched on (XCR0).
    pub mask: u64,
    /// Components that the processor has and that would have been offered, but that do not fit.
    pub dropped: u64,
    /// Bytes that an area needs.
    pub size: u32,
    /// Instructions.
    pub method: Method,
}

/// Without XSAVE.
pub const FXSAVE: Layout = Layout { mask: LEGACY, dropped: 0, size: 512, method: Method::Fxsave };

/// What is used of what the processor says it can (CPUID 0xd.1 EAX), if it has these [`crate::feature`]s. XSAVES of AMD's family 0x17 may leave XMM
/// registers out (erratum 1386). `standard`: none of the instructions that let components close up (`xsave=standard` on the command line), for
/// emulators that have them wrong.
#[must_use]
pub fn usable(instructions: u32, features: u64, standard: bool) -> u32 {
    let loses = features & AMD_OLD != 0;
    instructions & !(if loses { XSAVES } else { 0 }) & !(if standard { XSAVEC | XSAVES } else { 0 })
}

/// Decides for a processor with XSAVE. `supported` are its components (CPUID 0xd.0 EDX:EAX), `features` is what is [`usable`], `component` tells of
/// each component from 2 on, `room` is the size of an area.
#[must_use]
pub fn choose(supported: u64, features: u32, component: impl Fn(u32) -> Component, room: u32) -> Layout {
    let method = match [XSAVES, XSAVEC, XSAVEOPT].map(|instruction| features & instruction != 0) {
        [true, true, _] => Method::Supervisor,
        [false, true, _] => Method::Compacted,
        [_, false, true] => Method::Optimized,
        [_, false, false] => Method::Xsave,
    };
    let mut offered = supported & (LEGACY | AVX | AVX512) | LEGACY;
    if offered & AVX == 0 || offered & AVX512 != AVX512 {
        offered &= !AVX512;
    }
    let size = |mask| size(mask, method.is_compacted(), &component);
    let candidates = [offered, offered & !AVX512, LEGACY];
    let mask = candidates.into_iter().find(|mask| size(*mask) <= room).unwrap_or(LEGACY);
    Layout { mask, dropped: offered & !mask, size: size(mask), method }
}

/// Bytes of an area with these components.
fn size(mask: u64, compacted: bool, component: impl Fn(u32) -> Component) -> u32 {
    let present = (2..63).filter(|index| mask >> index & 1 != 0).map(component);
    present.fold(FIXED, |end, Component { size, offset, aligned }| {
        let start = match (compacted, aligned) {
            (false, _) => offset,
            (true, true) => end.checked_next_multiple_of(64).unwrap_or(u32::MAX),
            (true, false) => end,
        };
        end.max(start.saturating_add(size))
    })
}

#[cfg(test)]
mod tests {
    use super::{Component, Layout, Method, choose, usable};
    use crate::feature::{AMD, AMD_OLD, INTEL};

    /// Offsets of AVX and of the parts of AVX-512, each with its size.
    fn processor(offsets: [u32; 4]) -> impl Fn(u32) -> Component {
        move |index| {
            let [avx, mask, upper, high] = offsets;
            let (offset, size) = match index {
                2 => (avx, 256),
                5 => (mask, 64),
                6 => (upper, 512),
                7 => (high, 1024),
                17 => (0xac0, 64),
                18 => (0xb00, 8192),
                _ => (0, 0),
            };
            Component { size, offset, aligned: index >= 17 }
        }
    }

    /// Intel leaves room for MPX, AMD does not.
    fn intel() -> impl Fn(u32) -> Component {
        processor([576, 1088, 1152, 1664])
    }
    fn amd() -> impl Fn(u32) -> Component {
        processor([576, 832, 896, 1408])
    }

    #[test]
    fn sapphire_rapids_without_keys_and_tiles() {
        let layout = choose(0x602e7, 0x1f, intel(), 4096);
        assert_eq!(layout, Layout { mask: 0xe7, dropped: 0, size: 2432, method: Method::Supervisor });
    }

    #[test]
    fn skylake_in_the_standard_format() {
        let layout = choose(0x2ff, 0, intel(), 4096);
        assert_eq!(layout, Layout { mask: 0xe7, dropped: 0, size: 2688, method: Method::Xsave });
    }

    #[test]
    fn genoa_and_older() {
        assert_eq!(choose(0xe7, 0xf, amd(), 4096).size, 2432);
        let zen = choose(7, 0xf, amd(), 4096);
        assert_eq!(zen, Layout { mask: 7, dropped: 0, size: 832, method: Method::Supervisor });
        assert_eq!(choose(7, 1, amd(), 4096).method, Method::Optimized);
        assert_eq!(choose(7, 0b11, amd(), 4096).method, Method::Compacted);
        assert_eq!(choose(7, 0b1000, amd(), 4096).method, Method::Xsave);
    }

    #[test]
    fn what_is_broken_is_not_used() {
        let method = |features| choose(7, features, amd(), 4096).method;
        assert_eq!(method(usable(0xf, AMD, false)), Method::Supervisor);
        assert_eq!(method(usable(0xf, AMD | AMD_OLD, false)), Method::Compacted);
        assert_eq!(method(usable(0xf, INTEL, false)), Method::Supervisor);
        assert_eq!(method(usable(0xf, INTEL, true)), Method::Optimized);
        assert_eq!(method(usable(0xe, INTEL, true)), Method::Xsave);
    }

    #[test]
    fn what_does_not_fit_is_dropped_from_the_top() {
        let cut = choose(0xe7, 0, intel(), 2687);
        assert_eq!((cut.mask, cut.dropped, cut.size), (7, 0xe0, 832));
        let cut = choose(0xe7, 0, intel(), 831);
        assert_eq!((cut.mask, cut.dropped, cut.size), (3, 0xe4, 576));
    }

    #[test]
    fn incomplete_sets_are_not_offered() {
        assert_eq!(choose(0xa7, 0, intel(), 4096).mask, 7);
        assert_eq!(choose(0xe3, 0, intel(), 4096).mask, 3);
        assert_eq!(choose(0, 0, intel(), 4096).mask, 3);
    }

    #[test]
    fn nonsense_of_a_processor_is_survived() {
        let huge = |_| Component { size: u32::MAX, offset: u32::MAX, aligned: true };
        assert_eq!(choose(u64::MAX, u32::MAX, huge, 4096).mask, 3);
        assert_eq!(choose(u64::MAX, 0, huge, 4096).mask, 3);
    }
}
