//! Texts of `store`: why a change cannot be made durable.

super::messages! {
    DATABASE = "store.database", "database: {reason}";
    FULL = "store.full", "no space left on the file system of the data directory ({free:size} free, at least {needed:size} needed): free some there, or delete a snapshot set, for which room is kept";
    NO_FILES = "store.no-files", "the file system of the data directory takes no further file: remove some there, or delete a snapshot set";
    QUOTA = "store.quota", "a quota leaves no space in the data directory: raise it, free some of what it counts, or delete a snapshot set, for which room is kept";
    NO_ROOM = "store.no-room", "no space left in the data directory: {cause}";
    UNRECORDED = "store.unrecorded", "the record of a snapshot set cannot be written: {reason}";
}
