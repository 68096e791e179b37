// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask setup`: what the host must have, found or installed.
//!
//! Each command calls [`host`] or [`guest`] for what it needs; when all is there that takes a blink.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::guest::Guest;
use crate::packages::{self, Need};
use crate::process;
use crate::say;
use crate::toolchain::{self, Freestanding, Missing};
use crate::workspace::Workspace;

const EMULATOR_PROGRAM: &str = "qemu-system-x86_64";
const EMULATOR: Need = Need { what: "QEMU for x86_64 (qemu-system-x86_64)", packages: &["qemu-system-x86"] };
const LINKER: Need = Need { what: "the linker of LLVM (ld.lld)", packages: &["lld"] };
const C_COMPILER: Need = Need {
    what: "gcc with binutils and the static C library, which link the components that use std",
    packages: &["gcc", "libc6-dev", "binutils"],
};
const COMPILER: Need = Need {
    what: "a Rust compiler with core for x86_64-unknown-none (with rustup: `rustup target add x86_64-unknown-none`)",
    packages: &["rustc-web", "cargo-web", "rust-web-src"],
};
const CLIPPY: Need = Need { what: "clippy for that compiler", packages: &["rust-web-clippy"] };
const ISO_TOOLS: Need = Need {
    what: "GRUB's grub-mkrescue for BIOS and UEFI, xorriso and mtools",
    packages: &["grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "xorriso", "mtools"],
};
const BOCHS_PROGRAM: &str = "bochs";
const BOCHS: Need = Need {
    what: "Bochs with its firmware and its text screen, and `script`",
    packages: &["bochs", "bochsbios", "vgabios", "bochs-term", "bsdutils"],
};
const FIRMWARE: Need = Need { what: "OVMF, a UEFI firmware for QEMU", packages: &["ovmf"] };

pub(crate) fn command(workspace: &Workspace) -> Result<bool> {
    everything()?;
    let toolchain = for_building()?;
    say::step("Compiler", &toolchain.label);
    let emulator = emulator()?;
    say::step("Emulator", &emulator.display().to_string());
    let guest = guest(workspace)?;
    say::step("Guest", &guest.kernel.display().to_string());
    say::step("Ready", "now `cargo xtask run` boots a guest");
    Ok(true)
}

/// Installs all that booting needs in one go, so that a user without rights is told once.
pub(crate) fn everything() -> Result<()> {
    let mut needs = missing_for_building();
    if process::find(EMULATOR_PROGRAM).is_none() {
        needs.push(EMULATOR);
    }
    packages::install(&needs)
}

/// All that compiling needs.
pub(crate) fn for_building() -> Result<Freestanding> {
    packages::install(&missing_for_building())?;
    match Freestanding::find() {
        Ok(toolchain) => Ok(toolchain),
        Err(missing) => bail!(
            "{} is still missing after the installation; `rustup target add {}` may help",
            match missing {
                Missing::Compiler => COMPILER.what,
                Missing::Linker => LINKER.what,
            },
            toolchain::BARE_TARGET,
        ),
    }
}

fn missing_for_building() -> Vec<Need> {
    let mut needs = Vec::new();
    if !has_static_c_library() || process::find("gcc").is_none() || process::find("objcopy").is_none() {
        needs.push(C_COMPILER);
    }
    match Freestanding::find() {
        Ok(_) => {}
        Err(Missing::Linker) => needs.push(LINKER),
        Err(Missing::Compiler) => {
            needs.push(COMPILER);
            if process::find("ld.lld").is_none() {
                needs.push(LINKER);
            }
        }
    }
    needs
}

/// Clippy for the freestanding crates; the default toolchain's comes with it.
pub(crate) fn for_linting() -> Result<Freestanding> {
    let toolchain = for_building()?;
    if toolchain.has_clippy() {
        return Ok(toolchain);
    }
    if !toolchain.is_debian() {
        bail!("clippy is missing: `rustup component add clippy`");
    }
    packages::install(&[CLIPPY])?;
    Ok(toolchain)
}

/// The emulator.
pub(crate) fn emulator() -> Result<PathBuf> {
    if let Some(found) = process::find(EMULATOR_PROGRAM) {
        return Ok(found);
    }
    packages::install(&[EMULATOR])?;
    process::find(EMULATOR_PROGRAM).with_context(|| format!("{EMULATOR_PROGRAM} is missing after the installation"))
}

/// The other emulator, which has VMX.
pub(crate) fn bochs() -> Result<PathBuf> {
    let find = || {
        let files = ["/usr/share/bochs/BIOS-bochs-latest", "/usr/share/bochs/VGABIOS-lgpl-latest"];
        let screen = "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so";
        let complete = files.iter().all(|file| Path::new(file).exists())
            && (!packages::is_debian() || Path::new(screen).exists())
            && process::find("script").is_some();
        process::find(BOCHS_PROGRAM).filter(|_| complete)
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    packages::install(&[BOCHS])?;
    find().with_context(|| format!("{BOCHS_PROGRAM} or a part of it is missing after the installation"))
}

/// What makes ISO images.
pub(crate) fn iso_tools() -> Result<()> {
    let programs = ["grub-mkrescue", "xorriso", "mformat"];
    let folders = ["/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi"];
    let complete = programs.iter().all(|program| process::find(program).is_some())
        && folders.iter().all(|folder| Path::new(folder).is_dir());
    if complete { Ok(()) } else { packages::install(&[ISO_TOOLS]) }
}

/// The UEFI firmware's code and its empty variables, under the names of older or newer packages.
pub(crate) fn uefi_firmware() -> Result<[PathBuf; 2]> {
    let find = || {
        let pairs =
            ["", "_4M"].map(|size| ["CODE", "VARS"].map(|part| format!("/usr/share/OVMF/OVMF_{part}{size}.fd")));
        pairs.map(|pair| pair.map(PathBuf::from)).into_iter().find(|pair| pair.iter().all(|file| file.is_file()))
    };
    if let Some(files) = find() {
        return Ok(files);
    }
    packages::install(&[FIRMWARE])?;
    find().context("OVMF is missing after the installation")
}

/// The guest's files.
pub(crate) fn guest(workspace: &Workspace) -> Result<Guest> {
    Guest::prepare(&workspace.cache())
}

/// Debian keeps it in the multi-arch folder, others in `/usr/lib64` or `/usr/lib`.
fn has_static_c_library() -> bool {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders.iter().any(|folder| Path::new(folder).join("libc.a").is_file())
}
