// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads an ELF program into a component's PD and starts it. Core does that for init, and each sandbox for its children.
//!
//! What the program only reads or executes is attached straight out of its ROM, so it costs no RAM; what it writes is copied
//! into RAM that the child pays for. The program is foreign data; `cloister-elf` checks it before anything is done.
//!
//! Key types: [`load`], [`start`], [`Local`] (how the loader gets at memory to fill it).
#![no_std]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic, clippy::expect_used)]
#![expect(unsafe_code, reason = "writing to a dataspace that nobody else knows yet")]

use cloister_base::dataspace::Mapping;
use cloister_base::{Cap, Error, Link};
use cloister_elf::{ElfError, Policy, Segment};
use cloister_session::{Attach, CpuClient, PdClient, Rights, ThreadClient, ThreadFlags, ThreadStart, Transport};

/// Stack of a program's first thread, bytes.
pub const STACK: u64 = 128 << 10;
const PAGE: u64 = 4096;

/// Why a program could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file is not a program for this machine. Its maker is to blame.
    Corrupt(ElfError),
    /// A session said no: mostly, the child's quota does not suffice.
    Session(Error),
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Corrupt(why) => write!(f, "corrupt ELF program: {why}"),
            Self::Session(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<ElfError> for LoadError {
    fn from(why: ElfError) -> Self {
        Self::Corrupt(why)
    }
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

/// How the loader gets at the child's memory before the child does.
pub trait Local {
    /// Writes to a dataspace.
    ///
    /// # Errors
    /// What memory says.
    fn fill(&self, dataspace: Cap, offset: usize, data: &[u8]) -> Result<(), Error>;

    /// Drops a capability that the loader does not need any more.
    fn dismiss(&self, cap: Cap);
}

/// Memory is filled by attaching it to the loading component's own address space for a moment.
#[derive(Clone, Copy, Debug)]
pub struct Own;

impl Local for Own {
    fn fill(&self, dataspace: Cap, offset: usize, data: &[u8]) -> Result<(), Error> {
        let mut mapping = Mapping::writable(dataspace)?;
        // SAFETY: the dataspace was made for this and nobody else has it yet.
        let all = unsafe { mapping.bytes_mut() };
        let place = all.get_mut(offset..).and_then(|rest| rest.get_mut(..data.len()));
        let filled = place.map(|place| place.copy_from_slice(data)).ok_or(Error::Invalid);
        mapping.detach()?;
        filled
    }

    fn dismiss(&self, cap: Cap) {
        Link::from(cap).drop();
    }
}

/// Loads a program, whose file is `elf` and whose ROM's dataspace is `rom`, into a PD. Answers where it starts.
///
/// # Errors
/// See [`LoadError`]. What was attached until then stays: the PD is of no use any more.
pub fn load<T: Transport>(elf: &[u8], rom: Cap, child: &PdClient<T>, local: &impl Local) -> Result<u64, LoadError> {
    let image = cloister_elf::parse(&mut { elf }, &Policy::NATIVE)?;
    for segment in &image.segments {
        place(segment, elf, rom, child, local)?;
    }
    Ok(image.entry)
}

/// Puts one segment into a PD.
fn place<T: Transport>(
    segment: &Segment,
    elf: &[u8],
    rom: Cap,
    child: &PdClient<T>,
    local: &impl Local,
) -> Result<(), LoadError> {
    let address = segment.first_page();
    let size = segment.end_page().saturating_sub(address);
    let lead = segment.address.saturating_sub(address);
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, segment.writable);
    rights.set(Rights::EXEC, segment.executable);
    if segment.shares_rom() {
        let offset = segment.offset.saturating_sub(lead);
        child.attach(rom.object(), Attach { offset, size, address: Some(address), rights })?;
        return Ok(());
    }
    let dataspace = child.alloc(size, 12)?;
    let content = usize::try_from(segment.offset).ok().and_then(|offset| elf.get(offset..));
    let content = usize::try_from(segment.file_size).ok().and_then(|length| content?.get(..length)).unwrap_or(&[]);
    if !content.is_empty() {
        local.fill(dataspace, usize::try_from(lead).map_err(|_| Error::Invalid)?, content)?;
    }
    child.attach(dataspace.object(), Attach::at(address, rights))?;
    local.dismiss(dataspace);
    Ok(())
}

/// Makes a stack in a PD, with a page below it that is not mapped. Answers its top.
///
/// # Errors
/// What the PD says.
pub fn stack<T: Transport>(child: &PdClient<T>, size: u64, local: &impl Local) -> Result<u64, Error> {
    let whole = size.checked_add(PAGE).ok_or(Error::Invalid)?;
    let base = child.reserve(None, whole)?;
    let first = base.checked_add(PAGE).ok_or(Error::Invalid)?;
    let dataspace = child.alloc(size, 12)?;
    child.attach(dataspace.object(), Attach::at(first, Rights::RW))?;
    local.dismiss(dataspace);
    base.checked_add(whole).ok_or(Error::Invalid)
}

/// Starts the first thread of a program. Answers the thread.
///
/// # Errors
/// What PD and CPU say.
pub fn start<T: Transport>(
    name: &str,
    ip: u64,
    (pd, child): (Cap, &PdClient<T>),
    cpu: &CpuClient<T>,
    local: &impl Local,
) -> Result<Cap, Error> {
    let sp = stack(child, STACK, local)?;
    let start = ThreadStart { ip, sp, core: 0, priority: 0, flags: ThreadFlags::FPU };
    let thread = cpu.create_thread(pd.object(), name, start)?;
    ThreadClient(Link::from(thread)).start()?;
    Ok(thread)
}
