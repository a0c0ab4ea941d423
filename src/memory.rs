//! Who holds how much of the core's memory: a global allocator that keeps accounts.
//!
//! Each block is one byte longer than asked for. That last byte names the owner in whose [`scope`] the block was
//! allocated, so that whoever frees it, on whatever thread, subtracts from the right account. A `Vec` that grows
//! stays with its first owner.
//!
//! Each of the first threads keeps accounts of its own, and those that come later share one set: a counter for all
//! would have threads wait for each other's cache lines.
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
    /// Channels: connections, and messages that wait.
    Channels,
    /// Configs that are loaded.
    Config,
    /// Event stores that are open: indices, page cache, what is waiting to be written.
    Events,
    /// The bindings: what is on its way between the core and JavaScript.
    Node,
    /// Calls of model providers that are under way.
    Providers,
    /// Tasks and their scheduler.
    Runtime,
    /// Sandboxes, what their commands print, and the tools that work in them.
    Sandbox,
    /// What tests allocate: no other code does so beside them.
    #[cfg(test)]
    Test,
}

const OWNERS: usize = Owner::ALL.len();

impl Owner {
    const ALL: &'static [Self] = &[
        Self::Other,
        Self::Channels,
        Self::Config,
        Self::Events,
        Self::Node,
        Self::Providers,
        Self::Runtime,
        Self::Sandbox,
        #[cfg(test)]
        Self::Test,
    ];

    /// The name in `memoryUsage().owners`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Channels => "channels",
            Self::Config => "config",
            Self::Events => "events",
            Self::Node => "node",
            Self::Providers => "providers",
            Self::Runtime => "runtime",
            Self::Sandbox => "sandbox",
            #[cfg(test)]
            Self::Test => "test",
        }
    }
}

