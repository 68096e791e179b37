// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the fields of the core's current virtual-machine control structure (VMCS), by their encoding (SDM vol. 3D, appendix B;
//! [`x86::vmx::vmcs`] has their names).

/// Encoding of a field.
pub(crate) type Code = u32;

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
