// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `stat` and its kin tell of a file: kind and size; all else is fixed.

use super::{Answer, Personality};
use crate::errno::Errno;
use crate::files::{File, PATH, Path, mode, resolve};
use crate::kernel::Kernel;
use crate::linux::{AT_EMPTY_PATH, number};
use crate::memory::PAGE;

/// What is told.
struct State {
    mode: u32,
    size: u64,
}

/// Bytes of a structure that is filled field by field.
struct Fields<const N: usize>([u8; N]);

impl<const N: usize> Fields<N> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl<K: Kernel> Personality<K> {
    pub(super) fn file_state(&self, number: u64, args: [u64; 6]) -> Answer {
        let [first, second, third, fourth, fifth, _] = args;
        match number {
            number::ACCESS => self.path_state(first).map(|_| 0),
            number::STAT | number::LSTAT => self.path_state(first).and_then(|state| self.put_stat(second, &state)),
            number::FSTAT => self.descriptor_state(first).and_then(|state| self.put_stat(second, &state)),
            number::NEWFSTATAT => self.at_state(first, second, fourth).and_then(|state| self.put_stat(third, &state)),
            _ => self.at_state(first, second, third).and_then(|state| self.put_statx(fifth, &state)),
        }
    }

    /// A path, or with `AT_EMPTY_PATH` and an empty one the descriptor itself.
    fn at_state(&self, directory: u64, path: u64, flags: u64) -> Result<State, Errno> {
        let empty = flags & AT_EMPTY_PATH != 0 && {
            let mut first = [0];
            if path != 0 {
                self.kernel.read(path, &mut first);
            }
            first == [0]
        };
        if empty { self.descriptor_state(directory) } else { self.path_state(path) }
    }

    fn path_state(&self, address: u64) -> Result<State, Errno> {
        let mut buffer = [0; PATH];
        let path = resolve(self.path(address, &mut buffer)?)?;
        let size = match path {
            Path::Rom(name) => {
                let rom = self.kernel.rom_open(name)?;
                self.kernel.rom_close(rom.handle);
                rom.size
            }
            Path::Device(_) | Path::Folder => 0,
        };
        Ok(State { mode: mode(&path), size })
    }

    fn descriptor_state(&self, fd: u64) -> Result<State, Errno> {
        let file = self.files().get(fd)?;
        let size = if let File::Rom(rom) = file { rom.size } else { 0 };
        Ok(State { mode: mode(&Path::Device(file)), size })
    }

    /// `struct stat` of x86_64 (`asm/stat.h`).
    fn put_stat(&self, address: u64, state: &State) -> Answer {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        let mut stat = Fields([0; 144]);
        stat.put(8, &1_u64.to_le_bytes());
        stat.put(16, &1_u64.to_le_bytes());
        stat.put(24, &state.mode.to_le_bytes());
        stat.put(48, &state.size.to_le_bytes());
        stat.put(56, &PAGE.to_le_bytes());
        stat.put(64, &state.size.div_ceil(512).to_le_bytes());
        self.kernel.write(address, &stat.0);
        Ok(0)
    }

    /// `struct statx` (`linux/stat.h`).
    fn put_statx(&self, address: u64, state: &State) -> Answer {
        const BASIC: u32 = 0x7ff;
        if address == 0 {
            return Err(Errno::FAULT);
        }
        let mut stat = Fields([0; 256]);
        stat.put(0, &BASIC.to_le_bytes());
        stat.put(4, &4096_u32.to_le_bytes());
        stat.put(16, &1_u32.to_le_bytes());
        stat.put(28, &(state.mode & 0xffff).to_le_bytes()[..2]);
        stat.put(32, &1_u64.to_le_bytes());
        stat.put(40, &state.size.to_le_bytes());
        stat.put(48, &state.size.div_ceil(512).to_le_bytes());
        self.kernel.write(address, &stat.0);
        Ok(0)
    }
}
