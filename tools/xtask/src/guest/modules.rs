// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel modules: which ones the guest needs, and in which order they load.
//!
//! A package carries no `modules.dep` (the installation makes it), so the dependencies are read where `depmod`
//! reads them: in the text that each module carries about itself, NUL-separated `key=value` words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What the guest's devices need; what these need themselves is found out.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_console", "virtio_rng"];

/// The modules to load, each after all that it depends on.
pub(crate) fn wanted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    collect(folder, &mut files)?;
    let mut order = Vec::new();
    for name in DRIVERS {
        add(name, &files, &mut order)?;
    }
    Ok(order)
}

/// All modules below a folder by name; file names may have hyphens where names have underscores.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
            files.insert(stem, path);
        }
    }
    Ok(())
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    let path = files.get(name).with_context(|| format!("the kernel's package has no module {name}"))?;
    if order.contains(path) {
        return Ok(());
    }
    let content = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    for dependency in depends(&content) {
        add(&dependency, files, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The modules that a module says it depends on.
fn depends(content: &[u8]) -> Vec<String> {
    let words = content.split(|&byte| byte == 0);
    let list = words.filter_map(|word| word.strip_prefix(b"depends=")).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=virtio,virtio-ring\0name=x\0"), ["virtio", "virtio_ring"]);
        assert!(depends(b"\x7fELF\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }
}
