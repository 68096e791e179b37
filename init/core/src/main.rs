// SPDX-License-Identifier: MIT OR Apache-2.0
//! Core: the root task. It takes the machine from the kernel and makes it into sessions, which it hands out to init.
//!
//! * [`machine`] – core's state: objects, accounts, mapping
//! * [`mapping`] – from the books to the page tables
//! * [`services`] – the session interfaces
//! * [`objects`] – what is behind each portal
//! * [`boot`] – the start: entrypoints, init
//! * [`faults`] – exceptions of components
//! * [`memory`], [`kernel`] – the two places that touch the machine
//!
//! Core has two threads that matter: the *main* thread starts init as any parent starts a child, through core's own
//! interfaces, and then waits for deadlines and exceptions; the *entrypoint* answers all calls, one at a time, on the callers'
//! time. Nothing that a component says can make core panic: messages are decoded totally, and what is asked is checked
//! against the books before the machine is touched.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![expect(unsafe_code, reason = "hypercalls, physical memory, and the first instructions")]

extern crate alloc;

mod arch;
mod boot;
mod faults;
mod firmware;
mod kernel;
mod label;
mod machine;
mod mapping;
mod memory;
mod objects;
mod services;

use cloister_abi::cap::Selector;
use cloister_abi::hip::Hip;

/// Bytes of each of core's stacks.
const STACK: usize = 64 << 10;

/// Core's own selectors, behind the kernel's.
const ENTRYPOINT: Selector = 10;
const FAULT_ENTRYPOINT: Selector = 11;
const CONTROL: Selector = 12;
const NOTIFICATION: Selector = 13;
const FAULT_SYNC: Selector = 14;

#[repr(C, align(4096))]
struct Stack(core::cell::UnsafeCell<[u8; STACK]>);

// SAFETY: never looked at by the program, only used as the stack of one thread.
unsafe impl Sync for Stack {}

static MAIN_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));
static ENTRYPOINT_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));
static FAULT_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));

impl Stack {
    /// The first address behind it.
    fn top(&'static self) -> u64 {
        self.0.get() as usize as u64 + STACK as u64
    }
}

/// The first function.
extern "sysv64" fn started(hip: u64) -> ! {
    let hip: *const Hip = core::ptr::with_exposed_provenance(memory::length(hip));
    // SAFETY: the kernel maps the page there, for ever, and never changes it.
    boot::run(unsafe { &*hip })
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("core runs on the bare machine only");
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let text = alloc::format!("core panicked: {info}\n");
    kernel::console(text.as_bytes());
    kernel::power_off(3);
    loop {
        core::hint::spin_loop();
    }
}
