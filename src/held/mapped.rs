//! One word of a file, mapped: it can be swapped atomically, by several processes, and outlives each of them. So do notes
//! beside it.

#![expect(unsafe_code, reason = "a mapped file has no safe wrapper")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Where the notes begin, and how long each is, in bytes.
const NOTES: usize = 64;
const NOTE: usize = 8;

/// The first four bytes of a file, and notes of eight bytes each from the 64th on.
///
/// Whoever cuts the file off kills the processes that use the word (SIGBUS), so the file must be nobody else's.
#[derive(Debug)]
pub struct MappedWord {
    at: NonNull<c_void>,
    notes: usize,
}

// SAFETY: what it points to belongs to the mapping, which lives as long as it does, and is used as an atomic only.
unsafe impl Send for MappedWord {}
// SAFETY: as for `Send`.
unsafe impl Sync for MappedWord {}

impl MappedWord {
    /// How long a file with so many notes is, at least.
    #[must_use]
    pub const fn length(notes: usize) -> usize {
        NOTES.saturating_add(notes.saturating_mul(NOTE))
    }

    /// Maps it with so many notes. The file must be open for reading and writing.
    ///
    /// # Errors
    /// The file is too short, or cannot be mapped.
    pub fn of(file: &File, notes: usize) -> io::Result<Self> {
        let length = Self::length(notes);
        let found = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if found < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address at which nothing is mapped, so no other memory changes.
        let at = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let at = NonNull::new(at).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, notes })
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

    /// How many notes there are.
    #[must_use]
    pub const fn notes(&self) -> usize {
        self.notes
    }

    /// The note of that number; 0 if there is none.
    #[must_use]
    pub fn noted(&self, number: usize) -> u64 {
        self.place(number).map_or(0, |it| it.load(Ordering::SeqCst))
    }

    /// Notes this under that number, if there is one.
    pub fn note(&self, number: usize, value: u64) {
        if let Some(place) = self.place(number) {
            place.store(value, Ordering::SeqCst);
        }
    }

    fn place(&self, number: usize) -> Option<&AtomicU64> {
        if number >= self.notes {
            return None;
        }
        // SAFETY: the mapping reaches to the end of the last note, and what lies before this one in it is a multiple of
        // eight bytes, so it is aligned; else as for the word.
        Some(unsafe { AtomicU64::from_ptr(self.at.as_ptr().byte_add(Self::length(number)).cast()) })
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: a mapping begins at a page, so it is aligned; it is longer than the word, readable and writable, and lives
        // as long as `self`. Nobody uses these bytes of it in another way than as an atomic.
        unsafe { AtomicU32::from_ptr(self.at.as_ptr().cast()) }
    }
}

impl Drop for MappedWord {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference into it outlives `self`.
        let _unmapped = unsafe { munmap(self.at.as_ptr(), Self::length(self.notes)) };
    }
}
