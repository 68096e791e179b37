// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of the Linux ABI for x86_64: system calls, flags, structure sizes (Linux UAPI headers; the manual pages of section 2).

/// System-call numbers (`asm/unistd_64.h`).
pub mod number {
    /// `read(fd, buf, count)`
    pub const READ: u64 = 0;
    /// `write(fd, buf, count)`
    pub const WRITE: u64 = 1;
    /// `open(path, flags, mode)`
    pub const OPEN: u64 = 2;
    /// `close(fd)`
    pub const CLOSE: u64 = 3;
    /// `stat(path, buf)`
    pub const STAT: u64 = 4;
    /// `fstat(fd, buf)`
    pub const FSTAT: u64 = 5;
    /// `lstat(path, buf)`
    pub const LSTAT: u64 = 6;
    /// `poll(fds, count, milliseconds)`
    pub const POLL: u64 = 7;
    /// `lseek(fd, offset, whence)`
    pub const LSEEK: u64 = 8;
    /// `mmap(address, length, prot, flags, fd, offset)`
    pub const MMAP: u64 = 9;
    /// `mprotect(address, length, prot)`
    pub const MPROTECT: u64 = 10;
    /// `munmap(address, length)`
    pub const MUNMAP: u64 = 11;
    /// `brk(address)`
    pub const BRK: u64 = 12;
    /// `rt_sigaction(signal, new, old, size)`
    pub const RT_SIGACTION: u64 = 13;
    /// `rt_sigprocmask(how, set, old, size)`
    pub const RT_SIGPROCMASK: u64 = 14;
    /// `ioctl(fd, request, argument)`
    pub const IOCTL: u64 = 16;
    /// `pread64(fd, buf, count, offset)`
    pub const PREAD64: u64 = 17;
    /// `readv(fd, vector, count)`
    pub const READV: u64 = 19;
    /// `writev(fd, vector, count)`
    pub const WRITEV: u64 = 20;
    /// `access(path, mode)`
    pub const ACCESS: u64 = 21;
    /// `sched_yield()`
    pub const SCHED_YIELD: u64 = 24;
    /// `mremap(address, old, new, flags, new address)`
    pub const MREMAP: u64 = 25;
    /// `madvise(address, length, advice)`
    pub const MADVISE: u64 = 28;
    /// `dup(fd)`
    pub const DUP: u64 = 32;
    /// `nanosleep(request, remaining)`
    pub const NANOSLEEP: u64 = 35;
    /// `getpid()`
    pub const GETPID: u64 = 39;
    /// `clone(flags, stack, parent_tid, child_tid, tls)`
    pub const CLONE: u64 = 56;
    /// `exit(code)`
    pub const EXIT: u64 = 60;
    /// `kill(pid, signal)`
    pub const KILL: u64 = 62;
    /// `uname(buf)`
    pub const UNAME: u64 = 63;
    /// `fcntl(fd, command, argument)`
    pub const FCNTL: u64 = 72;
    /// `getcwd(buf, size)`
    pub const GETCWD: u64 = 79;
    /// `readlink(path, buf, size)`
    pub const READLINK: u64 = 89;
    /// `gettimeofday(time, zone)`
    pub const GETTIMEOFDAY: u64 = 96;
    /// `getuid()`
    pub const GETUID: u64 = 102;
    /// `getgid()`
    pub const GETGID: u64 = 104;
    /// `geteuid()`
    pub const GETEUID: u64 = 107;
    /// `getegid()`
    pub const GETEGID: u64 = 108;
    /// `getppid()`
    pub const GETPPID: u64 = 110;
    /// `sigaltstack(new, old)`
    pub const SIGALTSTACK: u64 = 131;
    /// `prctl(option, ...)`
    pub const PRCTL: u64 = 157;
    /// `arch_prctl(code, address)`
    pub const ARCH_PRCTL: u64 = 158;
    /// `gettid()`
    pub const GETTID: u64 = 186;
    /// `tkill(tid, signal)`
    pub const TKILL: u64 = 200;
    /// `time(time)`
    pub const TIME: u64 = 201;
    /// `futex(address, operation, value, timeout, address2, value3)`
    pub const FUTEX: u64 = 202;
    /// `sched_setaffinity(pid, size, mask)`
    pub const SCHED_SETAFFINITY: u64 = 203;
    /// `sched_getaffinity(pid, size, mask)`
    pub const SCHED_GETAFFINITY: u64 = 204;
    /// `set_tid_address(address)`
    pub const SET_TID_ADDRESS: u64 = 218;
    /// `clock_gettime(clock, time)`
    pub const CLOCK_GETTIME: u64 = 228;
    /// `clock_getres(clock, time)`
    pub const CLOCK_GETRES: u64 = 229;
    /// `clock_nanosleep(clock, flags, request, remaining)`
    pub const CLOCK_NANOSLEEP: u64 = 230;
    /// `exit_group(code)`
    pub const EXIT_GROUP: u64 = 231;
    /// `tgkill(pid, tid, signal)`
    pub const TGKILL: u64 = 234;
    /// `openat(directory, path, flags, mode)`
    pub const OPENAT: u64 = 257;
    /// `newfstatat(directory, path, buf, flags)`
    pub const NEWFSTATAT: u64 = 262;
    /// `readlinkat(directory, path, buf, size)`
    pub const READLINKAT: u64 = 267;
    /// `ppoll(fds, count, timeout, mask, size)`
    pub const PPOLL: u64 = 271;
    /// `set_robust_list(head, size)`
    pub const SET_ROBUST_LIST: u64 = 273;
    /// `prlimit64(pid, resource, new, old)`
    pub const PRLIMIT64: u64 = 302;
    /// `getcpu(cpu, node)`
    pub const GETCPU: u64 = 309;
    /// `getrandom(buf, count, flags)`
    pub const GETRANDOM: u64 = 318;
    /// `statx(directory, path, flags, mask, buf)`
    pub const STATX: u64 = 332;
    /// `rseq(area, size, flags, signature)`
    pub const RSEQ: u64 = 334;
    /// `clone3(arguments, size)`
    pub const CLONE3: u64 = 435;
    /// One above the highest number that is noted when unknown.
    pub const END: u64 = 512;
}

