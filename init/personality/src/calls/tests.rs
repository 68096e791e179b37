// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls as a program makes them, on the test machine.

use super::{Outcome, Personality};
use crate::clock::{Clock, SECOND};
use crate::errno::Errno;
use crate::kernel::{Kernel, Start};
use crate::linux::{CLONE_CHILD_CLEARTID, CLONE_PARENT_SETTID, CLONE_SETTLS, CLONE_THREAD_FLAGS, number};
use crate::memory::{Layout, PAGE};
use crate::testing::Machine;
use crate::threads::PID;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LAYOUT: Layout = Layout { start: 0x1000_0000, end: 0x2000_0000, brk_start: 0x4000_0000, brk_end: 0x4100_0000 };

/// A program with a page of memory at the address that is answered.
fn program() -> (Personality<Machine>, u64) {
    let mut program = Personality::new(Machine::new(), LAYOUT);
    program.start(Clock::new(SECOND, 1_000 * SECOND));
    let page = call(&program, number::MMAP, [0, PAGE, 3, 0x22, u64::MAX, 0]).unwrap();
    (program, page)
}

fn call(program: &Personality<Machine>, number: u64, args: [u64; 6]) -> Result<u64, Errno> {
    match program.call(number, args, 0xf000) {
        Outcome::Return(value) if value.cast_signed() < 0 => Err(Errno(i32::try_from(-value.cast_signed()).unwrap())),
        Outcome::Return(value) => Ok(value),
        other => panic!("{other:?}"),
    }
}

fn put(program: &Personality<Machine>, at: u64, bytes: &[u8]) -> u64 {
    program.kernel().write(at, bytes);
    bytes.len() as u64
}

fn get<const N: usize>(program: &Personality<Machine>, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    program.kernel().read(at, &mut bytes);
    bytes
}

#[test]
fn what_is_printed_arrives_in_lines() {
    let (program, page) = program();
    let size = put(&program, page, b"hello\nwor");
    assert_eq!(call(&program, number::WRITE, [1, page, size, 0, 0, 0]), Ok(9));
    put(&program, page, b"err\n");
    assert_eq!(call(&program, number::WRITE, [2, page, 4, 0, 0, 0]), Ok(4));
    put(&program, page, b"ld\n");
    put(&program, page + 64, &[page.to_le_bytes(), 2_u64.to_le_bytes()].concat());
    put(&program, page + 80, &[(page + 2).to_le_bytes(), 1_u64.to_le_bytes()].concat());
    assert_eq!(call(&program, number::WRITEV, [1, page + 64, 2, 0, 0, 0]), Ok(3));
    assert_eq!(program.kernel().world().log, ["hello", "err", "world"]);
    assert_eq!(call(&program, number::WRITE, [9, page, 1, 0, 0, 0]), Err(Errno::BADF));
}

#[test]
fn unfinished_lines_come_out_at_the_end() {
    let (program, page) = program();
    put(&program, page, b"bye");
    call(&program, number::WRITE, [1, page, 3, 0, 0, 0]).unwrap();
    assert_eq!(program.call(number::EXIT_GROUP, [3, 0, 0, 0, 0, 0], 0), Outcome::EndProgram);
    assert_eq!(program.kernel().world().log, ["bye"]);
    assert_eq!(program.kernel().world().exits, [3]);
}

