// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask image`: a CD image that boots by GRUB, under BIOS and UEFI, on a real machine or in QEMU.
//!
//! GRUB hands the kernel over by Multiboot 2, with the boot image as its one module: the same two files that QEMU
//! gets in the development loop. `--try` boots the result once with each firmware, up to the guest's prompt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bootimage::{self, KERNEL, Sources};
use crate::build;
use crate::cli::{GuestOptions, ImageOptions, multi_line};
use crate::console::Session;
use crate::console::record::Record;
use crate::machine::{Accel, Boot, Config, Control, Machine};
use crate::process;
use crate::say::{self, LongStep};
use crate::scenario::{Scenario, Side};
use crate::setup;
use crate::workspace::Workspace;

/// How long firmware, boot loader, host and guest may take together in the emulator.
const TRIAL_TIME: Duration = Duration::from_secs(300);

pub(crate) fn command(workspace: &Workspace, options: &ImageOptions) -> Result<bool> {
    let scenario = Scenario::load(workspace, &options.scenario)?;
    setup::iso_tools()?;
    let guest = setup::guest(workspace)?;
    let built = build::all(workspace)?;

    let folder = workspace.target().join("image").join(&scenario.name);
    let image = options.output.clone().unwrap_or_else(|| folder.join("cloister.iso"));
    let sources = Sources { workspace, built: &built, guest: Some(&guest) };
    make(&sources, &scenario, &GuestOptions::default(), &folder, &image)?;
    say::step("Made", &image.display().to_string());
    if options.trial { try_both(&image, &scenario, &folder) } else { Ok(true) }
}

/// Makes the CD image of a scenario; `folder` is for its content.
pub(crate) fn make(
    sources: &Sources<'_>,
    scenario: &Scenario,
    options: &GuestOptions,
    folder: &Path,
    image: &Path,
) -> Result<()> {
    let boot = folder.join("cd/boot");
    fs::create_dir_all(boot.join("grub")).with_context(|| format!("{} cannot be made", boot.display()))?;
    bootimage::write(sources, scenario, options, &boot.join("boot.img"))?;
    let kernel = sources.built.stripped(sources.workspace, KERNEL)?;
    fs::copy(&kernel, boot.join(KERNEL)).with_context(|| format!("{} cannot be copied", kernel.display()))?;
    let recipe = sources.workspace.root.join("firmware/grub/grub.cfg");
    let recipe = fs::read_to_string(&recipe).with_context(|| format!("{} cannot be read", recipe.display()))?;
    fs::write(boot.join("grub/grub.cfg"), recipe.replace("CMDLINE", &scenario.settings.cmdline))?;
    pack(&folder.join("cd"), image)
}

fn pack(content: &Path, image: &Path) -> Result<()> {
    let _step = LongStep::begin("Packing", "the CD image");
    process::output(Command::new("grub-mkrescue").arg("-o").arg(image).arg(content))?;
    Ok(())
}

fn try_both(image: &Path, scenario: &Scenario, folder: &Path) -> Result<bool> {
    let bios = boots("SeaBIOS", None, image, scenario, folder)?;
    let uefi = boots("OVMF", Some(setup::uefi_firmware()?), image, scenario, folder)?;
    Ok(bios && uefi)
}

/// Boots the image with one firmware, and looks for what the scenario's test looks for first, or for a prompt.
fn boots(name: &str, uefi: Option<[PathBuf; 2]>, image: &Path, scenario: &Scenario, folder: &Path) -> Result<bool> {
    let step = LongStep::begin("Booting", &format!("the CD image with {name}"));
    let config = Config {
        emulator: setup::emulator()?,
        boot: Boot::Cd { image: image.to_path_buf(), uefi },
        memory: scenario.settings.memory,
        smp: scenario.settings.smp,
        devices: scenario.settings.devices.clone(),
        control: Control { monitor: true, screen: true, ..Control::default() },
        accel: Accel::Auto,
        icount: false,
        folder: folder.join(name),
    };
    let record = config.folder.join("run.log");
    let mut session = Session::new(Machine::start(&config)?, Record::new(&[&record])?);
    let first = scenario.settings.test.iter().flat_map(|test| &test.step).find(|step| step.expect.is_some());
    let prompt = multi_line("^/ # ")?;
    let (side, wanted) =
        first.and_then(|step| Some((step.on, step.expect.as_ref()?))).unwrap_or((Side::Console, &prompt));
    let result = session.expect(side, wanted, Instant::now() + TRIAL_TIME);
    drop(step);
    let picture = config.folder.join("screen.png");
    session.machine.monitor()?.picture(&picture)?;
    match result {
        Ok(()) => say::step("Booted", &format!("with {name}; its screen is {}", picture.display())),
        Err(unmet) => {
            say::failed("Failed", &format!("with {name} ({unmet:?}); see {}", record.display()));
            for line in session.last_lines(30) {
                eprintln!("    {line}");
            }
        }
    }
    Ok(result.is_ok())
}
