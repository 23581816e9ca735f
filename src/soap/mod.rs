//! SOAP 1.2 envelopes: their parts when they come, their frame when they go.
//!
//! What header blocks mean is `wsman`'s; here they are only told apart by name and by whether they must
//! be understood.

mod envelope;
pub mod ns;
mod reply;

pub use envelope::{Envelope, Error, must_understand};
pub use reply::{Reply, ReplyHeaders, Vocabulary};