#[test]
fn boot_modules_are_files() {
    let (program, page) = program();
    program.kernel().world().roms.insert("guest".into(), b"0123456789".to_vec());
    put(&program, page, b"/rom/guest\0/rom/none\0/tmp/x\0");
    let open = |path, flags| call(&program, number::OPENAT, [u64::MAX, path, flags, 0, 0, 0]);
    assert_eq!(open(page + 11, 0), Err(Errno::NOENT));
    assert_eq!(open(page, 1), Err(Errno::ROFS));
    assert_eq!(open(page + 21, 0o101), Err(Errno::ROFS));
    let fd = open(page, 0).unwrap();
    let buffer = page + 512;
    assert_eq!(call(&program, number::READ, [fd, buffer, 4, 0, 0, 0]), Ok(4));
    assert_eq!(call(&program, number::LSEEK, [fd, (-3_i64).cast_unsigned(), 2, 0, 0, 0]), Ok(7));
    assert_eq!(call(&program, number::READ, [fd, buffer, 100, 0, 0, 0]), Ok(3));
    assert_eq!(&get::<4>(&program, buffer), b"7893");
    assert_eq!(call(&program, number::READ, [fd, buffer, 100, 0, 0, 0]), Ok(0));
    assert_eq!(call(&program, number::PREAD64, [fd, buffer, 2, 1, 0, 0]), Ok(2));
    assert_eq!(&get::<2>(&program, buffer), b"12");
    assert_eq!(call(&program, number::PREAD64, [fd, buffer, 2, u64::MAX, 0, 0]), Ok(0));
    assert_eq!(call(&program, number::FSTAT, [fd, buffer, 0, 0, 0, 0]), Ok(0));
    assert_eq!(get::<8>(&program, buffer + 48), 10_u64.to_le_bytes());
    let shared = call(&program, number::MMAP, [0, 10, 1, 2, fd, 0]).unwrap();
    let private = call(&program, number::MMAP, [0, 10, 3, 2, fd, 0]).unwrap();
    assert_eq!(call(&program, number::CLOSE, [fd, 0, 0, 0, 0, 0]), Ok(0));
    put(&program, private, b"x");
    assert_eq!(&get::<3>(&program, shared), b"012");
    assert_eq!(&get::<3>(&program, private), b"x12");
    call(&program, number::MUNMAP, [shared, 10, 0, 0, 0, 0]).unwrap();
    assert_eq!(program.kernel().world().dataspaces.len(), 2, "the first page and the copy");
}

#[test]
fn unknown_calls_are_named_once() {
    let (program, _) = program();
    for _ in 0..3 {
        assert_eq!(call(&program, 321, [0; 6]), Err(Errno::NOSYS));
        assert_eq!(call(&program, u64::MAX, [0; 6]), Err(Errno::NOSYS));
    }
    assert_eq!(program.kernel().world().log, ["linux: system call 321 is not supported"]);
}

#[test]
fn clocks_run_and_sleeps_last() {
    let (program, page) = program();
    put(&program, page, &[0_u64.to_le_bytes(), 3_000_000_u64.to_le_bytes()].concat());
    let before = Instant::now();
    assert_eq!(call(&program, number::CLOCK_NANOSLEEP, [1, 0, page, 0, 0, 0]), Ok(0));
    assert!(before.elapsed() >= Duration::from_millis(3));
    assert_eq!(call(&program, number::CLOCK_GETTIME, [0, page + 64, 0, 0, 0, 0]), Ok(0));
    assert_eq!(get::<8>(&program, page + 64), 1000_u64.to_le_bytes());
    assert_eq!(call(&program, number::CLOCK_GETTIME, [77, page + 64, 0, 0, 0, 0]), Err(Errno::INVAL));
    put(&program, page, &[0_u64.to_le_bytes(), SECOND.to_le_bytes()].concat());
    assert_eq!(call(&program, number::NANOSLEEP, [page, 0, 0, 0, 0, 0]), Err(Errno::INVAL));
}

#[test]
fn a_futex_times_out_or_does_not_wait() {
    let (program, page) = program();
    put(&program, page + 64, &[0_u64.to_le_bytes(), 2_000_000_u64.to_le_bytes()].concat());
    assert_eq!(call(&program, number::FUTEX, [page, 128, 1, 0, 0, 0]), Err(Errno::AGAIN));
    assert_eq!(call(&program, number::FUTEX, [page, 128, 0, page + 64, 0, 0]), Err(Errno::TIMEDOUT));
    assert_eq!(call(&program, number::FUTEX, [page, 137, 0, page + 64, 0, u64::MAX]), Err(Errno::TIMEDOUT));
    assert_eq!(call(&program, number::FUTEX, [page + 1, 128, 0, 0, 0, 0]), Err(Errno::INVAL));
    assert_eq!(call(&program, number::FUTEX, [page, 128 + 6, 0, 0, 0, 0]), Err(Errno::NOSYS));
    assert_eq!(call(&program, number::FUTEX, [page, 129, 5, 0, 0, 0]), Ok(0));
}

