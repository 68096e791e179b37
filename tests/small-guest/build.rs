// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the guest as a flat image in the format of a Linux kernel.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/link.ld");
    println!("cargo:rustc-link-arg-bins=--oformat=binary");
    println!("cargo:rerun-if-changed=link.ld");
}
