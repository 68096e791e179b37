// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest that scenarios start: Debian's cloud kernel, unmodified, and an initramfs with busybox.
//!
//! Both come out of Debian packages into the cache. [`modules`] reads what a kernel module needs, [`cpio`] writes
//! the archive that Linux unpacks, [`initramfs`] decides what lies in it.
//!
//! The kernel is taken again only when the cache is emptied; the initramfs is written anew when its recipe changes.

mod cpio;
mod initramfs;
mod modules;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::packages::{Archive, is_debian};
use crate::say;

/// Debian's name for the newest kernel without drivers for real hardware.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
const KERNEL_PREFIX: &str = "linux-image-6";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// The files of a guest.
#[derive(Debug)]
pub(crate) struct Guest {
    /// A bzImage.
    pub(crate) kernel: PathBuf,
    /// The interactive one: ends in a shell.
    pub(crate) initrd: PathBuf,
    /// The one for measurements: prints a line and powers off.
    pub(crate) bench_initrd: PathBuf,
}

impl Guest {
    /// Makes sure that the files are there.
    pub(crate) fn prepare(cache: &Path) -> Result<Self> {
        let folder = cache.join("guest");
        let guest = Self {
            kernel: folder.join("vmlinuz"),
            initrd: folder.join("initrd.cpio.gz"),
            bench_initrd: folder.join("bench.cpio.gz"),
        };
        let unpacked = folder.join("unpacked");
        if !guest.kernel.is_file() || !unpacked.join("busybox").is_file() {
            guest.fetch(cache, &unpacked)?;
        }
        let stamp = folder.join("recipe");
        let recipe = initramfs::recipe();
        let current = fs::read_to_string(&stamp).is_ok_and(|text| text == recipe);
        if !current || !guest.initrd.is_file() || !guest.bench_initrd.is_file() {
            say::step("Packing", "the guest's initramfs");
            write(&guest.initrd, &initramfs::interactive(&unpacked)?)?;
            write(&guest.bench_initrd, &initramfs::bench(&unpacked)?)?;
            write(&stamp, recipe.as_bytes())?;
        }
        Ok(guest)
    }

    /// Takes the kernel, its modules and busybox out of their packages.
    fn fetch(&self, cache: &Path, unpacked: &Path) -> Result<()> {
        ensure!(
            is_debian(),
            "the guest comes out of Debian's packages, and this is no Debian system: put a bzImage at {} \
             and a static busybox at {}, then try again; or give `run` your own --kernel and --initrd",
            self.kernel.display(),
            unpacked.join("busybox").display(),
        );
        let mut archive = Archive::open(&cache.join("debian"))?;
        let package = archive.dependency(KERNEL_PACKAGE, KERNEL_PREFIX)?;
        let temporary = cache.join("debian/unpacked");
        archive.unpack(&package, &temporary)?;
        archive.unpack(BUSYBOX_PACKAGE, &temporary)?;

        fs::create_dir_all(unpacked).with_context(|| format!("{} cannot be made", unpacked.display()))?;
        let wanted = modules::wanted(&temporary.join("lib/modules"))?;
        let mut order = String::new();
        for module in &wanted {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            copy(module, &unpacked.join(&name))?;
            order.push_str(&name);
            order.push('\n');
        }
        write(&unpacked.join(initramfs::MODULE_ORDER), order.as_bytes())?;
        copy(&temporary.join("bin/busybox"), &unpacked.join("busybox"))?;
        copy(&single_file(&temporary.join("boot"), "vmlinuz-")?, &self.kernel)?;
        fs::remove_dir_all(&temporary).with_context(|| format!("{} cannot be removed", temporary.display()))
    }
}

/// The one file whose name starts so.
fn single_file(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} is not there", folder.display()))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .with_context(|| format!("no {start}… in {}", folder.display()))
}

/// Copies in two steps, so that an interrupted set-up leaves nothing half-made behind.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
    write(to, &content)
}

fn write(to: &Path, content: &[u8]) -> Result<()> {
    let draft = to.with_extension("draft");
    fs::write(&draft, content).with_context(|| format!("{} cannot be written", draft.display()))?;
    fs::rename(&draft, to).with_context(|| format!("{} cannot be written", to.display()))
}
