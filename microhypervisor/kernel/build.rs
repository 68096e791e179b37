// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the kernel by its own script: loaded at 2 MiB, running at the top of the address space.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/link.ld");
    println!("cargo:rerun-if-changed=link.ld");
}
