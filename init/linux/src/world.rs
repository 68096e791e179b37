// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Kernel`] of the personality on the microhypervisor: sessions of the component, hypercalls, and its own memory.

use crate::{access, arch, program};
use cloister_abi::cap::Selector;
use cloister_abi::hypercall::{DownFlags, SmDown, Yield};
use cloister_abi::status::Status;
use cloister_base::session::{self, Session};
use cloister_base::sessions::{Attach, Rights, RomClient, ThreadClient, ThreadFlags, ThreadStart};
use cloister_base::{Cap, Error, Link, env, selectors, signal, time};
use cloister_personality::files::LINE;
use cloister_personality::threads::SLOTS;
use cloister_personality::{Errno, Handle, Kernel, Prot, Rom, Start};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most boot modules open at once.
const ROMS: usize = 32;

/// The world of a component.
#[derive(Debug)]
pub(crate) struct World {
    /// Semaphore of each thread; 0 for slots that no thread has had yet.
    semaphores: [AtomicU32; SLOTS],
    roms: [OpenRom; ROMS],
    processors: usize,
}

/// An open ROM session: selector of the content's dataspace, and the session's selector and name.
#[derive(Debug)]
struct OpenRom {
    dataspace: AtomicU32,
    session: AtomicU32,
    id: AtomicU64,
}

impl OpenRom {
    const fn closed() -> Self {
        Self { dataspace: AtomicU32::new(0), session: AtomicU32::new(0), id: AtomicU64::new(0) }
    }
}

impl World {
    pub(crate) const fn new() -> Self {
        Self {
            semaphores: [const { AtomicU32::new(0) }; SLOTS],
            roms: [const { OpenRom::closed() }; ROMS],
            processors: 1,
        }
    }

    /// Gives the first thread its semaphore.
    ///
    /// # Errors
    /// What the PD session says.
    pub(crate) fn prepare(&mut self, processors: u32) -> Result<(), Error> {
        self.processors = usize::try_from(processors).unwrap_or(1);
        let semaphore = env::pd().alloc_semaphore(0)?;
        self.set_semaphore(0, semaphore.cap.selector);
        Ok(())
    }

    fn set_semaphore(&self, slot: usize, semaphore: Selector) {
        if let Some(entry) = self.semaphores.get(slot) {
            entry.store(semaphore, Ordering::Release);
        }
    }

    fn semaphore_of(&self, slot: usize) -> Selector {
        self.semaphores.get(slot).map_or(0, |entry| entry.load(Ordering::Acquire))
    }

    /// Makes a thread for a slot that has had none.
    fn first_thread(&self, slot: usize, sp: u64) -> Result<(), Error> {
        let semaphore = env::pd().alloc_semaphore(0)?;
        self.set_semaphore(slot, semaphore.cap.selector);
        start_thread(sp).inspect_err(|_| {
            self.set_semaphore(slot, 0);
            selectors::drop_capability(semaphore.cap.selector);
            // If it can't be freed, it stays charged.
            let _ = env::pd().free_object(semaphore.handle);
        })
    }
}

fn start_thread(sp: u64) -> Result<(), Error> {
    let start = ThreadStart { ip: arch::thread_start(), sp, core: 0, priority: 0, flags: ThreadFlags::FPU };
    let thread = env::cpu().create_thread(Cap::new(selectors::PD).object(), "thread", start)?;
    ThreadClient(Link::from(thread)).start().inspect_err(|_| {
        // Nothing more can be done about a thread that can neither be started nor ended.
        let _ = env::cpu().kill(thread.object());
        Link::from(thread).drop();
    })
}

/// What a failed call means to a program.
fn errno(error: Error) -> Errno {
    match error {
        Error::NotFound => Errno::NOENT,
        Error::Denied => Errno::ACCES,
        Error::Invalid | Error::Malformed => Errno::INVAL,
        _ => Errno::NOMEM,
    }
}

const fn rights(prot: Prot) -> Rights {
    match prot {
        Prot::None => Rights::empty(),
        Prot::Read => Rights::READ,
        Prot::Write => Rights::RW,
        Prot::Exec => Rights::RX,
    }
}

/// What the parent is told.
fn reason(code: i32) -> &'static str {
    match code {
        0 => "done",
        134 => "aborted",
        _ => "failed",
    }
}

impl Kernel for World {
    fn ram_alloc(&self, size: u64, align: u64) -> Result<Handle, Errno> {
        env::pd().alloc(size, align.trailing_zeros()).map(|ram| Handle(ram.selector)).map_err(|_| Errno::NOMEM)
    }

