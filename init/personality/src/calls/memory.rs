// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mmap` and its kin: arguments checked, then [`crate::memory`].

use super::{Answer, Personality};
use crate::errno::Errno;
use crate::files::{File, RomFile};
use crate::kernel::{Kernel, Prot};
use crate::linux::{
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED, MAP_STACK, MAP_TYPE, MREMAP_MAYMOVE,
    PROT_EXEC, PROT_READ, PROT_WRITE, number,
};
use crate::memory::{PAGE, Request, page_up};

impl<K: Kernel> Personality<K> {
    pub(super) fn address_space(&self, number: u64, args: [u64; 6]) -> Answer {
        let [address, size, third, fourth, ..] = args;
        match number {
            number::BRK => Ok(self.memory().set_brk(&self.kernel, address)),
            number::MMAP => self.mmap(args),
            number::MUNMAP => self.memory().unmap(&self.kernel, address, size).map(|()| 0),
            number::MPROTECT => self.mprotect(address, size, third),
            number::MREMAP => {
                if fourth & !MREMAP_MAYMOVE != 0 {
                    return Err(Errno::INVAL);
                }
                self.memory().remap(&self.kernel, address, size, third, fourth & MREMAP_MAYMOVE != 0)
            }
            // All other advice may be ignored.
            number::MADVISE if third == MADV_DONTNEED && size > 0 => {
                self.memory().discard(&self.kernel, address, size).map(|()| 0)
            }
            _ => Ok(0),
        }
    }

    fn mmap(&self, args: [u64; 6]) -> Answer {
        let [address, size, prot, flags, fd, offset] = args;
        if size == 0 || flags & MAP_TYPE == 0 {
            return Err(Errno::INVAL);
        }
        let access = access(prot)?;
        let fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
        let request = Request { size, prot: access, fixed: fixed.then_some(address), stack: flags & MAP_STACK != 0 };
        if flags & MAP_ANONYMOUS == 0 {
            return self.map_file(&request, flags, fd, offset);
        }
        let mut memory = self.memory();
        let end = address.saturating_add(size);
        if flags & MAP_FIXED_NOREPLACE != 0 && memory.areas().iter().any(|area| area.start < end && area.end > address)
        {
            return Err(Errno::EXIST);
        }
        memory.map(&self.kernel, &request)
    }

    /// A file is shown as it is when it is only read, and copied when the program wants a private one to write to.
    fn map_file(&self, request: &Request, flags: u64, fd: u64, offset: u64) -> Answer {
        let file = self.files().get(fd)?;
        let File::Rom(RomFile { backing, address, size, .. }) = file else {
            return Err(Errno::NODEV);
        };
        if request.fixed.is_some() {
            return Err(Errno::INVAL);
        }
        match request.prot {
            Prot::Read => self.memory().map_rom(&self.kernel, backing, offset, request.size),
            Prot::Write if flags & MAP_TYPE != MAP_SHARED => {
                let in_file = offset.is_multiple_of(PAGE) && page_up(size).is_some_and(|size| offset < size);
                if !in_file {
                    return Err(Errno::INVAL);
                }
                let copy = self.memory().map(&self.kernel, request)?;
                self.kernel.copy(copy, address + offset, request.size.min(size.saturating_sub(offset)));
                Ok(copy)
            }
            _ => Err(Errno::ACCES),
        }
    }

    /// Memory that is not the personality's is the program's image: its parent mapped it with the access that its file
    /// asks for, and it keeps that.
    fn mprotect(&self, address: u64, size: u64, prot: u64) -> Answer {
        let access = access(prot)?;
        if size == 0 {
            return Ok(0);
        }
        let mut memory = self.memory();
        if memory.is_foreign(address, size) {
            return Ok(0);
        }
        memory.protect(&self.kernel, address, size, access).map(|()| 0)
    }
}

/// Access rights of `mmap` and `mprotect`. Memory is never writable and executable.
fn access(prot: u64) -> Result<Prot, Errno> {
    let write = prot & PROT_WRITE != 0;
    let exec = prot & PROT_EXEC != 0;
    match (write, exec) {
        (true, true) => Err(Errno::ACCES),
        (true, false) => Ok(Prot::Write),
        (false, true) => Ok(Prot::Exec),
        (false, false) if prot & PROT_READ != 0 => Ok(Prot::Read),
        (false, false) => Ok(Prot::None),
    }
}
