// SPDX-License-Identifier: MIT OR Apache-2.0
//! Not there yet.
use crate::workspace::Workspace;
use anyhow::{Result, bail};
pub(crate) fn command<O>(_workspace: &Workspace, _options: &O) -> Result<bool> {
    bail!("not there yet")
}
