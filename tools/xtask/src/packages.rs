// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's package manager: what is missing on the host is installed, and what only its content is needed of
//! (the guest's kernel, busybox) is downloaded and unpacked without being installed.
//!
//! Everything is asked for only when it is missing, so that a host that has all needs neither network nor root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::say::{self, LongStep};

/// Something that the tool needs of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// What it is, for people on other systems than Debian.
    pub(crate) what: &'static str,
    /// The packages that bring it.
    pub(crate) packages: &'static [&'static str],
}

/// Who may install.
enum Installer {
    Root,
    Sudo(PathBuf),
    Nobody,
}

/// Installs the packages of `needs`; an error says what to do where that cannot be done here.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = needs.iter().flat_map(|need| need.packages.iter().copied()).collect();
    let list: String = needs.iter().map(|need| format!("\n  - {}", need.what)).collect();
    ensure!(is_debian(), "this is no Debian system, so install with its package manager, then try again:{list}");
    let words = packages.join(" ");
    let installer = Installer::of_this_user();
    if matches!(installer, Installer::Nobody) {
        bail!("some things are missing:{list}\nplease run this as root, then try again:\n  apt-get install {words}");
    }
    let _step = LongStep::begin("Installing", &words);
    if !has_package_lists() {
        process::output(&mut installer.apt(&["update"]))?;
    }
    let install: Vec<_> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages).collect();
    if process::output(&mut installer.apt(&install)).is_ok() {
        return Ok(());
    }
    // The lists may be older than the archive.
    process::output(&mut installer.apt(&["update"]))?;
    process::output(&mut installer.apt(&install)).with_context(|| format!("apt-get could not install {words}"))?;
    Ok(())
}

impl Installer {
    fn of_this_user() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        process::find("sudo").map_or(Self::Nobody, Self::Sudo)
    }

    fn apt(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Sudo(sudo) => {
                let mut command = Command::new(sudo);
                command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
                command
            }
            _ => Command::new("apt-get"),
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
        command
    }
}

/// Whether packages can be had in Debian's way.
pub(crate) fn is_debian() -> bool {
    process::find("apt-get").is_some() && process::find("dpkg-deb").is_some()
}

/// The archive that packages are downloaded from, read through lists of our own where the system has none.
#[derive(Debug)]
pub(crate) struct Archive {
    cache: PathBuf,
    options: Vec<String>,
}

impl Archive {
    /// `cache` is where downloads stay.
    pub(crate) fn open(cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("{} cannot be made", cache.display()))?;
        let mut archive = Self { cache: cache.to_path_buf(), options: Vec::new() };
        if !has_package_lists() {
            archive.refresh()?;
        }
        Ok(archive)
    }

    /// Fetches package lists into the cache, which needs no rights.
    fn refresh(&mut self) -> Result<()> {
        let folder = self.cache.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        let shown = folder.display();
        self.options = vec![
            format!("--option=Dir::State::Lists={shown}/lists"),
            format!("--option=Dir::Cache={shown}"),
            "--option=APT::Sandbox::User=".to_owned(),
        ];
        let _step = LongStep::begin("Fetching", "Debian's package lists");
        process::output(Command::new("apt-get").args(&self.options).args(["--quiet", "update"]))?;
        Ok(())
    }

    /// The package that this one depends on and whose name starts with `prefix` (a meta package's real one).
    pub(crate) fn dependency(&mut self, package: &str, prefix: &str) -> Result<String> {
        let query = |options: &[String]| {
            process::output(Command::new("apt-cache").args(options).args(["depends", "--important", package]))
        };
        let text = match query(&self.options) {
            Ok(text) => text,
            Err(_) => {
                self.refresh()?;
                query(&self.options)?
            }
        };
        let mut words = text.split_whitespace();
        words
            .find(|word| word.starts_with(prefix) && *word != package)
            .map(str::to_owned)
            .with_context(|| format!("Debian's {package} names no package {prefix}…"))
    }

    /// Downloads a package and unpacks it into `folder`.
    pub(crate) fn unpack(&mut self, package: &str, folder: &Path) -> Result<()> {
        let file = match self.downloaded(package)? {
            Some(file) => file,
            None => self.download(package)?,
        };
        say::step("Unpacking", package);
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        process::output(Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder))?;
        Ok(())
    }

    fn download(&mut self, package: &str) -> Result<PathBuf> {
        let step = LongStep::begin("Downloading", package);
        let fetch = |archive: &Self| {
            let mut command = Command::new("apt-get");
            command.args(&archive.options).args(["--quiet", "--option=APT::Sandbox::User=", "download", package]);
            process::output(command.current_dir(&archive.cache))
        };
        if fetch(self).is_err() {
            // Most often the lists are older than the archive, which keeps only the newest version.
            self.refresh()?;
            fetch(self).with_context(|| format!("Debian's package {package} could not be downloaded"))?;
        }
        drop(step);
        self.downloaded(package)?.with_context(|| format!("apt-get said that it downloaded {package}, but did not"))
    }

    fn downloaded(&self, package: &str) -> Result<Option<PathBuf>> {
        let start = format!("{package}_");
        let entries = fs::read_dir(&self.cache).with_context(|| format!("{}", self.cache.display()))?;
        let mut files = entries.flatten().map(|entry| entry.path());
        Ok(files.find(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&start) && name.ends_with(".deb")
        }))
    }
}

fn has_package_lists() -> bool {
    fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
}
