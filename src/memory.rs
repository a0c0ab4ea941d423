//! Who holds how much of the core's memory: a global allocator that keeps accounts.
//!
//! Each block is one byte longer than asked for. That last byte names the owner in whose [`scope`] the block was
//! allocated, so that whoever frees it, on whatever thread, subtracts from the right account. A `Vec` that grows
//! stays with its first owner.
//!
//! The accounts are sums over a few shards, one a thread as far as they last: a shared counter would have the threads
//! wait for each other's cache lines.
//!
//! Beneath is mimalloc on Linux, where glibc and musl have threads wait for a lock that the store's threads contend
//! for, and the system's allocator elsewhere.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

#[cfg(not(target_os = "linux"))]
use std::alloc::System as Backend;

#[cfg(target_os = "linux")]
use mimalloc::MiMalloc as Backend;

// A fuzzer's sanitizer needs its own.
#[cfg_attr(not(fuzzing), global_allocator)]
#[cfg_attr(fuzzing, allow(dead_code))]
static ALLOCATOR: Accounting<Backend> = Accounting(Backend);

/// Which part of the core a block belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// Whatever no other owner has claimed: the allocations of dependencies' own threads.
    Other,
    /// Configs that are loaded.
    Config,
    /// Event stores that are open: indices, page cache, what is waiting to be written.
    Events,
    /// The bindings: what is on its way between the core and JavaScript.
    Node,
    /// Tasks and their scheduler.
    Runtime,
}

impl Owner {
    const ALL: [Self; 5] = [Self::Other, Self::Config, Self::Events, Self::Node, Self::Runtime];

    /// The name in `memoryUsage().owners`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Config => "config",
            Self::Events => "events",
            Self::Node => "node",
            Self::Runtime => "runtime",
        }
    }
}

/// Bytes that are allocated now, by owner.
pub fn usage() -> [(Owner, usize); Owner::ALL.len()] {
    Owner::ALL.map(|owner| {
        let held: isize = SHARDS.iter().filter_map(|shard| shard.0.get(owner as usize)).map(load).sum();
        // A free may be seen before its allocation, on another shard.
        (owner, usize::try_from(held).unwrap_or(0))
    })
}

fn load(account: &AtomicIsize) -> isize {
    account.load(Ordering::Relaxed)
}

/// What this thread allocates from now on belongs to `owner`, until the guard is dropped.
pub fn scope(owner: Owner) -> Scope {
    let before = LOCAL.get();
    LOCAL.set(Local { owner: owner as u8, ..before });
    Scope { owner: before.owner, here: PhantomData }
}

/// Ends a [`scope`] and returns to the one around it.
#[must_use = "the scope ends where this is dropped"]
pub struct Scope {
    owner: u8,
    here: PhantomData<*const ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        LOCAL.set(Local { owner: self.owner, ..LOCAL.get() });
    }
}

/// What this thread allocates outside of any [`scope`] belongs to `owner`.
pub(crate) fn adopt(owner: Owner) {
    LOCAL.set(Local { owner: owner as u8, ..LOCAL.get() });
}

/// `work`, with each of its steps in a [`scope`] of `owner`.
pub async fn owned<T>(owner: Owner, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _scope = scope(owner);
        work.as_mut().poll(context)
    })
    .await
}

/// A thread's owner of the moment, and the shard it counts in.
#[derive(Clone, Copy)]
struct Local {
    owner: u8,
    shard: u8,
}

/// No shard yet.
const UNASSIGNED: u8 = u8::MAX;
const SHARD_COUNT: usize = 32;

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails while a thread ends.
    static LOCAL: Cell<Local> = const { Cell::new(Local { owner: Owner::Other as u8, shard: UNASSIGNED }) };
}

/// One thread's accounts, alone on their cache lines.
#[repr(align(128))]
struct Shard([AtomicIsize; Owner::ALL.len()]);

static SHARDS: [Shard; SHARD_COUNT] =
    [const { Shard([const { AtomicIsize::new(0) }; Owner::ALL.len()]) }; SHARD_COUNT];
static THREADS_SEEN: AtomicUsize = AtomicUsize::new(0);

