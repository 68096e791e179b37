// SPDX-License-Identifier: MIT OR Apache-2.0
//! The initial stack of a program: argument count, arguments, environment, auxiliary vector, and the strings they point at.
//!
//! Layout as in the System V ABI for x86_64, section 3.4.1 ("Initial Stack and Register State").

use crate::errno::Errno;

/// Types of auxiliary entries (`elf.h`).
pub mod auxv {
    /// End of the vector.
    pub const NULL: u64 = 0;
    /// Address of the program headers.
    pub const PHDR: u64 = 3;
    /// Size of one.
    pub const PHENT: u64 = 4;
    /// How many.
    pub const PHNUM: u64 = 5;
    /// Page size.
    pub const PAGESZ: u64 = 6;
    /// Entry point.
    pub const ENTRY: u64 = 9;
    /// User, effective user, group, effective group: all 0.
    pub const UID: u64 = 11;
    /// See [`UID`].
    pub const EUID: u64 = 12;
    /// See [`UID`].
    pub const GID: u64 = 13;
    /// See [`UID`].
    pub const EGID: u64 = 14;
    /// Processor features (x86: CPUID 1, EDX).
    pub const HWCAP: u64 = 16;
    /// Frequency of `times()`.
    pub const CLKTCK: u64 = 17;
    /// Whether the program is to distrust its environment.
    pub const SECURE: u64 = 23;
    /// Address of 16 random bytes.
    pub const RANDOM: u64 = 25;
    /// More processor features (x86: bit 1 for the FSGSBASE instructions).
    pub const HWCAP2: u64 = 26;
    /// Address of the program's file name.
    pub const EXECFN: u64 = 31;
}

/// What the stack holds.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Arguments, the program's name first. No NUL in any.
    pub args: &'a [&'a str],
    /// Environment, `NAME=value`.
    pub env: &'a [&'a str],
    /// Auxiliary entries but those that point into the stack (`RANDOM`, `EXECFN`, `NULL`).
    pub auxv: &'a [(u64, u64)],
    /// The bytes of `AT_RANDOM`.
    pub random: [u8; 16],
}

/// Writes the initial stack to the upper end of `memory`, whose first byte lies at `base`. Answers the stack pointer.
///
/// # Errors
/// `NOMEM` if it does not fit.
pub fn build(memory: &mut [u8], base: u64, content: &Content<'_>) -> Result<u64, Errno> {
    let strings = content.args.iter().chain(content.env);
    let text: usize = strings.clone().map(|string| string.len() + 1).sum();
    let pointers = 1 + content.args.len() + 1 + content.env.len() + 1 + 2 * (content.auxv.len() + 3);
    let total = (pointers * 8 + 16 + text).next_multiple_of(16);
    let start = (memory.len() & !15).checked_sub(total).ok_or(Errno::NOMEM)?;
    let address = base + u64::try_from(start).map_err(|_| Errno::NOMEM)?;
    if !address.is_multiple_of(16) {
        return Err(Errno::INVAL);
    }
    let area = memory.get_mut(start..).ok_or(Errno::NOMEM)?;
    let (vector, rest) = area.split_at_mut_checked(pointers * 8).ok_or(Errno::NOMEM)?;
    let (random, rest) = rest.split_at_mut_checked(16).ok_or(Errno::NOMEM)?;
    random.copy_from_slice(&content.random);

    let random_at = address + u64::try_from(pointers * 8).map_err(|_| Errno::NOMEM)?;
    let mut string_at = random_at + 16;
    let first_string = string_at;
    let mut bytes = rest.iter_mut();
    for byte in strings.flat_map(|string| string.bytes().chain([0])) {
        *bytes.next().ok_or(Errno::NOMEM)? = byte;
    }
    let mut next = |string: &&str| {
        let at = string_at;
        string_at += string.len() as u64 + 1;
        at
    };
    let mut words = vector.chunks_exact_mut(8);
    let mut put = |word: u64| words.next().map(|to| to.copy_from_slice(&word.to_le_bytes())).ok_or(Errno::NOMEM);
    put(content.args.len() as u64)?;
    content.args.iter().map(&mut next).try_for_each(&mut put)?;
    put(0)?;
    content.env.iter().map(&mut next).try_for_each(&mut put)?;
    put(0)?;
    let own = [(auxv::RANDOM, random_at), (auxv::EXECFN, first_string), (auxv::NULL, 0)];
    for (kind, value) in content.auxv.iter().copied().chain(own) {
        put(kind)?;
        put(value)?;
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::{Content, auxv, build};
    use crate::errno::Errno;
    use std::vec::Vec;

    fn word(memory: &[u8], base: u64, address: u64) -> u64 {
        let at = usize::try_from(address - base).unwrap();
        u64::from_le_bytes(memory[at..at + 8].try_into().unwrap())
    }

    fn string(memory: &[u8], base: u64, address: u64) -> Vec<u8> {
        let at = usize::try_from(address - base).unwrap();
        memory[at..].iter().copied().take_while(|byte| *byte != 0).collect()
    }

    #[test]
    fn a_program_finds_everything() {
        let base = 0x7000_0000;
        let mut memory = std::vec![0xaa; 4096];
        let content = Content { args: &["vmm", "--x"], env: &["A=1"], auxv: &[(auxv::PAGESZ, 4096)], random: [9; 16] };
        let sp = build(&mut memory, base, &content).unwrap();
        assert_eq!(sp % 16, 0);
        let at = |index: u64| word(&memory, base, sp + 8 * index);
        assert_eq!(at(0), 2);
        assert_eq!(string(&memory, base, at(1)), b"vmm");
        assert_eq!(string(&memory, base, at(2)), b"--x");
        assert_eq!(at(3), 0);
        assert_eq!(string(&memory, base, at(4)), b"A=1");
        assert_eq!(at(5), 0);
        assert_eq!((at(6), at(7)), (auxv::PAGESZ, 4096));
        assert_eq!(at(8), auxv::RANDOM);
        assert_eq!(word(&memory, base, at(9)), 0x0909_0909_0909_0909);
        assert_eq!((at(10), at(11)), (auxv::EXECFN, at(1)));
        assert_eq!((at(12), at(13)), (auxv::NULL, 0));
    }

    #[test]
    fn too_small_is_an_error() {
        let content = Content { args: &["a"], env: &[], auxv: &[], random: [0; 16] };
        assert_eq!(build(&mut [0; 64], 0, &content), Err(Errno::NOMEM));
    }
}
