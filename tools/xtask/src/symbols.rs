// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telling the kernel its own names: the table by which it prints a backtrace (`cloister-symbols` has the format).
//!
//! The linked kernel has a symbol table and DWARF call-frame information, which are not loaded. What of them is
//! needed is written into the section `.symbols`, for which its linker script left room. The result lies beside the
//! kernel that cargo linked, which stays as it is.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cloister_symbols::{Function, Rule, Writer};
use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext, UnwindSection,
    X86_64,
};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::build::changed;

/// The section that is filled.
const SECTION: &str = ".symbols";

/// How the names of assembly begin that keeps the interrupted registers where RBP points; see the kernel's `arch/x86_64/entry.rs`.
const INTERRUPTED: &str = "entry_trap_in_kernel_";

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Makes the kernel with its table beside the one without, and answers where it is.
pub(crate) fn finish(linked: &Path) -> Result<PathBuf> {
    let finished = linked.with_extension("elf");
    if changed(&finished) < changed(linked) {
        let mut image = fs::read(linked).with_context(|| format!("{} cannot be read", linked.display()))?;
        let (room, table) = table(&image).with_context(|| format!("symbols of {}", linked.display()))?;
        ensure!(
            table.len() <= room.len(),
            "the kernel's symbols take {} bytes, but its link.ld leaves {} for them",
            table.len(),
            room.len()
        );
        image[room][..table.len()].copy_from_slice(&table);
        fs::write(&finished, image).with_context(|| format!("{} cannot be written", finished.display()))?;
    }
    Ok(finished)
}

/// Where in the file the table goes, and the table.
fn table(image: &[u8]) -> Result<(Range<usize>, Vec<u8>)> {
    let file = object::File::parse(image)?;
    let section = |name: &str| file.section_by_name(name).with_context(|| format!("there is no section {name}"));
    let (offset, size) = section(SECTION)?.file_range().context("the section for symbols is not in the file")?;
    let start = usize::try_from(offset)?;
    let room = start..start + usize::try_from(size)?;
    let text = section(".text")?;
    let text = text.address()..text.address() + text.size();
    let relative = |address: u64| -> Result<u32> { Ok(u32::try_from(address - text.start)?) };

    let mut rows = Vec::new();
    let bases = BaseAddresses::default().set_text(text.start);
    let data = |name: &str| file.section_by_name(name).and_then(|section| section.data().ok()).unwrap_or_default();
    rows.extend(read_rows(&DebugFrame::new(data(".debug_frame"), LittleEndian), &bases)?);
    if let Some(section) = file.section_by_name(".eh_frame") {
        let bases = bases.set_eh_frame(section.address());
        rows.extend(read_rows(&EhFrame::new(section.data()?, LittleEndian), &bases)?);
    }
    rows.sort_by_key(|(address, _)| *address);

    let mut symbols: Vec<_> = file
        .symbols()
        .filter(|symbol| text.contains(&symbol.address()) && !matches!(symbol.kind(), SymbolKind::Section))
        .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?)))
        .filter(|(_, _, name)| !name.is_empty())
        .collect();
    // Of several names for one place, that of a function with a size says most.
    symbols.sort_by_key(|(address, size, _)| (*address, *size == 0));
    symbols.dedup_by_key(|(address, ..)| *address);
    let ends = symbols.iter().skip(1).map(|(address, ..)| *address).chain([text.end]).collect::<Vec<_>>();
    let mut writer = Writer::default();
    for ((address, _, name), end) in symbols.iter().zip(ends) {
        let mut function = Function { address: relative(*address)?, name: short(name), rows: Vec::new() };
        if name.starts_with(INTERRUPTED) {
            function.rows.push((0, Rule::Interrupted));
        }
        let own = rows.iter().filter(|(at, _)| (*address..end).contains(at));
        function.rows.extend(own.filter_map(|(at, rule)| Some((u32::try_from(at - address).ok()?, *rule))));
        writer.add(function);
    }
    let table = writer.finish(relative(text.end)?).context("it is too large for the format")?;
    Ok((room, table))
}

/// All rules of call-frame information, each with the address from where on it holds.
fn read_rows<'a, S>(section: &S, bases: &BaseAddresses) -> Result<Vec<(u64, Rule)>>
where
    S: UnwindSection<Bytes<'a>>,
    S::Offset: gimli::UnwindOffset<usize>,
{
    let mut found = Vec::new();
    let mut context = UnwindContext::new();
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next()? {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let description = partial.parse(S::cie_from_offset)?;
        let mut table = description.rows(section, bases, &mut context)?;
        while let Some(row) = table.next_row()? {
            found.push((row.start_address(), rule(row.cfa(), row.register(X86_64::RBP).as_ref())));
        }
        // Until the next function's there is padding, if anything.
        found.push((description.end_address(), Rule::End));
    }
    // Where one function's end is the next one's start, the start counts.
    found.reverse();
    found.sort_by_key(|(address, _)| *address);
    let ends: Vec<_> = found.iter().filter(|(_, rule)| *rule != Rule::End).map(|(address, _)| *address).collect();
    found.retain(|(address, rule)| *rule != Rule::End || ends.binary_search(address).is_err());
    Ok(found)
}

/// What the kernel can do with a row; what it cannot is an end.
fn rule(cfa: &CfaRule<usize>, saved: Option<&RegisterRule<usize>>) -> Rule {
    let CfaRule::RegisterAndOffset { register, offset } = *cfa else { return Rule::End };
    let words = |bytes: i64| if bytes % 8 == 0 { u16::try_from(bytes / 8).ok() } else { None };
    let base = match register {
        X86_64::RSP => false,
        X86_64::RBP => true,
        _ => return Rule::End,
    };
    let saved = match saved {
        Some(RegisterRule::Offset(offset)) => words(-offset).and_then(|words| u8::try_from(words).ok()).unwrap_or(0),
        _ => 0,
    };
    words(offset).map_or(Rule::End, |words| Rule::Frame { base, words, saved })
}

/// A symbol as a person would write it: demangled, without hash, and without what all of the kernel's have in common.
fn short(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol)).replace("cloister_kernel::", "").replace("cloister_", "")
}

#[cfg(test)]
mod tests {
    use gimli::{CfaRule, RegisterRule, X86_64};

    use super::{Rule, rule, short};

    #[test]
    fn names_are_short() {
        assert_eq!(short("_ZN15cloister_kernel5sched6settle17h0123456789abcdefE"), "sched::settle");
        assert_eq!(short("_ZN18cloister_mechanism4pool4Pool4take17h0123456789abcdefE"), "mechanism::pool::Pool::take");
        assert_eq!(short("entry_syscall"), "entry_syscall");
    }

    #[test]
    fn rules_are_translated() {
        let cfa = CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: 48 };
        let plain = rule(&cfa, None);
        assert_eq!(plain, Rule::Frame { base: false, words: 6, saved: 0 });
        let pushed = rule(&cfa, Some(&RegisterRule::Offset(-16)));
        assert_eq!(pushed, Rule::Frame { base: false, words: 6, saved: 2 });
        let other = CfaRule::RegisterAndOffset { register: X86_64::R10, offset: 0 };
        assert_eq!(rule(&other, None), Rule::End);
    }
}