fn assign_shard(local: Local) -> Local {
    let shard = THREADS_SEEN.fetch_add(1, Ordering::Relaxed) % SHARD_COUNT;
    let local = Local { shard: u8::try_from(shard).unwrap_or(0), ..local };
    LOCAL.set(local);
    local
}

/// Adds to an account; wraps where a block is freed on another shard than it came from.
#[inline]
fn count(local: Local, owner: u8, bytes: isize) {
    let local = if local.shard == UNASSIGNED { assign_shard(local) } else { local };
    if let Some(account) =
        SHARDS.get(usize::from(local.shard)).and_then(|shard| shard.0.get(usize::from(owner)))
    {
        account.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An allocator whose blocks name their owner.
struct Accounting<A>(A);

/// The block that holds `layout` and the owner's byte behind it.
///
/// Its size is a multiple of the alignment, as allocators like it best; `None` if that is more than can be had.
#[inline]
const fn with_tag(layout: Layout) -> Option<Layout> {
    let align = layout.align();
    // No overflow: a layout's size is at most isize::MAX.
    let size = (layout.size() + 1).next_multiple_of(align);
    match Layout::from_size_align(size, align) {
        Ok(layout) => Some(layout),
        Err(_) => None,
    }
}

#[inline]
#[expect(clippy::cast_possible_wrap, reason = "a layout's size is at most isize::MAX")]
const fn signed(layout: Layout) -> isize {
    layout.size() as isize
}

impl<A: GlobalAlloc> Accounting<A> {
    /// # Safety
    /// `block` is null or holds `layout.size() + 1` bytes that are the caller's.
    #[inline]
    #[expect(unsafe_code, reason = "writes the owner's byte")]
    unsafe fn enter(block: *mut u8, layout: Layout, tagged: Layout) -> *mut u8 {
        if !block.is_null() {
            let local = LOCAL.get();
            // SAFETY: the block is one byte longer than `layout`.
            unsafe { block.add(layout.size()).write(local.owner) };
            count(local, local.owner, signed(tagged));
        }
        block
    }
}

// SAFETY: every block comes from and returns to the inner allocator, with the same layout both times: `with_tag` is a
// function of the caller's layout alone. The caller sees the first `layout.size()` bytes of it, at its own alignment.
// Nothing here allocates or unwinds.
#[expect(unsafe_code, reason = "an allocator is unsafe by contract")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Accounting<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(tagged) = with_tag(layout) else { return null_mut() };
        // SAFETY: `tagged` is never of size 0; the block holds it.
        unsafe { Self::enter(self.0.alloc(tagged), layout, tagged) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(tagged) = with_tag(layout) else { return null_mut() };
        // SAFETY: as in `alloc`; the byte that is written is not the caller's.
        unsafe { Self::enter(self.0.alloc_zeroed(tagged), layout, tagged) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Never none: `alloc` gave a block for this layout.
        let Some(tagged) = with_tag(layout) else { return };
        // SAFETY: the block came from `alloc` with this layout, so that the byte is there and written.
        let owner = unsafe { block.add(layout.size()).read() };
        count(LOCAL.get(), owner, -signed(tagged));
        // SAFETY: the layout is the one the block was allocated with.
        unsafe { self.0.dealloc(block, tagged) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (Some(old), Some(new)) =
            (with_tag(layout), Layout::from_size_align(new_size, layout.align()).ok().and_then(with_tag))
        else {
            return null_mut();
        };
        // SAFETY: the block came from `alloc` with this layout, so that the byte is there and written.
        let owner = unsafe { block.add(layout.size()).read() };
        // SAFETY: `old` is what the block was allocated with; `new` is not of size 0 and has the same alignment.
        let moved = unsafe { self.0.realloc(block, old, new.size()) };
        if !moved.is_null() {
            // SAFETY: the block is now one byte longer than `new_size`.
            unsafe { moved.add(new_size).write(owner) };
            count(LOCAL.get(), owner, signed(new) - signed(old));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn held(owner: Owner) -> isize {
        isize::try_from(usage().iter().find(|(it, _)| *it == owner).unwrap().1).unwrap()
    }
}
