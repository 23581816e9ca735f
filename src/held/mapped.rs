//! One word of a file, mapped: it can be swapped atomically, by several processes, and outlives each of them.

#![expect(unsafe_code, reason = "a mapped file has no safe wrapper")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Its length in bytes.
const WORD: u64 = 4;

/// The first four bytes of a file.
///
/// Whoever cuts the file off kills the processes that use the word (SIGBUS), so the file must be nobody else's.
#[derive(Debug)]
pub struct MappedWord {
    at: NonNull<c_void>,
}

// SAFETY: what it points to belongs to the mapping, which lives as long as it does, and is used as an atomic only.
unsafe impl Send for MappedWord {}
// SAFETY: as for `Send`.
unsafe impl Sync for MappedWord {}

impl MappedWord {
    /// Maps it. The file must be open for reading and writing.
    ///
    /// # Errors
    /// The file is too short, or cannot be mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() < WORD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address at which nothing is mapped, so no other memory changes.
        let at = unsafe {
            mmap(
                ptr::null_mut(),
                size_of::<u32>(),
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let at = NonNull::new(at).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at })
    }

    /// What it is.
    #[must_use]
    pub fn load(&self) -> u32 {
        self.word().load(Ordering::SeqCst)
    }

    /// Sets it.
    pub fn store(&self, value: u32) {
        self.word().store(value, Ordering::SeqCst);
    }

    /// Sets it to `new` if it is `old`; whether it was.
    #[must_use]
    pub fn swap(&self, old: u32, new: u32) -> bool {
        let swapped = self
            .word()
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        swapped.is_ok()
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a mapping begins at a page, so it is aligned; it is as long as the word, readable and writable, and lives
        // as long as `self`. Nobody uses these bytes of it in another way than as an atomic.
        unsafe { AtomicU32::from_ptr(self.at.as_ptr().cast()) }
    }
}

impl Drop for MappedWord {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference into it outlives `self`.
        let _unmapped = unsafe { munmap(self.at.as_ptr(), size_of::<u32>()) };
    }
}
