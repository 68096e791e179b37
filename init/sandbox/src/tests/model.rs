// SPDX-License-Identifier: MIT OR Apache-2.0
//! A model of the system: accounts, ROMs, and sessions at a parent that keeps what it is given until they close.

use std::collections::BTreeMap;
use std::fmt;

use cloister_init_config::{OnAllExited, load};

use crate::{
    ChildId, Error, LogLevel, ParentSignal, Platform, Quota, RequestKind, Sandbox, ServerRequest, SessionId,
    SessionRequest, State,
};
use cloister_elf::{Machine, Policy, Segment};

/// An object that a capability leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object(pub(super) u64);

#[derive(Debug)]
pub(super) enum Kind {
    Account(Quota),
    Rom(Vec<u8>),
    Other,
}

#[derive(Debug)]
pub(super) struct AtParent {
    pub(super) service: String,
    pub(super) label: String,
    pub(super) donation: Quota,
    pub(super) object: Object,
}

/// The system.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) own: Quota,
    pub(super) objects: BTreeMap<Object, Kind>,
    next_object: u64,
    pub(super) roms: BTreeMap<String, Vec<u8>>,
    pub(super) at_parent: BTreeMap<SessionId, AtParent>,
    pub(super) local: BTreeMap<SessionId, (String, Quota)>,
    pub(super) texts: BTreeMap<SessionId, String>,
    pub(super) lines: Vec<String>,
    pub(super) segments: Vec<(ChildId, Segment)>,
    pub(super) running: Vec<ChildId>,
    pub(super) notices: Vec<(ChildId, ParentSignal)>,
    pub(super) dropped: Vec<Object>,
    pub(super) ended: Vec<OnAllExited>,
    pub(super) exit: Option<(i64, String)>,
    /// Services that the parent makes later.
    pub(super) slow: Vec<&'static str>,
    pub(super) slow_ready: bool,
    /// What a PD session costs beyond what is known beforehand.
    pub(super) pd_surcharge: u64,
}

pub(super) const INITIAL: Quota = Quota::new(64 << 20, 2000);
const COST: Quota = Quota::new(8 << 10, 3);
pub(super) const HOSTING: Quota = Quota::new(4 << 10, 2);
/// What is gone of an assignment before the child has it.
pub(super) const OVERHEAD: Quota = Quota::new(4 * COST.ram + HOSTING.ram, 4 * COST.caps + HOSTING.caps);

impl Model {
    pub(super) fn new() -> Self {
        let roms = [
            ("vmm", cloister_elf::testing::program()),
            ("driver", cloister_elf::testing::program()),
            ("app", cloister_elf::testing::program()),
        ];
        let roms = roms.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Self { own: INITIAL, roms, ..Self::default() }
    }

    fn object(&mut self, kind: Kind) -> Object {
        self.next_object += 1;
        let object = Object(self.next_object);
        self.objects.insert(object, kind);
        object
    }

    pub(super) fn account(&mut self, pd: Object) -> &mut Quota {
        match self.objects.get_mut(&pd) {
            Some(Kind::Account(quota)) => quota,
            other => panic!("{pd:?} is {other:?}, no account"),
        }
    }

    /// All quota that exists anywhere.
    pub(super) fn total(&self) -> Quota {
        let accounts = self.objects.values().filter_map(|kind| match kind {
            Kind::Account(quota) => Some(*quota),
            _ => None,
        });
        let donations = self.at_parent.values().map(|session| session.donation);
        accounts.chain(donations).fold(self.own, |sum, quota| sum.plus(quota).unwrap())
    }

    fn short(needed: Quota, available: Quota) -> Error {
        if needed.ram > available.ram {
            Error::OutOfRam { needed: needed.ram, available: available.ram }
        } else {
            Error::OutOfCaps { needed: needed.caps, available: available.caps }
        }
    }

    fn make(&mut self, request: &SessionRequest<'_>) -> Result<Object, Error> {
        let needed = if request.service == "PD" { Quota::new(COST.ram + self.pd_surcharge, COST.caps) } else { COST };
        if request.donation.minus(needed).is_none() {
            // Some servers name what is missing beyond what is used already.
            return Err(match (request.service, self.pd_surcharge) {
                ("PD", surcharge @ 1..) => Error::OutOfRam { needed: surcharge, available: 0 },
                _ => Self::short(needed, request.donation),
            });
        }
        match request.service {
            "PD" => Ok(self.object(Kind::Account(Quota::NONE))),
            "ROM" => {
                let name = request.label.rsplit(" -> ").next().unwrap_or("");
                let content = self.roms.get(name).cloned().ok_or(Error::NotFound)?;
                Ok(self.object(Kind::Rom(content)))
            }
            "CPU" | "LOG" | "VM" => Ok(self.object(Kind::Other)),
            _ => Err(Error::Denied),
        }
    }
}

