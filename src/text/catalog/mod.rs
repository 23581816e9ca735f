//! The words, one table per area. Each module names its messages as constants and lists them in `ALL`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::Message;

pub mod cim;
pub mod engine;
pub mod held;
pub mod http;
pub mod job;
pub mod operation;
pub mod provider;
pub mod query;
pub mod reader;
pub mod snapshot;
pub mod store;
pub mod wire;
pub mod xml;

/// Every message by its id; words are looked up for many an answer.
static BY_ID: LazyLock<BTreeMap<&str, Message>> =
    LazyLock::new(|| AREAS.into_iter().flatten().map(|m| (m.id, *m)).collect());

const AREAS: [&[Message]; 13] = [
    store::ALL,
    xml::ALL,
    wire::ALL,
    operation::ALL,
    http::ALL,
    provider::ALL,
    query::ALL,
    job::ALL,
    snapshot::ALL,
    engine::ALL,
    held::ALL,
    cim::ALL,
    reader::ALL,
];

/// The message of that id.
#[must_use]
pub fn find(id: &str) -> Option<Message> {
    BY_ID.get(id).copied()
}

/// Declares the messages of one area as constants and as the list `ALL`.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $words:literal;)*) => {
        use $crate::text::Message;
        $($(#[$doc])* #[doc = concat!("`", $words, "`")] pub const $name: Message = Message { id: $id, en_us: $words };)*
        /// Every message of this area.
        pub const ALL: &[Message] = &[$($name),*];
    };
}
pub(crate) use messages;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_id_stands_twice() {
        let mut ids: Vec<_> = AREAS.into_iter().flatten().map(|m| m.id).collect();
        ids.sort_unstable();
        let n = ids.len();
        ids.dedup();
        assert_eq!(n, ids.len());
    }
}
