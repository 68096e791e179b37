// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiling: all programs of freestanding crates in one cargo call, all `std` components in another.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::bootimage::KERNEL;
use crate::process;
use crate::say;
use crate::setup;
use crate::symbols;
use crate::toolchain::{self, Freestanding};
use crate::workspace::{Member, Target, Workspace};

/// Where the built programs are.
#[derive(Debug)]
pub(crate) struct Built {
    none: PathBuf,
    linux: PathBuf,
}

pub(crate) fn command(workspace: &Workspace) -> Result<bool> {
    all(workspace)?;
    Ok(true)
}

/// Builds whatever is not up to date.
pub(crate) fn all(workspace: &Workspace) -> Result<Built> {
    some(workspace, |_| true)
}

/// Builds those programs that are wanted, as far as they are not up to date.
pub(crate) fn some(workspace: &Workspace, wanted: impl Fn(&str) -> bool) -> Result<Built> {
    let toolchain = setup::for_building()?;
    let target = workspace.target();
    let programs_of = |target| -> Vec<&Member> {
        workspace.of(target).filter(|member| member.binaries.iter().any(|binary| wanted(binary))).collect()
    };
    let freestanding = programs_of(Target::None);
    if !freestanding.is_empty() {
        say::step("Compiling", &format!("the kernel and freestanding components with {}", toolchain.label));
        compile(toolchain.cargo("build", &target), &workspace.root, &freestanding)?;
    }
    let linux = programs_of(Target::Linux);
    if !linux.is_empty() {
        say::step("Compiling", "components that use std");
        compile(toolchain::linux_cargo("build", &target), &workspace.root, &linux)?;
    }
    Ok(Built::new(&toolchain, &target))
}

fn compile(mut cargo: Command, root: &Path, members: &[&Member]) -> Result<()> {
    cargo.arg("--release").current_dir(root);
    for member in members {
        cargo.args(["--package", &member.name]);
    }
    if !process::visibly(&mut cargo)? {
        bail!("the build failed; cargo's messages stand above");
    }
    Ok(())
}

impl Built {
    fn new(toolchain: &Freestanding, target: &Path) -> Self {
        Self { none: toolchain.output(target), linux: toolchain::linux_output(target) }
    }

    /// Where a program lies; the kernel's with its symbols in it.
    pub(crate) fn program(&self, workspace: &Workspace, binary: &str) -> Result<PathBuf> {
        let member = workspace.maker_of(binary).with_context(|| format!("no crate here makes a program {binary}"))?;
        match member.target {
            Target::None if binary == KERNEL => symbols::finish(&self.none.join(binary)),
            Target::None => Ok(self.none.join(binary)),
            Target::Linux => Ok(self.linux.join(binary)),
            Target::Host | Target::Any => bail!("{binary} is a program for the host, not for the machine"),
        }
    }

    /// A program without its debug information, which stays beside it. A flat image has none.
    pub(crate) fn stripped(&self, workspace: &Workspace, binary: &str) -> Result<PathBuf> {
        let program = self.program(workspace, binary)?;
        if !is_elf(&program) {
            return Ok(program);
        }
        let stripped = program.with_file_name(format!("{binary}.stripped"));
        if changed(&stripped) < changed(&program) {
            process::output(Command::new("objcopy").arg("--strip-debug").arg(&program).arg(&stripped))?;
        }
        Ok(stripped)
    }
}

/// When a file was written last; nothing if it is not there.
pub(crate) fn changed(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|data| data.modified()).ok()
}

/// Whether a file begins as an ELF file does.
fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}
