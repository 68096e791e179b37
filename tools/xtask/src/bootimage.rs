// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packing a scenario: the root task, init's configuration, all components, and the guest's files in one image.
//!
//! Modules are named as the configuration names them: a component's program without its `cloister-`, so
//! `binary: vmm` is `cloister-vmm`. All components are in each image, for what a scenario does not name costs only a
//! few pages; programs of `tests/` are there only when `scenario.toml` lists them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cloister_boot_image::{Kind, Writer};

use crate::build::Built;
use crate::cli::GuestOptions;
use crate::guest::Guest;
use crate::scenario::{Module, Scenario};
use crate::workspace::{Target, Workspace};

/// The kernel is handed over beside the image, not in it.
pub(crate) const KERNEL: &str = "cloister-kernel";

/// Where a scenario's files come from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) built: &'a Built,
    /// Absent when nothing of a guest is needed.
    pub(crate) guest: Option<&'a Guest>,
}

/// Writes the scenario's image to `file`.
pub(crate) fn write(sources: &Sources<'_>, scenario: &Scenario, options: &GuestOptions, file: &Path) -> Result<()> {
    let mut writer = Writer::new();
    let root = &scenario.settings.root;
    writer.add(module_name(root), Kind::RootTask, sources.program(root)?)?;
    if let Some(config) = scenario.config(options)? {
        writer.add("config", Kind::Data, config.into_bytes())?;
        add_components(sources, scenario, &mut writer)?;
        add_guest(sources, scenario, options, &mut writer)?;
    }
    for module in &scenario.settings.module {
        let (kind, content) = sources.module(scenario, module)?;
        writer.add(&module.name, kind, content)?;
    }
    let image = writer.finish()?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(file, image).with_context(|| format!("{} cannot be written", file.display()))
}

fn add_components(sources: &Sources<'_>, scenario: &Scenario, writer: &mut Writer) -> Result<()> {
    let tests = sources.workspace.root.join("tests");
    let members =
        sources.workspace.members.iter().filter(|member| {
            matches!(member.target, Target::None | Target::Linux) && !member.folder.starts_with(&tests)
        });
    for binary in members.flat_map(|member| &member.binaries) {
        let name = module_name(binary);
        if binary != KERNEL && *binary != scenario.settings.root && !scenario.replaces(name) {
            writer.add(name, Kind::Elf, sources.program(binary)?)?;
        }
    }
    Ok(())
}

fn add_guest(sources: &Sources<'_>, scenario: &Scenario, options: &GuestOptions, writer: &mut Writer) -> Result<()> {
    for (name, own, usual) in [("bzImage", &options.kernel, "kernel"), ("initrd", &options.initrd, "initrd")] {
        match own {
            Some(file) => writer.add(name, Kind::Data, read(file)?)?,
            None if scenario.replaces(name) => {}
            None => writer.add(name, Kind::Data, read(&sources.guest_file(usual)?)?)?,
        }
    }
    Ok(())
}

impl Sources<'_> {
    fn program(&self, binary: &str) -> Result<Vec<u8>> {
        read(&self.built.stripped(self.workspace, binary)?)
    }

    fn guest_file(&self, which: &str) -> Result<PathBuf> {
        let guest = self.guest.context("this needs the guest's files")?;
        match which {
            "kernel" => Ok(guest.kernel.clone()),
            "initrd" => Ok(guest.initrd.clone()),
            "bench-initrd" => Ok(guest.bench_initrd.clone()),
            other => bail!("the guest has no file {other:?}, only kernel, initrd and bench-initrd"),
        }
    }

    fn module(&self, scenario: &Scenario, module: &Module) -> Result<(Kind, Vec<u8>)> {
        let (kind, mut content) = match (&module.file, &module.program, &module.guest) {
            (Some(file), None, None) => (Kind::Data, read(&scenario.folder.join(file))?),
            (None, Some(program), None) => (Kind::Elf, self.program(program)?),
            (None, None, Some(which)) => (Kind::Data, read(&self.guest_file(which)?)?),
            _ => bail!("module {:?} must have one of `file`, `program` and `guest`", module.name),
        };
        for patch in &module.patch {
            let bytes = patch.text.as_bytes();
            let place = content.get_mut(patch.offset..).and_then(|rest| rest.get_mut(..bytes.len()));
            let place = place.with_context(|| format!("module {:?} ends before its patch", module.name))?;
            place.copy_from_slice(bytes);
        }
        if let Some(size) = module.truncate {
            ensure!(size <= content.len(), "module {:?} is shorter than {size} bytes already", module.name);
            content.truncate(size);
        }
        Ok((kind, content))
    }
}

/// The name in the image of what this program is.
pub(crate) fn module_name(binary: &str) -> &str {
    binary.strip_prefix("cloister-").unwrap_or(binary)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}