impl Platform for Model {
    type Cap = Object;

    fn log(&mut self, level: LogLevel, line: fmt::Arguments<'_>) {
        self.lines.push(format!("{level:?}: {line}"));
    }

    fn available(&mut self) -> Quota {
        self.own
    }

    fn session_cost(&self, _service: &str) -> Quota {
        COST
    }

    fn child_cost(&self) -> Quota {
        HOSTING
    }

    fn policy(&self) -> Policy {
        Policy { machine: Machine::X86_64, low: 0x1000, high: 0x7fff_ffff_f000, base: 0x1000_0000 }
    }

    fn open_at_parent(&mut self, id: SessionId, request: SessionRequest<'_>) -> Result<Option<Object>, Error> {
        let rest = self.own.minus(request.donation).ok_or_else(|| Self::short(request.donation, self.own))?;
        let object = self.make(&request)?;
        self.own = rest;
        let (service, label) = (request.service.to_owned(), request.label.to_owned());
        let session = AtParent { service, label, donation: request.donation, object };
        assert!(self.at_parent.insert(id, session).is_none(), "{id:?} is used twice");
        Ok(if self.slow.contains(&request.service) { None } else { Some(object) })
    }

    fn poll_parent(&mut self, id: SessionId) -> Result<Option<Object>, Error> {
        let session = self.at_parent.get(&id).expect("an open session");
        Ok(self.slow_ready.then_some(session.object))
    }

    fn upgrade_at_parent(&mut self, id: SessionId, more: Quota) -> Result<(), Error> {
        self.own = self.own.minus(more).ok_or(Error::Denied)?;
        let session = self.at_parent.get_mut(&id).expect("an open session");
        session.donation = session.donation.plus(more).unwrap();
        Ok(())
    }

    fn close_at_parent(&mut self, id: SessionId) {
        let session = self.at_parent.remove(&id).expect("an open session");
        self.own = self.own.plus(session.donation).unwrap();
        if let Some(Kind::Account(quota)) = self.objects.remove(&session.object) {
            self.own = self.own.plus(quota).unwrap();
        }
    }

    fn local_services(&self) -> Vec<&'static str> {
        vec!["VM"]
    }

    fn open_local(&mut self, id: SessionId, _: ChildId, request: SessionRequest<'_>) -> Result<Object, Error> {
        if request.args == "refuse" {
            return Err(Error::Invalid);
        }
        self.local.insert(id, (request.label.to_owned(), request.donation));
        Ok(self.object(Kind::Other))
    }

    fn upgrade_local(&mut self, id: SessionId, more: Quota) -> Result<(), Error> {
        let session = self.local.get_mut(&id).expect("an open session");
        session.1 = session.1.plus(more).unwrap();
        Ok(())
    }

    fn close_local(&mut self, id: SessionId) {
        self.local.remove(&id).expect("an open session");
    }

    fn open_rom(&mut self, id: SessionId, content: &str, _: Quota) -> Result<Object, Error> {
        self.texts.insert(id, content.to_owned());
        Ok(self.object(Kind::Rom(content.into())))
    }

    fn update_rom(&mut self, id: SessionId, content: &str) {
        assert!(self.texts.insert(id, content.to_owned()).is_some());
    }

    fn close_rom(&mut self, id: SessionId) {
        self.texts.remove(&id).expect("an open ROM");
    }

    fn adopt(&mut self, _: ChildId, _: &str, pd: &Object) -> Result<(), Error> {
        assert_eq!(*self.account(*pd), Quota::NONE);
        Ok(())
    }

    fn give(&mut self, pd: &Object, quota: Quota) -> Result<(), Error> {
        let rest = self.own.minus(quota).ok_or_else(|| Self::short(quota, self.own))?;
        let account = self.account(*pd);
        *account = account.plus(quota).unwrap();
        self.own = rest;
        Ok(())
    }

    fn take(&mut self, pd: &Object, quota: Quota) -> Result<(), Error> {
        let account = self.account(*pd);
        *account = account.minus(quota).ok_or(Self::short(quota, *account))?;
        self.own = self.own.plus(quota).unwrap();
        Ok(())
    }

    fn left(&mut self, pd: &Object) -> Quota {
        *self.account(*pd)
    }

    fn rom_len(&mut self, rom: &Object) -> Result<u64, Error> {
        match self.objects.get(rom) {
            Some(Kind::Rom(content)) => Ok(content.len() as u64),
            _ => Err(Error::Invalid),
        }
    }

    fn rom_read(&mut self, rom: &Object, offset: u64, buffer: &mut [u8]) -> bool {
        let Some(Kind::Rom(content)) = self.objects.get(rom) else { return false };
        cloister_elf::Source::read(&mut content.as_slice(), offset, buffer)
    }

    fn map_segment(&mut self, child: ChildId, pd: &Object, _: &Object, segment: &Segment) -> Result<(), Error> {
        let (left, size) = (*self.account(*pd), segment.end_page() - segment.first_page());
        if left.ram < size {
            return Err(Error::OutOfRam { needed: size, available: left.ram });
        }
        self.segments.push((child, *segment));
        Ok(())
    }

    fn run(&mut self, child: ChildId, _: &Object, _: &Object, _: u64) -> Result<(), Error> {
        self.running.push(child);
        Ok(())
    }

    fn dismantle(&mut self, child: ChildId) {
        self.running.retain(|running| *running != child);
    }

    fn drop_cap(&mut self, cap: Object) {
        self.dropped.push(cap);
    }

    fn notify(&mut self, child: ChildId, notice: ParentSignal) {
        assert!(self.running.contains(&child), "{child:?} is told something before it runs");
        self.notices.push((child, notice));
    }

    fn all_exited(&mut self, action: OnAllExited) {
        self.ended.push(action);
    }

    fn exit(&mut self, code: i64, reason: &str) {
        self.exit = Some((code, reason.to_owned()));
    }
}

