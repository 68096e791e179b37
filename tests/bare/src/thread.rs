// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads (global ECs) and servers (local ECs with portals), each with a stack and a message page.

use crate::kernel::{Message, call, message, selector};
use crate::memory::{PAGE, addresses, pages};
use cloister_abi::cap::{NONE, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{CreateEc, CreatePt, CreateSc, Destroy, EcFlags};
use cloister_abi::status::Status;
use cloister_abi::utcb::Header;

/// Log2 of a stack's pages.
pub const STACK_ORDER: u32 = 2;
/// Word of its own in which a server keeps the top of its stack.
const TLS_STACK: usize = 0;
/// Word of its own in which a server keeps its handler.
const TLS_HANDLER: usize = 1;

/// Time slice of threads, microseconds.
pub const QUANTUM: u64 = 10_000;

/// An EC and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The EC.
    pub ec: Selector,
    /// The SC, if it is a thread that was started.
    pub sc: Selector,
    /// Address of the message page.
    pub utcb: u64,
    /// End of the stack.
    pub stack: u64,
    /// Handler of a server in another domain.
    foreign: Option<Handler>,
}

/// How an EC is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// PD in which it runs.
    pub pd: Selector,
    /// Exception portal.
    pub event: Selector,
    /// It uses the FPU.
    pub fpu: bool,
    /// Core it belongs to.
    pub core: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { pd: ROOT_PD, event: NONE, fpu: false, core: 0 }
    }
}

/// What a server does: gets the portal's identity and the message's header, answers the reply's header.
pub type Handler = fn(u64, Header) -> Header;

/// First instructions of a thread: takes function and argument from the stack.
#[unsafe(naked)]
unsafe extern "C" fn first() -> ! {
    core::arch::naked_asm!("pop rax", "pop rdi", "xor ebp, ebp", "call rax", "ud2")
}

/// First instructions of a call: `rdi` is the portal's identity, `rsi` the header.
extern "C" fn entered(id: u64, header: u64) -> ! {
    let stack = message().tls(TLS_STACK);
    let handler: *const () = core::ptr::with_exposed_provenance(message().tls(TLS_HANDLER) as usize);
    // SAFETY: `server` put a handler there.
    let handler = unsafe { core::mem::transmute::<*const (), Handler>(handler) };
    let reply = handler(id, Header(header));
    // SAFETY: the stack's end is where each call starts, and nothing on it is needed any more.
    unsafe { cloister_stubs::reply(reply, stack) }
}

/// What a portal of a server in another domain finds by its identity: handler, stack, identity.
const FOREIGN_HANDLER: u64 = 0;
const FOREIGN_STACK: u64 = 8;
const FOREIGN_ID: u64 = 16;

/// As [`entered`], in a domain whose message pages this program cannot write to.
extern "C" fn entered_foreign(place: u64, header: u64) -> ! {
    // SAFETY: `portal` filled the place, which is on the server's stack pages.
    let [handler, stack, id] =
        [FOREIGN_HANDLER, FOREIGN_STACK, FOREIGN_ID].map(|offset| unsafe { crate::memory::read(place + offset) });
    let handler: *const () = core::ptr::with_exposed_provenance(handler as usize);
    // SAFETY: as above.
    let handler = unsafe { core::mem::transmute::<*const (), Handler>(handler) };
    let reply = handler(id, Header(header));
    // SAFETY: as in `entered`.
    unsafe { cloister_stubs::reply(reply, stack) }
}

fn flags(global: bool, options: &Options) -> u64 {
    let mut flags = if global { EcFlags::GLOBAL } else { EcFlags::empty() };
    flags.set(EcFlags::FPU, options.fpu);
    CreateEc::pack(flags, options.core, options.event)
}

/// Makes a thread that will run `function(argument)` when it gets time. The function must not return.
///
/// # Errors
/// As `CreateEc`.
pub fn prepare(function: extern "C" fn(u64) -> !, argument: u64, options: &Options) -> Result<Context, Status> {
    let (base, _) = pages(STACK_ORDER)?;
    let stack = base + (PAGE << STACK_ORDER);
    // SAFETY: the stack is new.
    unsafe { crate::memory::write(stack - 16, function as *const () as u64) };
    // SAFETY: as above.
    unsafe { crate::memory::write(stack - 8, argument) };
    let context = Context { ec: selector(), sc: NONE, utcb: addresses(0), stack, foreign: None };
    call(&CreateEc {
        sel: context.ec,
        pd: options.pd,
        flags: flags(true, options),
        utcb: context.utcb,
        sp: stack - 16,
        ip: first as *const () as u64,
    })?;
    Ok(context)
}

