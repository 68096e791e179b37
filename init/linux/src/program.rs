// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program's one personality, and what the entry and the threads' ends call.

use crate::arch::{self, Frame};
use cloister_personality::clock::Clock;
use cloister_personality::memory::Layout;
use cloister_personality::{Kernel, Outcome, Personality};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "on-linux")]
pub(crate) use crate::host::Host as World;
#[cfg(not(feature = "on-linux"))]
pub(crate) use crate::world::World;

/// Addresses that the personality hands out. They share the topmost page table with the program's image.
pub(crate) const LAYOUT: Layout =
    Layout { start: 0x20_0000_0000, end: 0x40_0000_0000, brk_start: 0x10_0000_0000, brk_end: 0x14_0000_0000 };

/// Stack pointer with which the thread of a slot starts again; 0 for none.
static RESTARTS: [AtomicU64; cloister_personality::threads::SLOTS] =
    [const { AtomicU64::new(0) }; cloister_personality::threads::SLOTS];

struct Program(UnsafeCell<Personality<World>>);

// SAFETY: the personality is shared by reference, and locks what it changes; the one change by unique reference is made
// by the first thread before there is a second (`set_up`).
unsafe impl Sync for Program {}

static PROGRAM: Program = Program(UnsafeCell::new(Personality::new(World::new(), LAYOUT)));

/// The personality.
pub(crate) fn program() -> &'static Personality<World> {
    // SAFETY: see `Program`.
    unsafe { &*PROGRAM.0.get() }
}

/// Prepares the personality for its first call.
///
/// # Safety
/// By the first thread, before there is a second one and before the first system call.
pub(crate) unsafe fn set_up(clock: Clock, prepare: impl FnOnce(&mut World)) {
    // SAFETY: the caller's word.
    let program = unsafe { &mut *PROGRAM.0.get() };
    prepare(program.kernel_mut());
    program.start(clock);
}

/// Answers a system call. Called by the entry.
pub(crate) extern "sysv64" fn dispatch(number: u64, frame: &Frame) -> u64 {
    let program = program();
    match program.call(number, frame.arguments(), core::ptr::from_ref(frame).expose_provenance() as u64) {
        Outcome::Return(value) => value,
        Outcome::SetThreadPointer(address) => {
            arch::set_thread_pointer(address);
            0
        }
        Outcome::GetThreadPointer(address) => {
            program.kernel().write(address, &arch::thread_pointer().to_ne_bytes());
            0
        }
        // SAFETY: the thread said that it is done.
        Outcome::EndThread => unsafe { arch::leave_stack() },
        Outcome::EndProgram => loop {
            program.kernel().wait(None);
        },
    }
}

/// The calling thread has left its stack. Answers the stack pointer with which it starts again as another.
pub(crate) extern "sysv64" fn thread_ended() -> u64 {
    let program = program();
    program.end_thread();
    let slot = program.kernel().current();
    loop {
        let restart = RESTARTS.get(slot).map_or(0, |restart| restart.swap(0, Ordering::AcqRel));
        if restart != 0 {
            return restart;
        }
        program.kernel().wait(None);
    }
}

/// Lets the parked thread of a slot start again.
pub(crate) fn restart(slot: usize, stack: u64) {
    if let Some(restart) = RESTARTS.get(slot) {
        restart.store(stack, Ordering::Release);
        program().kernel().wake(slot);
    }
}
