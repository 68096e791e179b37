// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scenario: a folder of `tests/scenarios` that composes components, and may say what must come of it.
//!
//! `init.hid` is init's configuration. `scenario.toml`, beside it, is optional and says what differs from the
//! usual: the machine, the guest, further modules of the boot image, and for a test the steps. `${NAME}` in
//! `init.hid` stands for a variable: `guest-memory`, `guest-cmdline`, `vmm-ram` (the former plus what the VMM needs
//! beside it), and whatever `[variables]` adds.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

use crate::cli::{GuestOptions, multi_line};
use crate::say;
use crate::size::Size;
use crate::workspace::Workspace;

const GUEST_CMDLINE: &str = "console=ttyS0 reboot=t panic=-1 mitigations=off";

/// A scenario as it stands in its folder.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
}

/// `scenario.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// One line for lists of scenarios.
    pub(crate) description: String,
    /// The kernel's command line.
    pub(crate) cmdline: String,
    pub(crate) memory: Size,
    pub(crate) smp: u32,
    /// What QEMU adds to the machine (`-device`).
    pub(crate) devices: Vec<String>,
    /// Count instructions in place of time, so that each run takes as many.
    pub(crate) icount: bool,
    /// Size of the kernel's trace of each core, if there is one; a test then makes a timeline of it.
    pub(crate) trace: Option<Size>,
    /// Firmwares by which a test boots it from a CD, in place of the emulator's direct way.
    pub(crate) cd: Vec<Firmware>,
    /// The program that the kernel starts.
    pub(crate) root: String,
    pub(crate) guest: GuestSettings,
    /// Values for `${…}` in `init.hid`.
    pub(crate) variables: BTreeMap<String, String>,
    /// Further modules of the boot image.
    pub(crate) module: Vec<Module>,
    /// What makes the scenario a test.
    pub(crate) test: Option<TestSettings>,
    /// That the test shall run in Bochs, too, where guests have VMX.
    pub(crate) bochs: Option<BochsSettings>,
}

/// What runs before the boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// What differs in Bochs.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct BochsSettings {
    /// The machine's memory, all of which is the host's from the start.
    pub(crate) memory: Size,
    pub(crate) guest_memory: Size,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct GuestSettings {
    pub(crate) memory: Size,
    /// What a VMM needs beside its guest's memory.
    pub(crate) overhead: Size,
    pub(crate) cmdline: String,
}

/// A module: exactly one of its sources.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Module {
    pub(crate) name: String,
    /// A file, from the scenario's folder on.
    pub(crate) file: Option<PathBuf>,
    /// A program of this workspace.
    pub(crate) program: Option<String>,
    /// One of the guest's files: `kernel`, `initrd` or `bench-initrd`.
    pub(crate) guest: Option<String>,
    /// Keep only this many bytes of it (to test what a damaged one does).
    pub(crate) truncate: Option<usize>,
    /// Overwrite bytes of it: offset and text.
    #[serde(default)]
    pub(crate) patch: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    pub(crate) offset: usize,
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TestSettings {
    /// Seconds for the whole.
    #[serde(default = "default_test_seconds")]
    pub(crate) timeout: u64,
    /// What must not appear anywhere.
    #[serde(default, deserialize_with = "regexes")]
    pub(crate) forbid: Vec<Regex>,
    /// Whether the machine must have switched itself off after the last step.
    #[serde(default)]
    pub(crate) shutdown: bool,
    /// The number with which the kernel must have ended the machine after the last step, where that is not an orderly end.
    pub(crate) ending: Option<i32>,
    /// Whether the machine must have been reset after the last step, by what a component asked for rather than by a triple fault.
    #[serde(default)]
    pub(crate) reset: bool,
    pub(crate) step: Vec<Step>,
}

/// One step of a test: type something, do something to the machine, wait for something, in this order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Typed at the console, with a line end.
    pub(crate) send: Option<String>,
    /// Typed as it is: for control characters.
    pub(crate) keys: Option<String>,
    /// A command for QEMU's monitor.
    pub(crate) monitor: Option<String>,
    #[serde(default, deserialize_with = "regex")]
    pub(crate) expect: Option<Regex>,
    #[serde(default)]
    pub(crate) on: Side,
    /// Seconds for this step.
    pub(crate) timeout: Option<u64>,
}

/// Where something is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// What the user sees.
    #[default]
    Console,
    /// What kernel and components report.
    Log,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            description: String::new(),
            cmdline: String::new(),
            memory: Size::mib(3072),
            smp: 1,
            devices: Vec::new(),
            icount: false,
            trace: None,
            cd: Vec::new(),
            root: "cloister-core".to_owned(),
            guest: GuestSettings::default(),
            variables: BTreeMap::new(),
            module: Vec::new(),
            test: None,
            bochs: None,
        }
    }
}

impl Default for GuestSettings {
    fn default() -> Self {
        Self { memory: Size::mib(256), overhead: Size::mib(24), cmdline: GUEST_CMDLINE.to_owned() }
    }
}

fn default_test_seconds() -> u64 {
    300
}

impl Scenario {
    /// Reads a scenario by name.
    pub(crate) fn load(workspace: &Workspace, name: &str) -> Result<Self> {
        let folder = workspace.scenarios().join(name);
        if name.contains(['/', '.']) || !folder.is_dir() {
            let known: Vec<_> = Self::names(workspace).into_iter().map(|name| format!("\n  {name}")).collect();
            let list = if known.is_empty() { "\n  (none yet)".to_owned() } else { known.concat() };
            bail!("there is no scenario {name:?} in tests/scenarios; there are:{list}");
        }
        let file = folder.join("scenario.toml");
        let settings = match fs::read_to_string(&file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is wrong", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Settings::default(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
        };
        Ok(Self { name: name.to_owned(), folder, settings })
    }

