// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tiny guests, each for one exit.

use crate::guest_guards::needed;
use crate::harness::{Failure, Outcome, Test};
use crate::{check, equal};
use cloister_abi::arch::x86_64::vcpu::{Controls, ExitReason, Groups, PortAccess};
use cloister_abi::hip::features;
use cloister_abi::hypercall::VcpuSync;
use cloister_bare::entry::hip;
use cloister_bare::guest::{CODE, Guest, all_groups};
use cloister_bare::kernel::call;

pub(crate) static TESTS: [Test; 12] = [
    ("exit-simple-instructions", simple),
    ("exit-port", port),
    ("exit-string-port", string_port),
    ("exit-memory", memory),
    ("exit-msr", msr),
    ("exit-msr-that-passes", passing_msr),
    ("exit-shutdown", shutdown),
    ("exit-by-control", by_control),
    ("exit-debug", debug),
    ("exit-virtualization", virtualization),
    ("exit-stores-what-is-asked", stores),
    ("exit-long-mode", long_mode),
];

/// Runs a guest to one exit of that reason, whose instruction has that length.
fn expect(guest: &mut Guest, reason: ExitReason, length: u64) -> Outcome {
    equal!(guest.run()?, reason);
    equal!(guest.state().reason, reason as u64);
    equal!(guest.state().instruction_length, length);
    Ok(())
}

fn simple() -> Outcome {
    needed()?;
    // VMCALL with VMX, VMMCALL with SVM.
    let vmx = hip().features & features::VMX != 0;
    let hypercall: &[u8] = if vmx { &[0x0f, 0x01, 0xc1] } else { &[0x0f, 0x01, 0xd9] };
    let cases: [(&[u8], ExitReason, u64); 5] = [
        (&[0x0f, 0xa2], ExitReason::Cpuid, 2),
        (&[0xf4], ExitReason::Hlt, 1),
        (hypercall, ExitReason::Hypercall, 3),
        (&[0x0f, 0x08], ExitReason::CacheControl, 2),
        (&[0x0f, 0x09], ExitReason::CacheControl, 2),
    ];
    for (code, reason, length) in cases {
        let mut guest = Guest::real(code)?;
        expect(&mut guest, reason, length)?;
        equal!(guest.state().rip, CODE);
        // The instruction after it is reached by going past it; the guest's memory there is zeros, then comes the end.
        guest.write(CODE + length, &[0xf4]);
        guest.skip();
        expect(&mut guest, ExitReason::Hlt, 1)?;
        equal!(guest.state().rip, CODE + length);
        // Interrupts of the host count too.
        check!(guest.state().exits >= 2);
        guest.destroy();
    }
    Ok(())
}

fn access(guest: &mut Guest) -> PortAccess {
    PortAccess(guest.state().qualification[0])
}

fn port() -> Outcome {
    needed()?;
    // out 0x42, al · out 0x42, ax · out 0x42, eax · in al, dx · in ax, dx · in eax, dx
    let cases: [(&[u8], u64, bool, u16); 6] = [
        (&[0xe6, 0x42], 1, false, 0x42),
        (&[0xe7, 0x42], 2, false, 0x42),
        (&[0x66, 0xe7, 0x42], 4, false, 0x42),
        (&[0xec], 1, true, 0xcfe),
        (&[0xed], 2, true, 0xcfe),
        (&[0x66, 0xed], 4, true, 0xcfe),
    ];
    for (code, size, is_in, port) in cases {
        let mut guest = Guest::real(code)?;
        guest.state().gpr[2] = 0xcfe;
        guest.state().gpr[0] = 0x1234_5678;
        expect(&mut guest, ExitReason::Port, code.len() as u64)?;
        let found = access(&mut guest);
        equal!((found.port(), found.size(), found.is_in()), (port, size, is_in));
        check!(!found.is_string() && !found.is_rep());
        equal!(guest.state().qualification[1], CODE + code.len() as u64);
        equal!(guest.state().gpr[0], 0x1234_5678);
        guest.destroy();
    }
    Ok(())
}

fn string_port() -> Outcome {
    needed()?;
    // rep outsb · rep insd
    let cases: [(&[u8], u64, bool); 2] = [(&[0xf3, 0x6e], 1, false), (&[0xf3, 0x66, 0x6d], 4, true)];
    for (code, size, is_in) in cases {
        let mut guest = Guest::real(code)?;
        (guest.state().gpr[1], guest.state().gpr[2]) = (3, 0x1f0);
        (guest.state().gpr[6], guest.state().gpr[7]) = (0x2000, 0x3000);
        expect(&mut guest, ExitReason::Port, code.len() as u64)?;
        let found = access(&mut guest);
        equal!((found.port(), found.size(), found.is_in()), (0x1f0, size, is_in));
        check!(found.is_string() && found.is_rep());
        check!(matches!(found.address_size(), 2));
        equal!(guest.state().gpr[1], 3);
        guest.destroy();
    }
    Ok(())
}

