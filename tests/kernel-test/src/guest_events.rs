// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests and time, interrupts, floating-point registers, and monitors that write nonsense.

use crate::fuzz::next;
use crate::guest_guards::needed;
use crate::harness::{Failure, Outcome, Test};
use crate::{check, equal};
use cloister_abi::arch::x86_64::vcpu::{Controls, Event, ExitReason, Groups, PortAccess, SHADOW_NMI, SHADOW_STI};
use cloister_abi::hypercall::VcpuKick;
use cloister_bare::guest::{CODE, Guest, SIZE, all_groups};
use cloister_bare::kernel::call;
use cloister_bare::time;

pub(crate) static TESTS: [Test; 16] = [
    ("guest-deadline", deadline),
    ("guest-kick-before-run", kick),
    ("guest-interrupt-injected", interrupt),
    ("guest-exception-injected", exception),
    ("guest-nmi-blocks-nmi", nmi),
    ("guest-interrupt-window", window),
    ("guest-sti-shadow", shadow),
    ("guest-machine-check-bit", machine_check_bit),
    ("guest-task-priority", priority),
    ("guest-invalid-state", invalid),
    ("guest-refused-then-left", refused_then_left),
    ("guest-floating-point", floating_point),
    ("guest-time-offset", time_offset),
    ("guest-time-auxiliary", time_auxiliary),
    ("guest-debug-registers-apart", debug_registers),
    ("guest-state-of-noise", noise),
];

/// Where the handlers of interrupts are.
const HANDLER: u64 = 0x1800;

fn deadline() -> Outcome {
    needed()?;
    let mut guest = Guest::real(&[0xeb, 0xfe])?;
    for _ in 0..3 {
        let end = time::after(2_000);
        guest.state().deadline = end;
        equal!(guest.run()?, ExitReason::Deadline);
        check!(time::now() >= end);
        check!(time::now() < end + time::micros(1_000_000));
        equal!(guest.state().rip, CODE);
    }
    // One that has passed already.
    guest.state().deadline = 1;
    equal!(guest.run()?, ExitReason::Deadline);
    guest.destroy();
    Ok(())
}

fn kick() -> Outcome {
    needed()?;
    let mut guest = Guest::real(&[0xf4])?;
    call(&VcpuKick { vcpu: guest.vcpu })?;
    call(&VcpuKick { vcpu: guest.vcpu })?;
    equal!(guest.run()?, ExitReason::Kicked);
    equal!(guest.state().rip, CODE);
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}

/// A guest in real mode with a handler (`out 0x99, al; iret`) for each vector.
fn with_handlers(code: &[u8]) -> Result<Guest, cloister_abi::status::Status> {
    let mut guest = Guest::real(code)?;
    for vector in 0..64 {
        guest.write(vector * 4, &[HANDLER.to_le_bytes()[0], HANDLER.to_le_bytes()[1], 0, 0]);
    }
    guest.write(HANDLER, &[0xe6, 0x99, 0xcf]);
    Ok(guest)
}

fn inject(guest: &mut Guest, event: Event) {
    guest.state().event = event;
    guest.state().load |= Groups::EVENT.bits();
}

/// The guest is in its handler; lets it return.
fn in_handler(guest: &mut Guest) -> Outcome {
    equal!(guest.run()?, ExitReason::Port);
    equal!(PortAccess(guest.state().qualification[0]).port(), 0x99);
    equal!(guest.state().rip, HANDLER);
    equal!(guest.state().rflags & 0x200, 0);
    guest.skip();
    Ok(())
}

fn interrupt() -> Outcome {
    needed()?;
    let mut guest = with_handlers(&[0x90, 0xf4])?;
    guest.state().rflags = 0x202;
    inject(&mut guest, Event::interrupt(0x20));
    in_handler(&mut guest)?;
    equal!(guest.state().event, Event::NONE);
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().rip, CODE + 1);
    equal!(guest.state().rflags & 0x200, 0x200);
    guest.destroy();
    Ok(())
}

