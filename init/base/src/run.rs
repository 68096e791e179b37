// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a freestanding component.
//!
//! The first thread fetches the environment, makes the entrypoint, and lets it construct the component. Then it waits for
//! signals and deadlines, and hands each to the entrypoint by a call through a portal that nobody else has.

use crate::entry::{self, refuse};
use crate::link::FixedLink;
use crate::logger::Line;
use crate::sessions::{
    Attach, CpuClient, Decode, Decoder, Encode, Encoder, PdClient, Rights, ThreadFlags, ThreadStart, Transport,
};
use crate::{Cap, Error, Link, ObjectId, env, selectors, signal};
use alloc::boxed::Box;
use core::fmt::Write;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Stack of the entrypoint, bytes.
const STACK: u64 = 64 << 10;
/// Identity of the portal between main thread and entrypoint.
const CONTROL: u64 = u64::MAX;

/// A component: its state, and what it does about calls and news.
pub trait Component: Sized + 'static {
    /// Starts. Runs on the entrypoint, before any call.
    ///
    /// # Errors
    /// What keeps it from starting: the component exits with that.
    fn new() -> Result<Self, Error>;

    /// Answers one call to one of its portals, usually by the `dispatch` of the object's interface.
    fn call(&mut self, object: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>);

    /// Takes news: the signals whose bits are set ([`signal::Signal::is_in`]). None are set when the deadline passed.
    fn signals(&mut self, bits: u64);

    /// When to call [`Self::signals`] even without news, in ticks; 0 for never. Asked after each call of `signals`.
    fn deadline(&mut self) -> u64 {
        0
    }
}

/// Makes a type that is a [`Component`] the program.
#[macro_export]
macro_rules! component {
    ($component:ty) => {
        $crate::program_start!($crate::started::<$component>);

        #[cfg(target_os = "none")]
        #[global_allocator]
        static HEAP: $crate::heap::Heap = $crate::heap::Heap::new();

        #[cfg(target_os = "none")]
        #[panic_handler]
        fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked(info)
        }
    };
}

/// A portal of the entrypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its name towards the PD session.
    handle: u64,
    /// Its capability.
    cap: Cap,
}

impl Portal {
    /// Makes a portal to an object of the component.
    ///
    /// # Errors
    /// What the PD session says.
    pub fn new(object: ObjectId) -> Result<Self, Error> {
        let entrypoint = Cap::new(selectors::ENTRYPOINT).object();
        let made = env::pd().alloc_rpc(entrypoint, entry::address(), object.to_raw())?;
        Ok(Self { handle: made.handle, cap: made.cap })
    }

    /// The capability to hand to clients.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        Cap::portal(self.cap.selector)
    }

    /// Destroys it: whoever has a capability to it gets an error from now on.
    ///
    /// # Errors
    /// What the PD session says.
    pub fn free(self) -> Result<(), Error> {
        selectors::drop_capability(self.cap.selector);
        env::pd().free_object(self.handle)
    }
}

static STATE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The first thing that runs, on the first thread. Called by the instructions that [`component!`](crate::component!)
/// defines.
pub extern "sysv64" fn started<C: Component>() -> ! {
    if env::fetch().is_err() {
        env::exit(-1, "the parent did not give the environment's sessions");
    }
    crate::logger::install();
    run::<C>()
}

/// Ends a component that panicked: a line in the log, and the reason to the parent.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut line = Line::default();
    let _ = write!(line, "{info}");
    let _ = env::log().write(line.as_str());
    env::exit(-1, line.as_str())
}

/// Runs a component. Called by [`started`].
pub fn run<C: Component>() -> ! {
    // SAFETY: `prepare` makes the program's one entrypoint, and `Portal` and `prepare` make portals to it only.
    unsafe { entry::install(serve::<C>) };
    match prepare().and_then(|()| main_loop()) {
        Ok(never) => match never {},
        Err(error) => {
            let mut line = Line::default();
            let _ = write!(line, "can't run: {error}");
            log::error!("{}", line.as_str());
            env::exit(-1, line.as_str())
        }
    }
}

/// Makes the notification semaphore, the entrypoint, and the portal to it.
fn prepare() -> Result<(), Error> {
    PdClient(FixedLink { portal: selectors::PD, at: selectors::NOTIFICATION }).notification()?;
    let start = ThreadStart { ip: 0, sp: stack(STACK)?, core: 0, priority: 0, flags: ThreadFlags::empty() };
    CpuClient(FixedLink { portal: selectors::CPU, at: selectors::ENTRYPOINT }).create_entrypoint(
        Cap::new(selectors::PD).object(),
        "entrypoint",
        start,
    )?;
    PdClient(FixedLink { portal: selectors::PD, at: selectors::CONTROL }).alloc_rpc(
        Cap::new(selectors::ENTRYPOINT).object(),
        entry::address(),
        CONTROL,
    )?;
    Ok(())
}

/// Makes a stack with a page below that is not mapped. Answers its top.
///
/// # Errors
/// What the PD session says.
pub fn stack(size: u64) -> Result<u64, Error> {
    let guard = 4096;
    let base = env::pd().reserve(None, size + guard)?;
    let dataspace = env::pd().alloc(size, 12)?;
    env::pd().attach(dataspace.object(), Attach::at(base + guard, Rights::RW))?;
    Link::from(dataspace).drop();
    Ok(base + guard + size)
}

/// What the main thread tells the entrypoint.
const CONSTRUCT: u64 = 1;
const SIGNALS: u64 = 2;

fn main_loop() -> Result<core::convert::Infallible, Error> {
    let mut deadline = control(CONSTRUCT, 0)?;
    loop {
        let bits = signal::take(selectors::NOTIFICATION, deadline)?;
        deadline = control(SIGNALS, bits)?;
    }
}

fn control(operation: u64, bits: u64) -> Result<u64, Error> {
    Link(selectors::CONTROL).exchange(
        0,
        |message| {
            message.word(operation)?;
            message.word(bits)
        },
        |answer| match answer.word()? {
            0 => answer.word(),
            code => Err(Error::from_raw([code, answer.word()?, answer.word()?])),
        },
    )
}

/// Answers a call on the entrypoint.
fn serve<C: Component>(identity: u64, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
    if identity == CONTROL {
        match controlled::<C>(request) {
            Ok(deadline) => {
                let _ = 0_u64.encode(reply).and_then(|()| deadline.encode(reply));
            }
            Err(error) => refuse(reply, error),
        }
        return;
    }
    match state::<C>() {
        Some(component) => component.call(ObjectId::from_raw(identity), request, reply),
        None => refuse(reply, Error::NotReady),
    }
}

fn controlled<C: Component>(request: &mut Decoder<'_>) -> Result<u64, Error> {
    let (operation, bits) = (u64::decode(request)?, u64::decode(request)?);
    if operation == CONSTRUCT {
        STATE.store(Box::into_raw(Box::new(C::new()?)).cast(), Ordering::Release);
    }
    let component = state::<C>().ok_or(Error::NotReady)?;
    if operation == SIGNALS {
        component.signals(bits);
    }
    Ok(component.deadline())
}

fn state<C: Component>() -> Option<&'static mut C> {
    let pointer: *mut C = STATE.load(Ordering::Acquire).cast();
    // SAFETY: the pointer is null or the box that `controlled::<C>` leaked; only the entrypoint comes here, one call at a
    // time, and no reference outlives a call.
    unsafe { pointer.as_mut() }
}
