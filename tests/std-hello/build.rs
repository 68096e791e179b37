// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program starts in `cloister_linux`, not in libc.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-e,cloister_start");
}