/// A sandbox on the model, and what tests ask of it.
pub(super) struct World {
    pub(super) sandbox: Sandbox<Model>,
}

pub(super) const HEAD: &str = "config
+ parent-provides
  + service ROM
  + service PD
  + service CPU
  + service LOG
  + service VM
+ default-route | + any-service | + parent
+ default | caps: 100 | ram: 4M
";

impl World {
    pub(super) fn new() -> Self {
        Self { sandbox: Sandbox::new(Model::new()) }
    }

    /// A world with these start nodes.
    pub(super) fn with(starts: &str) -> Self {
        let mut world = Self::new();
        world.apply(starts);
        world
    }

    pub(super) fn apply(&mut self, starts: &str) {
        let text = format!("{HEAD}{starts}\n-\n");
        let loaded = load(text.as_bytes()).expect("parses");
        assert_eq!(loaded.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        self.apply_config(loaded.config);
    }

    pub(super) fn apply_config(&mut self, config: cloister_init_config::Config) {
        self.sandbox.apply(config);
        self.check();
    }

    pub(super) fn model(&mut self) -> &mut Model {
        self.sandbox.platform()
    }

    /// Nothing is lost.
    pub(super) fn check(&mut self) {
        assert_eq!(self.model().total(), INITIAL);
    }

    pub(super) fn id(&self, name: &str) -> ChildId {
        self.sandbox.children().find(|child| child.name == name).expect("a child of this name").id
    }

    pub(super) fn state(&self, name: &str) -> State {
        self.sandbox.children().find(|child| child.name == name).expect("a child of this name").state
    }

    pub(super) fn account(&mut self, name: &str) -> &mut Quota {
        let id = self.id(name);
        let pd = self.sandbox.environment_cap(id, 1).expect("a PD session");
        self.model().account(pd)
    }

    pub(super) fn request(
        &mut self,
        name: &str,
        number: u64,
        service: &str,
        label: &str,
        donation: Quota,
    ) -> Result<Option<Object>, Error> {
        let id = self.id(name);
        let result = self.sandbox.session(id, number, SessionRequest { service, label, args: "a=1", donation });
        self.check();
        result
    }

    /// What is asked of a server first.
    pub(super) fn asked(&self, name: &str) -> Option<ServerRequest<'_>> {
        self.sandbox.request(self.id(name), 0)
    }

    /// The number of the session for which this is the first thing asked of a server.
    pub(super) fn asked_number(&self, name: &str, kind: RequestKind) -> Option<SessionId> {
        self.asked(name).filter(|request| request.kind == kind).map(|request| request.id)
    }

    pub(super) fn logged(&mut self, line: &str) -> bool {
        self.model().lines.iter().any(|logged| logged == line)
    }

    pub(super) fn assert_logged(&mut self, line: &str) {
        assert!(self.logged(line), "expected\n{line}\nfound {:#?}", self.model().lines);
    }

    /// Everything is back when nothing is configured.
    pub(super) fn assert_all_returns(&mut self) {
        self.apply("");
        let model = self.model();
        assert_eq!(model.own, INITIAL, "{:?}", model.at_parent);
        assert!(model.at_parent.is_empty() && model.texts.is_empty() && model.local.is_empty());
        assert!(model.running.is_empty());
        assert!(self.sandbox.sessions.is_empty());
    }
}