fn exception() -> Outcome {
    needed()?;
    let mut guest = with_handlers(&[0xf4])?;
    inject(&mut guest, Event::exception(6, None));
    in_handler(&mut guest)?;
    equal!(guest.run()?, ExitReason::Hlt);
    // An event whose delivery faults in nested paging is delivered again when the page is there.
    let mut guest = with_handlers(&[0xf4])?;
    guest.state().ss.base = SIZE;
    guest.state().rflags = 0x202;
    inject(&mut guest, Event::interrupt(0x21));
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().event, Event::interrupt(0x21));
    guest.state().ss.base = 0;
    guest.state().load = Groups::CS_SS.bits();
    in_handler(&mut guest)?;
    guest.destroy();
    Ok(())
}

fn nmi() -> Outcome {
    needed()?;
    let mut guest = with_handlers(&[0x90, 0xf4])?;
    inject(&mut guest, Event::nmi());
    in_handler(&mut guest)?;
    equal!(guest.state().shadow & SHADOW_NMI, SHADOW_NMI);
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().shadow & SHADOW_NMI, 0);
    guest.destroy();
    Ok(())
}

fn window() -> Outcome {
    needed()?;
    // cli; nop; sti; nop; nop; hlt
    let mut guest = with_handlers(&[0xfa, 0x90, 0xfb, 0x90, 0x90, 0xf4])?;
    guest.state().controls = Controls::INTERRUPT_WINDOW.bits();
    equal!(guest.run()?, ExitReason::InterruptWindow);
    // One instruction after STI is still in its shadow.
    equal!(guest.state().rip, CODE + 4);
    equal!(guest.state().rflags & 0x200, 0x200);
    guest.state().controls = 0;
    guest.state().load |= Groups::CONTROL.bits();
    inject(&mut guest, Event::interrupt(0x30));
    in_handler(&mut guest)?;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().rip, CODE + 5);
    // With interrupts off there is no window.
    let mut guest = with_handlers(&[0xf4])?;
    guest.state().controls = Controls::INTERRUPT_WINDOW.bits();
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}

fn shadow() -> Outcome {
    needed()?;
    // sti; hlt
    let mut guest = with_handlers(&[0xfb, 0xf4])?;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!(guest.state().shadow, SHADOW_STI);
    guest.destroy();
    // What a monitor injects is delivered, whatever shadow it left.
    let mut guest = with_handlers(&[0x90, 0xf4])?;
    (guest.state().rflags, guest.state().shadow) = (0x202, SHADOW_STI);
    inject(&mut guest, Event::interrupt(0x20));
    in_handler(&mut guest)?;
    guest.destroy();
    Ok(())
}

/// CR4.MCE is the host's while a guest runs, and the guest's where it looks.
fn machine_check_bit() -> Outcome {
    needed()?;
    // mov eax, 0x40; mov cr4, eax; mov ebx, cr4; xor eax, eax; mov cr4, eax; mov ecx, cr4; hlt
    #[rustfmt::skip]
    let code = [
        0x66, 0xb8, 0x40, 0, 0, 0, 0x0f, 0x22, 0xe0, 0x0f, 0x20, 0xe3,
        0x66, 0x31, 0xc0, 0x0f, 0x22, 0xe0, 0x0f, 0x20, 0xe1, 0xf4,
    ];
    let mut guest = Guest::real(&code)?;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!((guest.state().gpr[3], guest.state().gpr[1], guest.state().cr4), (0x40, 0, 0));
    guest.destroy();
    Ok(())
}

fn priority() -> Outcome {
    needed()?;
    // mov rbx, cr8; mov cr8, rax; hlt
    let mut guest = Guest::long(&[0x44, 0x0f, 0x20, 0xc3, 0x44, 0x0f, 0x22, 0xc0, 0xf4])?;
    guest.state().cr8 = 5;
    guest.state().gpr[0] = 9;
    equal!(guest.run()?, ExitReason::Hlt);
    equal!((guest.state().gpr[3], guest.state().cr8), (5, 9));
    guest.destroy();
    Ok(())
}

