// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test switch `crash`: after a time the VMM does what a broken VMM would do.

use core::ptr;
use std::thread;
use std::time::Duration;

/// Makes this process crash after `ms` milliseconds, by a write to address 0.
pub(crate) fn schedule(ms: u64) {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(ms));
        let nowhere: *mut u8 = ptr::null_mut();
        // SAFETY: none; the fault that this raises is what the test asks for.
        unsafe { nowhere.write_volatile(0) };
    });
}
