// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start and end of the program.

use crate::kernel::call;
use cloister_abi::hip::{Hip, MACHINE, MAGIC};
use cloister_abi::hypercall::{MachineControl, MachineOp, Yield};
use core::sync::atomic::{AtomicPtr, Ordering};

/// Exit code of a program whose tests passed.
pub const GOOD: u64 = 0x10;
/// Exit code of a program that failed.
pub const BAD: u64 = 0x11;

/// Stack of the first thread.
#[repr(C, align(4096))]
struct Stack([u8; 64 * 1024]);

// Mutable by the processor alone; in `.data`, so that it lies in the file.
#[unsafe(link_section = ".data.stack")]
static STACK: Stack = Stack([0; 64 * 1024]);

static HIP: AtomicPtr<Hip> = AtomicPtr::new(core::ptr::null_mut());

/// What the kernel jumps to: `rdi` is the address of the information page, there is no stack yet.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        stack = sym STACK,
        size = const size_of::<Stack>(),
        main = sym start,
    )
}

unsafe extern "Rust" {
    /// The program: made by [`crate::root_task`].
    safe fn root_main() -> bool;
}

extern "C" fn start(hip: *mut Hip) -> ! {
    HIP.store(hip, Ordering::Relaxed);
    assert_eq!(self::hip().magic, MAGIC, "no information page");
    exit(if root_main() { GOOD } else { BAD })
}

/// What the kernel tells of the machine.
#[must_use]
pub fn hip() -> &'static Hip {
    // SAFETY: set before anything else runs; the kernel maps the page for ever, and does not change it.
    unsafe { &*HIP.load(Ordering::Relaxed) }
}

/// Switches the machine off.
pub fn exit(code: u64) -> ! {
    // A refusal leaves nothing to do but to wait for who watches the machine.
    let _ = call(&MachineControl { machine: MACHINE, operation: MachineOp::PowerOff as u64, value: code });
    loop {
        let _ = call(&Yield {});
    }
}

/// Makes a function the program: `fn() -> bool`, true for success.
#[macro_export]
macro_rules! root_task {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn root_main() -> bool {
            $main()
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("panic: {info}");
    exit(BAD)
}
