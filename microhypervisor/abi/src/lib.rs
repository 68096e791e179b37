// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contract between the microhypervisor and everything above it: plain types, numbers and layouts, no behaviour.
//!
//! The kernel, the system-call stubs, the tools and the tests import it; `docs/spec/hypercalls.md` describes each call by
//! tables and a test holds the two together. Nothing in here allocates, fails at run time or touches the machine.
//!
//! * [`hypercall`] – the numbers and the argument structure of each call
//! * [`status`] – what a call may answer
//! * [`cap`] – selectors, permissions, kinds of object
//! * [`utcb`] – the message page of an execution context
//! * [`hip`] – what the root task is told about the machine
//! * [`trace`] – what the trace of a core consists of
//! * [`arch`] – registers, exception state, virtual-CPU state page of the architecture
#![no_std]

/// An enumeration whose values are numbers of the contract: written once, with the way back from a number.
macro_rules! numbered {
    ($(#[$text:meta])+ pub enum $name:ident: $width:ty { $($(#[$about:meta])+ $value:ident = $number:literal,)+ }) => {
        $(#[$text])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($width)]
        pub enum $name { $($(#[$about])+ $value = $number,)+ }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$value),+];

            /// The value of that number, if there is one.
            #[must_use]
            pub const fn from_raw(raw: u64) -> Option<Self> {
                match raw {
                    $($number => Some(Self::$value),)+
                    _ => None,
                }
            }
        }
    };
}

pub mod arch;
pub mod cap;
pub mod hip;
pub mod hypercall;
pub mod status;
pub mod trace;
mod user;
pub mod utcb;

/// Version of this contract: `major << 16 | minor`. The kernel refuses a root task of another major version.
///
/// Changelog: at the end of docs/spec/hypercalls.md.
pub const VERSION: u32 = 3;

/// Size of a page and of everything that is mapped: message pages, state pages, the information page. In bytes.
pub const PAGE_SIZE: usize = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_BITS: u32 = 12;

/// First address that is not a component's: end of the user half of the address space less one page, so that no
/// system-call instruction ends at a non-canonical address (AMD APM vol. 3, SYSRET; Intel SDM vol. 2, SYSRET).
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// Number of scheduling priorities; 0 is the lowest, `PRIORITIES - 1` the highest.
pub const PRIORITIES: usize = 128;