    fn ram_free(&self, ram: Handle) {
        // What can't be freed stays charged to this component.
        let _ = env::pd().free(Cap::new(ram.0).object());
        selectors::drop_capability(ram.0);
    }

    fn attach(&self, ds: Handle, offset: u64, address: u64, size: u64, prot: Prot) -> Result<(), Errno> {
        let place = Attach { offset, size, address: Some(address), rights: rights(prot) };
        env::pd().attach(Cap::new(ds.0).object(), place).map(|_| ()).map_err(|error| match error {
            Error::Denied => Errno::ACCES,
            _ => Errno::NOMEM,
        })
    }

    fn detach(&self, address: u64, _: u64) {
        // It was attached; there is nobody else who could have detached it.
        let _ = env::pd().detach(address);
    }

    fn rom_open(&self, name: &str) -> Result<Rom, Errno> {
        let session = session::open("ROM", name, "", session::USUAL).map_err(errno)?;
        let entry = self.roms.iter().find(|entry| {
            let taken = entry.session.compare_exchange(0, session.cap.selector, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        });
        let content = RomClient(session.link()).content().map_err(errno);
        let (Some(entry), Ok(content)) = (entry, content) else {
            if let Some(entry) = entry {
                entry.session.store(0, Ordering::Release);
            }
            let _ = session.close();
            return Err(content.err().unwrap_or(Errno::MFILE));
        };
        entry.id.store(session.id, Ordering::Release);
        entry.dataspace.store(content.dataspace.selector, Ordering::Release);
        Ok(Rom { handle: Handle(content.dataspace.selector), size: content.size })
    }

    fn rom_close(&self, rom: Handle) {
        let Some(entry) = self.roms.iter().find(|entry| entry.dataspace.load(Ordering::Acquire) == rom.0) else {
            return;
        };
        entry.dataspace.store(0, Ordering::Release);
        let cap = Cap::new(entry.session.load(Ordering::Acquire));
        let session = Session { id: entry.id.load(Ordering::Acquire), cap };
        entry.session.store(0, Ordering::Release);
        selectors::drop_capability(rom.0);
        let _ = session.close();
    }

    fn read(&self, address: u64, bytes: &mut [u8]) {
        access::read(address, bytes);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        access::write(address, bytes);
    }

    fn copy(&self, to: u64, from: u64, size: u64) {
        access::copy(to, from, size);
    }

    fn zero(&self, address: u64, size: u64) {
        access::zero(address, size);
    }

    fn load(&self, address: u64) -> u32 {
        access::load(address)
    }

    fn store(&self, address: u64, value: u32) {
        access::store(address, value);
    }

    fn current(&self) -> usize {
        arch::slot()
    }

    fn wait(&self, deadline: Option<u64>) -> bool {
        let sm = self.semaphore_of(arch::slot());
        let down = SmDown { sm, flags: DownFlags::ZERO.bits(), deadline: deadline.unwrap_or(0) };
        // SAFETY: waits; nothing else happens.
        !matches!(unsafe { cloister_stubs::invoke(&down) }, Err(Status::Timeout))
    }

    fn wake(&self, slot: usize) {
        signal::up(self.semaphore_of(slot));
    }

    fn relax(&self) {
        // SAFETY: gives up the rest of the time slice; nothing else happens.
        let _ = unsafe { cloister_stubs::invoke(&Yield {}) };
    }

    fn spawn(&self, slot: usize, start: &Start) -> Result<(), Errno> {
        // SAFETY: the personality hands on what `program::dispatch` gave it, and libc made the stack for the thread.
        let stack = unsafe { arch::prepare_thread(slot, start) }?;
        if self.semaphore_of(slot) != 0 {
            program::restart(slot, stack);
            return Ok(());
        }
        self.first_thread(slot, stack).map_err(|_| Errno::AGAIN)
    }

    fn processors(&self) -> usize {
        self.processors
    }

    fn ticks(&self) -> u64 {
        time::now()
    }

    fn entropy(&self) -> u64 {
        arch::entropy()
    }

    fn log(&self, line: &[u8]) {
        let mut text = [b'?'; LINE];
        let line = match core::str::from_utf8(line) {
            Ok(line) => line,
            Err(_) => {
                for (to, from) in text.iter_mut().zip(line).filter(|(_, from)| from.is_ascii()) {
                    *to = *from;
                }
                text.get(..line.len()).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or_default()
            }
        };
        // There is nowhere else to complain to.
        let _ = env::log().write(line);
    }

    fn exit(&self, code: i32) {
        // The parent may take its time; the caller waits for its end.
        let _ = env::parent().exit(i64::from(code), reason(code));
    }
}
