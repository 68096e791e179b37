// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the driver as a freestanding program.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../init/base/component.ld");
    println!("cargo:rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg=-T{script}");
    }
}
