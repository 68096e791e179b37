// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clocks, sleeping, waiting with an end.

use crate::{Check, ensure, text};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn instant() -> Check {
    let start = Instant::now();
    let mut last = start;
    for _ in 0..100 {
        let now = Instant::now();
        ensure!(now >= last);
        last = now;
    }
    thread::sleep(Duration::from_millis(10));
    ensure!(start.elapsed() >= Duration::from_millis(10));
    ensure!(start.elapsed() < Duration::from_secs(20));
    Ok(())
}

pub(crate) fn system_time() -> Check {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?;
    // A machine without a clock starts in 1970.
    ensure!(since > Duration::ZERO);
    Ok(())
}

pub(crate) fn timeout() -> Check {
    let (sender, receiver) = mpsc::channel::<()>();
    let start = Instant::now();
    ensure!(receiver.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout));
    ensure!(start.elapsed() >= Duration::from_millis(5));
    drop(sender);
    ensure!(receiver.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Disconnected));
    Ok(())
}
