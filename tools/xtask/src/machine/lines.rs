// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial lines as sockets: this tool listens, the emulator connects.

use std::fs;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Event;

/// A line that waits for the emulator.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    address: String,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    /// The connection, as a file whose reads and writes wait.
    fn accept(&self) -> io::Result<File> {
        let descriptor: OwnedFd = match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.into()
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.into()
            }
        };
        Ok(descriptor.into())
    }
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
    /// A socket in that folder.
    pub(super) fn bind(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(listener), address: path.display().to_string() })
    }

    /// A port of this host alone, for emulators that know no other sockets.
    pub(super) fn bind_port() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on 127.0.0.1 can be had")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        Ok(Self { socket: Socket::Tcp(listener), address })
    }

    /// Where the emulator must connect.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Waits for the connection, for as long as the emulator lives and at most `patience`.
    pub(super) fn accept(&self, child: &mut Child, patience: Duration) -> Result<File> {
        let end = Instant::now() + patience;
        loop {
            match self.socket.accept() {
                Ok(stream) => return Ok(stream),
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
pub(super) fn read(mut stream: File, event: fn(Vec<u8>) -> Event, sender: Sender<Event>) {
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
