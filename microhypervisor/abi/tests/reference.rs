// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/spec/hypercalls.md` and the crate say the same: names, numbers, arguments, statuses, exit reasons, layouts.
//!
//! The reference is read as what it is, headings and tables. A row is found by the heading above it, so that prose may change freely.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing else")]

use cloister_abi::arch::x86_64::exception::ExceptionState;
use cloister_abi::arch::x86_64::vcpu::{ExitReason, Groups, VcpuState};
use cloister_abi::cap::Perms;
use cloister_abi::hip::Hip;
use cloister_abi::hypercall::{ARGUMENTS, CALLS};
use cloister_abi::status::Status;
use cloister_abi::utcb::Utcb;

/// Registers of the arguments, in order.
const REGISTERS: [&str; 6] = ["rdi", "rsi", "rdx", "r10", "r8", "r9"];

/// A section: its heading, and its table rows as cells without marks of code.
struct Section {
    heading: String,
    rows: Vec<Vec<String>>,
}

fn reference() -> Vec<Section> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/hypercalls.md");
    let text = std::fs::read_to_string(path).expect("the reference is there");
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            let heading = line.trim_start_matches(['#', ' ']).to_owned();
            sections.push(Section { heading, rows: Vec::new() });
        } else if let Some(row) = line.strip_prefix("| ") {
            let cells = row.trim_end_matches(" |").split(" | ").map(|cell| cell.replace('`', "")).collect();
            sections.last_mut().expect("a heading comes first").rows.push(cells);
        }
    }
    sections
}

fn section(heading: &str) -> Vec<Vec<String>> {
    let found = reference().into_iter().find(|section| section.heading == heading);
    found.unwrap_or_else(|| panic!("no section {heading}")).rows
}

/// Rows whose first cell is a number: the number and the first word of the second cell.
fn numbered(heading: &str) -> Vec<(usize, String)> {
    let rows = section(heading).into_iter();
    rows.filter_map(|row| Some((row.first()?.parse().ok()?, row.get(1)?.clone()))).collect()
}

#[test]
fn every_call_has_a_section_of_its_number_and_no_other_does() {
    let calls: Vec<_> = CALLS.iter().map(|(name, number)| format!("{number} {name}")).collect();
    let headings = reference().into_iter().map(|section| section.heading);
    let found: Vec<_> = headings.filter(|heading| heading.starts_with(|first: char| first.is_ascii_digit())).collect();
    assert_eq!(found, calls);
}

