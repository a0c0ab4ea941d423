//! Memory for secrets: pages of their own, so that they can be locked and left out of core dumps as a whole.

use zeroize::Zeroize;

/// Bytes that are wiped when dropped.
pub(super) enum Memory {
    #[cfg(unix)]
    Pages(Pages),
    /// Where pages cannot be had, and for nothing at all.
    Heap(Box<[u8]>),
}

impl Memory {
    /// Zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        #[cfg(unix)]
        if let Some(pages) = Pages::map(len) {
            return Self::Pages(pages);
        }
        Self::Heap(vec![0; len].into_boxed_slice())
    }

    /// Whether the pages cannot be swapped out.
    pub(super) const fn is_locked(&self) -> bool {
        match self {
            #[cfg(unix)]
            Self::Pages(pages) => pages.locked,
            Self::Heap(_) => false,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            #[cfg(unix)]
            Self::Pages(pages) => pages.bytes(),
            Self::Heap(bytes) => bytes,
        }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            #[cfg(unix)]
            Self::Pages(pages) => pages.bytes_mut(),
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
pub(super) use pages::Pages;

#[cfg(unix)]
#[allow(unsafe_code)]
mod pages {
    use std::ptr::{NonNull, null_mut};
    use std::slice;

    /// A private anonymous mapping.
    pub(in crate::secrets) struct Pages {
        start: NonNull<u8>,
        len: usize,
        pub(super) locked: bool,
    }

    // SAFETY: the mapping belongs to this value alone, and is changed through `&mut` only.
    unsafe impl Send for Pages {}
    // SAFETY: as above.
    unsafe impl Sync for Pages {}

    impl Pages {
        /// `None` for no bytes, and if the system gives no mapping.
        pub(super) fn map(len: usize) -> Option<Self> {
            if len == 0 {
                return None;
            }
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

        pub(super) const fn bytes(&self) -> &[u8] {
            // SAFETY: `len` bytes from `start` are mapped, readable and initialised (by the system, with zeros) until drop.
            unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        pub(super) const fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as in `bytes`, and writable; `&mut self` makes it the only reference.
            unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // `Memory` has wiped the bytes; unmapping unlocks them.
            // SAFETY: the mapping is this value's, and nothing refers to it any more.
            unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.len);
            }
        }
    }
}
