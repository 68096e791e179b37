// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that both lines said, in the order in which it came, with the time: in a file, and the last of it
//! at hand for reports.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::scenario::Side;

/// Lines at hand.
const KEPT: usize = 200;

/// The record of one machine's run.
#[derive(Debug)]
pub(crate) struct Record {
    files: Vec<BufWriter<File>>,
    kept: VecDeque<String>,
    start: Instant,
}

impl Record {
    /// Records into these files.
    pub(crate) fn new(files: &[&Path]) -> Result<Self> {
        let open = |path: &&Path| {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            }
            let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
            anyhow::Ok(BufWriter::new(file))
        };
        Ok(Self { files: files.iter().map(open).collect::<Result<_>>()?, kept: VecDeque::new(), start: Instant::now() })
    }

    /// Since the machine's start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A line as it stands in a record.
    pub(crate) fn shown(time: Duration, side: Side, text: &str) -> String {
        let name = match side {
            Side::Console => "console",
            Side::Log => "log",
        };
        format!("{:9.3} {name:>7} | {text}", time.as_secs_f64())
    }

    pub(crate) fn line(&mut self, side: Side, text: &str) {
        let line = Self::shown(self.elapsed(), side, text);
        for file in &mut self.files {
            // A full disk must not end the run; the file is then short, as the user can see.
            drop(writeln!(file, "{line}").and_then(|()| file.flush()));
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        self.kept.iter().skip(self.kept.len().saturating_sub(count)).cloned().collect()
    }
}
