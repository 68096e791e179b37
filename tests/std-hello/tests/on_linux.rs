// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program on the developer's Linux: by itself, and with the personality between it and Linux (needs Linux 5.11 or newer,
//! for syscall user dispatch).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the static program as components are built; answers its path.
fn build(features: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(if features.is_empty() { "plain" } else { "bounced" });
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--target", TARGET, "--package", "cloister-std-hello", "--target-dir"]);
    cargo.arg(&folder).args(features).current_dir(env!("CARGO_MANIFEST_DIR"));
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    let flags = "-C target-feature=+crt-static -C relocation-model=static";
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags);
    assert!(cargo.status().expect("cargo runs").success(), "the program builds");
    folder.join(TARGET).join("debug/std-hello")
}

fn run(program: &Path) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run");
    std::fs::create_dir_all(folder.join("rom")).expect("a folder");
    std::fs::write(folder.join("rom/config"), "config\n-\n").expect("a file");
    let output = Command::new(program).current_dir(folder).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}\n{text}", output.status);
    text
}

#[cfg(test)]
mod tests {
    use super::{build, run};

    #[test]
    fn all_is_well_on_plain_linux() {
        let text = run(&build(&[]));
        assert!(text.contains("std-test on Linux"), "{text}");
        assert!(text.ends_with(" ok, 0 failed\n"), "{text}");
    }

    #[test]
    fn all_is_well_through_the_personality() {
        let program = build(&["--features", "on-linux"]);
        for _ in 0..5 {
            let text = run(&program);
            assert!(text.starts_with("[log] std-test on Linux"), "the personality prints: {text}");
            assert!(text.ends_with(" ok, 0 failed\n"), "{text}");
            assert!(!text.contains("not supported"), "{text}");
        }
    }
}
