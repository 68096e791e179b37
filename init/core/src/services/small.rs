// SPDX-License-Identifier: MIT OR Apache-2.0
//! ROM, LOG, Platform: sessions with little behind them.

use super::Call;
use crate::machine::{CAPS, Core, MEMORY_SESSION, SESSION};
use crate::objects::{Caching, Log as LogSession, Owner, Platform as PlatformSession, Rom as RomSession, Thing};
use crate::{kernel, label};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use cloister_base::{Cap, Error, ObjectId, selectors};
use cloister_core_model::{AccountId, Extent, pages};
use cloister_session::{Log, MachineInfo, Platform, Resources, Rom, RomContent};

impl Core {
    /// Opens a ROM session: the last part of the label names a module of the boot image, or what the firmware left.
    pub(crate) fn open_rom(&mut self, donor: AccountId, who: &str, donation: Resources) -> Result<ObjectId, Error> {
        let name = label::last(who);
        let Some((base, size)) = self.module(name) else {
            log::error!("{who}: there is no ROM module \"{name}\"");
            return Err(Error::NotFound);
        };
        let purse = self.open_purse(donor, donation, MEMORY_SESSION)?;
        // An empty module has a page all the same: there are no empty dataspaces.
        let whole = pages(size.max(1)).ok_or(Error::Invalid)?;
        let extents = Vec::from([Extent { base, size: whole }]);
        let made = self.add_dataspace(None, Owner::Session, extents, (false, Caching::Cached)).and_then(|dataspace| {
            let session = RomSession { purse, dataspace, size };
            self.add(None, Thing::Rom(session)).inspect_err(|_| drop(self.remove_dataspace(dataspace)))
        });
        made.inspect_err(|_| self.close_purse(&purse))
    }

    /// Opens a LOG session.
    pub(crate) fn open_log(&mut self, donor: AccountId, who: &str, donation: Resources) -> Result<ObjectId, Error> {
        let purse = self.open_purse(donor, donation, SESSION)?;
        let session = LogSession { purse, label: who.to_string() };
        self.add(None, Thing::Log(session)).inspect_err(|_| self.close_purse(&purse))
    }

    /// Opens a Platform session.
    pub(crate) fn open_platform(
        &mut self,
        donor: AccountId,
        who: &str,
        donation: Resources,
    ) -> Result<ObjectId, Error> {
        let purse = self.open_purse(donor, donation, SESSION)?;
        let session = PlatformSession { purse, label: who.to_string() };
        self.add(None, Thing::Platform(session)).inspect_err(|_| self.close_purse(&purse))
    }

    /// Closes a ROM, LOG or Platform session.
    pub(crate) fn close_small(&mut self, id: ObjectId) {
        match self.remove(id) {
            Some(Thing::Rom(session)) => {
                drop(self.remove_dataspace(session.dataspace));
                self.close_purse(&session.purse);
            }
            Some(Thing::Log(session)) => self.close_purse(&session.purse),
            Some(Thing::Platform(session)) => self.close_purse(&session.purse),
            _ => {}
        }
    }

    /// What there is, and what is left.
    pub(crate) fn machine_info(&self) -> MachineInfo {
        let used = self.accounts.used();
        let (kernel, kernel_free) = kernel::kernel_memory();
        MachineInfo {
            ram: self.ram,
            ram_free: self.ram - used.ram,
            caps: CAPS,
            caps_free: CAPS - used.caps,
            kernel,
            kernel_free,
        }
    }
}

/// Writes text to the console, each line with the label in front.
pub(crate) fn write_lines(label: &str, text: &str) {
    for line in text.lines() {
        let mut whole = String::with_capacity(label.len() + line.len() + 4);
        whole.push('[');
        whole.push_str(label);
        whole.push_str("] ");
        // What a component writes must not play tricks with the terminal.
        whole.extend(line.chars().map(|letter| if letter.is_control() && letter != '\t' { '?' } else { letter }));
        whole.push('\n');
        kernel::console(whole.as_bytes());
    }
}

impl Rom for Call<'_> {
    fn content(&mut self) -> Result<RomContent, Error> {
        let rom = self.core.rom_mut(self.id)?;
        let (size, dataspace) = (rom.size, rom.dataspace);
        Ok(RomContent { size, dataspace: self.core.cap(dataspace)? })
    }

    fn signal_handler(&mut self, handler: Option<Cap>) -> Result<(), Error> {
        // The boot image never changes.
        if let Some(handler) = handler {
            selectors::drop_capability(handler.selector);
        }
        Ok(())
    }
}

impl Log for Call<'_> {
    fn write(&mut self, text: &str) -> Result<(), Error> {
        write_lines(&self.core.log_mut(self.id)?.label, text);
        Ok(())
    }
}

impl Platform for Call<'_> {
    fn power_off(&mut self, code: u64) -> Result<(), Error> {
        log::info!("{}: powers off, code {code}", self.core.label(self.id));
        kernel::power_off(code);
        Err(Error::Unsupported)
    }

    fn reset(&mut self) -> Result<(), Error> {
        log::info!("{}: resets the machine", self.core.label(self.id));
        kernel::reset();
        Err(Error::Unsupported)
    }

    fn info(&mut self) -> Result<MachineInfo, Error> {
        Ok(self.core.machine_info())
    }
}
