// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers of the Linux ABI (`errno(3)`, x86_64 and aarch64 agree on those used here).

/// An error number; a system call answers it negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Operation not permitted.
    pub const PERM: Self = Self(1);
    /// No such file.
    pub const NOENT: Self = Self(2);
    /// No such process or thread.
    pub const SRCH: Self = Self(3);
    /// Bad file descriptor.
    pub const BADF: Self = Self(9);
    /// Try again; the value in memory is not the expected one.
    pub const AGAIN: Self = Self(11);
    /// Out of memory or address space.
    pub const NOMEM: Self = Self(12);
    /// Permission denied.
    pub const ACCES: Self = Self(13);
    /// Bad address.
    pub const FAULT: Self = Self(14);
    /// File exists.
    pub const EXIST: Self = Self(17);
    /// No such device (cannot be mapped).
    pub const NODEV: Self = Self(19);
    /// Not a directory.
    pub const NOTDIR: Self = Self(20);
    /// Invalid argument.
    pub const INVAL: Self = Self(22);
    /// Too many open files.
    pub const MFILE: Self = Self(24);
    /// Not a terminal.
    pub const NOTTY: Self = Self(25);
    /// Illegal seek.
    pub const SPIPE: Self = Self(29);
    /// Read-only file system.
    pub const ROFS: Self = Self(30);
    /// Result too large.
    pub const RANGE: Self = Self(34);
    /// Name too long.
    pub const NAMETOOLONG: Self = Self(36);
    /// No such system call.
    pub const NOSYS: Self = Self(38);
    /// Timed out.
    pub const TIMEDOUT: Self = Self(110);
}
