// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a `std` program does, tried as a component: each test prints `std-test NAME ... ok`, the last line says how many
//! failed. The same file runs on Linux and says the same there.
//!
//! Each test is a function that answers what went wrong; a panic would end the program (release builds abort).

#![expect(unsafe_code, reason = "system calls by hand, to see what they keep")]

mod files;
mod memory;
mod registers;
mod sync;
mod time;

/// What went wrong.
type Check = Result<(), String>;

/// Fails with the expression's text.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("{}:{}: {}", file!(), line!(), stringify!($condition)));
        }
    };
}
pub(crate) use ensure;

/// Any error as the text of it.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A test: its name, and what it does.
type Test = (&'static str, fn() -> Check);

const TESTS: [Test; 21] = [
    ("environment", environment),
    ("general-registers", registers::general),
    ("vector-registers", registers::vectors),
    ("floating-point", sync::vector_state),
    ("threads", sync::threads),
    ("many-threads", sync::many_threads),
    ("mutex", sync::mutex),
    ("condvar", sync::condvar),
    ("channel", sync::channel),
    ("park", sync::park),
    ("barrier", sync::barrier),
    ("thread-local", sync::thread_local),
    ("hash-map", memory::hash_map),
    ("big-allocation", memory::big_allocation),
    ("growing-vector", memory::growing_vector),
    ("threads-allocate", memory::threads_allocate),
    ("instant", time::instant),
    ("system-time", time::system_time),
    ("timeout", time::timeout),
    ("files", files::files),
    ("rom", files::rom),
];

fn main() {
    println!("std-test on {}", if cloister_linux::is_cloister() { "Cloister" } else { "Linux" });
    let mut failed = 0;
    for (name, test) in TESTS {
        match test() {
            Ok(()) => println!("std-test {name} ... ok"),
            Err(reason) => {
                println!("std-test {name} ... FAILED: {reason}");
                failed += 1;
            }
        }
    }
    println!("std-test done: {} ok, {failed} failed", TESTS.len() - failed);
    std::process::exit(i32::from(failed > 0));
}

fn environment() -> Check {
    ensure!(std::env::args().count() >= 1);
    ensure!(std::env::var("THIS_IS_NOT_SET").is_err());
    ensure!(std::thread::available_parallelism().map_err(text)?.get() >= 1);
    ensure!(std::process::id() > 0);
    Ok(())
}
