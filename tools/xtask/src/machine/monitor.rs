// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor: stops the machine, reads its memory, takes its picture. The protocol is QMP: a JSON object a line
//! (QEMU, docs/interop/qmp-spec).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection to the monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: BufReader<File>,
}

impl Monitor {
    pub(super) fn new(stream: File) -> Result<Self> {
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.read().context("the monitor's greeting")?;
        monitor.command("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the emulator has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("the monitor said {line:?}"))
    }

    /// Does something, and answers what came of it.
    fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": name, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(line.as_bytes()).with_context(|| format!("the monitor's {name}"))?;
        loop {
            let mut said = self.read().with_context(|| format!("the monitor's {name}"))?;
            if let Some(error) = said.get("error") {
                bail!("the monitor's {name}: {error}");
            }
            // Anything else is an event that nobody waits for.
            if let Some(result) = said.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Stops the machine, so that its memory stays as it is.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.command("stop", &json!({})).map(drop)
    }

    /// Reads physical memory.
    pub(crate) fn memory(&mut self, address: u64, size: usize, scratch: &Path) -> Result<Vec<u8>> {
        let file = std::path::absolute(scratch)?;
        self.command("pmemsave", &json!({ "val": address, "size": size, "filename": file }))?;
        let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        fs::remove_file(&file)?;
        Ok(bytes)
    }

    /// Takes a picture of the screen, as PNG.
    pub(crate) fn picture(&mut self, file: &Path) -> Result<()> {
        let file = std::path::absolute(file)?;
        self.command("screendump", &json!({ "filename": file, "format": "png" })).map(drop)
    }
}
