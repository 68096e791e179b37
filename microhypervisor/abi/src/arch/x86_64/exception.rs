// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an exception portal is called with, and may answer.
//!
//! The message has [`WORDS`] words, laid out as [`ExceptionState`]. A reply with as many words sets the general-purpose
//! registers, `rip`, `rsp` and the arithmetic flags from it and resumes the EC; a reply without words resumes it as
//! it was. A handler that never replies keeps the EC stopped.

/// The state of an EC at an exception (Intel SDM vol. 3, 6.3.1 for the vectors and error codes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExceptionState {
    /// Vector of the exception.
    pub vector: u64,
    /// Error code, 0 if it has none.
    pub error: u64,
    /// Faulting address of a page fault (CR2).
    pub address: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// `rax`
    pub rax: u64,
    /// `rbx`
    pub rbx: u64,
    /// `rcx`
    pub rcx: u64,
    /// `rdx`
    pub rdx: u64,
    /// `rsi`
    pub rsi: u64,
    /// `rdi`
    pub rdi: u64,
    /// `rbp`
    pub rbp: u64,
    /// `r8` to `r15`
    pub r8_r15: [u64; 8],
    /// FS base.
    pub fs_base: u64,
}

/// Number of message words of an exception.
pub const WORDS: usize = size_of::<ExceptionState>() / 8;

const _: () = assert!(WORDS == 22);

/// The fields by name, `r8_r15` word by word: as an array, or out of one.
macro_rules! words {
    ($state:ident: $($field:ident)+) => {{
        let [r8, r9, r10, r11, r12, r13, r14, r15] = $state.r8_r15;
        [$($state.$field,)+ r8, r9, r10, r11, r12, r13, r14, r15, $state.fs_base]
    }};
    ($($field:ident)+ = $words:ident) => {{
        let [$($field,)+ r8, r9, r10, r11, r12, r13, r14, r15, fs_base] = $words;
        Self { $($field,)+ r8_r15: [r8, r9, r10, r11, r12, r13, r14, r15], fs_base }
    }};
}

impl ExceptionState {
    /// The state as message words, in the order of the fields.
    #[must_use]
    pub const fn to_words(&self) -> [u64; WORDS] {
        words!(self: vector error address rip rsp rflags rax rbx rcx rdx rsi rdi rbp)
    }

    /// Message words as the state; any words are one.
    #[must_use]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        words!(vector error address rip rsp rflags rax rbx rcx rdx rsi rdi rbp = words)
    }
}

#[cfg(test)]
mod tests {
    use super::{ExceptionState, WORDS};

    #[test]
    fn words_are_the_fields_in_order() {
        let words: [u64; WORDS] = core::array::from_fn(|index| index as u64 + 1);
        let state = ExceptionState::from_words(words);
        assert_eq!((state.vector, state.rip, state.r8_r15[0], state.fs_base), (1, 4, 14, 22));
        assert_eq!(state.to_words(), words);
        assert_eq!(core::mem::offset_of!(ExceptionState, fs_base), 21 * 8);
    }
}
