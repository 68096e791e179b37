// SPDX-License-Identifier: MIT OR Apache-2.0
//! [`Platform`] on the component framework.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use cloister_base::session::{self, USUAL};
use cloister_base::sessions::{
    Affinity, Attach, CpuClient, ParentSignal, PdClient, PlatformClient, Resources, Rights, ThreadClient, ThreadFlags,
    ThreadStart,
};
use cloister_base::{Cap, Error, Link, ObjectId, Portal, Registry, env, signal};
use cloister_init_config::OnAllExited;

use super::Served;
use super::local::LocalServices;
use super::memory::{Content, own, own_account};
use super::text_rom::TextRom;
use crate::platform::{ChildId, LogLevel, Platform, SessionId, SessionRequest};
use crate::quota::Quota;
use cloister_elf::{PAGE, Policy, Segment};

/// Stack of a child's first thread, bytes; programs that need more make themselves another. Below it one page stays free.
const STACK: u64 = 64 << 10;
/// Kinds of news that a child may have a signal for.
const SIGNALS: [ParentSignal; 5] = [
    ParentSignal::SessionReady,
    ParentSignal::SessionRequests,
    ParentSignal::ResourceAvail,
    ParentSignal::Yield,
    ParentSignal::Heartbeat,
];

/// What the system holds for a child.
#[derive(Debug)]
struct Hosted {
    name: String,
    object: ObjectId,
    portal: Portal,
    handlers: [Option<Cap>; SIGNALS.len()],
    /// News that came before there was a handler for it.
    missed: [bool; SIGNALS.len()],
    /// CPU session and first thread.
    thread: Option<(Cap, Cap)>,
}

/// An object of ours that a child holds as a session.
#[derive(Debug)]
struct Offered {
    object: ObjectId,
    portal: Portal,
    text: Option<TextRom>,
}

/// [`Platform`] on the component framework.
#[derive(Debug)]
pub struct System<L> {
    local: L,
    fault: Cap,
    registry: Registry<Served>,
    children: BTreeMap<ChildId, Hosted>,
    offered: BTreeMap<SessionId, Offered>,
    /// Capabilities of sessions at our parent.
    at_parent: BTreeMap<SessionId, Cap>,
    /// The program that is being loaded, by the selector of its ROM session.
    loading: Option<(Cap, Content)>,
}

impl<L: LocalServices> System<L> {
    pub(super) fn new(local: L, fault: Cap) -> Self {
        Self {
            local,
            fault,
            registry: Registry::new(),
            children: BTreeMap::new(),
            offered: BTreeMap::new(),
            at_parent: BTreeMap::new(),
            loading: None,
        }
    }

    /// The services of the program's own.
    pub fn local(&mut self) -> &mut L {
        &mut self.local
    }

    pub(super) fn served(&self, object: ObjectId) -> Option<Served> {
        self.registry.get(object).copied()
    }

    pub(super) fn text(&mut self, session: SessionId) -> Option<&mut TextRom> {
        self.offered.get_mut(&session)?.text.as_mut()
    }

    /// The CPU sessions of running children.
    pub(super) fn processors(&self) -> Vec<(ChildId, Cap)> {
        self.children.iter().filter_map(|(child, hosted)| Some((*child, hosted.thread?.0))).collect()
    }

    pub(super) fn set_handler(&mut self, child: ChildId, kind: ParentSignal, handler: Option<Cap>) {
        let index = SIGNALS.iter().position(|known| *known == kind);
        let place = self.children.get_mut(&child).zip(index);
        let Some((hosted, index)) = place else { return };
        let Some(slot) = hosted.handlers.get_mut(index) else { return };
        let old = core::mem::replace(slot, handler);
        if let Some(old) = old {
            Link::from(old).drop();
        }
        let missed = hosted.missed.get_mut(index).map(core::mem::take).unwrap_or_default();
        if let Some(handler) = handler.filter(|_| missed) {
            signal::up(handler.selector);
        }
    }

