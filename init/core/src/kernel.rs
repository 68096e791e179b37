// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls as core makes them: on capabilities that core made itself, or that the kernel gave it at the start.
//!
//! Why these are sound: core maps memory into its own space only in [`crate::memory`], and never takes away what its own
//! program uses; everything else here acts on other components.

use cloister_abi::cap::{Perms, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, MACHINE_MEMORY, MACHINE_PIO, ROOT_OBJECTS, ROOT_PD};
use cloister_abi::hypercall::{
    Call, CreateEc, CreatePd, CreatePt, CreateSc, CreateSm, CreateSpace, CreateVcpu, Delegate, Destroy, Drop, IrqBind,
    MachineControl, MachineOp, MoveBudget, PdInfo, Revoke, ScTime, TraceControl,
};
use cloister_abi::status::Status;
use cloister_abi::trace::{NAME, TraceOp};
use cloister_abi::utcb::WORDS;
use cloister_core_model::{Chunk, PAGE};

pub(crate) type Answer<T> = Result<T, Status>;

/// Makes a call, again and again as long as there is work left.
fn invoke<C: Call>(call: &C) -> Answer<(u64, u64)> {
    loop {
        // SAFETY: see the head of this module.
        match unsafe { cloister_stubs::invoke(call) } {
            Err(Status::Again) => {}
            answer => return answer,
        }
    }
}

/// Creates a PD with its object, host and port space at `sel` to `sel + 3`, whose threads have the lowest so many priorities.
pub(crate) fn create_pd(sel: Selector, budget: u64, priorities: u32) -> Answer<()> {
    invoke(&CreatePd { sel, pd: ROOT_PD, budget, priorities }).map(|_| ())
}

/// Creates a guest space.
pub(crate) fn create_guest(sel: Selector, pd: Selector) -> Answer<()> {
    invoke(&CreateSpace { sel, pd, kind: SpaceKind::Guest as u64 }).map(|_| ())
}

/// Creates an EC.
pub(crate) fn create_ec(call: &CreateEc) -> Answer<()> {
    invoke(call).map(|_| ())
}

/// Creates an SC; the EC starts.
pub(crate) fn create_sc(call: &CreateSc) -> Answer<()> {
    invoke(call).map(|_| ())
}

/// Creates a portal.
pub(crate) fn create_pt(call: &CreatePt) -> Answer<()> {
    invoke(call).map(|_| ())
}

/// Creates a semaphore or signal.
pub(crate) fn create_sm(call: &CreateSm) -> Answer<()> {
    invoke(call).map(|_| ())
}

/// Creates a virtual CPU.
pub(crate) fn create_vcpu(call: &CreateVcpu) -> Answer<()> {
    invoke(call).map(|_| ())
}

/// Maps a piece of physical memory.
pub(crate) fn map(space: Selector, chunk: Chunk, rights: u64) -> Answer<()> {
    invoke(&Delegate {
        src: MACHINE_MEMORY,
        dst: space,
        src_base: chunk.source,
        dst_base: chunk.destination,
        order: chunk.order,
        rights,
    })
    .map(|_| ())
}

/// Allows ports.
pub(crate) fn allow_ports(space: Selector, chunk: Chunk) -> Answer<()> {
    invoke(&Delegate {
        src: MACHINE_PIO,
        dst: space,
        src_base: chunk.source,
        dst_base: chunk.destination,
        order: chunk.order,
        rights: 1,
    })
    .map(|_| ())
}

/// Takes a piece out of a space.
pub(crate) fn unmap(space: Selector, chunk: Chunk) -> Answer<()> {
    invoke(&Revoke { space, base: chunk.destination, order: chunk.order }).map(|_| ())
}

/// Copies one of core's capabilities to a selector of another object space.
pub(crate) fn give(space: Selector, from: Selector, to: Selector, perms: Perms) -> Answer<()> {
    let rights = u64::from(perms.bits());
    let (src_base, dst_base) = (u64::from(from), u64::from(to));
    invoke(&Delegate { src: ROOT_OBJECTS, dst: space, src_base, dst_base, order: 0, rights }).map(|_| ())
}

/// Destroys an object.
pub(crate) fn destroy(sel: Selector) {
    // An object that is dead already leaves its capability behind.
    if invoke(&Destroy { sel }).is_err() {
        let _ = invoke(&Drop { base: sel, count: 1 });
    }
}

/// Drops capabilities.
pub(crate) fn drop(base: Selector, count: u32) {
    let _ = invoke(&Drop { base, count });
}

/// Gives kernel memory of core's own budget to a PD.
pub(crate) fn move_budget(to: Selector, bytes: u64) -> Answer<()> {
    invoke(&MoveBudget { from: ROOT_PD, to, bytes }).map(|_| ())
}

/// Kernel memory of a PD that is not used, bytes.
pub(crate) fn budget_left(pd: Selector) -> Answer<u64> {
    invoke(&PdInfo { pd }).map(|(limit, used)| limit.saturating_sub(used))
}

/// Time that an SC has used, ticks.
pub(crate) fn time(sc: Selector) -> Answer<u64> {
    invoke(&ScTime { sc }).map(|(ticks, _)| ticks)
}

/// Binds an interrupt to a semaphore.
pub(crate) fn bind_interrupt(sm: Selector, gsi: u32, flags: u64) -> Answer<()> {
    invoke(&IrqBind { machine: MACHINE, sm, gsi, flags }).map(|_| ())
}

/// Kernel memory: all, free. Bytes.
pub(crate) fn kernel_memory() -> (u64, u64) {
    control(MachineOp::Memory, 0).unwrap_or((0, 0))
}

/// Powers off.
pub(crate) fn power_off(code: u64) {
    let _ = control(MachineOp::PowerOff, code);
}

/// Resets.
pub(crate) fn reset() {
    let _ = control(MachineOp::Reset, 0);
}

fn control(operation: MachineOp, value: u64) -> Answer<(u64, u64)> {
    invoke(&MachineControl { machine: MACHINE, operation: operation as u64, value })
}

/// Writes to the kernel's console.
pub(crate) fn console(text: &[u8]) {
    for part in text.chunks(WORDS * 8) {
        put_words(part);
        let _ = control(MachineOp::Console, part.len() as u64);
    }
}

/// Names an EC in the kernel's trace, if there is one; what is longer is cut.
pub(crate) fn name_in_trace(ec: Selector, name: &str) {
    let name = &name[..name.floor_char_boundary(NAME)];
    put_words(name.as_bytes());
    let (operation, value) = (TraceOp::Name as u64, name.len() as u64);
    let _ = invoke(&TraceControl { machine: MACHINE, operation, argument: ec, value });
}

/// Puts bytes into the message words.
fn put_words(text: &[u8]) {
    // SAFETY: the page belongs to this thread, and nobody else refers to it here.
    let page = unsafe { &mut *cloister_stubs::utcb() };
    for (word, bytes) in page.words.iter_mut().zip(text.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
}

/// A range of bytes (whole pages) as the kernel's pieces.
pub(crate) fn pieces(physical: u64, address: u64, size: u64) -> impl Iterator<Item = Chunk> {
    cloister_core_model::chunks(physical / PAGE, address / PAGE, size / PAGE)
}
