// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each device reaches: the space that it is in, what firmware wants for it, or nothing; and what is told of what it tried beyond.
//!
//! A space's number (domain) is kept with it by who owns it, so that whoever changes the space knows whether units must forget, and what.

use crate::driver::{BLOCKED, Bus, DEVICES, DOMAINS, FIRMWARE, Forget, Iommu};
use crate::firmware::{Reserved, UNITS};
use crate::{Fault, Kind, Requester, amd, intel};
use cloister_abi::status::Status;
use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

impl<B: Bus> Iommu<B> {
    /// Address of a device's entry.
    pub(crate) fn entry(&self, device: Requester) -> u64 {
        match self.found.kind {
            Kind::Amd => self.tables + u64::from(device.0) * amd::ENTRY,
            Kind::Intel => self.tables + intel::TABLE + u64::from(device.0) * intel::ENTRY,
        }
    }

    fn translation(&self, table: Option<u64>) -> u64 {
        match self.found.kind {
            Kind::Amd => amd::translation(table),
            Kind::Intel => intel::translation(table),
        }
    }

    /// Puts a device under a page table and domain, or under none; `old` is the domain that it was in.
    fn set(&mut self, device: Requester, (table, domain): (Option<u64>, u16), old: u16) {
        let entry = self.entry(device);
        // Blocked first, so that no access meets the table of one domain under the number of another.
        self.bus.write(entry, self.translation(None));
        self.forget(&[Forget::Device(device, old), Forget::Domain(old)]);
        let second = match self.found.kind {
            Kind::Amd => domain.into(),
            Kind::Intel => intel::domain(domain, self.levels),
        };
        self.bus.write(entry + 8, second);
        self.bus.write(entry, self.translation(table));
        // Of an entry that is not present nothing is cached, but where absence is: under domain 0.
        self.forget(&[Forget::Device(device, BLOCKED), Forget::Domain(domain)]);
    }

    /// Whether a device is the machine's own: an I/O APIC, or a unit.
    #[must_use]
    pub fn is_own(&self, device: Requester) -> bool {
        self.bases().any(|(_, id, _)| self.found.kind == Kind::Amd && id == device)
            || self.found.io_apics.iter().flatten().any(|(_, id)| *id == device)
    }

    /// Who an I/O APIC is, by its identity in the MADT.
    #[must_use]
    pub fn io_apic(&self, id: u8) -> Option<Requester> {
        self.found.io_apics.iter().flatten().find(|(known, _)| *known == id).map(|(_, device)| *device)
    }

    /// Puts a device into the space with that page table and domain, which gets one if it has none.
    ///
    /// # Errors
    /// `BadDevice`: the device is part of the machine's own. `Busy`: it is in a space. `OutOfMemory`: there are too many devices or spaces with
    /// devices.
    pub fn assign(&mut self, device: Requester, root: u64, domain: &AtomicU16) -> Result<(), Status> {
        if self.is_own(device) {
            return Err(Status::BadDevice);
        }
        if self.devices.iter().flatten().any(|(other, _)| *other == device) {
            return Err(Status::Busy);
        }
        let place = self.devices.iter().position(Option::is_none).ok_or(Status::OutOfMemory)?;
        let number = match domain.load(Relaxed) {
            BLOCKED => self.new_domain().ok_or(Status::OutOfMemory)?,
            number => number,
        };
        // Before the device can reach anything: who changes the space from now on makes units forget.
        domain.store(number, Relaxed);
        self.devices[place] = Some((device, number));
        let old = self.home(device).1;
        self.set(device, (Some(root), number), old);
        Ok(())
    }

    /// Takes a device out of the space with that domain. It reaches none of it any more when this returns.
    ///
    /// # Errors
    /// `BadDevice`: it is not in the space.
    pub fn remove(&mut self, device: Requester, domain: &AtomicU16) -> Result<(), Status> {
        let own = Some((device, domain.load(Relaxed)));
        let place = self.devices.iter().position(|it| *it == own).ok_or(Status::BadDevice)?;
        self.take_out(place);
        self.leave(domain);
        Ok(())
    }

    /// Takes all devices out of a space that goes.
    pub fn remove_all(&mut self, domain: &AtomicU16) {
        let number = domain.load(Relaxed);
        for place in 0..DEVICES {
            if number != BLOCKED && self.devices[place].is_some_and(|(_, of)| of == number) {
                self.take_out(place);
            }
        }
        self.leave(domain);
    }

    fn take_out(&mut self, place: usize) {
        if let Some((device, domain)) = self.devices[place].take() {
            self.set(device, self.home(device), domain);
        }
    }

    /// A domain that no device is in.
    fn new_domain(&self) -> Option<u16> {
        let mut used = [false; DOMAINS as usize];
        self.devices.iter().flatten().for_each(|(_, domain)| used[usize::from(*domain)] = true);
        (FIRMWARE + 1..self.domains).find(|number| !used[usize::from(*number)])
    }

    /// Gives back the domain of a space that has no devices any more.
    fn leave(&mut self, domain: &AtomicU16) {
        if !self.devices.iter().flatten().any(|(_, of)| *of == domain.load(Relaxed)) {
            domain.store(BLOCKED, Relaxed);
        }
    }

    /// Lets units forget translations of an aligned range of 2^order pages of a domain, or all of them.
    pub fn flush(&mut self, domain: u16, range: Option<(u64, u32)>) {
        self.forget(&[match range {
            Some((address, order)) => Forget::Range(domain, address, order),
            None => Forget::Domain(domain),
        }]);
    }

    // ---- what firmware wants

    /// Gives devices what firmware says they need, as long as they are in no space: `map` puts a range into the page table with that root, as it is,
    /// or refuses it.
    pub fn reserve(&mut self, root: u64, mut map: impl FnMut(&Reserved) -> bool) {
        for range in &mut self.found.reserved {
            *range = range.filter(|range| map(range));
        }
        self.firmware = Some(root);
        for range in self.found.reserved.into_iter().flatten() {
            for id in range.first.0..=range.last.0 {
                let old = self.home(Requester(id));
                self.set(Requester(id), old, BLOCKED);
            }
        }
    }

    /// Where a device is that is in no space.
    fn home(&self, device: Requester) -> (Option<u64>, u16) {
        let needs = |range: &Reserved| (range.first..=range.last).contains(&device);
        match self.firmware {
            Some(root) if self.found.reserved.iter().flatten().any(needs) => (Some(root), FIRMWARE),
            _ => (None, BLOCKED),
        }
    }

    // ---- faults

    /// Tells what units refused; a device of which `each` has heard enough is told of no more until it is put somewhere else, at no cost to
    /// anybody. Answers whether units lost some for want of room.
    pub fn faults(&mut self, mut each: impl FnMut(Fault) -> bool) -> bool {
        let mut lost = false;
        for place in 0..UNITS {
            while let Some(fault) =
                self.units[place].as_mut().and_then(|unit| unit.fault(&self.bus, self.found.kind, &mut lost))
            {
                if each(fault) {
                    self.silence(fault.device);
                }
            }
        }
        lost
    }

    fn silence(&mut self, device: Requester) {
        let entry = self.entry(device);
        let (place, bit) = match self.found.kind {
            Kind::Amd => (entry + 8, amd::SILENT),
            Kind::Intel => (entry, intel::SILENT),
        };
        self.bus.write(place, self.bus.read(place) | bit);
        let own = self.devices.iter().flatten().find(|(it, _)| *it == device).map(|(_, domain)| *domain);
        self.forget(&[Forget::Device(device, own.unwrap_or_else(|| self.home(device).1))]);
    }
}