/// Starts a thread.
///
/// # Errors
/// As `CreateSc`.
pub fn start(context: &mut Context, priority: u32, quantum: u64) -> Result<(), Status> {
    context.sc = selector();
    call(&CreateSc { sel: context.sc, pd: ROOT_PD, ec: context.ec, priority, quantum }).map(drop)
}

/// Makes and starts a thread.
///
/// # Errors
/// As `CreateEc` and `CreateSc`.
pub fn spawn(function: extern "C" fn(u64) -> !, argument: u64, priority: u32) -> Result<Context, Status> {
    let mut context = prepare(function, argument, &Options::default())?;
    start(&mut context, priority, QUANTUM)?;
    Ok(context)
}

/// Makes and starts a thread on a core.
///
/// # Errors
/// As `CreateEc` and `CreateSc`.
pub fn spawn_on(core: u8, function: extern "C" fn(u64) -> !, argument: u64, priority: u32) -> Result<Context, Status> {
    let mut context = prepare(function, argument, &Options { core, ..Options::default() })?;
    start(&mut context, priority, QUANTUM)?;
    Ok(context)
}

/// Makes a server that answers calls by `handler`.
///
/// # Errors
/// As `CreateEc`.
pub fn server(handler: Handler, options: &Options) -> Result<Context, Status> {
    let (base, _) = pages(STACK_ORDER)?;
    // A function starts with the stack pointer 8 below a multiple of 16.
    let stack = base + (PAGE << STACK_ORDER) - 8;
    let foreign = (options.pd != ROOT_PD).then_some(handler);
    let context = Context { ec: selector(), sc: NONE, utcb: addresses(0), stack, foreign };
    call(&CreateEc {
        sel: context.ec,
        pd: options.pd,
        flags: flags(false, options),
        utcb: context.utcb,
        sp: stack,
        ip: 0,
    })?;
    if foreign.is_none() {
        context.set_handler(handler);
    }
    Ok(context)
}

impl Context {
    /// Message page of this EC.
    #[must_use]
    pub const fn message(&self) -> Message {
        // SAFETY: the kernel mapped one there.
        unsafe { Message::at(self.utcb) }
    }

    /// Sets what this server does.
    pub fn set_handler(&self, handler: Handler) {
        self.message().set_tls(TLS_STACK, self.stack);
        self.message().set_tls(TLS_HANDLER, handler as *const () as u64);
    }

    /// Makes a portal into this server; only one, if the server is in another domain.
    ///
    /// # Errors
    /// As `CreatePt`.
    pub fn portal(&self, id: u64) -> Result<Selector, Status> {
        let Some(handler) = self.foreign else { return self.portal_at(entered as *const () as u64, id) };
        let place = self.stack + 8 - (PAGE << STACK_ORDER);
        let words = [(FOREIGN_HANDLER, handler as *const () as u64), (FOREIGN_STACK, self.stack), (FOREIGN_ID, id)];
        for (offset, word) in words {
            // SAFETY: the lowest words of the server's stack, which no handler comes down to.
            unsafe { crate::memory::write(place + offset, word) };
        }
        self.portal_at(entered_foreign as *const () as u64, place)
    }

    /// Makes a portal into this EC with another entry.
    ///
    /// # Errors
    /// As `CreatePt`.
    pub fn portal_at(&self, ip: u64, id: u64) -> Result<Selector, Status> {
        let sel = selector();
        call(&CreatePt { sel, pd: ROOT_PD, ec: self.ec, ip, id })?;
        Ok(sel)
    }

    /// Destroys SC and EC.
    pub fn destroy(&self) {
        if self.sc != NONE {
            destroy(self.sc);
        }
        destroy(self.ec);
    }
}

/// Destroys an object, however many steps it takes. What is destroyed already is left alone.
pub fn destroy(sel: Selector) {
    while call(&Destroy { sel }) == Err(Status::Again) {}
}
