// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory out of this component's RAM quota.

use cloister_hypervisor::Error;
use cloister_hypervisor_cloister::CloisterHypervisor;

use crate::memory::{Ram, RamSource};

/// Dataspaces of this component.
#[derive(Clone, Debug)]
pub(super) struct QuotaRam(pub(super) CloisterHypervisor);

impl RamSource for QuotaRam {
    fn allocate_pieces(&self, pieces: &[(u64, u64)]) -> Result<Ram, Error> {
        let wanted = pieces.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        let available = self.0.available()?;
        if available < wanted {
            return Err(Error::Quota { wanted, available });
        }
        let mut owners = Vec::new();
        let mut placed = Vec::new();
        for &(guest, size) in pieces {
            let owner = self.0.allocate(size)?;
            placed.push((guest, size, owner.pointer()));
            owners.push(owner);
        }
        // SAFETY: the dataspaces are this component's alone, and attached until their owners are dropped.
        unsafe { Ram::from_pieces(&placed, owners) }
    }
}
