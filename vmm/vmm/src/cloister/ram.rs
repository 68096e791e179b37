// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory out of this component's RAM quota.

use cloister_boot::layout;
use cloister_hypervisor::Error;
use cloister_hypervisor_cloister::CloisterHypervisor;

use crate::memory::{Ram, RamSource};

/// Dataspaces of this component.
#[derive(Clone, Debug)]
pub(super) struct QuotaRam(pub(super) CloisterHypervisor);

impl RamSource for QuotaRam {
    fn allocate(&self, size: u64) -> Result<Ram, Error> {
        let available = self.0.available()?;
        if available < size {
            return Err(Error::Quota { wanted: size, available });
        }
        let mut owners = Vec::new();
        let mut pieces = Vec::new();
        for (guest, size) in layout::ram(size) {
            let owner = self.0.allocate(size)?;
            pieces.push((guest, size, owner.pointer()));
            owners.push(owner);
        }
        // SAFETY: the dataspaces are this component's alone, and attached until their owners are dropped.
        unsafe { Ram::from_pieces(&pieces, owners) }
    }
}