    /// Makes an object of ours and a portal to it.
    fn offer(&mut self, served: Served) -> Result<(ObjectId, Portal), Error> {
        let object = self.registry.insert(served)?;
        match Portal::new(object) {
            Ok(portal) => Ok((object, portal)),
            Err(error) => {
                self.registry.remove(object);
                Err(error)
            }
        }
    }

    fn withdraw(&mut self, object: ObjectId, portal: Portal) {
        self.registry.remove(object);
        if let Err(error) = portal.free() {
            log::warn!("a portal could not be freed: {error}");
        }
    }

    fn close_offered(&mut self, id: SessionId) {
        let Some(offered) = self.offered.remove(&id) else { return };
        self.withdraw(offered.object, offered.portal);
        if let Some(text) = offered.text {
            text.free();
        }
    }

    /// The content of a program's ROM, attached until the program runs or is given up.
    fn content(&mut self, rom: Cap) -> Result<&Content, Error> {
        if self.loading.as_ref().is_none_or(|(loading, _)| *loading != rom) {
            self.finish_loading();
            self.loading = Some((rom, Content::of(rom)?));
        }
        self.loading.as_ref().map(|(_, content)| content).ok_or(Error::NotFound)
    }

    fn finish_loading(&mut self) {
        if let Some((_, content)) = self.loading.take() {
            content.release();
        }
    }

    fn power_off(&mut self) {
        let platform = session::open("Platform", "", "", USUAL);
        let done = platform.and_then(|platform| PlatformClient(platform.link()).power_off(0));
        if let Err(error) = done {
            log::error!("all children exited, but the machine cannot be powered off: {error}");
        }
    }
}

fn resources(quota: Quota) -> Resources {
    Resources { ram: quota.ram, caps: quota.caps }
}

/// Puts a segment into a child's address space: the ROM's own pages if nothing of it differs, else a copy.
fn map(pd: PdClient<Link>, content: &Content, segment: &Segment) -> Result<(), Error> {
    let (first, end) = (segment.first_page(), segment.end_page());
    let size = end.checked_sub(first).ok_or(Error::Invalid)?;
    let rights = match (segment.executable, segment.writable) {
        (true, _) => Rights::RX,
        (false, true) => Rights::RW,
        (false, false) => Rights::READ,
    };
    if segment.shares_rom() {
        let offset = segment.offset & !(PAGE.wrapping_sub(1));
        let place = Attach { offset, size, address: Some(first), rights };
        return pd.attach(content.dataspace().object(), place).map(|_| ());
    }
    let skip = segment.address.checked_sub(first).ok_or(Error::Invalid)?;
    let dataspace = content.copy_to(pd, size, (segment.offset, segment.file_size, skip))?;
    let attached = pd.attach(dataspace.object(), Attach::at(first, rights));
    Link::from(dataspace).drop();
    attached.map(|_| ())
}

/// Makes a stack in a child's address space; answers its top.
fn stack(pd: PdClient<Link>) -> Result<u64, Error> {
    let base = pd.reserve(None, STACK.saturating_add(PAGE))?;
    let bottom = base.checked_add(PAGE).ok_or(Error::Invalid)?;
    let dataspace = pd.alloc(STACK, 12)?;
    let attached = pd.attach(dataspace.object(), Attach::at(bottom, Rights::RW));
    Link::from(dataspace).drop();
    attached?;
    bottom.checked_add(STACK).ok_or(Error::Invalid)
}

impl<L: LocalServices> Platform for System<L> {
    type Cap = Cap;

    fn log(&mut self, level: LogLevel, line: fmt::Arguments<'_>) {
        match level {
            LogLevel::Info => log::info!("{line}"),
            LogLevel::Warning => log::warn!("{line}"),
            LogLevel::Error => log::error!("{line}"),
        }
    }

    fn available(&mut self) -> Quota {
        own().quota().map_or(Quota::NONE, |quota| Quota::new(quota.ram_available(), quota.caps_available()))
    }