    /// The names of all scenarios, sorted.
    pub(crate) fn names(workspace: &Workspace) -> Vec<String> {
        let entries = fs::read_dir(workspace.scenarios()).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<_> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// init's configuration with all variables filled in; nothing when the scenario has none.
    pub(crate) fn config(&self, options: &GuestOptions) -> Result<Option<String>> {
        let file = self.folder.join("init.hid");
        match fs::read_to_string(&file) {
            Ok(text) => {
                let filled = fill_in(&text, &self.variables(options));
                let filled = filled.with_context(|| format!("{}", file.display()))?;
                // What init will object to is told now. It stops nothing: init goes on with the rest, too, and there
                // are tests of just that.
                for objection in cloister_init_config::check(&filled) {
                    say::warn(&format!("{}:{objection}", file.display()));
                }
                Ok(Some(filled))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", file.display())),
        }
    }

    /// Whether init runs in it.
    pub(crate) fn has_config(&self) -> bool {
        self.folder.join("init.hid").is_file()
    }

    /// Whether `scenario.toml` itself names this program.
    pub(crate) fn names_program(&self, binary: &str) -> bool {
        self.settings.root == binary
            || self.settings.module.iter().any(|module| module.program.as_deref() == Some(binary))
    }

    /// The kernel's command line on an emulated machine, whose exit port it may use, unless the end of the emulator would be the end of a
    /// trace.
    pub(crate) fn cmdline(&self) -> String {
        let first = self.settings.trace.map_or_else(|| "debug-exit".to_owned(), |size| format!("trace={size}"));
        format!("{first} {}", self.settings.cmdline).trim_end().to_owned()
    }

    /// The guest's memory.
    pub(crate) fn guest_memory(&self, options: &GuestOptions) -> Size {
        options.guest_memory.unwrap_or(self.settings.guest.memory)
    }

    /// The guest's kernel command line.
    pub(crate) fn guest_cmdline<'a>(&'a self, options: &'a GuestOptions) -> &'a str {
        options.cmdline.as_deref().unwrap_or(&self.settings.guest.cmdline)
    }

    /// Whether `scenario.toml` brings a module of this name of its own.
    pub(crate) fn replaces(&self, module: &str) -> bool {
        self.settings.module.iter().any(|own| own.name == module)
    }

    fn variables(&self, options: &GuestOptions) -> BTreeMap<String, String> {
        let memory = self.guest_memory(options);
        let mut variables = self.settings.variables.clone();
        variables.insert("guest-memory".to_owned(), memory.to_string());
        variables.insert("guest-cmdline".to_owned(), self.guest_cmdline(options).to_owned());
        variables.insert("vmm-ram".to_owned(), memory.plus(self.settings.guest.overhead).to_string());
        variables
    }
}

/// Replaces each `${NAME}`.
fn fill_in(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let mut filled = String::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            let place = number + 1;
            let (name, behind) = after.split_once('}').with_context(|| format!("line {place}: ${{ without }}"))?;
            let value = variables.get(name).with_context(|| format!("line {place}: no variable {name:?}"))?;
            if value.contains(['|', '\n']) {
                bail!(
                    "line {place}: the value of {name} contains a `|` or a line end, which HID cannot hold: {value:?}"
                );
            }
            filled.push_str(before);
            filled.push_str(value);
            rest = behind;
        }
        filled.push_str(rest);
        filled.push('\n');
    }
    Ok(filled)
}

fn regex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(deserializer)?;
    multi_line(&text).map(Some).map_err(serde::de::Error::custom)
}

fn regexes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Regex>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| multi_line(text).map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Settings, Side, fill_in};

    #[test]
    fn variables_are_filled_in() {
        let variables = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b-c".to_owned(), "x y".to_owned())]);
        let filled = fill_in("ram: ${a}M | ${b-c}\n-\n", &variables).expect("both known");
        assert_eq!(filled, "ram: 1M | x y\n-\n");
        let error = fill_in("\n${nope}", &variables).expect_err("unknown");
        assert!(error.to_string().starts_with("line 2"));
        assert!(fill_in("${a", &variables).is_err());
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let variables = BTreeMap::from([("a".to_owned(), "x | ram: 1G".to_owned())]);
        assert!(fill_in("cmdline: ${a}", &variables).is_err());
    }

    #[test]
    fn settings_are_read() {
        let text = r#"
            memory = "2G"
            [guest]
            memory = "128M"
            [[module]]
            name = "bad-kernel"
            guest = "kernel"
            truncate = 100
            [test]
            shutdown = true
            [[test.step]]
            expect = '/ # $'
            [[test.step]]
            send = "poweroff"
            expect = "ended"
            on = "log"
        "#;
        let settings: Settings = toml::from_str(text).expect("well-formed");
        assert_eq!(settings.memory.to_string(), "2G");
        assert_eq!(settings.module[0].truncate, Some(100));
        let test = settings.test.expect("a test");
        assert_eq!(test.step[1].on, Side::Log);
        assert_eq!(test.timeout, 300);
    }

    #[test]
    fn unknown_words_are_refused() {
        assert!(toml::from_str::<Settings>("memroy = \"2G\"").is_err());
        assert!(toml::from_str::<Settings>("[test]\nstep = [{ expect = \"(\" }]").is_err());
    }
}