fn invalid() -> Outcome {
    needed()?;
    let mut guest = Guest::real(&[0xf4])?;
    // Not write-through without cache disable.
    guest.state().cr0 = 0x2000_0010;
    equal!(guest.run()?, ExitReason::InvalidState);
    guest.destroy();
    // Long mode without large addresses: the processor says no. Put right, the guest runs.
    let mut guest = Guest::real(&[0xf4])?;
    // What is left of a refused state is the processor's matter, so all is given again.
    guest.state().store[ExitReason::InvalidState as usize] = 0;
    (guest.state().cr0, guest.state().efer) = (0x8000_0011, 0x100);
    equal!(guest.run()?, ExitReason::InvalidState);
    (guest.state().cr0, guest.state().efer) = (0x10, 0);
    guest.state().load = all_groups();
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    let mut guest = Guest::real(&[0x90, 0xf4])?;
    // An event of a type that does not exist.
    inject(&mut guest, Event(Event::VALID | 7 << 8));
    equal!(guest.run()?, ExitReason::InvalidState);
    // Everything else was taken, and nothing has run.
    equal!(guest.state().rip, CODE);
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}

/// Offsets in an XSAVE image: register XMM0, and the components that are there.
const XMM0: usize = 160;
const COMPONENTS: usize = 512;

