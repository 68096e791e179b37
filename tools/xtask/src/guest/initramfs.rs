// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lies in the guest's initramfs: busybox, the virtio modules, and a first process.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::cpio::Archive;

/// Beside the unpacked modules: their names in the order of loading.
pub(crate) const MODULE_ORDER: &str = "modules.order";

const INIT: &str = include_str!("init.sh");
const BENCH_INIT: &str = include_str!("bench-init.sh");

/// Changes when the archives must be written anew.
pub(crate) fn recipe() -> String {
    format!("{}\n{INIT}\n{BENCH_INIT}", env!("CARGO_PKG_VERSION"))
}

/// The archive that ends in a shell at the console.
pub(crate) fn interactive(unpacked: &Path) -> Result<Vec<u8>> {
    let mut archive = base(unpacked, INIT)?;
    archive.directory("lib")?;
    archive.directory("lib/modules")?;
    let order = read(unpacked, MODULE_ORDER).unwrap_or_default();
    for name in String::from_utf8_lossy(&order).lines() {
        archive.file(&format!("lib/modules/{name}"), &read(unpacked, name)?)?;
    }
    archive.file("lib/modules/order", &order)?;
    compress(&archive.finish()?)
}

/// The archive for measuring how long a boot takes: nothing but busybox and a line to print.
pub(crate) fn bench(unpacked: &Path) -> Result<Vec<u8>> {
    compress(&base(unpacked, BENCH_INIT)?.finish()?)
}

fn base(unpacked: &Path, init: &str) -> Result<Archive> {
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        archive.directory(folder)?;
    }
    archive.device("dev/console", 5, 1)?;
    archive.device("dev/null", 1, 3)?;
    archive.program("bin/busybox", &read(unpacked, "busybox")?)?;
    archive.program("init", init.as_bytes())?;
    Ok(archive)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
}

fn compress(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}
