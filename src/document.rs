//! Texts of files that only this program writes: JSON with a checksum.
//!
//! ```json
//! { "format": 1, "…": "…", "checksum": "<SHA-256 of all the rest, hexadecimal>" }
//! ```
//!
//! The checksum is over the values and not over their form: blanks and line ends are nobody's loss. A file of before
//! there was one has none and is read as it is.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::text::catalog::reader as texts;
use crate::text::{Reason, Text, reader, told_by_text};

/// The member that holds the checksum.
const CHECKSUM: &str = "checksum";

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    /// The content.
    pub body: T,
    /// Whether a checksum vouches for it.
    pub checked: bool,
}

/// The file holds something else than was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damaged {
    /// It cannot be understood, and why.
    Malformed(Text),
    /// It can, and is not what the checksum is of.
    Checksum,
}

impl Damaged {
    /// What is wrong with the file.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::Malformed(reason) => texts::DAMAGED.with("reason", reason),
            Self::Checksum => texts::DAMAGED_CHECKSUM.text(),
        }
    }
}

told_by_text!(Damaged);

impl From<Damaged> for io::Error {
    fn from(error: Damaged) -> Self {
        let reason = Reason::new(error.text(), error);
        Self::new(io::ErrorKind::InvalidData, reason)
    }
}

/// The text of a document, with its checksum.
///
/// # Errors
/// The body has no JSON text, or is no object.
pub fn write(body: &impl Serialize) -> io::Result<Vec<u8>> {
    let Value::Object(mut map) = serde_json::to_value(body)? else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let sum = checksum(&map)?;
    map.insert(CHECKSUM.to_owned(), sum.into());
    let mut text = serde_json::to_vec_pretty(&map)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads the text of a document.
///
/// # Errors
/// [`Damaged`].
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<Document<T>, Damaged> {
    let malformed = |e: serde_json::Error| Damaged::Malformed(reader::told_of_json(&e));
    let mut map: Map<String, Value> = serde_json::from_slice(text).map_err(malformed)?;
    let told = map.remove(CHECKSUM);
    if let Some(told) = &told
        && Some(told.as_str().unwrap_or_default()) != checksum(&map).ok().as_deref()
    {
        return Err(Damaged::Checksum);
    }
    let body = serde_json::from_value(Value::Object(map)).map_err(malformed)?;
    let checked = told.is_some();
    Ok(Document { body, checked })
}

/// Reads the text of a document, whatever its checksum says: for somebody who vouches for it.
///
/// # Errors
/// [`Damaged::Malformed`].
pub fn read_unchecked<T: DeserializeOwned>(text: &[u8]) -> Result<Document<T>, Damaged> {
    let malformed = |e: serde_json::Error| Damaged::Malformed(reader::told_of_json(&e));
    let mut map: Map<String, Value> = serde_json::from_slice(text).map_err(malformed)?;
    map.remove(CHECKSUM);
    let body = serde_json::from_value(Value::Object(map)).map_err(malformed)?;
    let checked = false;
    Ok(Document { body, checked })
}

/// Of the values, in the order of their names.
fn checksum(map: &Map<String, Value>) -> io::Result<String> {
    Ok(sha256(&serde_json::to_vec(map)?))
}

/// SHA-256 of a text, in lower-case hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Octets in lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Body {
        format: u32,
        name: String,
        files: Vec<PathBuf>,
        sizes: (i64, u64),
    }

    fn body() -> Body {
        Body {
            format: 1,
            name: "w\"eb ä".to_owned(),
            files: vec!["/a/b".into(), "/c".into()],
            sizes: (i64::MIN, u64::MAX),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_one_without_a_checksum_too() {
        let text = write(&body()).unwrap();
        let checked = true;
        assert_eq!(
            read(&text),
            Ok(Document {
                body: body(),
                checked
            })
        );
        let bare = serde_json::to_vec(&body()).unwrap();
        let (body, checked) = (body(), false);
        assert_eq!(read(&bare), Ok(Document { body, checked }));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_gives_another_body() {
        let text = write(&body()).unwrap();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = read::<Body>(&flipped) {
                assert_eq!(read.body, body(), "bit {bit}");
            }
        }
        for cut in 0..text.len() - 2 {
            assert!(read::<Body>(&text[..cut]).is_err(), "cut at {cut}");
        }
    }
}
