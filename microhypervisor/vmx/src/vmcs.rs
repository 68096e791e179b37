// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fields of the virtual-machine control structure (VMCS) by their encoding (SDM vol. 3D, appendix B), and access to those of the
//! core's current one.

/// Encoding of a field.
pub(crate) type Code = u32;

pub(crate) const VPID: Code = 0x0000;
/// Selector of ES; those of the other segments follow in steps of 2.
pub(crate) const GUEST_SELECTOR: Code = 0x0800;
pub(crate) const HOST_CS: Code = 0x0c02;
pub(crate) const HOST_SS: Code = 0x0c04;
pub(crate) const HOST_TR: Code = 0x0c0c;
pub(crate) const MSR_BITMAP: Code = 0x2004;
pub(crate) const TSC_OFFSET: Code = 0x2010;
pub(crate) const VIRTUAL_APIC: Code = 0x2012;
pub(crate) const EPT_POINTER: Code = 0x201a;
pub(crate) const GUEST_PHYSICAL: Code = 0x2400;
pub(crate) const LINK_POINTER: Code = 0x2800;
pub(crate) const GUEST_PAT: Code = 0x2804;
pub(crate) const GUEST_EFER: Code = 0x2806;
pub(crate) const HOST_PAT: Code = 0x2c00;
pub(crate) const HOST_EFER: Code = 0x2c02;
pub(crate) const PIN: Code = 0x4000;
pub(crate) const PRIMARY: Code = 0x4002;
pub(crate) const EXCEPTIONS: Code = 0x4004;
pub(crate) const EXIT_CONTROLS: Code = 0x400c;
pub(crate) const ENTRY_CONTROLS: Code = 0x4012;
pub(crate) const ENTRY_EVENT: Code = 0x4016;
pub(crate) const ENTRY_ERROR: Code = 0x4018;
pub(crate) const ENTRY_LENGTH: Code = 0x401a;
pub(crate) const SECONDARY: Code = 0x401e;
pub(crate) const INSTRUCTION_ERROR: Code = 0x4400;
pub(crate) const EXIT_REASON: Code = 0x4402;
pub(crate) const EXIT_EVENT: Code = 0x4404;
pub(crate) const EXIT_ERROR: Code = 0x4406;
pub(crate) const VECTORING_EVENT: Code = 0x4408;
pub(crate) const VECTORING_ERROR: Code = 0x440a;
pub(crate) const EXIT_LENGTH: Code = 0x440c;
pub(crate) const EXIT_INSTRUCTION: Code = 0x440e;
/// Limit of ES; those of the other segments and tables follow in steps of 2.
pub(crate) const GUEST_LIMIT: Code = 0x4800;
/// Access rights of ES; those of the other segments follow in steps of 2.
pub(crate) const GUEST_ACCESS: Code = 0x4814;
pub(crate) const INTERRUPTIBILITY: Code = 0x4824;
pub(crate) const GUEST_SYSENTER_CS: Code = 0x482a;
pub(crate) const TIMER: Code = 0x482e;
pub(crate) const CR0_MASK: Code = 0x6000;
pub(crate) const CR4_MASK: Code = 0x6002;
pub(crate) const CR0_SHADOW: Code = 0x6004;
pub(crate) const CR4_SHADOW: Code = 0x6006;
pub(crate) const QUALIFICATION: Code = 0x6400;
pub(crate) const GUEST_CR0: Code = 0x6800;
pub(crate) const GUEST_CR3: Code = 0x6802;
pub(crate) const GUEST_CR4: Code = 0x6804;
/// Base of ES; those of the other segments and tables follow in steps of 2.
pub(crate) const GUEST_BASE: Code = 0x6806;
pub(crate) const GUEST_DR7: Code = 0x681a;
pub(crate) const GUEST_RSP: Code = 0x681c;
pub(crate) const GUEST_RIP: Code = 0x681e;
pub(crate) const GUEST_RFLAGS: Code = 0x6820;
pub(crate) const PENDING_DEBUG: Code = 0x6822;
pub(crate) const GUEST_SYSENTER_ESP: Code = 0x6824;
pub(crate) const GUEST_SYSENTER_EIP: Code = 0x6826;
pub(crate) const HOST_CR0: Code = 0x6c00;
pub(crate) const HOST_CR3: Code = 0x6c02;
pub(crate) const HOST_CR4: Code = 0x6c04;
pub(crate) const HOST_FS_BASE: Code = 0x6c06;
pub(crate) const HOST_GS_BASE: Code = 0x6c08;
pub(crate) const HOST_TR_BASE: Code = 0x6c0a;
pub(crate) const HOST_GDTR_BASE: Code = 0x6c0c;
pub(crate) const HOST_IDTR_BASE: Code = 0x6c0e;
/// Written by the world switch.
pub(crate) const HOST_RSP: Code = 0x6c14;
pub(crate) const HOST_RIP: Code = 0x6c16;

/// Reads a field of the current VMCS; 0 if there is none or it has no such field.
#[cfg(not(test))]
#[inline]
pub(crate) fn read(field: Code) -> u64 {
    let value: u64;
    // SAFETY: the kernel activates a VCPU, and so is in VMX operation, before it does anything else to it; a field that
    // does not exist fails without effect.
    unsafe {
        core::arch::asm!(
            "xor {value:e}, {value:e}",
            "vmread {value}, {field}",
            field = in(reg) u64::from(field),
            value = out(reg) value,
            options(nomem, nostack),
        );
    }
    value
}

/// Writes a field of the current VMCS.
#[cfg(not(test))]
#[inline]
pub(crate) fn write(field: Code, value: u64) {
    // SAFETY: as `read`. What the fields of the host's state must be is argued where they are written, in `vcpu`.
    unsafe {
        core::arch::asm!("vmwrite {field}, {value}", field = in(reg) u64::from(field), value = in(reg) value, options(nomem, nostack));
    }
}

#[cfg(test)]
pub(crate) use fake::{read, write};

/// A VMCS in the memory of a test's thread.
#[cfg(test)]
mod fake {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static FIELDS: RefCell<BTreeMap<super::Code, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn read(field: super::Code) -> u64 {
        FIELDS.with_borrow(|fields| fields.get(&field).copied().unwrap_or(0))
    }

    pub(crate) fn write(field: super::Code, value: u64) {
        // Fields of 32 and of 16 bits keep no more.
        let kept = match field >> 13 & 3 {
            0 => value & 0xffff,
            2 => value & 0xffff_ffff,
            _ => value,
        };
        FIELDS.with_borrow_mut(|fields| fields.insert(field, kept));
    }
}
