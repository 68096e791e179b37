// SPDX-License-Identifier: MIT OR Apache-2.0
//! A component that behaves as its configuration says: well, or badly in one way.
//!
//! | `behave:` | what it does |
//! |---|---|
//! | `exit` | exits with the `code` and `reason` of its configuration |
//! | `stay` | says that it is there, and waits |
//! | `crash` | reads from address 0 |
//! | `panic` | panics |
//! | `acpi` | reads ACPI tables, and exits with 0 if they are whole; says where the screen is |
//! | `rubbish` | sends messages that no interface has to everybody that it knows, and exits with 0 if each got an error |
//! | `greedy` | takes RAM, capabilities and sessions until each is refused, and exits with 0 if the refusals name numbers |
#![cfg_attr(target_os = "none", no_std, no_main)]
#![expect(unsafe_code, reason = "a crash")]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};

use cloister_base::rom::Rom;
use cloister_base::session::{self, USUAL};
use cloister_base::sessions::{Decoder, Encoder, Resources, Transport, id};
use cloister_base::{Component, Error, Link, ObjectId, entry, env, selectors};
use cloister_hid::parse_bytes;

struct Probe;

impl Component for Probe {
    fn new() -> Result<Self, Error> {
        let rom = Rom::open("config")?;
        let document = parse_bytes(rom.bytes()).map_err(|_| Error::Invalid)?;
        let value = |tag: &str| document.root.value(tag).map(ToString::to_string);
        let (code, reason) = match value("behave").as_deref() {
            Some("exit") => (value("code").and_then(|code| code.parse().ok()).unwrap_or(0), value("reason")),
            Some("crash") => crash(),
            Some("panic") => panicking(),
            Some("acpi") => verdict(acpi()),
            Some("rubbish") => verdict(rubbish()),
            Some("greedy") => verdict(greedy()),
            _ => {
                log::info!("here");
                return Ok(Self);
            }
        };
        // The component exits by itself when its construction returns, but not with these words.
        env::exit(code, &reason.unwrap_or_default())
    }

    fn call(&mut self, _: ObjectId, _: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        entry::refuse(reply, Error::NoSuchObject);
    }

    fn signals(&mut self, _: u64) {}
}

/// Reads an ACPI table.
fn acpi() -> Result<String, String> {
    let open = |name: &str| Rom::open(name).map_err(|error| format!("the ROM {name} can't be opened: {error}"));
    let info = open("platform_info")?;
    let info = parse_bytes(info.bytes()).map_err(|_| "platform_info can't be read".to_string())?;
    let (table, code) = (open("acpi/APIC")?, open("acpi/DSDT")?);
    for (table, signature) in [(table.bytes(), b"APIC"), (code.bytes(), b"DSDT")] {
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if !table.starts_with(signature) || sum != 0 {
            return Err(format!("a table of {} bytes is damaged, its sum is {sum}", table.len()));
        }
    }
    let screen = info.root.first("framebuffer").map(|screen| {
        let value = |tag| screen.value(tag).unwrap_or("?");
        format!(", screen of {} x {} pixels at {}", value("width"), value("height"), value("address"))
    });
    let (table, code) = (table.bytes().len(), code.bytes().len());
    Ok(format!("{}, APIC of {table} bytes, DSDT of {code}{}", info.root.kind, screen.unwrap_or_default()))
}

fn verdict(outcome: Result<String, String>) -> (i64, Option<String>) {
    match outcome {
        Ok(good) => (0, Some(good)),
        Err(bad) => (1, Some(bad)),
    }
}

fn crash() -> ! {
    // SAFETY: nothing is mapped there: the read ends this thread.
    unsafe { core::ptr::without_provenance::<u64>(8).read_volatile() };
    env::exit(2, "survived a crash")
}

fn panicking() -> ! {
    panic!("the probe panics as it was told to")
}

/// Sends nonsense to everybody.
fn rubbish() -> Result<String, String> {
    let peers = [
        ("parent", selectors::PARENT),
        ("PD session", selectors::PD),
        ("CPU session", selectors::CPU),
        ("LOG session", selectors::LOG),
        ("program's ROM session", selectors::BINARY),
    ];
    let mut refused = 0_u32;
    for (name, selector) in peers {
        for operation in [0, 1, 2, 5, 6, 10, 99, u64::MAX] {
            for words in [0, 1, 7, usize::MAX] {
                match nonsense(selector, operation, words) {
                    // A server that is gone would be one that the message brought down.
                    Err(Error::ServerGone) => return Err(format!("the {name} is gone after operation {operation}")),
                    Err(_) => refused = refused.saturating_add(1),
                    Ok(()) => {}
                }
            }
        }
    }
    let again = env::parent().session_cap(id::PD).map_err(|error| format!("the parent says {error} afterwards"))?;
    if let Some(cap) = again {
        Link::from(cap).drop();
    }
    Ok(format!("rubbish refused {refused} times"))
}

/// Sends an operation with so many words of nonsense behind it, or as many as a message holds.
fn nonsense(peer: u32, operation: u64, words: usize) -> Result<(), Error> {
    Link(peer).exchange(
        0,
        |message| {
            message.word(operation)?;
            for _ in 0..words {
                if message.word(0xdead_beef_dead_beef).is_err() {
                    break;
                }
            }
            Ok(())
        },
        |answer| match answer.word()? {
            0 => Ok(()),
            code => Err(Error::from_raw([code, answer.word()?, answer.word()?])),
        },
    )
}

/// Takes all that it can get.
fn greedy() -> Result<String, String> {
    let ram = loop {
        match env::pd().alloc(64 << 10, 12) {
            Ok(dataspace) => Link::from(dataspace).drop(),
            Err(error) => break error,
        }
    };
    let caps = loop {
        match env::pd().alloc_semaphore(0) {
            Ok(made) => Link::from(made.cap).drop(),
            Err(error) => break error,
        }
    };
    let donation = Resources { ram: 0, caps: 0 };
    let session = match session::open("LOG", "more", "", donation) {
        Ok(_) => return Err("a LOG session for nothing".to_string()),
        Err(error) => error,
    };
    let unpaid = session::open("LOG", "more", "", USUAL).err();
    match (ram, caps, session, unpaid) {
        (
            Error::OutOfRam { needed, available },
            Error::OutOfCaps { .. } | Error::OutOfRam { .. },
            Error::OutOfRam { .. } | Error::OutOfCaps { .. },
            Some(Error::OutOfRam { .. } | Error::OutOfCaps { .. }),
        ) if needed > available => Ok("all was refused in the end".to_string()),
        other => Err(format!("unexpected: {other:?}")),
    }
}

cloister_base::component!(Probe);

#[cfg(not(target_os = "none"))]
fn main() {
    // So that the host's compiler checks the whole program.
    let _program: extern "sysv64" fn() -> ! = cloister_base::started::<Probe>;
    eprintln!("the probe runs on the machine only");
    std::process::exit(2);
}