#[test]
fn arguments_are_in_the_order_of_the_registers() {
    for ((name, number), expected) in CALLS.iter().zip(ARGUMENTS) {
        let rows = section(&format!("{number} {name}")).into_iter();
        // Rows of arguments have five cells; those of results and statuses have two.
        let rows: Vec<_> = rows.filter(|row| row.len() == 5 && row[0] != "register").collect();
        let found: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
        let expected: Vec<_> = REGISTERS.iter().copied().zip(expected.iter().copied()).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn needed_permissions_exist() {
    for (name, number) in CALLS {
        for row in section(&format!("{number} {name}")).iter().filter(|row| row.len() == 5 && row[0] != "register") {
            let Some((_, permission)) = row[4].split_once(' ') else { continue };
            if permission.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') {
                assert!(Perms::from_name(permission).is_some(), "{name}: {permission}");
            } else {
                assert_eq!(permission, "by operation", "{name}");
            }
        }
    }
}

#[test]
fn statuses_are_the_crates() {
    let expected: Vec<_> =
        Status::ALL.iter().enumerate().map(|(number, status)| (number, format!("{status:?}"))).collect();
    assert_eq!(numbered("Statuses"), expected);
    let names: Vec<_> = expected.into_iter().map(|(_, name)| name).collect();
    for (name, number) in CALLS {
        let rows = section(&format!("{number} {name}"));
        let start = rows.iter().position(|row| row[0] == "status").unwrap_or_else(|| panic!("{name}: no statuses"));
        let statuses: Vec<_> = rows[start + 1..].iter().map(|row| row[0].clone()).collect();
        assert!(!statuses.is_empty(), "{name}");
        for status in &statuses {
            assert!(names.contains(status), "{name}: {status}");
        }
        let order: Vec<_> = names.iter().filter(|known| statuses.contains(known)).collect();
        assert_eq!(statuses.iter().collect::<Vec<_>>(), order, "{name}: in the order of their numbers, each once");
    }
}

/// What stands behind `* WORD: ` in the section of a call; all of it is one line.
fn points(heading: &str, word: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/spec/hypercalls.md");
    let text = std::fs::read_to_string(path).expect("the reference is there");
    let lines = text.lines().skip_while(|line| *line != format!("### {heading}")).skip(1);
    let own = lines.take_while(|line| !line.starts_with('#'));
    own.filter_map(|line| Some(line.strip_prefix("* ")?.strip_prefix(word)?.strip_prefix(": ")?.to_owned())).collect()
}

#[test]
fn every_call_says_what_it_costs_and_what_other_cores_see() {
    for (name, number) in CALLS {
        let heading = format!("{number} {name}");
        let [cost] = points(&heading, "Cost").try_into().expect(name);
        // A figure, or how it grows, or where that stands.
        let said =
            cost.contains(|letter: char| letter.is_ascii_digit()) || cost.contains("grows") || cost.contains("see `");
        assert!(said, "{name}: {cost}");
        let [concurrency] = points(&heading, "Concurrency").try_into().expect(name);
        assert!(concurrency.len() > 10, "{name}: {concurrency}");
    }
}

#[test]
fn exit_reasons_are_the_crates() {
    let expected: Vec<_> = ExitReason::ALL.iter().map(|reason| (*reason as usize, format!("{reason:?}"))).collect();
    assert_eq!(numbered("Exit reasons"), expected);
}

#[test]
fn groups_are_the_crates() {
    let rows = numbered("State page of a VCPU").into_iter();
    let found: Vec<_> = rows.filter(|(_, name)| name.chars().all(|letter| !letter.is_ascii_lowercase())).collect();
    let single = Groups::all().iter_names().filter(|(_, group)| group.bits().is_power_of_two());
    let expected: Vec<_> =
        single.map(|(name, group)| (group.bits().trailing_zeros() as usize, name.to_owned())).collect();
    assert_eq!(found, expected);
    for row in section("State page of a VCPU").iter().filter(|row| row.len() == 4 && row[0] != "offset") {
        for group in row[2].split(", ").filter(|group| *group != "–") {
            assert!(Groups::from_name(group).is_some(), "{}: {group}", row[1]);
        }
    }
}

macro_rules! offsets {
    ($type:ident: $($field:ident)+) => {
        vec![$((core::mem::offset_of!($type, $field), stringify!($field).to_owned())),+]
    };
}

/// Rows of a table of fields.
fn fields(heading: &str) -> Vec<(usize, String)> {
    let rows = numbered(heading).into_iter();
    rows.filter(|(_, name)| name.chars().any(|letter| letter.is_ascii_lowercase())).collect()
}

#[test]
fn layouts_are_the_crates() {
    let utcb = offsets!(Utcb: this tls foreign_entry foreign_return foreign_flags window_base window_count items words);
    // The table of items' kinds follows in the same section, with names in capitals in its first cells.
    assert_eq!(fields("Message page (UTCB)"), utcb);
    let hip = offsets!(Hip: magic version cores tsc_hz features image_base image_size acpi_rsdp interrupts range_count
        kernel_memory framebuffer framebuffer_size framebuffer_format boot_time acpi_root framebuffer_colors ranges cmdline);
    assert_eq!(fields("Information page (HIP)"), hip);
    let exception =
        offsets!(ExceptionState: vector error address rip rsp rflags rax rbx rcx rdx rsi rdi rbp r8_r15 fs_base);
    let exception: Vec<_> = exception.into_iter().map(|(offset, name)| (offset / 8, name)).collect();
    assert_eq!(fields("Exceptions"), exception);
    let state = offsets!(VcpuState: load deadline reason qualification instruction_length exits gpr rip rflags cs ss ds es
        fs gs tr ldtr gdtr idtr cr0 cr2 cr3 cr4 cr8 xcr0 dr0_3 dr6 dr7 efer sysenter_cs sysenter_esp sysenter_eip star
        lstar cstar sfmask kernel_gs_base pat event shadow controls tsc_offset store tsc_aux fpu);
    assert_eq!(fields("State page of a VCPU"), state);
}

#[test]
fn version_is_in_the_changelog() {
    let version = format!("{}.{}", cloister_abi::VERSION >> 16, cloister_abi::VERSION & 0xffff);
    let newest = section("Changelog").into_iter().next_back().expect("a version");
    assert_eq!(newest[0], version);
}