#[test]
fn threads_hand_a_word_around() {
    const ROUNDS: u32 = 500;
    let (program, page) = program();
    let flags = CLONE_THREAD_FLAGS | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    let arguments = [flags, 0, page + 8, page + 8, 0, 0x5000, 0x1000, 0x7000].map(u64::to_le_bytes).concat();
    put(&program, page + 128, &arguments);
    let tid = call(&program, number::CLONE3, [page + 128, 88, 0, 0, 0, 0]).unwrap();
    assert_eq!(tid, u64::from(PID) + 1);
    let start = Start { frame: 0xf000, stack: 0x6000, tls: 0x7000 };
    assert_eq!(program.kernel().world().spawned, [(1, start)]);
    assert_eq!(get::<4>(&program, page + 8), u32::try_from(tid).unwrap().to_le_bytes());

    let program = Arc::new(program);
    let play = move |program: &Personality<Machine>, me: u32| {
        for round in (me..ROUNDS).step_by(2) {
            while program.kernel().load(page) != round {
                let seen = program.kernel().load(page);
                if seen != round {
                    let _ = call(program, number::FUTEX, [page, 128, u64::from(seen), 0, 0, 0]);
                }
            }
            program.kernel().store(page, round + 1);
            call(program, number::FUTEX, [page, 129, 1, 0, 0, 0]).unwrap();
        }
    };
    let other = {
        let program = Arc::clone(&program);
        std::thread::spawn(move || {
            Machine::become_thread(1);
            play(&program, 1);
            assert_eq!(program.call(number::EXIT, [0; 6], 0), Outcome::EndThread);
            program.end_thread();
        })
    };
    play(&program, 0);
    while program.kernel().load(page + 8) != 0 {
        let _ = call(&program, number::FUTEX, [page + 8, 0, tid, 0, 0, 0]);
    }
    other.join().unwrap();
    assert_eq!(program.kernel().load(page), ROUNDS);
}

#[test]
fn a_process_is_refused() {
    let (program, _) = program();
    assert_eq!(call(&program, number::CLONE, [17, 0, 0, 0, 0, 0]), Err(Errno::NOSYS));
    let incomplete = CLONE_THREAD_FLAGS | CLONE_SETTLS;
    assert_eq!(call(&program, number::CLONE, [incomplete, 0, 0, 0, 0, 0]), Err(Errno::INVAL));
}

#[test]
fn aborting_ends_the_program() {
    let (program, _) = program();
    assert_eq!(program.call(number::TGKILL, [PID.into(), PID.into(), 6, 0, 0, 0], 0), Outcome::EndProgram);
    assert_eq!(program.kernel().world().exits, [134]);
}

#[test]
fn poll_knows_what_is_ready() {
    let (program, page) = program();
    let entry = |fd: i32, events: u16| u64::from(fd.cast_unsigned()) | u64::from(events) << 32;
    let entries = [entry(0, 0), entry(1, 5), entry(-1, 7), entry(50, 1)].map(u64::to_le_bytes).concat();
    put(&program, page, &entries);
    assert_eq!(call(&program, number::POLL, [page, 4, 0, 0, 0, 0]), Ok(2));
    let answers = get::<32>(&program, page);
    assert_eq!([answers[6], answers[14], answers[22], answers[30]], [0, 4, 0, 0x20]);
    assert_eq!(call(&program, number::POLL, [page, 1, 1, 0, 0, 0]), Ok(0));
}

#[test]
fn a_program_learns_about_itself() {
    let (program, page) = program();
    assert_eq!(call(&program, number::GETTID, [0; 6]), Ok(u64::from(PID)));
    assert_eq!(call(&program, number::UNAME, [page, 0, 0, 0, 0, 0]), Ok(0));
    assert_eq!(&get::<4>(&program, page + 130), b"6.1.");
    assert_eq!(call(&program, number::SCHED_GETAFFINITY, [0, 32, page, 0, 0, 0]), Ok(8));
    assert_eq!(get::<8>(&program, page), 3_u64.to_le_bytes());
    assert_eq!(call(&program, number::GETRANDOM, [page, 100, 0, 0, 0, 0]), Ok(100));
    assert_ne!(get::<16>(&program, page), get::<16>(&program, page + 32));
    assert_eq!(call(&program, number::IOCTL, [1, 0x5401, page, 0, 0, 0]), Err(Errno::NOTTY));
    assert_eq!(call(&program, number::READLINK, [page, page, 10, 0, 0, 0]), Err(Errno::NOENT));
}