fn floating_point() -> Outcome {
    needed()?;
    // movq rax, xmm0; movq xmm0, rbx; hlt
    let code = [0x66, 0x48, 0x0f, 0x7e, 0xc0, 0x66, 0x48, 0x0f, 0x6e, 0xc3, 0xf4];
    let mut guest = Guest::long(&code)?;
    let state = guest.state();
    state.fpu[XMM0..XMM0 + 8].copy_from_slice(&0x1234_5678_9abc_def0u64.to_le_bytes());
    state.fpu[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    state.fpu[COMPONENTS] = 3;
    state.gpr[3] = 0x0fed_cba9_8765_4321;
    state.xcr0 = 3;
    state.load = all_groups() | Groups::FPU.bits();
    state.store = [Groups::all().bits(); 32];
    equal!(guest.run()?, ExitReason::Hlt);
    let state = guest.state();
    equal!(state.gpr[0], 0x1234_5678_9abc_def0);
    check!(state.fpu[XMM0..XMM0 + 8] == 0x0fed_cba9_8765_4321u64.to_le_bytes());
    // Another guest begins with zeros.
    let mut other = Guest::long(&code)?;
    equal!(other.run()?, ExitReason::Hlt);
    equal!(other.state().gpr[0], 0);
    other.destroy();
    guest.destroy();
    Ok(())
}

fn time_offset() -> Outcome {
    needed()?;
    // rdtsc; hlt
    let mut guest = Guest::real(&[0x0f, 0x31, 0xf4])?;
    let offset = 1 << 40;
    guest.state().tsc_offset = offset;
    let before = time::now();
    equal!(guest.run()?, ExitReason::Hlt);
    let after = time::now();
    let found = guest.state().gpr[2] << 32 | guest.state().gpr[0] & 0xffff_ffff;
    check!(found >= before + offset && found <= after + offset);
    guest.destroy();
    Ok(())
}

/// RDTSCP answers each guest its own word, which the monitor takes from its WRMSR, and threads none of them.
fn time_auxiliary() -> Outcome {
    needed()?;
    if core::arch::x86_64::__cpuid(0x8000_0001).edx >> 27 & 1 == 0 {
        return Err(Failure::Skipped("no RDTSCP"));
    }
    // mov eax, esi; cdq; mov ecx, TSC_AUX; wrmsr; rdtscp; hlt; jmp to rdtscp
    #[rustfmt::skip]
    let code = [
        0x66, 0x89, 0xf0, 0x66, 0x99, 0x66, 0xb9, 0x03, 0x01, 0x00, 0xc0, 0x0f, 0x30,
        0x0f, 0x01, 0xf9, 0xf4, 0xeb, 0xfa,
    ];
    let mut guests = [Guest::real(&code)?, Guest::real(&code)?, Guest::real(&code)?];
    let words = [0x1234_5678, 0, 0xffff_ffff];
    for (guest, word) in guests.iter_mut().zip(words) {
        guest.state().gpr[6] = word;
        equal!(guest.run()?, ExitReason::WrMsr);
        equal!((guest.state().gpr[1], guest.state().gpr[0]), (0xc000_0103, word));
        // What is above is nothing to the processor.
        guest.state().tsc_aux = 0xffff_0000_0000 | word;
        guest.skip();
    }
    for _ in 0..3 {
        for (guest, word) in guests.iter_mut().zip(words) {
            equal!(guest.run()?, ExitReason::Hlt);
            equal!(guest.state().gpr[1] & 0xffff_ffff, word);
            guest.skip();
            let own: u32;
            // SAFETY: reads counter and word.
            unsafe { core::arch::asm!("rdtscp", out("ecx") own, out("eax") _, out("edx") _, options(nostack, nomem)) };
            equal!(own, 0);
        }
    }
    guests.iter().for_each(Guest::destroy);
    Ok(())
}

/// A guest with breakpoints leaves nothing of them to the next one.
fn debug_registers() -> Outcome {
    needed()?;
    let mut first = Guest::long(&[0x90, 0xf4, 0xeb, 0xfc])?;
    first.state().dr0_3 = [0x1111_0000, 0x2222_0000, 0x3333_0000, 0x4444_0000];
    first.state().dr7 = 0x455;
    // mov rax, dr0; mov rbx, dr3; mov rcx, dr7; hlt
    let mut second = Guest::long(&[0x0f, 0x21, 0xc0, 0x0f, 0x21, 0xdb, 0x0f, 0x21, 0xf9, 0xf4])?;
    equal!(first.run()?, ExitReason::Hlt);
    equal!(second.run()?, ExitReason::Hlt);
    let gpr = second.state().gpr;
    equal!((gpr[0], gpr[3], gpr[1]), (0, 0, 0x400));
    first.skip();
    equal!(first.run()?, ExitReason::Hlt);
    first.destroy();
    second.destroy();
    Ok(())
}

/// A guest whose state was refused, and then one that takes no interrupts, is still left when the host's timer rings.
fn refused_then_left() -> Outcome {
    needed()?;
    // cli; jmp $
    let mut guest = Guest::real(&[0xfa, 0xeb, 0xfe])?;
    guest.state().store[ExitReason::InvalidState as usize] = 0;
    for window in [0, Controls::INTERRUPT_WINDOW.bits()] {
        guest.state().controls = window;
        // Not write-through without cache disable exists on no processor.
        guest.state().cr0 = 0x2000_0010;
        guest.state().load = all_groups();
        equal!(guest.run()?, ExitReason::InvalidState);
        guest.state().cr0 = 0x10;
        guest.state().load = all_groups();
        guest.state().deadline = time::after(2000);
        equal!(guest.run()?, ExitReason::Deadline);
        guest.state().deadline = 0;
    }
    guest.destroy();
    Ok(())
}

/// Whatever a monitor writes, the guest runs until its deadline at most, and the kernel goes on.
fn noise() -> Outcome {
    needed()?;
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let mut guest = Guest::real(&[])?;
    for round in 0..200 {
        let page: *mut u64 = core::ptr::from_mut(guest.state()).cast();
        for word in 0..512 {
            let value = match next(&mut random) % 4 {
                0 => next(&mut random),
                1 => next(&mut random) & 0xffff,
                2 => 0,
                _ => u64::MAX,
            };
            // SAFETY: the state page has 512 words, and nobody runs the VCPU.
            unsafe { page.wrapping_add(word).write_volatile(value) };
        }
        let state = guest.state();
        if round % 2 == 0 {
            state.load = u64::MAX;
        }
        state.deadline = time::after(200);
        guest.run()?;
    }
    guest.destroy();
    // Guests that make sense still run.
    let mut guest = Guest::real(&[0xf4])?;
    equal!(guest.run()?, ExitReason::Hlt);
    guest.destroy();
    Ok(())
}