/// `PROT_READ`
pub const PROT_READ: u64 = 1;
/// `PROT_WRITE`
pub const PROT_WRITE: u64 = 2;
/// `PROT_EXEC`
pub const PROT_EXEC: u64 = 4;

/// `MAP_SHARED`
pub const MAP_SHARED: u64 = 0x01;
/// `MAP_TYPE`: mask of shared, private, validated shared.
pub const MAP_TYPE: u64 = 0x0f;
/// `MAP_FIXED`
pub const MAP_FIXED: u64 = 0x10;
/// `MAP_ANONYMOUS`
pub const MAP_ANONYMOUS: u64 = 0x20;
/// `MAP_STACK`
pub const MAP_STACK: u64 = 0x2_0000;
/// `MAP_FIXED_NOREPLACE`
pub const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

/// `MREMAP_MAYMOVE`
pub const MREMAP_MAYMOVE: u64 = 1;

/// `MADV_DONTNEED`
pub const MADV_DONTNEED: u64 = 4;

/// `FUTEX_WAIT`
pub const FUTEX_WAIT: u64 = 0;
/// `FUTEX_WAKE`
pub const FUTEX_WAKE: u64 = 1;
/// `FUTEX_REQUEUE`
pub const FUTEX_REQUEUE: u64 = 3;
/// `FUTEX_CMP_REQUEUE`
pub const FUTEX_CMP_REQUEUE: u64 = 4;
/// `FUTEX_WAIT_BITSET`
pub const FUTEX_WAIT_BITSET: u64 = 9;
/// `FUTEX_WAKE_BITSET`
pub const FUTEX_WAKE_BITSET: u64 = 10;
/// `FUTEX_PRIVATE_FLAG`
pub const FUTEX_PRIVATE: u64 = 128;
/// `FUTEX_CLOCK_REALTIME`
pub const FUTEX_CLOCK_REALTIME: u64 = 256;

/// `CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD`: what makes a thread of it.
pub const CLONE_THREAD_FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000;
/// `CLONE_SYSVSEM`: meaningless here.
pub const CLONE_SYSVSEM: u64 = 0x4_0000;
/// `CLONE_SETTLS`
pub const CLONE_SETTLS: u64 = 0x8_0000;
/// `CLONE_PARENT_SETTID`
pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
/// `CLONE_CHILD_CLEARTID`
pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
/// `CLONE_DETACHED`: meaningless since Linux 2.6.2.
pub const CLONE_DETACHED: u64 = 0x40_0000;
/// `CLONE_CHILD_SETTID`
pub const CLONE_CHILD_SETTID: u64 = 0x100_0000;

/// `AT_FDCWD`, as it arrives in a register.
pub const AT_FDCWD: i32 = -100;
/// `AT_EMPTY_PATH`
pub const AT_EMPTY_PATH: u64 = 0x1000;

/// `CLOCK_REALTIME`
pub const CLOCK_REALTIME: u64 = 0;
/// `CLOCK_MONOTONIC`
pub const CLOCK_MONOTONIC: u64 = 1;
/// `CLOCK_PROCESS_CPUTIME_ID`
pub const CLOCK_PROCESS_CPUTIME: u64 = 2;
/// `CLOCK_THREAD_CPUTIME_ID`
pub const CLOCK_THREAD_CPUTIME: u64 = 3;
/// `CLOCK_MONOTONIC_RAW`
pub const CLOCK_MONOTONIC_RAW: u64 = 4;
/// `CLOCK_REALTIME_COARSE`
pub const CLOCK_REALTIME_COARSE: u64 = 5;
/// `CLOCK_MONOTONIC_COARSE`
pub const CLOCK_MONOTONIC_COARSE: u64 = 6;
/// `CLOCK_BOOTTIME`
pub const CLOCK_BOOTTIME: u64 = 7;
/// `TIMER_ABSTIME`
pub const TIMER_ABSTIME: u64 = 1;

/// `ARCH_SET_FS`
pub const ARCH_SET_FS: u64 = 0x1002;
/// `ARCH_GET_FS`
pub const ARCH_GET_FS: u64 = 0x1003;

/// `RLIMIT_STACK`
pub const RLIMIT_STACK: u64 = 3;
/// `RLIMIT_NOFILE`
pub const RLIMIT_NOFILE: u64 = 7;

/// `SIGABRT`
pub const SIGABRT: u64 = 6;
/// `SIGBUS`
pub const SIGBUS: u64 = 7;
/// `SIGSEGV`
pub const SIGSEGV: u64 = 11;

/// What `uname` calls the machine.
pub const MACHINE: &str = "x86_64";
