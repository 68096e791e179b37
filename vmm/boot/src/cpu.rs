// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of the first VCPU when Linux is entered at its 64-bit entry point.
//!
//! The boot protocol wants long mode, an identity map of what the kernel and its parameters occupy, flat segments at
//! selectors 0x10 (code) and 0x18 (data), interrupts off, RSI at the boot parameters. Sources: the kernel's
//! Documentation/x86/boot.rst, "64-bit boot protocol"; AMD64 APM volume 2, 4.8 (descriptors), 5.3 (page tables).

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::linux::Entry;
use crate::{Error, layout};

const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
/// Null, unused, 64-bit code, flat data.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const PAGE: u64 = 0x1000;
const PRESENT_WRITABLE: u64 = 3;
const LARGE: u64 = 1 << 7;
const CR0_PE_ET_NE_WP_PG: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA_NXE: u64 = 1 << 8 | 1 << 10 | 1 << 11;
/// Local APIC at its usual place, enabled, of the boot processor.
const APIC_BASE: u64 = layout::LAPIC | 1 << 11 | 1 << 8;
const RFLAGS_FIXED: u64 = 2;

/// The registers at the kernel's entry.
#[must_use]
pub fn regs(entry: Entry) -> kvm_regs {
    kvm_regs { rip: entry.rip, rsi: entry.boot_params, rflags: RFLAGS_FIXED, ..Default::default() }
}

/// Descriptor tables, segments and control registers at the kernel's entry, over the state after reset in `reset`.
#[must_use]
pub fn sregs(reset: &kvm_sregs) -> kvm_sregs {
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let code = kvm_segment { selector: CODE, type_: 0xb, l: 1, ..flat };
    let data = kvm_segment { selector: DATA, type_: 3, db: 1, ..flat };
    let task = kvm_segment { type_: 0xb, present: 1, limit: 0x67, ..Default::default() };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        gdt: kvm_dtable { base: layout::GDT, limit: 31, ..Default::default() },
        idt: kvm_dtable::default(),
        cr0: CR0_PE_ET_NE_WP_PG,
        cr3: layout::PAGE_TABLES,
        cr4: CR4_PAE,
        efer: EFER_LME_LMA_NXE,
        apic_base: APIC_BASE,
        ..*reset
    }
}

/// Writes the descriptor table and an identity map of the first 4 GiB in 2 MiB pages.
///
/// # Errors
/// [`Error::Memory`]: guest memory ends before the tables.
pub fn write_tables(memory: &GuestMemoryMmap) -> Result<(), Error> {
    let put = |what, address: u64, table: &[u64]| {
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        memory.write_slice(&bytes, GuestAddress(address)).map_err(|_| Error::Memory { what, address })
    };
    put("descriptor table", layout::GDT, &GDT)?;
    let pointers = layout::PAGE_TABLES + PAGE;
    let directories = pointers + PAGE;
    put("page tables", layout::PAGE_TABLES, &[pointers | PRESENT_WRITABLE])?;
    let four = [0, 1, 2, 3_u64].map(|i| directories.saturating_add(i.saturating_mul(PAGE)) | PRESENT_WRITABLE);
    put("page tables", pointers, &four)?;
    let pages: Vec<u64> = (0..4 * 512_u64).map(|i| i << 21 | LARGE | PRESENT_WRITABLE).collect();
    put("page tables", directories, &pages)
}

#[cfg(test)]
mod tests {
    use super::{regs, sregs, write_tables};
    use crate::layout;
    use crate::linux::Entry;
    use kvm_bindings::kvm_sregs;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn page_tables_map_four_gib_to_itself() {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory).unwrap();
        let walk = |address: u64| {
            let entry =
                |table: u64, index: u64| memory.read_obj::<u64>(GuestAddress((table & !0xfff) + index * 8)).unwrap();
            let pointers = entry(layout::PAGE_TABLES, 0);
            let directory = entry(pointers, address >> 30);
            entry(directory, address >> 21 & 511)
        };
        for address in [0, 0x20_0000, 0x4000_0000, 0xfee0_0000] {
            assert_eq!(walk(address), address & !0x1f_ffff | 0x83);
        }
    }

    #[test]
    fn entry_state_is_long_mode_with_interrupts_off() {
        let s = sregs(&kvm_sregs::default());
        assert_eq!((s.cs.selector, s.cs.l, s.ds.selector), (0x10, 1, 0x18));
        assert_eq!(s.efer & 0x500, 0x500);
        let r = regs(Entry { rip: 5, boot_params: 6 });
        assert_eq!((r.rip, r.rsi, r.rflags & 0x200), (5, 6, 0));
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        assert!(write_tables(&memory).is_err());
    }
}
