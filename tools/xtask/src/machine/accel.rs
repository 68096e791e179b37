// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the machine runs on the host's processor or is emulated.
//!
//! Cloister needs a processor with SVM. Under KVM that means a host whose `kvm_amd` offers nested virtualization;
//! everywhere else QEMU's own emulation, which has SVM on any host, serves.

use std::fs;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// The user's wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where it offers nested virtualization with SVM, emulation elsewhere
    #[default]
    Auto,
    /// The host's processor
    Kvm,
    /// Emulation
    Tcg,
}

impl Accel {
    /// Decides.
    pub(crate) fn is_kvm(self) -> Result<bool> {
        match self {
            Self::Tcg => Ok(false),
            Self::Auto => Ok(obstacle().is_none()),
            Self::Kvm => match obstacle() {
                None => Ok(true),
                Some(reason) => bail!("no KVM here: {reason}; `--accel tcg` needs none"),
            },
        }
    }
}

/// What stands in the way of KVM.
fn obstacle() -> Option<&'static str> {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Some("/dev/kvm cannot be opened");
    }
    let nested = fs::read_to_string("/sys/module/kvm_amd/parameters/nested").unwrap_or_default();
    match nested.trim() {
        "1" | "Y" => None,
        "" => Some("the processor has no SVM"),
        _ => Some("nested virtualization is off (load kvm_amd with nested=1)"),
    }
}
