// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: the developer's one tool. It sets the host up, builds everything, and boots, tests and measures it.
//!
//! One module per thing it knows:
//!
//! - the host: [`process`] runs programs, [`packages`] installs them, [`say`] talks to the user,
//!   [`toolchain`] finds compilers, [`guest`] makes the guest's kernel and initramfs;
//! - the project: [`workspace`] reads the crates, [`build`] compiles them, [`scenario`] reads a composition of
//!   components, [`bootimage`] packs it, [`symbols`] tells the kernel its own names;
//! - the machine: [`machine`] starts the emulator, [`console`] stands between it and the user or a script;
//! - the commands: [`setup`], [`run`], [`test`], [`bench`], [`fuzz`], [`trace`], [`count`], [`lint`], [`image`].
//!
//! Rule: what a command needs it makes sure of itself, so that `cargo xtask run` in a fresh clone is enough.

mod bench;
mod bootimage;
mod build;
mod cli;
mod console;
mod count;
mod fuzz;
mod guest;
mod image;
mod lint;
mod machine;
mod packages;
mod process;
mod run;
mod say;
mod scenario;
mod setup;
mod size;
mod symbols;
mod test;
mod toolchain;
mod trace;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::workspace::Workspace;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the command; false is a failure that has already been told.
fn dispatch(command: &Command) -> anyhow::Result<bool> {
    let workspace = Workspace::load()?;
    match command {
        Command::Setup => setup::command(&workspace),
        Command::Build => build::command(&workspace),
        Command::Run(options) => run::command(&workspace, options),
        Command::Test(options) => test::command(&workspace, options),
        Command::Bench(options) => bench::command(&workspace, options),
        Command::Fuzz(options) => fuzz::command(&workspace, options),
        Command::Trace(options) => trace::command(&workspace, options),
        Command::Size => count::command(&workspace),
        Command::Lint => lint::command(&workspace),
        Command::Image(options) => image::command(&workspace, options),
    }
}
