// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lint`: format, and clippy for each target with the toolchain that builds for it.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::say;
use crate::setup;
use crate::workspace::{Member, Target, Workspace, cargo};

pub(crate) fn command(workspace: &Workspace) -> Result<bool> {
    say::step("Checking", "format");
    let mut format = Command::new(cargo());
    format.args(["fmt", "--all", "--check"]).current_dir(&workspace.root);
    if process::output(Command::new(cargo()).args(["fmt", "--version"])).is_err() {
        bail!("rustfmt is missing: `rustup component add rustfmt`, or Debian's package rustfmt");
    }
    let mut good = process::visibly(&mut format)?;
    if !good {
        say::failed("Format", "`cargo fmt` repairs it");
    }

    say::step("Checking", "crates that run on the host or under the Linux personality");
    let mut clippy = Command::new(cargo());
    clippy.args(["clippy", "--quiet", "--all-targets"]);
    good &= check(workspace, clippy, |member| member.target != Target::None)?;
    if workspace.members.iter().any(|member| member.loom) {
        let mut clippy = Command::new(cargo());
        clippy.args(["clippy", "--quiet", "--all-targets", "--features", "loom"]);
        good &= check(workspace, clippy, |member| member.loom)?;
    }

    if workspace.of(Target::None).next().is_some() {
        let toolchain = setup::for_linting()?;
        say::step("Checking", &format!("freestanding crates with {}", toolchain.label));
        let mut clippy = toolchain.cargo("clippy", &workspace.target());
        clippy.args(["--quiet", "--release"]);
        good &= check(workspace, clippy, |member| member.target == Target::None)?;
    }
    if good {
        say::step("Clean", "format and lints");
    }
    Ok(good)
}

fn check(workspace: &Workspace, mut clippy: Command, wanted: fn(&Member) -> bool) -> Result<bool> {
    for member in workspace.members.iter().filter(|member| wanted(member)) {
        clippy.args(["--package", &member.name]);
    }
    clippy.args(["--", "--deny", "warnings"]).current_dir(&workspace.root);
    process::visibly(&mut clippy)
}
