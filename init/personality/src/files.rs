// SPDX-License-Identifier: MIT OR Apache-2.0
//! File descriptors: what a number stands for, where it reads, and the lines of the two logs.
//!
//! Descriptors 0 to 2 are there from the start: an input at its end, and two logs. Others are boot modules (read-only files
//! under `/rom/`) and the small devices `/dev/null`, `/dev/zero`, `/dev/urandom`. What a program writes to a log is
//! collected until a line is complete, one buffer for each of the two, so that lines do not mix.

use crate::errno::Errno;

/// Most open descriptors.
pub const FILES: usize = 64;
/// Longest line that reaches the log in one piece, bytes; longer ones are cut.
pub const LINE: usize = 512;
/// Longest path that names anything, bytes.
pub const PATH: usize = 192;
/// Folder of the boot modules.
pub const ROM_FOLDER: &str = "/rom/";

/// An open boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RomFile {
    /// Index of its backing in [`crate::memory::Memory`].
    pub backing: u16,
    /// Where all of it is mapped.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Where the next read starts.
    pub position: u64,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// Nothing to read, ever.
    Input,
    /// A log, 0 or 1.
    Log(usize),
    /// Takes everything, gives nothing.
    Null,
    /// Takes everything, gives zeroes.
    Zero,
    /// Gives random bytes.
    Random,
    /// A boot module.
    Rom(RomFile),
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// A file that needs nothing to be opened.
    Device(File),
    /// The boot module of this name.
    Rom(&'a str),
    /// A folder: it exists, and can't be listed.
    Folder,
}

/// What a path names, if anything.
///
/// # Errors
/// `NOENT`.
pub fn resolve(path: &str) -> Result<Path<'_>, Errno> {
    if let Some(name) = path.strip_prefix(ROM_FOLDER)
        && !name.is_empty()
    {
        return Ok(Path::Rom(name));
    }
    Ok(match path {
        "/dev/null" => Path::Device(File::Null),
        "/dev/zero" => Path::Device(File::Zero),
        "/dev/urandom" | "/dev/random" => Path::Device(File::Random),
        "/dev/stdin" => Path::Device(File::Input),
        "/dev/stdout" => Path::Device(File::Log(0)),
        "/dev/stderr" => Path::Device(File::Log(1)),
        "/" | "/rom" | "/rom/" | "/dev" => Path::Folder,
        _ => return Err(Errno::NOENT),
    })
}

/// The open descriptors.
#[derive(Debug)]
pub struct Files {
    table: [Option<File>; FILES],
    lines: [Line; 2],
}

impl Files {
    /// Input and two logs.
    #[must_use]
    pub const fn new() -> Self {
        const EMPTY: Line = Line::new();
        let mut table = [const { None }; FILES];
        let [input, output, errors, ..] = &mut table;
        (*input, *output, *errors) = (Some(File::Input), Some(File::Log(0)), Some(File::Log(1)));
        Self { table, lines: [EMPTY; 2] }
    }

    /// What this descriptor stands for. The upper half of the register is not part of it.
    ///
    /// # Errors
    /// `BADF`.
    pub fn get(&self, fd: u64) -> Result<File, Errno> {
        self.table.get(index(fd)).copied().flatten().ok_or(Errno::BADF)
    }

    /// Opens the lowest free descriptor.
    ///
    /// # Errors
    /// `MFILE`.
    pub fn open(&mut self, file: File) -> Result<u64, Errno> {
        self.open_from(file, 0)
    }

    /// Opens the lowest free descriptor that is not below `lowest`.
    ///
    /// # Errors
    /// `MFILE`.
    pub fn open_from(&mut self, file: File, lowest: u64) -> Result<u64, Errno> {
        let free = self.table.iter_mut().enumerate().skip(index(lowest)).find(|(_, entry)| entry.is_none());
        let (fd, entry) = free.ok_or(Errno::MFILE)?;
        *entry = Some(file);
        Ok(fd as u64)
    }

    /// Closes a descriptor; answers what it was, and whether it was the last for that boot module.
    ///
    /// # Errors
    /// `BADF`.
    pub fn close(&mut self, fd: u64) -> Result<(File, bool), Errno> {
        let file = self.table.get_mut(index(fd)).and_then(Option::take).ok_or(Errno::BADF)?;
        let same = |other: &File| match (other, &file) {
            (File::Rom(other), File::Rom(this)) => other.backing == this.backing,
            _ => false,
        };
        let last = !self.table.iter().flatten().any(same);
        Ok((file, last))
    }

