// SPDX-License-Identifier: MIT OR Apache-2.0
//! The heap of a freestanding component: grows by dataspaces in a range of addresses that it keeps reserved.

use crate::sessions::{Attach, Rights};
use crate::{Error, env};
use cloister_abi::hypercall::Yield;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, Ordering};

/// Addresses that the heap may come to use.
const RESERVED: u64 = 16 << 30;
/// The heap grows by at least so much, bytes.
const STEP: u64 = 64 << 10;

/// A heap that several threads may use.
pub struct Heap {
    locked: AtomicBool,
    state: UnsafeCell<State>,
    grow: fn(&mut State, u64) -> Result<(), Error>,
}

/// What the lock guards.
pub struct State {
    free: linked_list_allocator::Heap,
    base: u64,
    size: u64,
}

// SAFETY: `state` is only used between taking and giving back the lock.
unsafe impl Sync for Heap {}

impl core::fmt::Debug for Heap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Heap").finish_non_exhaustive()
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("base", &self.base).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Heap {
    /// An empty heap that grows out of the PD session.
    #[must_use]
    pub const fn new() -> Self {
        Self::with(grow_by_session)
    }

    /// An empty heap that grows by other means: `grow` makes at least so many bytes more of it, and calls
    /// [`State::extend`].
    #[must_use]
    pub const fn with(grow: fn(&mut State, u64) -> Result<(), Error>) -> Self {
        let state = State { free: linked_list_allocator::Heap::empty(), base: 0, size: 0 };
        Self { locked: AtomicBool::new(false), state: UnsafeCell::new(state), grow }
    }

    /// Gives the heap its first memory.
    ///
    /// # Safety
    /// The memory is mapped, writable, used by nobody else, and stays. To be called once, before anything is allocated.
    pub unsafe fn provide(&self, base: u64, size: u64) {
        self.locked(|state| {
            state.set_base(base);
            // SAFETY: the caller's word.
            unsafe { state.extend(size) };
        });
    }

    fn locked<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            // SAFETY: gives up the rest of the time slice, so that the holder can go on.
            let _ = unsafe { cloister_stubs::invoke(&Yield {}) };
        }
        // SAFETY: the lock is held.
        let answer = run(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        answer
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// First address of the heap; 0 as long as it has none.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Bytes in the heap.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Sets where the heap begins.
    pub fn set_base(&mut self, base: u64) {
        self.base = base;
    }

    /// Takes `size` bytes behind the present end into the heap.
    ///
    /// # Safety
    /// The memory is mapped, writable, used by nobody else, and stays.
    pub unsafe fn extend(&mut self, size: u64) {
        let length = usize::try_from(size).unwrap_or(0);
        if self.size == 0 {
            let base = with_exposed_provenance_mut(usize::try_from(self.base).unwrap_or(0));
            // SAFETY: the caller's word.
            unsafe { self.free.init(base, length) };
        } else {
            // SAFETY: the caller's word.
            unsafe { self.free.extend(length) };
        }
        self.size += size;
    }
}

/// Grows the heap by a dataspace.
fn grow_by_session(state: &mut State, needed: u64) -> Result<(), Error> {
    if state.base == 0 {
        state.base = env::pd().reserve(None, RESERVED)?;
    }
    let size = needed.max(STEP).next_multiple_of(4096);
    if size > RESERVED - state.size {
        return Err(Error::OutOfRam { needed: size, available: RESERVED - state.size });
    }
    let dataspace = env::pd().alloc(size, 12)?;
    env::pd().attach(dataspace.object(), Attach::at(state.base + state.size, Rights::RW))?;
    crate::Link::from(dataspace).drop();
    // SAFETY: the range was attached just now, and lies in the range reserved for the heap.
    unsafe { state.extend(size) };
    Ok(())
}

// SAFETY: memory comes from the heap under its lock; a block is given out once until it comes back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.locked(|state| {
            if let Ok(block) = state.free.allocate_first_fit(layout) {
                return block.as_ptr();
            }
            let needed = (layout.size() + layout.align()) as u64 + 64;
            if (self.grow)(state, needed).is_err() {
                return null_mut();
            }
            state.free.allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: the caller's word: the block came from `alloc` with this layout.
        self.locked(|state| unsafe { state.free.deallocate(block, layout) });
    }
}
