// SPDX-License-Identifier: MIT OR Apache-2.0
//! Not there yet.
use crate::workspace::Workspace;
use anyhow::{Result, bail};
pub(crate) fn command(_workspace: &Workspace) -> Result<bool> {
    bail!("not there yet")
}
