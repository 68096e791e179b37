// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSRs that are processor state: they live in the state page, not on the VMM's bus.
//!
//! Only EFER, PAT, the time-stamp counter and TSC_AUX come here from a running guest; the others it reaches without an exit.
//! Sources: AMD64 APM volume 2, 3.1.7 (EFER), 7.8.1 (PAT), appendix A.

use cloister_abi::arch::current::vcpu::Groups;
use cloister_hypervisor::arch::Tsc;
use cloister_hypervisor::{CpuidState, Error};

use crate::calls::Calls;
use crate::vcpu::CloisterVcpu;

const TSC: u32 = 0x10;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE, FFXSR, TCE.
const EFER_KNOWN: u64 = 1 | EFER_LME | EFER_LMA | 1 << 11 | 1 << 14 | 1 << 15;
const CR0_PG: u64 = 1 << 31;

/// The group of the state page in which an MSR lives, if it lives there.
const fn group(msr: u32) -> Option<Groups> {
    Some(match msr {
        TSC => Groups::TSC,
        SYSENTER_CS | SYSENTER_ESP | SYSENTER_EIP => Groups::SYSENTER,
        PAT => Groups::PAT,
        EFER => Groups::EFER.union(Groups::CR),
        STAR | LSTAR | CSTAR | SFMASK | KERNEL_GS_BASE => Groups::SYSCALL,
        FS_BASE | GS_BASE => Groups::FS_GS,
        // The kernel looks at its place whenever it enters the guest.
        TSC_AUX => Groups::empty(),
        _ => return None,
    })
}

impl<C: Calls> CloisterVcpu<C> {
    /// The value of an MSR that is kept here; nothing for others.
    pub(crate) fn kept_msr(&self, msr: u32) -> Result<Option<u64>, Error> {
        let Some(group) = group(msr) else { return Ok(None) };
        self.need(group)?;
        let page = self.page;
        Ok(Some(match msr {
            TSC => Tsc::now().0.wrapping_add(page.tsc_offset()),
            SYSENTER_CS => page.sysenter_cs(),
            SYSENTER_ESP => page.sysenter_esp(),
            SYSENTER_EIP => page.sysenter_eip(),
            PAT => page.pat(),
            EFER => page.efer(),
            STAR => page.star(),
            LSTAR => page.lstar(),
            CSTAR => page.cstar(),
            SFMASK => page.sfmask(),
            FS_BASE => page.fs().base,
            GS_BASE => page.gs().base,
            TSC_AUX if self.has_tsc_aux() => page.tsc_aux(),
            TSC_AUX => return Ok(None),
            _ => page.kernel_gs_base(),
        }))
    }

    /// Whether the guest was told of RDTSCP or RDPID, which answer TSC_AUX.
    fn has_tsc_aux(&self) -> bool {
        let [_, _, _, extended] = self.cpuid.answer(0x8000_0001, 0, CpuidState::default());
        let [_, _, seven, _] = self.cpuid.answer(7, 0, CpuidState::default());
        extended >> 27 & 1 != 0 || seven >> 22 & 1 != 0
    }

    /// Sets an MSR that is kept here: whether it takes the value; nothing for MSRs that are not kept here.
    #[inline]
    pub(crate) fn keep_msr(&mut self, msr: u32, value: u64) -> Result<Option<bool>, Error> {
        match group(msr) {
            None => Ok(None),
            Some(group) => self.set_kept(msr, value, group).map(Some),
        }
    }

    #[inline(never)]
    fn set_kept(&mut self, msr: u32, value: u64, group: Groups) -> Result<bool, Error> {
        self.need(group)?;
        let page = self.page;
        let mut group = group;
        match msr {
            TSC => page.set_tsc_offset(value.wrapping_sub(Tsc::now().0)),
            SYSENTER_CS => page.set_sysenter_cs(value),
            SYSENTER_ESP => page.set_sysenter_esp(value),
            SYSENTER_EIP => page.set_sysenter_eip(value),
            PAT if !value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)) => return Ok(false),
            PAT => page.set_pat(value),
            EFER => {
                let Some(value) = efer(page.efer(), value, page.cr0()) else { return Ok(false) };
                page.set_efer(value);
                group = Groups::EFER;
            }
            STAR => page.set_star(value),
            LSTAR => page.set_lstar(value),
            CSTAR => page.set_cstar(value),
            SFMASK => page.set_sfmask(value),
            FS_BASE => page.set_fs(cloister_abi::arch::current::vcpu::Segment { base: value, ..page.fs() }),
            GS_BASE => page.set_gs(cloister_abi::arch::current::vcpu::Segment { base: value, ..page.gs() }),
            TSC_AUX if !self.has_tsc_aux() || value >> 32 != 0 => return Ok(false),
            TSC_AUX => page.set_tsc_aux(value),
            _ => page.set_kernel_gs_base(value),
        }
        self.changed(group);
        Ok(true)
    }
}

/// EFER after the guest wrote `value`; nothing if it must not (unknown bits, long mode switched while paging is on).
const fn efer(old: u64, value: u64, cr0: u64) -> Option<u64> {
    if value & !EFER_KNOWN != 0 || (cr0 & CR0_PG != 0 && (old ^ value) & EFER_LME != 0) {
        return None;
    }
    Some(value & !EFER_LMA | old & EFER_LMA)
}

#[cfg(test)]
mod tests {
    use super::{CR0_PG, efer};

    #[test]
    fn apm_3_1_7_efer_writes() {
        assert_eq!(efer(0x500, 0xd01, CR0_PG), Some(0xd01));
        assert_eq!(efer(0x500, 0x101, CR0_PG), Some(0x501), "LMA is not the guest's to clear");
        assert_eq!(efer(0x500, 0x400, CR0_PG), None, "LME while paging");
        assert_eq!(efer(0, 0x100, 0), Some(0x100));
        assert_eq!(efer(0, 1 << 12, 0), None, "SVME");
    }
}
