// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading, writing, opening, closing, waiting for descriptors.

use super::{Answer, Personality};
use crate::errno::Errno;
use crate::files::{File, PATH, Path, RomFile, resolve, seek};
use crate::kernel::Kernel;
use crate::linux::number;

/// Most bytes that one call moves, as on Linux: `INT_MAX` rounded down to pages.
const MOST: u64 = 0x7fff_f000;
/// Most entries of a vector (`IOV_MAX`).
const VECTORS: u64 = 1024;
/// Most descriptors in one `poll`.
const POLLED: u64 = 1024;
/// Bytes that are taken out of the program's memory at a time.
const PIECE: usize = 128;

impl<K: Kernel> Personality<K> {
    pub(super) fn transfer(&self, number: u64, args: [u64; 6]) -> Answer {
        let [fd, buffer, count, offset, ..] = args;
        match number {
            number::READ => self.read(fd, buffer, count, None),
            number::PREAD64 => self.read(fd, buffer, count, Some(offset)),
            number::WRITE => self.write(fd, buffer, count),
            number::READV => self.vector(buffer, count, |buffer, count| self.read(fd, buffer, count, None)),
            _ => self.vector(buffer, count, |buffer, count| self.write(fd, buffer, count)),
        }
    }

    /// Goes through a vector of buffers until one is not filled or emptied.
    fn vector(&self, vector: u64, count: u64, mut each: impl FnMut(u64, u64) -> Answer) -> Answer {
        if count > VECTORS {
            return Err(Errno::INVAL);
        }
        let mut total = 0;
        for index in 0..count {
            let [buffer, size] = self.words::<2>(vector.wrapping_add(16 * index))?;
            match each(buffer, size) {
                Ok(moved) => {
                    total += moved;
                    if moved < size {
                        break;
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    fn read(&self, fd: u64, buffer: u64, count: u64, offset: Option<u64>) -> Answer {
        let count = count.min(MOST);
        let file = self.files().get(fd)?;
        match file {
            File::Input | File::Null => Ok(0),
            File::Log(_) => Err(Errno::BADF),
            File::Zero => {
                self.kernel.zero(buffer, count);
                Ok(count)
            }
            File::Random => self.random(buffer, count),
            File::Rom(rom) => Ok(self.read_rom(fd, &rom, buffer, count, offset)),
        }
    }

    fn read_rom(&self, fd: u64, rom: &RomFile, buffer: u64, count: u64, offset: Option<u64>) -> u64 {
        let from = offset.unwrap_or(rom.position);
        let count = count.min(rom.size.saturating_sub(from));
        if count > 0 {
            self.kernel.copy(buffer, rom.address + from, count);
        }
        if offset.is_none() {
            self.files().set_position(fd, from + count);
        }
        count
    }

    fn write(&self, fd: u64, buffer: u64, count: u64) -> Answer {
        let count = count.min(MOST);
        let file = self.files().get(fd)?;
        let log = match file {
            File::Log(log) => log,
            File::Null | File::Zero | File::Random => return Ok(count),
            File::Input | File::Rom(_) => return Err(Errno::BADF),
        };
        let mut files = self.files();
        let mut done = 0;
        while done < count {
            let mut piece = [0; PIECE];
            let size = usize::try_from(count - done).map_or(PIECE, |left| left.min(PIECE));
            let Some(text) = piece.get_mut(..size) else {
                break;
            };
            self.kernel.read(buffer.wrapping_add(done), text);
            files.write(log, text, |line| self.kernel.log(line));
            done += size as u64;
        }
        Ok(count)
    }

    /// Fills a buffer with random bytes.
    pub(super) fn random(&self, buffer: u64, count: u64) -> Answer {
        let mut random = self.random.lock(&self.kernel, &self.waiters);
        let mut done = 0;
        while done < count {
            let mut piece = [0; 32];
            let size = usize::try_from(count - done).map_or(32, |left| left.min(32));
            let Some(bytes) = piece.get_mut(..size) else {
                break;
            };
            random.fill(bytes, || self.kernel.entropy());
            self.kernel.write(buffer.wrapping_add(done), bytes);
            done += size as u64;
        }
        Ok(count)
    }

    pub(super) fn descriptor(&self, number: u64, args: [u64; 6]) -> Answer {
        let [fd, second, third, ..] = args;
        match number {
            number::OPEN => self.open(fd, second),
            number::OPENAT => self.open(second, third),
            number::CLOSE => self.close(fd),
            number::LSEEK => self.lseek(fd, second.cast_signed(), third),
            number::DUP => self.duplicate(fd, 0),
            number::FCNTL => self.fcntl(fd, second, third),
            number::IOCTL => self.files().get(fd).and(Err(Errno::NOTTY)),
            _ => self.poll(number, args),
        }
    }

    /// Copies a path out of the program's memory.
    pub(super) fn path<'a>(&self, address: u64, buffer: &'a mut [u8; PATH]) -> Result<&'a str, Errno> {
        if address == 0 {
            return Err(Errno::FAULT);
        }
        for (length, place) in buffer.iter_mut().enumerate() {
            self.kernel.read(address.wrapping_add(length as u64), core::slice::from_mut(place));
            if *place == 0 {
                let path = buffer.get(..length).ok_or(Errno::NAMETOOLONG)?;
                return core::str::from_utf8(path).map_err(|_| Errno::NOENT);
            }
        }
        Err(Errno::NAMETOOLONG)
    }

    fn open(&self, path: u64, flags: u64) -> Answer {
        let mut buffer = [0; PATH];
        let path = self.path(path, &mut buffer)?;
        let writes = flags & 3 != 0;
        match resolve(path) {
            Ok(Path::Device(file)) => self.files().open(file),
            Ok(Path::Rom(_)) if writes => Err(Errno::ROFS),
            Ok(Path::Rom(name)) => self.open_rom(name),
            Ok(Path::Folder) => Err(Errno::ACCES),
            // Nothing can be created.
            Err(_) if writes => Err(Errno::ROFS),
            Err(error) => Err(error),
        }
    }

    fn open_rom(&self, name: &str) -> Answer {
        let rom = self.kernel.rom_open(name)?;
        let (backing, address) = self.memory().add_rom(&self.kernel, rom)?;
        let opened = self.files().open(File::Rom(RomFile { backing, address, size: rom.size, position: 0 }));
        opened.inspect_err(|_| self.memory().forget_rom(&self.kernel, backing, address, true))
    }

    fn close(&self, fd: u64) -> Answer {
        let (file, last) = self.files().close(fd)?;
        if let File::Rom(rom) = file {
            self.memory().forget_rom(&self.kernel, rom.backing, rom.address, last);
        }
        Ok(0)
    }

    fn lseek(&self, fd: u64, offset: i64, whence: u64) -> Answer {
        let mut files = self.files();
        match files.get(fd)? {
            File::Rom(rom) => {
                let to = seek(rom.position, rom.size, offset, whence)?;
                files.set_position(fd, to);
                Ok(to)
            }
            File::Null | File::Zero | File::Random => Ok(0),
            File::Input | File::Log(_) => Err(Errno::SPIPE),
        }
    }

    fn duplicate(&self, fd: u64, lowest: u64) -> Answer {
        let file = self.files().get(fd)?;
        let copy = self.files().open_from(file, lowest)?;
        if let File::Rom(rom) = file {
            self.memory().share_rom(rom.backing);
        }
        Ok(copy)
    }

    fn fcntl(&self, fd: u64, command: u64, argument: u64) -> Answer {
        /// `F_DUPFD`, `F_GETFD`, `F_SETFD`, `F_GETFL`, `F_SETFL`, `F_DUPFD_CLOEXEC`
        const COMMANDS: [u64; 6] = [0, 1, 2, 3, 4, 1030];
        let file = self.files().get(fd)?;
        match COMMANDS.iter().position(|known| *known == command) {
            Some(0 | 5) => self.duplicate(fd, argument),
            Some(3) => Ok(u64::from(matches!(file, File::Log(_)))),
            Some(_) => Ok(0),
            None => Err(Errno::INVAL),
        }
    }

    /// All descriptors are always ready for what they can do, so this either answers at once, or nothing is asked for and it
    /// sleeps.
    fn poll(&self, number: u64, args: [u64; 6]) -> Answer {
        const IN: u16 = 1;
        const OUT: u16 = 4;
        const INVALID: u16 = 0x20;
        let [entries, count, timeout, ..] = args;
        if count > POLLED {
            return Err(Errno::INVAL);
        }
        let mut ready = 0;
        for index in 0..count {
            let entry = entries.wrapping_add(8 * index);
            let mut bytes = [0; 8];
            self.kernel.read(entry, &mut bytes);
            let [a, b, c, d, low, high, ..] = bytes;
            let wanted = u16::from_le_bytes([low, high]);
            let fd = i32::from_le_bytes([a, b, c, d]);
            let events = match u64::try_from(fd).map(|fd| self.files().get(fd)) {
                Err(_) => 0,
                Ok(Err(_)) => INVALID,
                Ok(Ok(File::Input | File::Rom(_))) => wanted & IN,
                Ok(Ok(File::Log(_))) => wanted & OUT,
                Ok(Ok(File::Null | File::Zero | File::Random)) => wanted & (IN | OUT),
            };
            self.kernel.write(entry.wrapping_add(6), &events.to_le_bytes());
            ready += u64::from(events != 0);
        }
        if ready == 0 {
            self.poll_sleep(number, timeout)?;
        }
        Ok(ready)
    }
}