fn memory() -> Outcome {
    needed()?;
    // mov al, [0x10] · mov [0x10], al, with a data segment that begins behind the guest's memory.
    for (code, write) in [(&[0xa0, 0x10, 0x00], 0), (&[0xa2, 0x10, 0x00], 2)] {
        let mut guest = Guest::real(code)?;
        guest.state().ds.base = 0x2_0000;
        equal!(guest.run()?, ExitReason::Memory);
        equal!(guest.state().qualification[1], 0x2_0010);
        equal!(guest.state().qualification[0] & 0x13, write);
        equal!(guest.state().rip, CODE);
        guest.destroy();
    }
    // An instruction from there.
    let mut guest = Guest::real(&[])?;
    guest.state().cs.base = 0xf_0000;
    equal!(guest.run()?, ExitReason::Memory);
    equal!(guest.state().qualification[1], 0xf_0000 + CODE);
    equal!(guest.state().qualification[0] & 0x13, 0x10);
    guest.destroy();
    Ok(())
}

fn msr() -> Outcome {
    needed()?;
    for (code, reason) in [([0x0f, 0x32], ExitReason::RdMsr), ([0x0f, 0x30], ExitReason::WrMsr)] {
        for msr in [0x10, 0x1b, 0x277, 0xc000_0080, 0xc001_0114, 0xc001_0117, 0x4000_0000, 0xffff_ffff] {
            let mut guest = Guest::real(&code)?;
            guest.state().gpr[1] = msr;
            expect(&mut guest, reason, 2)?;
            equal!(guest.state().gpr[1], msr);
            guest.destroy();
        }
    }
    Ok(())
}

fn passing_msr() -> Outcome {
    needed()?;
    // mov ecx, MSR; mov eax, 0x5000; xor edx, edx; wrmsr; hlt
    for msr in [0xc000_0100u32, 0xc000_0101, 0xc000_0102, 0xc000_0082, 0x176] {
        let [a, b, c, d] = msr.to_le_bytes();
        let mut guest = Guest::long(&[0xb9, a, b, c, d, 0xb8, 0x00, 0x50, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0xf4])?;
        expect(&mut guest, ExitReason::Hlt, 1)?;
        let state = guest.state();
        let found = match msr {
            0xc000_0100 => state.fs.base,
            0xc000_0101 => state.gs.base,
            0xc000_0102 => state.kernel_gs_base,
            0xc000_0082 => state.lstar,
            _ => state.sysenter_eip,
        };
        equal!(found, 0x5000);
        guest.destroy();
    }
    // The host is still itself, and the message page where it was.
    check!(cloister_bare::kernel::message().address() != 0x5000);
    Ok(())
}

fn shutdown() -> Outcome {
    needed()?;
    // int 0x20 without any interrupt table.
    let mut guest = Guest::real(&[0xcd, 0x20])?;
    guest.state().idtr.limit = 0;
    equal!(guest.run()?, ExitReason::Shutdown);
    guest.destroy();
    Ok(())
}

fn by_control() -> Outcome {
    needed()?;
    let cases: [(&[u8], Controls, ExitReason); 4] = [
        (&[0x0f, 0x31, 0xf4], Controls::RDTSC, ExitReason::Rdtsc),
        (&[0xf3, 0x90, 0xf4], Controls::PAUSE, ExitReason::Pause),
        (&[0x0f, 0x33, 0xf4], Controls::RDPMC, ExitReason::Rdpmc),
        (&[0x0f, 0x21, 0xc0, 0xf4], Controls::DR, ExitReason::Dr),
    ];
    for (code, control, reason) in cases {
        let mut guest = Guest::real(code)?;
        guest.state().controls = control.bits();
        expect(&mut guest, reason, code.len() as u64 - 1)?;
        guest.destroy();
        if control == Controls::RDPMC {
            continue;
        }
        // Without the control the guest goes past it.
        let mut guest = Guest::real(code)?;
        expect(&mut guest, ExitReason::Hlt, 1)?;
        guest.destroy();
    }
    Ok(())
}

