// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program starts in `cloister_linux`, which finds out whether this is Linux or Cloister.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-e,cloister_start");
}
