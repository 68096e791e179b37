// SPDX-License-Identifier: MIT OR Apache-2.0
//! Further protection domains, into which the program's image is mapped as it is here: the same code and the same data at the same
//! addresses, but selectors and page tables of their own.

use crate::kernel::{call, selectors};
use crate::memory::PAGE;
use crate::thread::{Context, Handler, Options, STACK_ORDER, server};
use cloister_abi::cap::{Access, Selector};
use cloister_abi::hip::{ROOT_HOST, ROOT_PD};
use cloister_abi::hypercall::{CreatePd, Delegate};
use cloister_abi::status::Status;

unsafe extern "C" {
    static TEXT_START: u8;
    static TEXT_END: u8;
    static RODATA_END: u8;
    static DATA_END: u8;
}

/// A protection domain.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// The PD.
    pub pd: Selector,
    /// Its object space.
    pub objects: Selector,
    /// Its memory.
    pub host: Selector,
    /// Its ports.
    pub ports: Selector,
}

impl Domain {
    /// An empty domain.
    ///
    /// # Errors
    /// As `CreatePd`.
    pub fn empty(budget: u64) -> Result<Self, Status> {
        let pd = selectors(4);
        call(&CreatePd { sel: pd, pd: ROOT_PD, budget, priorities: 0 })?;
        Ok(Self { pd, objects: pd + 1, host: pd + 2, ports: pd + 3 })
    }

    /// A domain that has the program's image.
    ///
    /// # Errors
    /// As `CreatePd` and `Delegate`.
    pub fn with_image(budget: u64) -> Result<Self, Status> {
        let domain = Self::empty(budget)?;
        domain.share_image()?;
        Ok(domain)
    }

    /// Maps the program's image.
    ///
    /// # Errors
    /// As `Delegate`.
    pub fn share_image(&self) -> Result<(), Status> {
        self.share_code()?;
        let [data, end] = [&raw const RODATA_END, &raw const DATA_END].map(|place| place.addr() as u64);
        self.share(data, end - data, Access::READ | Access::WRITE)
    }

    /// Maps the program's code and constants, but none of its variables.
    ///
    /// # Errors
    /// As `Delegate`.
    pub fn share_code(&self) -> Result<(), Status> {
        let [text, rodata, data] =
            [&raw const TEXT_START, &raw const TEXT_END, &raw const RODATA_END].map(|place| place.addr() as u64);
        self.share(text, rodata - text, Access::READ | Access::EXEC)?;
        self.share(rodata, data - rodata, Access::READ)
    }

    /// Maps a range of this program's memory at the same addresses.
    ///
    /// # Errors
    /// As `Delegate`.
    pub fn share(&self, start: u64, size: u64, rights: Access) -> Result<(), Status> {
        for page in start / PAGE..(start + size).div_ceil(PAGE) {
            call(&Delegate {
                src: ROOT_HOST,
                dst: self.host,
                src_base: page,
                dst_base: page,
                order: 0,
                rights: u64::from(rights.bits()),
            })?;
        }
        Ok(())
    }

    /// Makes a server in this domain. Its stack is this program's too.
    ///
    /// # Errors
    /// As `CreateEc` and `Delegate`.
    pub fn server(&self, handler: Handler) -> Result<Context, Status> {
        let context = server(handler, &Options { pd: self.pd, ..Options::default() })?;
        let size = PAGE << STACK_ORDER;
        self.share(context.stack + 8 - size, size, Access::READ | Access::WRITE)?;
        Ok(context)
    }
}
