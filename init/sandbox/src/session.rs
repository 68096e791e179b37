// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session between a child and whoever serves it.

use alloc::string::String;

use cloister_init_config::route::Destination;

use crate::platform::ChildId;
use crate::quota::Quota;

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Its server was asked, or is to be asked, for it.
    Creating,
    /// It is there, its client has not fetched it yet.
    Available,
    /// It is there.
    Open,
    /// It is there, and its server was told of an addition to the donation.
    Upgrading,
    /// Its server was asked to close it.
    Closing,
    /// It is not there any more, or never came to be; its client has not closed it yet.
    Closed,
}

/// Who serves a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedBy {
    Parent,
    Child(ChildId),
    Local,
    Config,
}

#[derive(Clone, Debug)]
pub(crate) struct Session<C> {
    /// The child that asked for it and the identifier that it chose; `None` when the child is gone.
    pub(crate) client: Option<(ChildId, u64)>,
    pub(crate) service: String,
    /// The label as it went into routing.
    pub(crate) asked: String,
    pub(crate) args: String,
    /// Where it was routed to.
    pub(crate) destination: Destination,
    pub(crate) server: ServedBy,
    pub(crate) state: SessionState,
    pub(crate) cap: Option<C>,
    /// Whether it belongs to the child's environment: the donation came out of our account.
    pub(crate) environment: bool,
    /// All that was donated to it.
    pub(crate) donation: Quota,
    /// Whether the donation went to a server that is a child, and the server knows of the session.
    pub(crate) delivered: bool,
    /// The part of the donation that the server has not acknowledged.
    pub(crate) upgrade: Quota,
    /// Why it was denied.
    pub(crate) refusal: Option<cloister_session::Error>,
}

impl<C> Session<C> {
    /// Whether its donation lies in our own account.
    pub(crate) fn donation_is_held(&self) -> bool {
        match self.server {
            ServedBy::Parent => false,
            ServedBy::Child(_) => !self.delivered && self.state != SessionState::Closed,
            ServedBy::Local | ServedBy::Config => self.state != SessionState::Closed,
        }
    }
}