    /// Sets where the next read of a boot module starts.
    pub fn set_position(&mut self, fd: u64, to: u64) {
        if let Some(Some(File::Rom(rom))) = self.table.get_mut(index(fd)) {
            rom.position = to;
        }
    }

    /// Adds text to the line of a log; hands on each line that is complete.
    pub fn write(&mut self, log: usize, text: &[u8], emit: impl FnMut(&[u8])) {
        if let Some(line) = self.lines.get_mut(log) {
            line.write(text, emit);
        }
    }

    /// Hands on what has been written without a line end.
    pub fn flush(&mut self, mut emit: impl FnMut(&[u8])) {
        for line in &mut self.lines {
            if line.length > 0 {
                line.emit(&mut emit);
            }
        }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

/// A descriptor as an index: the low half of the register, as Linux takes it.
fn index(fd: u64) -> usize {
    usize::try_from(fd & 0xffff_ffff).unwrap_or(usize::MAX)
}

/// A line that is being written.
#[derive(Debug)]
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Self { bytes: [0; LINE], length: 0 }
    }

    fn write(&mut self, text: &[u8], mut emit: impl FnMut(&[u8])) {
        for &byte in text {
            if byte == b'\n' {
                self.emit(&mut emit);
                continue;
            }
            if self.length == LINE {
                self.emit(&mut emit);
            }
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }

    fn emit(&mut self, emit: &mut impl FnMut(&[u8])) {
        emit(self.bytes.get(..self.length).unwrap_or(&[]));
        self.length = 0;
    }
}

/// Where `lseek` goes.
///
/// # Errors
/// `INVAL` for an unknown origin or a position before the start.
pub fn seek(position: u64, size: u64, offset: i64, whence: u64) -> Result<u64, Errno> {
    let origin = match whence {
        0 => 0,
        1 => position,
        2 => size,
        _ => return Err(Errno::INVAL),
    };
    let target = origin.checked_add_signed(offset).ok_or(Errno::INVAL)?;
    if i64::try_from(target).is_err() { Err(Errno::INVAL) } else { Ok(target) }
}

/// Kind of a file for `stat`: type and permissions.
#[must_use]
pub const fn mode(path: &Path<'_>) -> u32 {
    match path {
        Path::Folder => 0o040_555,
        Path::Rom(_) | Path::Device(File::Rom(_)) => 0o100_444,
        Path::Device(_) => 0o020_666,
    }
}

#[cfg(test)]
mod tests {
    use super::{File, Files, LINE, Path, resolve, seek};
    use crate::errno::Errno;
    use std::string::String;
    use std::vec::Vec;

    fn lines(parts: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        let mut files = Files::new();
        let mut emit = |line: &[u8]| out.push(String::from_utf8(line.to_vec()).unwrap());
        for part in parts {
            files.write(0, part.as_bytes(), &mut emit);
        }
        files.flush(&mut emit);
        out
    }

    #[test]
    fn lines_are_put_together() {
        assert_eq!(lines(&["a", "b\nc", "\n\nd"]), ["ab", "c", "", "d"]);
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_cut() {
        let long = "x".repeat(LINE + 3);
        let got = lines(&[&long, "\n"]);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE, 3]);
    }

    #[test]
    fn descriptors_are_the_lowest_free() {
        let mut files = Files::new();
        assert_eq!(files.open(File::Null), Ok(3));
        assert_eq!(files.open(File::Zero), Ok(4));
        files.close(3).unwrap();
        assert_eq!(files.open(File::Random), Ok(3));
        assert_eq!(files.close(9), Err(Errno::BADF));
        assert_eq!(files.get(u64::MAX), Err(Errno::BADF));
        while files.open(File::Null).is_ok() {}
        assert_eq!(files.open(File::Null), Err(Errno::MFILE));
    }

    #[test]
    fn paths() {
        assert_eq!(resolve("/rom/bzImage"), Ok(Path::Rom("bzImage")));
        assert_eq!(resolve("/rom/a/b"), Ok(Path::Rom("a/b")));
        assert_eq!(resolve("/rom"), Ok(Path::Folder));
        assert_eq!(resolve("/proc/self/exe"), Err(Errno::NOENT));
        assert_eq!(resolve(""), Err(Errno::NOENT));
    }

    #[test]
    fn seeking_stays_in_bounds() {
        assert_eq!(seek(10, 100, -5, 1), Ok(5));
        assert_eq!(seek(10, 100, 5, 2), Ok(105));
        assert_eq!(seek(10, 100, -11, 1), Err(Errno::INVAL));
        assert_eq!(seek(u64::MAX >> 1, 0, 1, 1), Err(Errno::INVAL));
        assert_eq!(seek(0, 0, 0, 9), Err(Errno::INVAL));
    }
}
