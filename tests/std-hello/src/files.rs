// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files: small devices, and boot modules under `/rom`.

use crate::{Check, ensure, text};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

pub(crate) fn files() -> Check {
    ensure!(File::open("/there/is/none").is_err_and(|error| error.kind() == ErrorKind::NotFound));
    let mut random = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(text)?;
    ensure!(random != [0; 32]);
    let mut typed = Vec::new();
    if cloister_linux::is_cloister() {
        std::io::stdin().read_to_end(&mut typed).map_err(text)?;
        ensure!(typed.is_empty());
    }
    let mut null = File::options().write(true).open("/dev/null").map_err(text)?;
    ensure!(null.write(b"gone").map_err(text)? == 4);
    Ok(())
}

/// The program's configuration, which each component has.
pub(crate) fn rom() -> Check {
    const PATH: &str = "/rom/config";
    if !cloister_linux::is_cloister() && !fs::exists(PATH).unwrap_or(false) {
        return Ok(());
    }
    let whole = fs::read(PATH).map_err(text)?;
    ensure!(whole.starts_with(b"config"));
    let mut file = File::open(PATH).map_err(text)?;
    ensure!(file.metadata().map_err(text)?.len() == whole.len() as u64);
    ensure!(file.seek(SeekFrom::Start(3)).map_err(text)? == 3);
    let mut three = [0; 3];
    file.read_exact(&mut three).map_err(text)?;
    ensure!(&three == b"fig");
    ensure!(File::open("/rom/there-is-none").is_err());
    ensure!(File::create(PATH).is_err());
    Ok(())
}