    fn session_cost(&self, service: &str) -> Quota {
        // A PD session brings a kernel PD with a budget.
        let ram = if service == "PD" { 48 << 10 } else { USUAL.ram };
        Quota::new(ram, USUAL.caps)
    }

    fn child_cost(&self) -> Quota {
        // Portal, its configuration's memory and portal, and the kernel memory for capabilities that come from it.
        Quota::new(8 << 10, 4)
    }

    fn policy(&self) -> Policy {
        Policy::NATIVE
    }

    fn open_at_parent(&mut self, id: SessionId, request: SessionRequest<'_>) -> Result<Option<Cap>, Error> {
        let SessionRequest { service, label, args, donation } = request;
        let opened = env::parent().session(id.0, service, label, args, resources(donation), Affinity::default())?;
        if let Some(cap) = opened {
            self.at_parent.insert(id, cap);
        }
        Ok(opened)
    }

    fn poll_parent(&mut self, id: SessionId) -> Result<Option<Cap>, Error> {
        let ready = env::parent().session_cap(id.0)?;
        if let Some(cap) = ready {
            self.at_parent.insert(id, cap);
        }
        Ok(ready)
    }

    fn upgrade_at_parent(&mut self, id: SessionId, more: Quota) -> Result<(), Error> {
        env::parent().upgrade(id.0, resources(more))
    }

    fn close_at_parent(&mut self, id: SessionId) {
        if let Some(cap) = self.at_parent.remove(&id) {
            if self.loading.as_ref().is_some_and(|(rom, _)| *rom == cap) {
                self.finish_loading();
            }
            Link::from(cap).drop();
        }
        if let Err(error) = env::parent().close(id.0) {
            log::error!("a session could not be closed: {error}");
        }
    }

