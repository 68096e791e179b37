// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project: its folders, and its crates with what each is built for.
//!
//! A crate says in `[package.metadata.cloister] target` where it runs (see the root `Cargo.toml`); nothing here
//! or elsewhere in the tool lists crates by name, so a new component is built by being there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// Where a crate runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// Freestanding, on the machine.
    None,
    /// A `std` component: static, for the stock Linux target.
    Linux,
    /// The developer's host.
    Host,
    /// A library that does not care.
    Any,
}

#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) target: Target,
    /// The names of its programs.
    pub(crate) binaries: Vec<String>,
    pub(crate) folder: PathBuf,
    /// It has a feature `loom`: with it, its tests try every order of steps of its concurrent parts.
    pub(crate) loom: bool,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let text = process::output(
            Command::new(cargo())
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(manifest),
        )?;
        Self::from_metadata(&text)
    }

    fn from_metadata(text: &str) -> Result<Self> {
        let metadata: Metadata = serde_json::from_str(text).context("cargo's description of the workspace")?;
        let members = metadata.packages.into_iter().map(Member::from_package).collect::<Result<_>>()?;
        Ok(Self { root: metadata.workspace_root, members })
    }

    pub(crate) fn of(&self, target: Target) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.target == target)
    }

    /// Who builds this program.
    pub(crate) fn maker_of(&self, binary: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.binaries.iter().any(|name| name == binary))
    }

    /// The program of the crate in this folder, if the crate is there.
    pub(crate) fn program_of(&self, folder: &str) -> Option<&str> {
        let folder = self.root.join(folder);
        let member = self.members.iter().find(|member| member.folder == folder)?;
        member.binaries.first().map(String::as_str)
    }

    /// What was downloaded or made out of downloads; git ignores it.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join(".cache")
    }

    /// What was built here.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    pub(crate) fn scenarios(&self) -> PathBuf {
        self.root.join("tests/scenarios")
    }
}

impl Member {
    fn from_package(package: Package) -> Result<Self> {
        let name = package.name;
        let metadata = package
            .metadata
            .and_then(|all| all.cloister)
            .with_context(|| format!("{name} does not say in [package.metadata.cloister] what target it is for"))?;
        let binaries = package.targets.into_iter().filter(|target| target.kind.iter().any(|kind| kind == "bin"));
        let folder = package.manifest_path.parent().map(Path::to_path_buf).unwrap_or_default();
        let binaries = binaries.map(|target| target.name).collect();
        let loom = package.features.contains_key("loom");
        Ok(Self { target: metadata.target, binaries, folder, name, loom })
    }
}

/// The cargo that runs this tool, or the one in `PATH`.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<CargoTarget>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
    metadata: Option<PackageMetadata>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct PackageMetadata {
    cloister: Option<CloisterMetadata>,
}

#[derive(Deserialize)]
struct CloisterMetadata {
    target: Target,
}

#[cfg(test)]
mod tests {
    use super::{Target, Workspace};

    #[test]
    fn crates_say_what_they_are_for() {
        let text = r#"{"workspace_root": "/w", "packages": [
            {"name": "k", "manifest_path": "/w/k/Cargo.toml", "metadata": {"cloister": {"target": "none"}},
             "targets": [{"name": "k", "kind": ["lib"]}, {"name": "kernel", "kind": ["bin"]}]}]}"#;
        let workspace = Workspace::from_metadata(text).expect("well-formed");
        let member = workspace.maker_of("kernel").expect("a program");
        assert_eq!((member.name.as_str(), member.target), ("k", Target::None));
        assert!(workspace.maker_of("k").is_none());
    }

    #[test]
    fn a_crate_that_does_not_say_is_an_error() {
        let text = r#"{"workspace_root": "/w", "packages": [
            {"name": "k", "manifest_path": "/w/k/Cargo.toml", "metadata": null, "targets": []}]}"#;
        let error = Workspace::from_metadata(text).expect_err("no target");
        assert!(error.to_string().starts_with("k does not say"));
    }
}
