//! Memory for secrets: pages that hold nothing else, locked and left out of core dumps as a whole.
//!
//! A process may have 65,530 mappings (`vm.max_map_count`) and, most often, 8 MiB of locked memory. So secrets share pages:
//! small ones lie in slots of a few sizes, cut from slabs; long ones have a mapping each. Beyond a share of the mappings
//! secrets lie on the heap, which is wiped too.

use zeroize::Zeroize;

/// Bytes that are wiped when dropped.
pub(super) enum Memory {
    #[cfg(unix)]
    Pages(arena::Slot),
    /// Where pages cannot be had, and for nothing at all.
    Heap(Box<[u8]>),
}

impl Memory {
    /// Zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        #[cfg(unix)]
        if let Some(slot) = arena::Slot::take(len) {
            return Self::Pages(slot);
        }
        Self::Heap(vec![0; len].into_boxed_slice())
    }

    /// Whether the pages cannot be swapped out.
    pub(super) const fn is_locked(&self) -> bool {
        match self {
            #[cfg(unix)]
            Self::Pages(slot) => slot.is_locked(),
            Self::Heap(_) => false,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            #[cfg(unix)]
            Self::Pages(slot) => slot.bytes(),
            Self::Heap(bytes) => bytes,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            #[cfg(unix)]
            Self::Pages(slot) => slot.bytes_mut(),
            Self::Heap(bytes) => bytes,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod arena {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ptr::{NonNull, null_mut};
    use std::slice;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The sizes of slots. What is longer than the last has a mapping of its own.
    const SIZES: [usize; 4] = [64, 256, 1024, 4096];
    /// The first slabs of a size; later ones are up to 64 times as large, so that few are needed.
    const SLAB: usize = 16 * 1024;
    /// Of the mappings that a process may have.
    const MAX_MAPPINGS: usize = 8192;

    static ARENA: Mutex<Arena> =
        Mutex::new(Arena { sizes: [const { Slabs::new() }; SIZES.len()], mappings: 0 });

    /// A panic while the arena was held is a bug of the arena itself; the slots that others hold are valid all the same.
    fn arena() -> MutexGuard<'static, Arena> {
        ARENA.lock().unwrap_or_else(PoisonError::into_inner)
    }

    struct Arena {
        sizes: [Slabs; SIZES.len()],
        mappings: usize,
    }

    /// The slabs of one size of slots, by address.
    struct Slabs {
        all: BTreeMap<usize, Slab>,
        /// Those with a free slot. The lowest is used first, so that the highest become empty.
        with_room: BTreeSet<usize>,
    }

    impl Slabs {
        const fn new() -> Self {
            Self { all: BTreeMap::new(), with_room: BTreeSet::new() }
        }
    }

    struct Slab {
        pages: Pages,
        /// By their number.
        free: Vec<u32>,
        slots: usize,
    }

    impl Arena {
        /// Of a new mapping; `None` if these are used up.
        fn map(&mut self, len: usize) -> Option<Pages> {
            if self.mappings >= MAX_MAPPINGS {
                return None;
            }
            let pages = Pages::map(len)?;
            self.mappings += 1;
            Some(pages)
        }

        fn take(&mut self, len: usize) -> Option<(NonNull<u8>, bool)> {
            let Some((nth, size)) = SIZES.into_iter().enumerate().find(|(_, size)| len <= *size) else {
                return self.map(len).map(|pages| (pages.start, pages.locked));
            };
            let address = match self.sizes.get(nth)?.with_room.first() {
                Some(address) => *address,
                None => self.add_slab(nth, size)?,
            };
            let slabs = self.sizes.get_mut(nth)?;
            let slab = slabs.all.get_mut(&address)?;
            let number = slab.free.pop()?;
            if slab.free.is_empty() {
                slabs.with_room.remove(&address);
            }
            let offset = usize::try_from(number).ok()? * size;
            // SAFETY: the slab has `slots` slots of `size` bytes, and `number` is that of one of them.
            Some((unsafe { slab.pages.start.add(offset) }, slab.pages.locked))
        }

        fn add_slab(&mut self, nth: usize, size: usize) -> Option<usize> {
            let before = self.sizes.get(nth)?.all.len();
            let len = SLAB << (before / 8).min(6);
            let pages = self.map(len)?;
            let slots = len / size;
            let address = pages.start.addr().get();
            let free = (0..u32::try_from(slots).ok()?).rev().collect();
            let slabs = self.sizes.get_mut(nth)?;
            slabs.all.insert(address, Slab { pages, free, slots });
            slabs.with_room.insert(address);
            Some(address)
        }

        /// The slot was wiped. Gives the pages of which nothing is used any more, to be unmapped.
        fn give_back(&mut self, start: NonNull<u8>, len: usize, locked: bool) -> Option<Pages> {
            let at = start.addr().get();
            let Some((nth, size)) = SIZES.into_iter().enumerate().find(|(_, size)| len <= *size) else {
                self.mappings -= 1;
                return Some(Pages { start, len, locked });
            };
            let slabs = self.sizes.get_mut(nth)?;
            let (&address, slab) = slabs.all.range_mut(..=at).next_back()?;
            slab.free.push(u32::try_from((at - address) / size).ok()?);
            slabs.with_room.insert(address);
            // The last one stays: secrets come and go.
            if slab.free.len() < slab.slots || slabs.with_room.len() == 1 {
                return None;
            }
            slabs.with_room.remove(&address);
            self.mappings -= 1;
            slabs.all.remove(&address).map(|slab| slab.pages)
        }
    }

    /// Part of a slab or a mapping of its own, given back when dropped. Whoever wrote to it wipes it before.
    pub(in crate::secrets) struct Slot {
        start: NonNull<u8>,
        len: usize,
        locked: bool,
    }

    // SAFETY: the bytes belong to this value alone, and are changed through `&mut` only.
    unsafe impl Send for Slot {}
    // SAFETY: as above.
    unsafe impl Sync for Slot {}

    impl Slot {
        /// Zeros. `None` for no bytes, and if the system gives no memory.
        pub(super) fn take(len: usize) -> Option<Self> {
            if len == 0 {
                return None;
            }
            let (start, locked) = arena().take(len)?;
            Some(Self { start, len, locked })
        }

        pub(super) const fn is_locked(&self) -> bool {
            self.locked
        }

        pub(super) const fn bytes(&self) -> &[u8] {
            // SAFETY: `len` bytes from `start` are this slot's: mapped, readable and initialised (with zeros, by the system
            // or by whoever had them before) until drop.
            unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        pub(super) const fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as in `bytes`, and writable; `&mut self` makes it the only reference.
            unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl Drop for Slot {
        fn drop(&mut self) {
            let unused = arena().give_back(self.start, self.len, self.locked);
            // Nobody waits for the arena meanwhile.
            if let Some(pages) = unused {
                pages.unmap();
            }
        }
    }

    /// A private anonymous mapping, which stays until it is unmapped.
    struct Pages {
        start: NonNull<u8>,
        len: usize,
        locked: bool,
    }

    // SAFETY: a mapping is the same for all threads; its content is reached through slots alone.
    unsafe impl Send for Pages {}

    impl Pages {
        fn map(len: usize) -> Option<Self> {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at an address of the system's choice touches no other memory.
            let start = unsafe { libc::mmap(null_mut(), len, protection, kind, -1, 0) };
            if start == libc::MAP_FAILED {
                return None;
            }
            // Beyond RLIMIT_MEMLOCK a secret is not locked, and works all the same; `audit` tells.
            // SAFETY: the range is the mapping made above.
            let locked = unsafe { libc::mlock(start, len) } == 0;
            #[cfg(target_os = "linux")]
            // SAFETY: the range is the mapping made above; this advice changes no content.
            unsafe {
                libc::madvise(start, len, libc::MADV_DONTDUMP);
            }
            NonNull::new(start.cast()).map(|start| Self { start, len, locked })
        }

        fn unmap(self) {
            // Unmapping unlocks.
            // SAFETY: the mapping is this value's, and no slot of it is in use any more.
            unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.len);
            }
        }
    }
}
