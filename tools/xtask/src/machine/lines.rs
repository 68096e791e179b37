// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial lines as sockets: this tool listens, QEMU connects.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Event;

/// A line that waits for QEMU.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// A new folder for sockets. It lies in the temporary folder, as a socket's path may have some 100 bytes at most.
pub(super) fn socket_folder() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("cloister-{}-{count}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

impl Listener {
    pub(super) fn bind(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the connection, for as long as QEMU lives and at most `patience`.
    pub(super) fn accept(&self, child: &mut Child, patience: Duration) -> Result<UnixStream> {
        let end = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = child.try_wait()? {
                bail!("it ended at once ({status})");
            }
            if Instant::now() > end {
                bail!("it did not connect to its serial lines");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads a line until its end, as events.
pub(super) fn read(mut stream: UnixStream, event: fn(Vec<u8>) -> Event, sender: Sender<Event>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 || sender.send(event(buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        drop(sender.send(Event::Closed));
    });
}
