// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start and end of a child.
//!
//! A child is started in steps, since each session of its environment may come later: its quota is put together, the
//! environment's sessions are asked for, the PD session is adopted and filled, and when all sessions are there the
//! program is loaded and runs. What fails on the way takes back all steps, and leaves the child stuck with a line in
//! the log that says why. Ending a child takes the same steps backwards.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cloister_session::Error;

use crate::child::{BINARY, CPU, ENVIRONMENT, Exit, PD, State};
use crate::platform::{ChildId, LogLevel, Platform};
use crate::quota::Quota;
use crate::sandbox::Sandbox;
use crate::session::{ServedBy, SessionState};
use cloister_elf as elf;

/// Reads a ROM session by copying.
struct RomSource<'p, P: Platform> {
    platform: &'p mut P,
    rom: &'p P::Cap,
    len: u64,
}

impl<P: Platform> elf::Source for RomSource<'_, P> {
    fn size(&mut self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        self.platform.rom_read(self.rom, offset, buffer)
    }
}

impl<P: Platform> Sandbox<P> {
    /// Starts a child that is in its initial state.
    pub(crate) fn start(&mut self, id: ChildId) {
        if let Err(reason) = self.try_start(id) {
            self.fail(id, &reason);
        } else {
            self.advance(id);
        }
    }

    fn try_start(&mut self, id: ChildId) -> Result<(), String> {
        let start = self.child(id).map(|child| child.start.clone()).unwrap_or_default();
        let wanted = Quota::new(start.ram, start.caps);
        let slack = self.slack();
        let assigned = wanted.at_most(slack);
        if assigned != wanted {
            let line = format_args!("child \"{}\": {wanted} configured, only {slack} left", start.name);
            self.log(LogLevel::Warning, line);
        }
        let mut costs = self.platform.child_cost();
        for (_, service) in ENVIRONMENT {
            costs = costs.plus(self.platform.session_cost(service)).ok_or("its environment costs too much")?;
        }
        if assigned.minus(costs).is_none() {
            return Err(format!("its quota ({assigned}) does not cover its environment ({costs})"));
        }
        if let Some(child) = self.child_mut(id) {
            child.assigned = assigned;
        }
        let mut donated = self.platform.child_cost();
        for (number, service) in ENVIRONMENT {
            let left = assigned.without(donated);
            let donation = self.open_environment(id, (number, service), &start.name, left)?;
            donated = donated.plus(donation).unwrap_or(donated);
        }
        Ok(())
    }

    /// Asks for one session of a child's environment, with a larger donation if the server says how much it takes.
    fn open_environment(&mut self, id: ChildId, env: (u64, &str), name: &str, left: Quota) -> Result<Quota, String> {
        let (number, service) = env;
        let mut donation = self.platform.session_cost(service);
        for _ in 0..4 {
            let refusal = match self.open(id, number, service, name, "", donation, true) {
                Ok(_) => return Ok(donation),
                Err(refusal) => refusal,
            };
            // What is missing is added; servers count what they need in different ways.
            let missing = match refusal {
                Error::OutOfRam { needed, available } => Quota::new(needed.saturating_sub(available), 0),
                Error::OutOfCaps { needed, available } => Quota::new(0, needed.saturating_sub(available)),
                refusal => return Err(self.refused(id, number, service, refusal)),
            };
            let grown = donation.plus(missing).filter(|grown| left.minus(*grown).is_some());
            let Some(grown) = grown.filter(|_| !missing.is_none()) else {
                return Err(self.refused(id, number, service, refusal));
            };
            donation = grown;
        }
        Err(format!("its {service} session always costs more than was donated"))
    }

    fn refused(&self, id: ChildId, number: u64, service: &str, refusal: Error) -> String {
        match self.child(id).filter(|_| number == BINARY) {
            Some(child) => format!("ROM \"{}\" with its program: {refusal}", child.start.binary),
            None => format!("its {service} session: {refusal}"),
        }
    }

