//! Files and folders that are held by a descriptor, not named by a path.
//!
//! Whoever may rename in a folder decides what a name in it leads to, from one system call to the next. So a
//! file is opened once, without following a link in its last component; what was opened is compared with what
//! was expected; and from then on the descriptor is used, never the name. This is the only module that opens
//! files for writing, creates, replaces, renames, links and removes, or changes owner, mode and attributes;
//! `tests/tidy.rs` refuses all of that elsewhere.
//!
//! * [`open`], [`open_straight`], [`open_any`], [`writable`]: a file, regular and no link, to be compared by [`Identity`].
//! * [`Folder`]: an open directory; everything is done to names in it. [`Folder::of`] gives the folder that a
//!   file lies in, [`Folder::beneath`] a way below a root that nothing leads out of, [`make_folders`] makes
//!   folders of ours, [`Folder::make_new`] one that nobody can exchange for another, and [`Origin`] tells it later.
//! * [`replace`]: a small file of ours as a whole, durably.
//! * [`set_mode`], [`set_owner`], [`set_attribute`]: by descriptor.
//! * [`append`], [`Folder::set_link`], [`Folder::listen`]: a log, links and sockets of ours.
//! * [`ask`], [`metadata`], [`symlink_metadata`], [`canonicalize`], and all that opens: a look at a file that may not
//!   come back. Where one does not, no other is begun ([`Silent`]).
//! * [`MappedWord`]: a word of a file that outlives the process.
//! * [`Post`]: work that stands at a file, whatever it does to it.
//!
//! Linux renames and unlinks by name only. [`Folder::exchange`] and [`Folder::remove`] therefore look at what
//! came out, in a folder where nobody else can exchange it again, and put back what is foreign. Where a folder
//! [is private](Identity::is_private), nobody but root and this process can exchange anything, and names in it
//! are as good as descriptors once the folder is held.
//!
//! Errors are I/O errors; [`foreign`] tells those apart that mean "something else stands there".

mod change;
mod folder;
mod identity;
mod made;
mod mapped;
mod own;
mod remove;
mod silence;
mod special;
mod standing;

pub use change::{
    remove_attribute, set_attribute, set_flags, set_mode, set_owner, take_flags, writable,
};
pub use folder::{
    Folder, Way, open, open_any, open_straight, read, read_any, read_any_text, read_short,
    read_text,
};
pub use identity::{
    Exposed, FileKind, Foreign, Identity, Keep, exposed, foreign, is_led, is_trusted, look_at,
};
pub use made::{Origin, exposed_above};
pub use mapped::MappedWord;
pub use own::{
    First, NotReplaced, Ours, SETS, append, discard, folder_of_ours, make_folders, make_path,
    place, remove_file, remove_folders, replace, replace_as, sync_folder,
};
pub use silence::{
    Silent, Unseen, ask, bounded, canonicalize, failing, give_up, is_any_silent, is_file,
    is_folder, is_silence, is_silent, look, metadata, place_of, read_named, resolve_above,
    silent_at, silent_places, symlink_metadata, unanswered, watch,
};

pub use standing::{Post, Standing};

#[cfg(test)]
pub(crate) use folder::synced;
#[cfg(test)]
pub(crate) use silence::slow_down;

#[cfg(test)]
mod tests;
