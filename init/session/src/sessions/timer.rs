// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timer. (A component's own main loop needs none: it waits with a deadline.)

use crate::Cap;

interface! {
    /// Signals at given times. Times are ticks of the time-stamp counter, see [`crate::CpuInfo::tsc_hz`].
    pub trait Timer, client TimerClient, server TimerServer {
        /// The present time.
        1 => fn now() -> u64;
        /// Raises the signal once, at this time. Replaces what was set before; 0 for never.
        2 => fn trigger_at(time: u64) -> ();
        /// Raises the signal each so many ticks, from now on. Replaces what was set before; 0 for never.
        3 => fn trigger_periodic(period: u64) -> ();
        /// Sets the signal.
        4 => fn signal_handler(handler: Option<Cap>) -> ();
    }
}
