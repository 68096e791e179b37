// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reference, docs/spec/hypercalls.md, says that each call may answer (made from it when the program is built), and what
//! was answered to this program so far.

use cloister_abi::hypercall::CALLS;
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

include!(concat!(env!("OUT_DIR"), "/documented.rs"));

// A call that the reference does not have yet would be a call without statuses.
const _: () = assert!(DOCUMENTED.len() == CALLS.len());
const _: () = assert!(Status::ALL.len() <= 16);

static SEEN: [AtomicU16; CALLS.len()] = [const { AtomicU16::new(0) }; CALLS.len()];

/// A call answered that.
pub(crate) fn record(call: u64, status: Status) {
    let place = usize::try_from(call).ok().and_then(|call| SEEN.get(call));
    let bit = 1 << status as u16;
    // Writing each time would take the line from other cores.
    if let Some(place) = place.filter(|place| place.load(Relaxed) & bit == 0) {
        place.fetch_or(bit, Relaxed);
    }
}

/// By call, the statuses that it answered to this program, as bits.
#[must_use]
pub fn seen() -> [u16; CALLS.len()] {
    SEEN.each_ref().map(|seen| seen.load(Relaxed))
}
