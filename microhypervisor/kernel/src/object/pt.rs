// SPDX-License-Identifier: MIT OR Apache-2.0
//! Portal (PT): an entry into a component, served by one local EC.

use super::{Ec, Header, Ref};
use cloister_abi::cap::Kind;

/// Portal (PT).
#[repr(C, align(64))]
pub(crate) struct Pt {
    header: Header,
    /// The EC that serves it.
    pub(crate) ec: Ref<Ec>,
    /// Where that EC starts.
    pub(crate) ip: u64,
    /// What that EC is told at each call.
    pub(crate) id: u64,
}

impl Pt {
    /// A portal; the entry point is a user address.
    pub(crate) const fn new(ec: Ref<Ec>, ip: u64, id: u64) -> Self {
        Self { header: Header::new(Kind::Pt), ec, ip, id }
    }
}
