//! Texts of `store`: why a change cannot be made durable.

super::messages! {
    DATABASE = "store.database", "database: {reason}";
    FULL = "store.full", "database: no space left on the disk that holds it";
    UNRECORDED = "store.unrecorded", "the record of a snapshot set cannot be written: {reason}";
}
