// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the program as a freestanding component.

fn main() {
    println!("cargo:rerun-if-changed=../../init/base/component.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg=-T{}/../../init/base/component.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