    /// Goes on with the start of a child as far as its environment's sessions are there.
    pub(crate) fn advance(&mut self, id: ChildId) {
        if let Err(reason) = self.try_advance(id) {
            self.fail(id, &reason);
        }
    }

    fn try_advance(&mut self, id: ChildId) -> Result<(), String> {
        let Some(child) = self.child(id).filter(|child| !child.sessions.is_empty()) else { return Ok(()) };
        let (name, state, assigned) = (child.start.name.clone(), child.state.clone(), child.assigned);
        if let Some((number, refusal)) = self.denied_environment(id) {
            let service = ENVIRONMENT.iter().find(|(env, _)| *env == number).map_or("", |(_, service)| service);
            return Err(self.refused(id, number, service, refusal));
        }
        let Some(pd) = self.environment_cap(id, PD) else { return Ok(()) };
        if state == State::Initial {
            self.platform.adopt(id, &name, &pd).map_err(|refusal| format!("its protection domain: {refusal}"))?;
            let kept = self.platform.child_cost();
            let donated = self.environment_donations(id).plus(kept).unwrap_or(kept);
            let effective = assigned
                .minus(donated)
                .ok_or_else(|| format!("its quota ({assigned}) does not cover its environment ({donated})"))?;
            self.platform.give(&pd, effective).map_err(|refusal| format!("its quota ({effective}): {refusal}"))?;
            if let Some(child) = self.child_mut(id) {
                child.state = State::RamInitialized;
            }
            self.deliver_requests(id);
        }
        if self.child(id).is_none_or(|child| child.state != State::RamInitialized) {
            return Ok(());
        }
        let caps: Vec<P::Cap> =
            ENVIRONMENT.iter().filter_map(|(number, _)| self.environment_cap(id, *number)).collect();
        if caps.len() == ENVIRONMENT.len() { self.load(id) } else { Ok(()) }
    }

    /// A session of the environment that was refused after it was asked for.
    fn denied_environment(&self, id: ChildId) -> Option<(u64, Error)> {
        let child = self.child(id)?;
        ENVIRONMENT.iter().find_map(|(number, _)| {
            let session = self.sessions.get(child.sessions.get(number)?)?;
            session.refusal.map(|refusal| (*number, refusal))
        })
    }

    fn environment_donations(&self, id: ChildId) -> Quota {
        let of_child = |client: Option<(ChildId, u64)>| client.is_some_and(|(child, _)| child == id);
        let sessions = self.sessions.values().filter(|session| session.environment && of_child(session.client));
        sessions.fold(Quota::NONE, |sum, session| sum.plus(session.donation).unwrap_or(sum))
    }

    fn load(&mut self, id: ChildId) -> Result<(), String> {
        let env = |number| self.environment_cap(id, number).ok_or("its environment is incomplete");
        let (pd, cpu, rom) = (env(PD)?, env(CPU)?, env(BINARY)?);
        let binary = self.child(id).map(|child| child.start.binary.clone()).unwrap_or_default();
        let policy = self.platform.policy();
        let len = self.platform.rom_len(&rom).map_err(|refusal| format!("ROM \"{binary}\": {refusal}"))?;
        let mut source = RomSource { platform: &mut self.platform, rom: &rom, len };
        let image = elf::parse(&mut source, &policy)
            .map_err(|error| format!("ROM \"{binary}\" of {len} bytes is no program to run: {error}"))?;
        for segment in &image.segments {
            self.platform.map_segment(id, &pd, &rom, segment).map_err(|refusal| {
                format!("segment of ROM \"{binary}\" at {:#x}, {} bytes: {refusal}", segment.address, segment.size)
            })?;
        }
        self.platform.run(id, &pd, &cpu, image.entry).map_err(|refusal| format!("its first thread: {refusal}"))?;
        if let Some(child) = self.child_mut(id) {
            child.state = State::Alive;
        }
        if self.config.verbose {
            let (name, left) = (self.name(id), self.platform.left(&pd));
            self.log(LogLevel::Info, format_args!("child \"{name}\" runs with {left}"));
        }
        Ok(())
    }