fn debug() -> Outcome {
    needed()?;
    // Single steps.
    let mut guest = Guest::real(&[0x90, 0x90, 0xf4])?;
    guest.state().controls = Controls::DEBUG.bits();
    guest.state().rflags = 0x102;
    equal!(guest.run()?, ExitReason::Exception);
    equal!((guest.state().qualification[0], guest.state().rip), (1, CODE + 1));
    guest.destroy();
    // mov dr0, eax; mov ebx, dr0; hlt: the guest's own register.
    let mut guest = Guest::real(&[0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xc3, 0xf4])?;
    guest.state().gpr[0] = 0x4321;
    expect(&mut guest, ExitReason::Hlt, 1)?;
    equal!((guest.state().gpr[3], guest.state().dr0_3[0]), (0x4321, 0x4321));
    // Another guest does not see it.
    let mut other = Guest::real(&[0x0f, 0x21, 0xc3, 0xf4])?;
    expect(&mut other, ExitReason::Hlt, 1)?;
    equal!(other.state().gpr[3], 0);
    other.destroy();
    guest.destroy();
    Ok(())
}

fn virtualization() -> Outcome {
    needed()?;
    // vmrun, vmload, vmsave, stgi, clgi, invlpga; vmlaunch, vmresume, vmxoff
    for last in [0xd8, 0xda, 0xdb, 0xdc, 0xdd, 0xdf, 0xc2, 0xc3, 0xc4] {
        let mut guest = Guest::long(&[0x0f, 0x01, last, 0xf4])?;
        match guest.run()? {
            ExitReason::Virtualization => {}
            // Instructions of the other extension, or of one that the processor does not show the guest, raise #UD, for which this
            // guest has no table.
            ExitReason::Shutdown => continue,
            other => return Err(Failure::Failed(crate::harness::Text::of(format_args!("{other:?} at {last:x}")))),
        }
        equal!(guest.state().rip, CODE);
        // The monitor may go past it, if it takes the pending exception away.
        guest.state().event = cloister_abi::arch::x86_64::vcpu::Event::NONE;
        guest.state().rip += 3;
        guest.state().load = (Groups::EVENT | Groups::RIP).bits();
        expect(&mut guest, ExitReason::Hlt, 1)?;
        guest.destroy();
    }
    Ok(())
}

fn stores() -> Outcome {
    needed()?;
    // mov eax, 7; cpuid; hlt
    let mut guest = Guest::real(&[0x66, 0xb8, 7, 0, 0, 0, 0x0f, 0xa2, 0xf4])?;
    guest.state().store = [Groups::RIP.bits(); 32];
    guest.state().gpr[0] = 0x55;
    equal!(guest.run()?, ExitReason::Cpuid);
    let state = guest.state();
    equal!((state.gpr[0], state.rip, state.instruction_length), (0x55, CODE + 6, 2));
    call(&VcpuSync { vcpu: guest.vcpu, groups: Groups::GPR_ACDB.bits() })?;
    equal!(guest.state().gpr[0], 7);
    // What the page says is not taken unless it is named.
    guest.state().gpr[0] = 0x66;
    guest.skip();
    guest.state().store = [all_groups(); 32];
    expect(&mut guest, ExitReason::Hlt, 1)?;
    equal!(guest.state().gpr[0], 7);
    guest.destroy();
    Ok(())
}

fn long_mode() -> Outcome {
    needed()?;
    // mov rax, 0x1122334455667788; mov r15, rax; push rax; pop rbp; mov rdi, cr3; hlt
    let code = [
        0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x49, 0x89, 0xc7, 0x50, 0x5d, 0x0f, 0x20, 0xdf,
        0xf4,
    ];
    let mut guest = Guest::long(&code)?;
    for (index, register) in guest.state().gpr.iter_mut().enumerate() {
        *register = if index == 4 { cloister_bare::guest::STACK } else { index as u64 * 0x101 };
    }
    expect(&mut guest, ExitReason::Hlt, 1)?;
    let state = guest.state();
    equal!((state.gpr[0], state.gpr[15], state.gpr[5]), (0x1122_3344_5566_7788, 0x1122_3344_5566_7788, state.gpr[0]));
    equal!((state.gpr[7], state.gpr[14], state.gpr[1]), (0x2000, 14 * 0x101, 0x101));
    equal!((state.efer, state.cr0, state.cr4), (0xd01, 0x8001_0033, 0x620));
    equal!(state.cs.access & 0x1_f0ff, 0xa09b);
    check!(state.ldtr.access & 1 << 16 != 0);
    guest.destroy();
    Ok(())
}
