// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reference, docs/spec/hypercalls.md, says that each call may answer. Made from it when the program is built.

use cloister_abi::hypercall::CALLS;

include!(concat!(env!("OUT_DIR"), "/documented.rs"));

// A call that the reference does not have yet would be a call without statuses.
const _: () = assert!(DOCUMENTED.len() == CALLS.len());