    /// Gives up on a child until another configuration comes.
    pub(crate) fn fail(&mut self, id: ChildId, reason: &str) {
        let name = self.name(id);
        self.log(LogLevel::Error, format_args!("child \"{name}\" not started: {reason}"));
        self.dismantle(id);
        if let Some(child) = self.child_mut(id) {
            child.state = State::Stuck;
            child.hopeless = true;
        }
    }

    /// Takes from a child all that it has. What it served is gone, what it used is closed.
    pub(crate) fn dismantle(&mut self, id: ChildId) {
        let Some(child) = self.child_mut(id) else { return };
        let sessions = core::mem::take(&mut child.sessions);
        child.assigned = Quota::NONE;
        child.requested = None;
        child.owes = None;
        child.doomed = false;
        if sessions.is_empty() {
            return;
        }
        self.platform.dismantle(id);
        // What it opened itself goes first, then the environment, the PD session last.
        for session in sessions.values().rev() {
            if let Some(session) = self.sessions.get_mut(session) {
                session.client = None;
            }
            self.end_session(*session);
        }
        self.bury_served(id);
    }

    /// The sessions that a destroyed child served: donations are back in our account and go to the clients.
    fn bury_served(&mut self, id: ChildId) {
        let served = self.sessions.iter().filter(|(_, session)| session.server == ServedBy::Child(id));
        let served: Vec<_> = served.map(|(session, _)| *session).collect();
        for session in served {
            let Some(entry) = self.sessions.get_mut(&session) else { continue };
            let (closed, closing) = (entry.state == SessionState::Closed, entry.state == SessionState::Closing);
            if closing || entry.client.is_none() {
                self.refund_and_forget(session);
            } else if !closed {
                self.refuse(session, Error::ServerGone);
            }
        }
    }

    /// A child says that it is done. It is dismantled by the next [`Sandbox::settle`].
    pub fn exit(&mut self, id: ChildId, code: i64, reason: &str) {
        let Some(child) = self.child_mut(id).filter(|child| child.is_served() && !child.doomed) else { return };
        // What a child says stands in one line of the log, and does not fill it.
        let reason: String = reason.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let reason = reason.trim();
        child.doomed = true;
        child.exit = Some(Exit { code, reason: reason.to_string() });
        let (name, propagate) = (child.start.name.clone(), child.start.propagate_exit);
        match reason {
            "" => self.log(LogLevel::Info, format_args!("child \"{name}\" exited: {code}")),
            reason => self.log(LogLevel::Info, format_args!("child \"{name}\" exited: {reason} ({code})")),
        }
        if propagate {
            self.platform.exit(code, reason);
        }
    }

    /// A thread of a child met a fault that nobody handles: the child ends.
    pub fn fault(&mut self, id: ChildId, what: &str) {
        self.exit(id, -1, &format!("crashed, {what}"));
    }

    /// Whether calls from children left something to be done.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.children.iter().any(|child| child.doomed)
    }

    /// Does what calls from children left to be done: dismantles those that exited.
    pub fn settle(&mut self) {
        while let Some(id) = self.children.iter().find(|child| child.doomed).map(|child| child.id) {
            self.dismantle(id);
            if let Some(child) = self.child_mut(id) {
                child.state = State::Exited;
            }
        }
        self.announce_all_exited();
    }

    fn announce_all_exited(&mut self) {
        let mut awaited = self.children.iter().filter(|child| child.start.awaited).peekable();
        let any = awaited.peek().is_some();
        if any && awaited.all(|child| child.state == State::Exited) && !self.all_exited {
            self.all_exited = true;
            let action = self.config.on_all_exited;
            self.platform.all_exited(action);
        }
    }
}
