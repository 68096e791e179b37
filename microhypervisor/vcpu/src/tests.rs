// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the back ends share: a virtual CPU whose pages lie in the memory of the test (feature `tests`).

use crate::{Control, StatePage};
use cloister_abi::arch::x86_64::vcpu::{Groups, VcpuState};
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

/// What QEMU's EPYC model says, as far as it matters.
#[must_use]
pub fn epyc_leaf(leaf: u32) -> [u32; 4] {
    match leaf {
        1 => [0x0080_0f12, 0, 0x7ef8_3203, 0x178b_fbff],
        7 => [0, 0x209c_01a9, 0, 0],
        0xd => [7, 0x340, 0x340, 0],
        0x8000_0001 => [0, 0, 0x0040_03f7, 0x2fd3_fbff],
        0x8000_0008 => [0x3028, 0, 0, 0],
        0x8000_000a => [1, 16, 0, 1],
        _ => [0; 4],
    }
}

/// Words of the state page.
pub const WORDS: usize = 512;

/// A virtual CPU, its control structure, and its state page.
#[derive(Debug)]
pub struct Fixture<V, B> {
    /// The virtual CPU.
    pub vcpu: V,
    block: *mut B,
    state: *mut VcpuState,
}

impl<V, B> Drop for Fixture<V, B> {
    fn drop(&mut self) {
        // SAFETY: `new` made the page by `Box::into_raw`.
        drop(unsafe { Box::from_raw(self.block) });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.state) });
    }
}

impl<V: Control, B> Fixture<V, B> {
    /// The virtual CPU that `make` makes over a block, which stays as long as the fixture.
    pub fn new(block: B, make: impl FnOnce(NonNull<B>) -> V) -> Self {
        let block = Box::into_raw(Box::new(block));
        // SAFETY: the page is integers only.
        let state = Box::into_raw(Box::new(unsafe { core::mem::zeroed::<VcpuState>() }));
        let vcpu = make(NonNull::new(block).expect("a box"));
        Self { vcpu, block, state }
    }

    /// The state page as back ends see it.
    #[must_use]
    pub fn page(&self) -> StatePage {
        // SAFETY: the page lives as long as the fixture, and the tests hold no reference across a call.
        unsafe { NonNull::new(self.state.cast()).expect("a box").as_ref() }
    }

    /// The control structure.
    pub fn block(&mut self) -> &mut B {
        // SAFETY: no other reference is alive.
        unsafe { &mut *self.block }
    }

    /// The state page as a monitor sees it.
    pub fn state(&mut self) -> &mut VcpuState {
        // SAFETY: no other reference is alive.
        unsafe { &mut *self.state }
    }

    /// Takes these groups. Answers whether the monitor gave something that no processor takes.
    pub fn take(&mut self, groups: Groups) -> bool {
        self.state().load = groups.bits();
        let page = self.page();
        self.vcpu.take(page).1
    }

    /// Fills the page with noise, takes and writes back these groups; answers the page before and after.
    pub fn round_trip(&mut self, groups: Groups, noise: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let words = self.state.cast::<u64>();
        for (index, value) in noise.iter().enumerate().take(WORDS) {
            // SAFETY: the page has so many words.
            unsafe { words.wrapping_add(index).write(*value) };
        }
        self.take(groups);
        let before = self.words();
        self.vcpu.sync(self.page(), groups);
        (before, self.words())
    }

    /// Whether what was taken from a page comes back the same, and a second trip changes nothing more: masks are idempotent.
    pub fn is_stable(&mut self, groups: u64, noise: &[u64]) -> bool {
        let groups = Groups::from_bits_truncate(groups) - Groups::EVENT;
        let (_, first) = self.round_trip(groups, noise);
        let (before, second) = self.round_trip(groups, &first);
        before == second
    }

    fn words(&self) -> Vec<u64> {
        let words = self.state.cast::<u64>();
        // SAFETY: the page has so many words.
        (0..WORDS).map(|index| unsafe { words.wrapping_add(index).read() }).collect()
    }
}
