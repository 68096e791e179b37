// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the program as a root task.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rustc-link-arg-bins=-T{here}/../bare/root.ld");
    println!("cargo:rerun-if-changed=../bare/root.ld");
}