    fn local_services(&self) -> Vec<&'static str> {
        self.local.services()
    }

    fn open_local(&mut self, id: SessionId, client: ChildId, request: SessionRequest<'_>) -> Result<Cap, Error> {
        self.local.open(id, client, request)?;
        match self.offer(Served::Local(id)) {
            Ok((object, portal)) => {
                self.offered.insert(id, Offered { object, portal, text: None });
                Ok(portal.cap())
            }
            Err(error) => {
                self.local.close(id);
                Err(error)
            }
        }
    }

    fn upgrade_local(&mut self, id: SessionId, more: Quota) -> Result<(), Error> {
        self.local.upgrade(id, more)
    }

    fn close_local(&mut self, id: SessionId) {
        self.close_offered(id);
        self.local.close(id);
    }

    fn open_rom(&mut self, id: SessionId, content: &str, donation: Quota) -> Result<Cap, Error> {
        let pages = u64::try_from(content.len()).unwrap_or(u64::MAX).checked_next_multiple_of(PAGE);
        let needed = pages.ok_or(Error::TooLong)?;
        if donation.ram < needed {
            return Err(Error::OutOfRam { needed, available: donation.ram });
        }
        // A portal and the memory.
        if donation.caps < 2 {
            return Err(Error::OutOfCaps { needed: 2, available: donation.caps });
        }
        let text = TextRom::new(content)?;
        match self.offer(Served::Text(id)) {
            Ok((object, portal)) => {
                self.offered.insert(id, Offered { object, portal, text: Some(text) });
                Ok(portal.cap())
            }
            Err(error) => {
                text.free();
                Err(error)
            }
        }
    }

    fn update_rom(&mut self, id: SessionId, content: &str) {
        if let Some(Err(error)) = self.text(id).map(|text| text.update(content)) {
            log::error!("a child's configuration could not be updated: {error}");
        }
    }

    fn close_rom(&mut self, id: SessionId) {
        self.close_offered(id);
    }

    fn adopt(&mut self, child: ChildId, name: &str, pd: &Cap) -> Result<(), Error> {
        let client = PdClient(Link::from(*pd));
        client.reference_account(own_account())?;
        let (object, portal) = self.offer(Served::Parent(child))?;
        if let Err(error) = client.assign_parent(portal.cap()) {
            self.withdraw(object, portal);
            return Err(error);
        }
        let (handlers, missed) = ([None; SIGNALS.len()], [false; SIGNALS.len()]);
        let hosted = Hosted { name: name.to_string(), object, portal, handlers, missed, thread: None };
        self.children.insert(child, hosted);
        Ok(())
    }

    fn give(&mut self, pd: &Cap, quota: Quota) -> Result<(), Error> {
        own().transfer_quota(pd.object(), resources(quota))
    }

    fn take(&mut self, pd: &Cap, quota: Quota) -> Result<(), Error> {
        PdClient(Link::from(*pd)).transfer_quota(own_account(), resources(quota))
    }

    fn left(&mut self, pd: &Cap) -> Quota {
        let quota = PdClient(Link::from(*pd)).quota();
        quota.map_or(Quota::NONE, |quota| Quota::new(quota.ram_available(), quota.caps_available()))
    }

    fn rom_len(&mut self, rom: &Cap) -> Result<u64, Error> {
        self.content(*rom).map(|content| content.size)
    }

    fn rom_read(&mut self, rom: &Cap, offset: u64, buffer: &mut [u8]) -> bool {
        self.content(*rom).is_ok_and(|content| content.read(offset, buffer))
    }

    fn map_segment(&mut self, _: ChildId, pd: &Cap, rom: &Cap, segment: &Segment) -> Result<(), Error> {
        map(PdClient(Link::from(*pd)), self.content(*rom)?, segment)
    }

    fn run(&mut self, child: ChildId, pd: &Cap, cpu: &Cap, entry: u64) -> Result<(), Error> {
        self.finish_loading();
        let hosted = self.children.get_mut(&child).ok_or(Error::NotFound)?;
        let sp = stack(PdClient(Link::from(*pd)))?;
        let client = CpuClient(Link::from(*cpu));
        client.exception_handler(Some(self.fault))?;
        let start = ThreadStart { ip: entry, sp, core: 0, priority: 0, flags: ThreadFlags::FPU };
        let thread = client.create_thread(pd.object(), &hosted.name, start)?;
        hosted.thread = Some((*cpu, thread));
        ThreadClient(Link::from(thread)).start()
    }

    fn dismantle(&mut self, child: ChildId) {
        self.finish_loading();
        let Some(hosted) = self.children.remove(&child) else { return };
        if let Some((cpu, thread)) = hosted.thread {
            // Closing the CPU session ends all threads; the first one is ended here so that it asks for nothing more.
            let _ = CpuClient(Link::from(cpu)).kill(thread.object());
            Link::from(thread).drop();
        }
        self.withdraw(hosted.object, hosted.portal);
        for handler in hosted.handlers.into_iter().flatten() {
            Link::from(handler).drop();
        }
    }

    fn drop_cap(&mut self, cap: Cap) {
        Link::from(cap).drop();
    }

    fn notify(&mut self, child: ChildId, kind: ParentSignal) {
        let index = SIGNALS.iter().position(|known| *known == kind);
        let Some((hosted, index)) = self.children.get_mut(&child).zip(index) else { return };
        match hosted.handlers.get(index).copied().flatten() {
            Some(handler) => signal::up(handler.selector),
            None => {
                if let Some(missed) = hosted.missed.get_mut(index) {
                    *missed = true;
                }
            }
        }
    }

    fn all_exited(&mut self, action: OnAllExited) {
        match action {
            OnAllExited::Stay => {}
            OnAllExited::PowerOff => {
                log::info!("all awaited children exited, powering off");
                self.power_off();
            }
            OnAllExited::Exit => self.exit(0, "all awaited children exited"),
        }
    }

    fn exit(&mut self, code: i64, reason: &str) {
        if let Err(error) = env::parent().exit(code, reason) {
            log::error!("cannot exit: {error}");
        }
    }
}
