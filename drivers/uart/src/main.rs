// SPDX-License-Identifier: MIT OR Apache-2.0
//! Driver of the first serial port (16550 at port 0x3f8, interrupt 4). Offers the service `Terminal`.
//!
//! What several sessions see of the one port is `cloister-terminal`'s business; here are the device, the sessions, and the
//! signals between. Output goes into a queue and from there to the device as it has room, so a slow line keeps nobody
//! waiting; a writer whose bytes were not all taken gets a signal when there is room.
//!
//! Needs of its parent: IO_PORT, IRQ, and memory for itself; a session costs its client one capability.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![expect(unsafe_code, reason = "access to the device's ports")]

mod arch;
mod device;
mod service;

use cloister_base::signal::Signal;
use cloister_base::{Component, Error, ObjectId, Portal, Registry, entry, env, selectors, session, time};
use cloister_session::{
    Cap, Decoder, Encoder, IoPortClient, IrqClient, ParentSignal, RequestKind, SessionRequest, SessionResponse,
    TerminalServer,
};
use cloister_terminal::{StreamId, Terminal};
use device::Uart;

/// The first serial port of a PC.
const PORT: u16 = 0x3f8;
/// Most bytes that are sent in one go.
const BURST: usize = 4096;
/// How long an unfinished line waits before it is shown, milliseconds.
const PATIENCE: u64 = 60;

/// A Terminal session.
#[derive(Debug)]
struct Session {
    /// Its name towards the parent.
    id: u64,
    stream: StreamId,
    portal: Option<Portal>,
    handler: Option<Cap>,
    /// It wants to know when there is room again.
    waits: bool,
}

/// The driver.
#[derive(Debug)]
struct Driver {
    uart: Uart,
    terminal: Terminal,
    sessions: Registry<Session>,
    interrupt: Signal,
    requests: Signal,
    /// Wakes the main thread, so that it asks anew when to wake up.
    poke: Signal,
    deadline: u64,
}

impl Component for Driver {
    fn new() -> Result<Self, Error> {
        let ports = session::open("IO_PORT", "com1", "base=0x3f8, size=8", session::USUAL)?;
        IoPortClient(ports.link()).map(Cap::new(selectors::PD).object())?;
        let irq = session::open("IRQ", "com1", "gsi=4", session::USUAL)?;
        let interrupt = Signal::new()?;
        IrqClient(irq.link()).bind(interrupt.owner_cap())?;
        let requests = Signal::new()?;
        env::parent().signal_handler(ParentSignal::SessionRequests, Some(requests.cap()))?;
        let driver = Self {
            uart: Uart::new(PORT),
            terminal: Terminal::new(time::milliseconds(PATIENCE)),
            sessions: Registry::new(),
            interrupt,
            requests,
            poke: Signal::new()?,
            deadline: 0,
        };
        env::parent().announce("Terminal")?;
        Ok(driver)
    }

    fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
        if self.sessions.get(object).is_none() {
            entry::refuse(reply, Error::NoSuchObject);
            return;
        }
        TerminalServer::dispatch(&mut service::Call { driver: self, id: object }, request, reply);
        self.pump();
    }

    fn signals(&mut self, bits: u64) {
        if self.requests.is_in(bits) {
            self.handle_requests();
        }
        if self.interrupt.is_in(bits) {
            self.receive();
        }
        self.deadline = self.terminal.show_unfinished(time::now()).unwrap_or(0);
        self.pump();
        if self.interrupt.is_in(bits)
            && let Err(error) = self.interrupt.acknowledge()
        {
            log::error!("interrupt can't be acknowledged: {error}");
        }
    }

    fn deadline(&mut self) -> u64 {
        self.deadline
    }
}

impl Driver {
    /// Takes what was received, and tells who has something to read.
    fn receive(&mut self) {
        let mut told = None;
        while let Some(byte) = self.uart.receive() {
            let stream = self.terminal.typed(byte);
            if stream.is_some() && stream != told {
                told = stream;
                self.tell(stream);
            }
        }
    }

    fn tell(&self, stream: Option<StreamId>) {
        for (_, session) in self.sessions.iter() {
            if let (true, Some(handler)) = (Some(session.stream) == stream, session.handler) {
                cloister_base::signal::up(handler.selector);
            }
        }
    }

    /// Sends as much as the device takes.
    fn pump(&mut self) {
        let mut sent = 0;
        while self.terminal.has_output() && sent < BURST {
            let room = self.uart.room();
            if room == 0 {
                break;
            }
            for byte in self.terminal.take_output(room) {
                self.uart.send(byte);
            }
            sent += room;
        }
        self.uart.want_room(self.terminal.has_output());
        if sent > 0 {
            self.tell_waiting();
        }
    }

    fn tell_waiting(&mut self) {
        for (_, session) in self.sessions.iter_mut() {
            if core::mem::take(&mut session.waits)
                && let Some(handler) = session.handler
            {
                cloister_base::signal::up(handler.selector);
            }
        }
    }

    /// Answers what the parent wants of this server.
    fn handle_requests(&mut self) {
        loop {
            match env::parent().session_request(0) {
                Ok(Some(request)) => self.handle_request(&request),
                Ok(None) => return,
                Err(error) => {
                    log::error!("session requests can't be read: {error}");
                    return;
                }
            }
        }
    }

    fn handle_request(&mut self, request: &SessionRequest) {
        let answered = match request.kind {
            RequestKind::Create => match self.open(request) {
                Ok(cap) => env::parent().deliver_session_cap(request.id, cap),
                Err(error) => {
                    log::error!("session of {} can't be opened: {error}", request.label);
                    env::parent().session_response(request.id, SessionResponse::Denied)
                }
            },
            RequestKind::Upgrade => env::parent().session_response(request.id, SessionResponse::Ok),
            RequestKind::Close => {
                self.close(request.id);
                env::parent().session_response(request.id, SessionResponse::Closed)
            }
        };
        if let Err(error) = answered {
            log::error!("request of {} can't be answered: {error}", request.label);
        }
    }

    fn open(&mut self, request: &SessionRequest) -> Result<Cap, Error> {
        let stream = self.terminal.open(short(&request.label));
        let session = Session { id: request.id, stream, portal: None, handler: None, waits: false };
        let object = self.sessions.insert(session)?;
        match Portal::new(object) {
            Ok(portal) => {
                if let Some(session) = self.sessions.get_mut(object) {
                    session.portal = Some(portal);
                }
                Ok(portal.cap())
            }
            Err(error) => {
                self.sessions.remove(object);
                self.terminal.close(stream);
                Err(error)
            }
        }
    }

    fn close(&mut self, id: u64) {
        let found = self.sessions.iter().find(|(_, session)| session.id == id).map(|(object, _)| object);
        let Some(session) = found.and_then(|object| self.sessions.remove(object)) else { return };
        self.terminal.close(session.stream);
        if let Some(handler) = session.handler {
            selectors::drop_capability(handler.selector);
        }
        if let Some(Err(error)) = session.portal.map(Portal::free) {
            log::error!("portal can't be freed: {error}");
        }
    }
}

/// The first part of a label: which child of init it is.
fn short(label: &str) -> &str {
    label.split("->").next().unwrap_or(label).trim()
}

#[cfg(target_os = "none")]
cloister_base::component!(Driver);

#[cfg(not(target_os = "none"))]
fn main() {
    std::eprintln!("this driver runs on the bare machine only");
}
