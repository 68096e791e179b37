// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding compilers.
//!
//! Programs for the host and `std` components take the default toolchain. Freestanding crates need a `core` for
//! a bare-metal target, which a default installation lacks; the first of these serves:
//!
//! 1. the default toolchain, when it has the target's `core` (`rustup target add x86_64-unknown-none`);
//! 2. the default toolchain, when it has the library's source: `core` and `alloc` are built with the crates;
//! 3. Debian's `rustc-web`, `cargo-web` and `rust-web-src`, whose source always matches the compiler. They lie in
//!    `/usr/bin`, where rustup's own `rustc` hides them, hence the absolute paths.
//!
//! Building `core` oneself uses a cargo option that is not stable yet, which `RUSTC_BOOTSTRAP` unlocks; the crates
//! themselves use the stable language only.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::workspace::cargo;

/// The bare-metal target of the machine that is built for.
pub(crate) const BARE_TARGET: &str = "x86_64-unknown-none";

/// The target of `std` components.
pub(crate) const LINUX_TARGET: &str = "x86_64-unknown-linux-gnu";

const DEBIAN_SYSROOT: &str = "/usr";

/// A compiler for freestanding crates.
#[derive(Clone, Debug)]
pub(crate) struct Freestanding {
    /// How the user knows it.
    pub(crate) label: String,
    programs: Programs,
    /// `core` and `alloc` are built with the crates.
    builds_core: bool,
    /// A linker to use in place of the one that comes with the toolchain.
    linker: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Programs {
    /// What the user has: cargo finds the rest.
    Default,
    /// Debian's, by absolute path.
    Debian { cargo: PathBuf, rustc: PathBuf },
}

/// What keeps freestanding crates from being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Compiler,
    Linker,
}

impl Freestanding {
    /// The first toolchain that serves.
    pub(crate) fn find() -> Result<Self, Missing> {
        let rustc = default_rustc();
        let version = version_of(&rustc);
        if has_core(&rustc) {
            return Self::new(format!("{version} with its own core"), Programs::Default, false, &rustc);
        }
        if sysroot_of(&rustc).is_some_and(|sysroot| has_source(&sysroot)) {
            return Self::new(format!("{version} with core from source"), Programs::Default, true, &rustc);
        }
        let debian = Path::new(DEBIAN_SYSROOT).join("bin");
        let (cargo, rustc) = (debian.join("cargo"), debian.join("rustc"));
        if cargo.is_file() && rustc.is_file() && has_source(Path::new(DEBIAN_SYSROOT)) {
            let label = format!("Debian's {} with core from source", version_of(&rustc));
            return Self::new(label, Programs::Debian { cargo, rustc: rustc.clone() }, true, &rustc);
        }
        Err(Missing::Compiler)
    }

    fn new(label: String, programs: Programs, builds_core: bool, rustc: &Path) -> Result<Self, Missing> {
        let own_linker = sysroot_of(rustc).map(|sysroot| linker_of(&sysroot));
        let linker = if own_linker.is_some_and(|linker| linker.is_file()) {
            None
        } else {
            Some(process::find("ld.lld").ok_or(Missing::Linker)?)
        };
        Ok(Self { label, programs, builds_core, linker })
    }

    /// Whether this is Debian's toolchain, whose clippy is a package of its own.
    pub(crate) fn is_debian(&self) -> bool {
        matches!(self.programs, Programs::Debian { .. })
    }

    /// Whether this toolchain's clippy is there.
    pub(crate) fn has_clippy(&self) -> bool {
        match &self.programs {
            Programs::Default => process::output(Command::new(cargo()).args(["clippy", "--version"])).is_ok(),
            Programs::Debian { cargo, .. } => cargo.with_file_name("cargo-clippy").is_file(),
        }
    }

    /// A cargo command (`build`, `clippy`) for the bare target. Outputs of toolchains are kept apart under `target`.
    pub(crate) fn cargo(&self, subcommand: &str, target: &Path) -> Command {
        let mut command = match &self.programs {
            Programs::Default => Command::new(cargo()),
            Programs::Debian { cargo, rustc } => {
                let mut command = if subcommand == "clippy" {
                    Command::new(cargo.with_file_name("cargo-clippy"))
                } else {
                    Command::new(cargo)
                };
                command.env("CARGO", cargo).env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
                // cargo pointed this at the libraries of the toolchain that runs this tool.
                command.env_remove("LD_LIBRARY_PATH");
                command
            }
        };
        without_user_flags(&mut command);
        command.arg(subcommand).args(["--target", BARE_TARGET]);
        command.arg("--target-dir").arg(self.target_folder(target));
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", "-C relocation-model=static -C code-model=kernel");
        if let Some(linker) = &self.linker {
            command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", linker);
        }
        if self.builds_core {
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core,alloc");
        }
        command
    }

    /// Where its programs appear.
    pub(crate) fn output(&self, target: &Path) -> PathBuf {
        self.target_folder(target).join(BARE_TARGET).join("release")
    }

    fn target_folder(&self, target: &Path) -> PathBuf {
        target.join(if self.is_debian() { "none-debian" } else { "none" })
    }
}

/// A cargo command for `std` components: static programs at a fixed address.
pub(crate) fn linux_cargo(subcommand: &str, target: &Path) -> Command {
    let mut command = Command::new(cargo());
    without_user_flags(&mut command);
    command.arg(subcommand).args(["--target", LINUX_TARGET]).arg("--target-dir").arg(linux_folder(target));
    let flags = "-C target-feature=+crt-static -C relocation-model=static";
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
    command
}

/// Where the `std` components appear.
pub(crate) fn linux_output(target: &Path) -> PathBuf {
    linux_folder(target).join(LINUX_TARGET).join("release")
}

fn linux_folder(target: &Path) -> PathBuf {
    target.join("linux")
}

/// A user's own flags would replace ours, and cargo would take the components for their programs.
fn without_user_flags(command: &mut Command) {
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
}

fn default_rustc() -> PathBuf {
    std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from)
}

fn version_of(rustc: &Path) -> String {
    let text = process::output(Command::new(rustc).arg("--version")).unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    let text = process::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    Some(PathBuf::from(text.trim()))
}

fn has_core(rustc: &Path) -> bool {
    let asked = process::output(Command::new(rustc).args(["--print", "target-libdir", "--target", BARE_TARGET]));
    let Ok(folder) = asked else { return false };
    let Ok(entries) = std::fs::read_dir(folder.trim()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

fn linker_of(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(LINUX_TARGET).join("bin/rust-lld")
}
