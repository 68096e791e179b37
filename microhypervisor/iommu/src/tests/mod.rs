// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver as the kernel runs it, on units that keep to the manuals ([`model`]): what devices reach, what is told of what they do not, which
//! interrupts they raise; and hostile firmware tables ([`tables`]).

mod faults;
mod interrupts;
mod model;
mod reach;
mod tables;

use crate::firmware::{Found, Reserved};
use crate::{Fault, Iommu, Kind, Requester, Setup, amd, intel};
use cloister_mechanism::radix::{Freed, PageTable};
use core::sync::atomic::AtomicU16;
use model::{BASE, Machine, Variant};

/// A machine with one unit, and its driver.
struct Bench {
    machine: Machine,
    iommu: Iommu<Machine>,
}

/// Page tables of a space.
enum Tables {
    Amd(PageTable<amd::Paging>),
    Intel3(PageTable<intel::Paging<3>>),
    Intel4(PageTable<intel::Paging<4>>),
}

/// A space.
struct Space {
    tables: Tables,
    domain: AtomicU16,
}

macro_rules! each {
    ($tables:expr, $table:ident => $what:expr) => {
        match $tables {
            Tables::Amd($table) => $what,
            Tables::Intel3($table) => $what,
            Tables::Intel4($table) => $what,
        }
    };
}

impl Bench {
    fn new(variant: Variant) -> Self {
        Self::with(variant, &[])
    }

    /// A machine whose firmware reserves memory.
    fn with(variant: Variant, reserved: &[Reserved]) -> Self {
        let machine = Machine::new(variant);
        let mut iommu = Iommu::new(machine.clone());
        let mut found = Found { allows_interrupts: true, ..Found::none(variant.kind()) };
        found.units[0] = Some((BASE, Requester(2)));
        found.io_apics[0] = Some((7, Requester(0xa0)));
        found.reserved.iter_mut().zip(reserved).for_each(|(place, range)| *place = Some(*range));
        iommu.found = found;
        iommu.tables = machine.allocate(iommu.memory());
        let setup = Setup { remaps: true, x2apic: variant.is_wide(), interrupt: (0, 0xf2), caches_absence: false };
        iommu.start(setup).expect("the driver starts");
        Self { machine, iommu }
    }

    fn space(&self) -> Space {
        let tables = self.machine.tables(self.iommu.levels);
        Space { tables, domain: AtomicU16::new(0) }
    }

    fn map(&mut self, space: &Space, address: u64, physical: u64, (read, write): (bool, bool)) {
        let bits = match self.iommu.found.kind {
            Kind::Amd => amd::attributes(read, write),
            Kind::Intel => intel::attributes(read, write),
        };
        each!(&space.tables, table => table.map(&self.machine, address, 0, |_| Some((physical, bits)))).expect("room");
        self.flush(space, address);
    }

    fn unmap(&mut self, space: &Space, address: u64) {
        let mut freed = Freed::default();
        each!(&space.tables, table => table.unmap(&self.machine, address, 0, &mut freed)).expect("aligned");
        self.flush(space, address);
        self.machine.give_back(freed);
    }

    fn flush(&mut self, space: &Space, address: u64) {
        let domain = space.domain.load(core::sync::atomic::Ordering::Relaxed);
        if domain != crate::BLOCKED {
            self.iommu.flush(domain, Some((address, 0)));
        }
    }

    fn assign(&mut self, space: &Space, device: Requester) -> Result<(), cloister_abi::status::Status> {
        self.iommu.assign(device, self.root(space), &space.domain)
    }

    fn root(&self, space: &Space) -> u64 {
        self.machine.address(each!(&space.tables, table => table.root()))
    }

    /// What units tell since the last time; and whether some was lost.
    fn faults(&mut self) -> (Vec<Fault>, bool) {
        let mut told = Vec::new();
        let lost = self.iommu.faults(|fault| {
            told.push(fault);
            false
        });
        (told, lost)
    }
}