/// Bytes that are allocated now, by owner.
pub fn usage() -> impl Iterator<Item = (Owner, usize)> {
    Owner::ALL.iter().map(|&owner| {
        let accounts = SHARDS.iter().filter_map(|shard| shard.0.get(owner as usize));
        let held = accounts.fold(0_isize, |sum, account| sum.wrapping_add(account.load(Ordering::Relaxed)));
        // Other threads go on meanwhile: a free may be seen whose allocation is not.
        (owner, usize::try_from(held).unwrap_or(0))
    })
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

impl Local {
    /// This thread's, which has a shard from now on.
    #[inline]
    fn current() -> Self {
        let local = LOCAL.get();
        if local.shard == UNASSIGNED { local.first() } else { local }
    }

    #[cold]
    fn first(self) -> Self {
        let index = THREADS_SEEN.fetch_add(1, Ordering::Relaxed);
        if index == 0 {
            prepare();
        }
        let local = Self { shard: u8::try_from(index).map_or(SHARED, |index| index.min(SHARED)), ..self };
        LOCAL.set(local);
        local
    }

    /// Adds to an account; the sum is right whatever shard a block is freed on.
    #[inline]
    fn count(self, owner: u8, bytes: isize) {
        let Some(account) =
            SHARDS.get(usize::from(self.shard)).and_then(|shard| shard.0.get(usize::from(owner)))
        else {
            return;
        };
        if self.shard == SHARED {
            account.fetch_add(bytes, Ordering::Relaxed);
        } else {
            // Nobody else writes here, and a locked instruction would cost more than the rest of the accounting.
            account.store(account.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
    }
}

/// Before the first allocation.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
fn prepare() {
    // Their places in this very version; the crate has no names for them.
    const ABANDONED_PAGE_PURGE: libmimalloc_sys::mi_option_t = 12;
    const ALLOW_THP: libmimalloc_sys::mi_option_t = 37;
    unsafe extern "C" {
        fn mi_process_init();
    }
    // SAFETY: all of them may be called at any time. The order matters: were the option off before, mimalloc would turn
    // huge pages off for the whole process, which belongs to Node.
    unsafe {
        mi_process_init();
        // mimalloc would have the kernel back its whole reserve with huge pages, and the first touch of each then clears
        // 2 MB, as often as not on the JS thread.
        libmimalloc_sys::mi_option_set(ALLOW_THP, 0);
        // A thread that ends gives back what it had, not only what others come to need of it.
        libmimalloc_sys::mi_option_set(ABANDONED_PAGE_PURGE, 1);
    }
}

#[cfg(not(target_os = "linux"))]
fn prepare() {}

/// No shard yet.
const UNASSIGNED: u8 = u8::MAX;
/// The shard of all threads for which there is none of their own any more.
const SHARED: u8 = 63;
const SHARD_COUNT: usize = SHARED as usize + 1;

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails while a thread ends.
    static LOCAL: Cell<Local> = const { Cell::new(Local { owner: Owner::Other as u8, shard: UNASSIGNED }) };
}

/// One thread's accounts, alone on their cache lines.
#[repr(align(128))]
struct Shard([AtomicIsize; OWNERS]);

static SHARDS: [Shard; SHARD_COUNT] = [const { Shard([const { AtomicIsize::new(0) }; OWNERS]) }; SHARD_COUNT];
static THREADS_SEEN: AtomicUsize = AtomicUsize::new(0);

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
    /// Makes the owner's account of a block that is new.
    ///
    /// # Safety
    /// `block` is null or holds `tagged`, which is [`with_tag`] of `layout`.
    #[inline]
    #[expect(unsafe_code, reason = "writes the owner's byte")]
    unsafe fn enter(block: *mut u8, local: Local, layout: Layout, tagged: Layout) -> *mut u8 {
        if !block.is_null() {
            // SAFETY: the block is at least one byte longer than `layout`.
            unsafe { block.add(layout.size()).write(local.owner) };
            local.count(local.owner, signed(tagged));
        }
        block
    }
}

// SAFETY: every block comes from and returns to the inner allocator with the same layout, for `with_tag` is a function
// of the caller's layout alone. The caller sees the first `layout.size()` bytes of it, aligned as asked for, and never
// the byte behind them. Nothing here allocates or unwinds.
#[expect(unsafe_code, reason = "an allocator is unsafe by contract")]
unsafe impl<A: GlobalAlloc> GlobalAlloc for Accounting<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(tagged) = with_tag(layout) else { return null_mut() };
        let local = Local::current();
        // SAFETY: `tagged` is never of size 0; the block holds it.
        unsafe { Self::enter(self.0.alloc(tagged), local, layout, tagged) }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(tagged) = with_tag(layout) else { return null_mut() };
        let local = Local::current();
        // SAFETY: as in `alloc`; the byte that is written is not the caller's.
        unsafe { Self::enter(self.0.alloc_zeroed(tagged), local, layout, tagged) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Never none: `alloc` gave a block for this layout.
        let Some(tagged) = with_tag(layout) else { return };
        // SAFETY: the block came from `alloc` with this layout, so that the byte is there and written.
        let owner = unsafe { block.add(layout.size()).read() };
        Local::current().count(owner, -signed(tagged));
        // SAFETY: the layout is the one the block was allocated with.
        unsafe { self.0.dealloc(block, tagged) };
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        let (Some(old), Some(new)) = (with_tag(layout), with_tag(wanted)) else { return null_mut() };
        // SAFETY: the block came from `alloc` with this layout, so that the byte is there and written.
        let owner = unsafe { block.add(layout.size()).read() };
        // SAFETY: `old` is what the block was allocated with; `new` is not of size 0 and has the same alignment.
        let moved = unsafe { self.0.realloc(block, old, new.size()) };
        if !moved.is_null() {
            // SAFETY: the block is now at least one byte longer than `new_size`.
            unsafe { moved.add(new_size).write(owner) };
            Local::current().count(owner, signed(new) - signed(old));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// One of these tests at a time: they share an account.
    fn alone() -> MutexGuard<'static, ()> {
        static LOCK: Mutex<()> = Mutex::new(());
        LOCK.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(owner: Owner) -> usize {
        usage().find(|(it, _)| *it == owner).unwrap().1
    }

    #[test]
    fn a_block_is_its_owners_until_it_is_freed_wherever_that_is() {
        let _alone = alone();
        let before = held(Owner::Test);
        let block = {
            let _scope = scope(Owner::Test);
            vec![1_u8; 100_000]
        };
        assert!((100_001..101_000).contains(&(held(Owner::Test) - before)), "{}", held(Owner::Test));
        let block = thread::spawn(move || {
            let mut block = block;
            block.reserve_exact(300_000);
            block
        });
        let block = block.join().unwrap();
        assert!((400_001..401_000).contains(&(held(Owner::Test) - before)), "{}", held(Owner::Test));
        thread::spawn(move || drop(block)).join().unwrap();
        assert_eq!(held(Owner::Test), before);
    }

    #[test]
    fn scopes_nest_and_end_with_their_guards_even_across_a_panic() {
        let _alone = alone();
        let before = held(Owner::Test);
        let outer = scope(Owner::Test);
        let inner = scope(Owner::Other);
        let foreign = black_box(vec![0_u8; 5_000]);
        assert!(held(Owner::Test) - before < 5_000);
        drop(inner);
        let own = black_box(vec![0_u8; 5_000]);
        assert!(held(Owner::Test) - before >= 5_000);
        drop(outer);
        assert!(
            std::panic::catch_unwind(|| {
                let _scope = scope(Owner::Test);
                panic!("on purpose");
            })
            .is_err()
        );
        assert_ne!(LOCAL.get().owner, Owner::Test as u8);
        drop((own, foreign));
    }

    #[tokio::test]
    async fn a_future_allocates_for_its_owner_in_each_of_its_steps_and_others_do_not_meanwhile() {
        let kept = owned(Owner::Test, async {
            assert_eq!(LOCAL.get().owner, Owner::Test as u8);
            tokio::task::yield_now().await;
            assert_eq!(LOCAL.get().owner, Owner::Test as u8);
            7
        });
        let other = async {
            tokio::task::yield_now().await;
            assert_ne!(LOCAL.get().owner, Owner::Test as u8);
        };
        assert_eq!(tokio::join!(kept, other).0, 7);
    }

    #[test]
    fn more_threads_than_accounts_are_counted_right() {
        let _alone = alone();
        let before = held(Owner::Test);
        let threads: Vec<_> = (0..SHARD_COUNT * 2)
            .map(|_| {
                thread::spawn(|| {
                    let _scope = scope(Owner::Test);
                    (0..200).map(|size| vec![0_u8; size + 1]).collect::<Vec<_>>()
                })
            })
            .collect();
        let blocks: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(held(Owner::Test) - before > SHARD_COUNT * 2 * 200 * 100);
        drop(blocks);
        assert_eq!(held(Owner::Test), before);
    }

    #[cfg(target_os = "linux")]
    const ALONE: &str = "memory::tests::the_accounts_explain_nine_tenths_of_what_the_allocator_has_given_out";

    #[test]
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "asks mimalloc what it has given out")]
    fn the_accounts_explain_nine_tenths_of_what_the_allocator_has_given_out() {
        use std::ffi::c_void;

        use libmimalloc_sys::{mi_heap_area_t, mi_heap_get_default, mi_heap_t, mi_heap_visit_blocks};

        unsafe extern "C" fn add(
            _: *const mi_heap_t,
            area: *const mi_heap_area_t,
            _: *mut c_void,
            _: usize,
            sum: *mut c_void,
        ) -> bool {
            // SAFETY: mimalloc passes an area of its own and the pointer that it was given.
            unsafe { *sum.cast::<usize>() += (*area).used * (*area).full_block_size };
            true
        }
        /// Bytes in blocks of this thread's heap, each with all that is rounded up.
        fn given() -> usize {
            let mut sum = 0_usize;
            // SAFETY: the heap is this thread's, and `sum` outlives the call.
            unsafe {
                mi_heap_visit_blocks(mi_heap_get_default(), false, Some(add), (&raw mut sum).cast());
            }
            sum
        }

        let _alone = alone();
        let measure = || {
            let mut seed = 1_u64;
            let mut next = move || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(seed >> 40).unwrap()
            };
            let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(20_000);
            let (counted, allocated) = (held(Owner::Test), given());
            let _scope = scope(Owner::Test);
            for _ in 0..20_000 {
                // Each power of two as often as the next, from 16 bytes to 64 KB.
                let magnitude = 1 << (4 + next() % 12);
                blocks.push(vec![0; magnitude + next() % magnitude]);
            }
            (held(Owner::Test) - counted, given() - allocated)
        };
        // Where other threads end, mimalloc hands their blocks to those that go on: this needs a process of its own.
        if std::env::var_os("OPENCLAW_CORE_ALONE").is_none() {
            let again = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", ALONE, "--test-threads=1"])
                .env("OPENCLAW_CORE_ALONE", "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(again.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let (counted, given) = thread::spawn(measure).join().unwrap();
        assert!(counted <= given, "{counted} of {given}");
        assert!(counted * 10 >= given * 9, "{counted} of {given}");
    }

    proptest! {
        #[test]
        fn a_block_has_the_size_and_alignment_that_were_asked_for_and_keeps_its_bytes(
            steps in prop::collection::vec((1_usize..40_000, any::<u8>()), 1..12),
            align in (0_u32..13).prop_map(|bits| 1_usize << bits),
            zeroed in any::<bool>(),
        ) {
            let (first, fill) = steps[0];
            let mut layout = Layout::from_size_align(first, align).unwrap();
            // SAFETY: each call is given the block and layout of the one before; only bytes within it are touched.
            #[expect(unsafe_code, reason = "the allocator's own interface")]
            unsafe {
                let mut block = if zeroed { ALLOCATOR.alloc_zeroed(layout) } else { ALLOCATOR.alloc(layout) };
                prop_assert!(!block.is_null());
                if zeroed {
                    prop_assert!((0..first).all(|at| block.add(at).read() == 0));
                }
                block.write_bytes(fill, first);
                let mut last = fill;
                for &(size, fill) in &steps[1..] {
                    let kept = layout.size().min(size);
                    block = ALLOCATOR.realloc(block, layout, size);
                    prop_assert!(!block.is_null());
                    prop_assert_eq!(block.addr() % align, 0);
                    prop_assert!((0..kept).all(|at| block.add(at).read() == last));
                    block.write_bytes(fill, size);
                    last = fill;
                    layout = Layout::from_size_align(size, align).unwrap();
                }
                ALLOCATOR.dealloc(block, layout);
            }
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    fn what_no_machine_has_is_refused() {
        let most = usize::try_from(isize::MAX).unwrap();
        let layout = Layout::from_size_align(most, 1).unwrap();
        // SAFETY: a null pointer is never touched.
        unsafe {
            assert!(ALLOCATOR.alloc(layout).is_null());
            assert!(ALLOCATOR.alloc_zeroed(layout).is_null());
        }
    }
}
