// SPDX-License-Identifier: MIT OR Apache-2.0
//! State in the structures of kvm-bindings, and back.

use cloister_abi::arch::current::vcpu::{Event, Groups, Segment};
use cloister_hypervisor::Error;
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::calls::Calls;
use crate::vcpu::CloisterVcpu;

const REGS: Groups = Groups::GPR.union(Groups::RIP).union(Groups::RFLAGS);
const SREGS: Groups = Groups::CS_SS
    .union(Groups::DS_ES)
    .union(Groups::FS_GS)
    .union(Groups::TR_LDTR)
    .union(Groups::TABLES)
    .union(Groups::CR)
    .union(Groups::TPR)
    .union(Groups::EFER);
/// Local APIC at its usual place, enabled, of the boot processor. The APIC itself is the VMM's.
const APIC_BASE: u64 = 0xfee0_0900;

/// Bits `at` and up of access rights, as many as `mask` has.
fn bits(access: u32, at: u32, mask: u32) -> u8 {
    u8::try_from(access.wrapping_shr(at) & mask & 0xff).unwrap_or(0)
}

fn to_kvm(segment: Segment) -> kvm_segment {
    let access = segment.access;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: bits(access, 0, 15),
        s: bits(access, 4, 1),
        dpl: bits(access, 5, 3),
        present: bits(access, 7, 1),
        avl: bits(access, 12, 1),
        l: bits(access, 13, 1),
        db: bits(access, 14, 1),
        g: bits(access, 15, 1),
        unusable: bits(access, 16, 1),
        padding: 0,
    }
}

fn from_kvm(segment: &kvm_segment) -> Segment {
    let bit = |value: u8, mask: u8, at: u32| u32::from(value & mask).wrapping_shl(at);
    let access = bit(segment.type_, 15, 0)
        | bit(segment.s, 1, 4)
        | bit(segment.dpl, 3, 5)
        | bit(segment.present, 1, 7)
        | bit(segment.avl, 1, 12)
        | bit(segment.l, 1, 13)
        | bit(segment.db, 1, 14)
        | bit(segment.g, 1, 15)
        | bit(segment.unusable, 1, 16);
    Segment { selector: segment.selector, access, limit: segment.limit, base: segment.base, ..Segment::default() }
}

fn to_table(segment: Segment) -> kvm_dtable {
    kvm_dtable { base: segment.base, limit: u16::try_from(segment.limit).unwrap_or(u16::MAX), padding: [0; 3] }
}

fn from_table(table: kvm_dtable) -> Segment {
    Segment { base: table.base, limit: table.limit.into(), ..Segment::default() }
}

impl<C: Calls> CloisterVcpu<C> {
    pub(crate) fn get_regs(&self) -> Result<kvm_regs, Error> {
        self.need(REGS)?;
        let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = self.page.gpr();
        let (rip, rflags) = (self.page.rip(), self.page.rflags());
        Ok(kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags })
    }

    pub(crate) fn put_regs(&mut self, r: &kvm_regs) {
        self.page.set_gpr([
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ]);
        self.page.set_rip(r.rip);
        self.page.set_rflags(r.rflags);
        self.changed(REGS);
    }

    pub(crate) fn get_sregs(&self) -> Result<kvm_sregs, Error> {
        self.need(SREGS)?;
        let page = self.page;
        Ok(kvm_sregs {
            cs: to_kvm(page.cs()),
            ds: to_kvm(page.ds()),
            es: to_kvm(page.es()),
            fs: to_kvm(page.fs()),
            gs: to_kvm(page.gs()),
            ss: to_kvm(page.ss()),
            tr: to_kvm(page.tr()),
            ldt: to_kvm(page.ldtr()),
            gdt: to_table(page.gdtr()),
            idt: to_table(page.idtr()),
            cr0: page.cr0(),
            cr2: page.cr2(),
            cr3: page.cr3(),
            cr4: page.cr4(),
            cr8: page.cr8(),
            efer: page.efer(),
            apic_base: APIC_BASE,
            interrupt_bitmap: [0; 4],
        })
    }

    pub(crate) fn put_sregs(&mut self, s: &kvm_sregs) -> Result<(), Error> {
        // XCR0 is in a group with the control registers, and not in this structure.
        self.need(Groups::CR)?;
        let page = self.page;
        page.set_cs(from_kvm(&s.cs));
        page.set_ds(from_kvm(&s.ds));
        page.set_es(from_kvm(&s.es));
        page.set_fs(from_kvm(&s.fs));
        page.set_gs(from_kvm(&s.gs));
        page.set_ss(from_kvm(&s.ss));
        page.set_tr(from_kvm(&s.tr));
        page.set_ldtr(from_kvm(&s.ldt));
        page.set_gdtr(from_table(s.gdt));
        page.set_idtr(from_table(s.idt));
        page.set_cr0(s.cr0);
        page.set_cr2(s.cr2);
        page.set_cr3(s.cr3);
        page.set_cr4(s.cr4);
        page.set_cr8(s.cr8);
        page.set_efer(s.efer);
        self.changed(SREGS);
        // An interrupt that was being delivered when the state was saved.
        let waiting = s.interrupt_bitmap.iter().zip(0_u8..).find(|(word, _)| **word != 0);
        if let Some((word, index)) = waiting {
            let bit = u8::try_from(word.trailing_zeros()).unwrap_or(0);
            self.queue(Event::interrupt(index.wrapping_mul(64).wrapping_add(bit)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{from_kvm, to_kvm};
    use kvm_bindings::kvm_segment;

    #[test]
    fn segments_survive_both_ways() {
        let code = kvm_segment {
            base: 0x1000,
            limit: u32::MAX,
            selector: 0x10,
            type_: 0xb,
            present: 1,
            dpl: 3,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        assert_eq!(from_kvm(&code).access, 0xa0fb);
        assert_eq!(to_kvm(from_kvm(&code)), code);
        let none = kvm_segment { unusable: 1, ..Default::default() };
        assert_eq!(to_kvm(from_kvm(&none)), none);
    }
}
