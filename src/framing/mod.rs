//! What stands between HTTP bodies and messages: media type and character set (rules T-4 to T-7).
//! Multipart/encrypted is recognised here and not taken yet.

mod charset;
mod media;

pub use charset::{BadText, Charset};
pub use media::{Media, Unsupported};
