// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's memory while it runs: taken away, given back, in large pages, without the right to write.

use crate::equal;
use crate::guest_guards::needed;
use crate::harness::{Outcome, Test};
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups};
use cloister_abi::cap::Access;
use cloister_abi::hip::{MACHINE_MEMORY, ROOT_HOST};
use cloister_abi::hypercall::{Delegate, Revoke};
use cloister_bare::guest::Guest;
use cloister_bare::kernel::call;
use cloister_bare::memory::{PAGE, addresses, frames, map, pages, write};

pub(crate) static TESTS: [Test; 4] = [
    ("guest-memory-revoked", revoked),
    ("guest-memory-in-large-pages", large),
    ("guest-memory-read-only", read_only),
    ("guest-memory-with-less-rights", less_rights),
];

fn rights(access: Access) -> u64 {
    u64::from(access.bits())
}

fn again(guest: &mut Guest) {
    guest.state().rip = cloister_bare::guest::CODE;
    guest.state().load |= Groups::RIP.bits();
}

/// What the processor remembers of a page goes with the page.
fn revoked() -> Outcome {
    needed()?;
    // mov al, [0x9000]; hlt
    let mut guest = Guest::real(&[0xa0, 0x00, 0x90, 0xf4])?;
    equal!(guest.run()?, ExitReason::Hlt);
    call(&Revoke { space: guest.space, base: 9, order: 0 })?;
    again(&mut guest);
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().qualification[1], 0x9000);
    let (address, physical) = pages(0)?;
    // SAFETY: mapped just now.
    unsafe { write(address, 0x5a) };
    let access = rights(Access::READ | Access::WRITE | Access::EXEC);
    let src_base = physical / PAGE;
    call(&Delegate { src: MACHINE_MEMORY, dst: guest.space, src_base, dst_base: 9, order: 0, rights: access })?;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().gpr[0] & 0xff, 0x5a);
    guest.destroy();
    Ok(())
}

fn large() -> Outcome {
    needed()?;
    // mov al, [0]; hlt, with the data segment at 2 MiB.
    let mut guest = Guest::real(&[0xa0, 0x00, 0x00, 0xf4])?;
    guest.state().ds.base = 0x20_0000;
    let (address, physical) = pages(9)?;
    // SAFETY: mapped just now.
    unsafe { write(address, 0xa5) };
    let access = rights(Access::READ | Access::WRITE);
    let place = Delegate {
        src: MACHINE_MEMORY,
        dst: guest.space,
        src_base: physical / PAGE,
        dst_base: 0x200,
        order: 9,
        rights: access,
    };
    call(&place)?;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().gpr[0] & 0xff, 0xa5);
    call(&Revoke { space: guest.space, base: 0x200, order: 9 })?;
    again(&mut guest);
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().qualification[1], 0x20_0000);
    call(&place)?;
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}

fn read_only() -> Outcome {
    needed()?;
    // mov al, [0]; mov [0], al; hlt, with the data segment behind the guest's memory.
    let mut guest = Guest::real(&[0xa0, 0x00, 0x00, 0xa2, 0x00, 0x00, 0xf4])?;
    guest.state().ds.base = 0x4_0000;
    let src_base = frames(0) / PAGE;
    let access = rights(Access::READ);
    call(&Delegate { src: MACHINE_MEMORY, dst: guest.space, src_base, dst_base: 0x40, order: 0, rights: access })?;
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().qualification[0] & 3, 3);
    equal!(guest.state().rip, cloister_bare::guest::CODE + 3);
    guest.destroy();
    // Nor is it executable.
    let mut guest = Guest::real(&[])?;
    guest.state().cs.base = 0x4_0000;
    call(&Delegate { src: MACHINE_MEMORY, dst: guest.space, src_base, dst_base: 0x41, order: 0, rights: access })?;
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().qualification[0] & 0x11, 0x11);
    guest.destroy();
    Ok(())
}

/// Who may only read may not give others the right to write, however many hands it goes through.
fn less_rights() -> Outcome {
    needed()?;
    let (address, second) = (addresses(0), addresses(0));
    map(frames(0), address, 0, Access::READ)?;
    let rights = rights(Access::READ | Access::WRITE);
    let pass = |from: u64, dst, to: u64| {
        let (src_base, dst_base) = (from / PAGE, to / PAGE);
        call(&Delegate { src: ROOT_HOST, dst, src_base, dst_base, order: 0, rights })
    };
    pass(address, ROOT_HOST, second)?;
    for source in [address, second] {
        // mov al, [0]; mov [0], al; hlt, with the data segment behind the guest's memory.
        let mut guest = Guest::real(&[0xa0, 0x00, 0x00, 0xa2, 0x00, 0x00, 0xf4])?;
        guest.state().ds.base = 0x4_0000;
        pass(source, guest.space, 0x4_0000)?;
        equal!(guest.run()?, ExitReason::Memory);
        equal!(guest.state().qualification[0] & 3, 3);
        equal!(guest.state().rip, cloister_bare::guest::CODE + 3);
        guest.destroy();
    }
    Ok(())
}
