//! Character sets: UTF-8 and UTF-16, with or without a byte order mark (rules T-5, T-6).

use std::borrow::Cow;

/// The encodings of messages. An answer is written in that of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charset {
    /// UTF-8; answers carry no byte order mark.
    #[default]
    Utf8,
    /// UTF-16, little endian; answers begin with the byte order mark.
    Utf16Le,
    /// UTF-16, big endian; answers begin with the byte order mark.
    Utf16Be,
}

/// Bytes that are not of the character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not {} from byte {at} on", charset.name())]
pub struct BadText {
    /// The character set it was read in.
    pub charset: Charset,
    /// Where the first bad character begins.
    pub at: usize,
}

impl Charset {
    /// The character set of that name: `utf-8`, `utf-16`, `utf-16le`, `utf-16be` or `us-ascii` in any case.
    /// `utf-16` without a byte order mark is little endian, as Windows writes it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is = |known: &[&str]| known.iter().any(|k| name.eq_ignore_ascii_case(k));
        if is(&["utf-8", "utf8", "us-ascii", "ascii"]) {
            Some(Self::Utf8)
        } else if is(&["utf-16", "utf16", "utf-16le", "unicode"]) {
            Some(Self::Utf16Le)
        } else if is(&["utf-16be"]) {
            Some(Self::Utf16Be)
        } else {
            None
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Le | Self::Utf16Be => "UTF-16",
        }
    }

    /// The `Content-Type` of an answer, written as Windows does (rule T-7).
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Utf8 => "application/soap+xml;charset=UTF-8",
            Self::Utf16Le | Self::Utf16Be => "application/soap+xml;charset=UTF-16",
        }
    }

    /// The character set that the bytes themselves tell: by a byte order mark, or by how `<` is written.
    fn sniff(body: &[u8]) -> (Option<Self>, usize) {
        match body {
            [0xEF, 0xBB, 0xBF, ..] => (Some(Self::Utf8), 3),
            [0xFF, 0xFE, ..] => (Some(Self::Utf16Le), 2),
            [0xFE, 0xFF, ..] => (Some(Self::Utf16Be), 2),
            [b'<', 0, ..] => (Some(Self::Utf16Le), 0),
            [0, b'<', ..] => (Some(Self::Utf16Be), 0),
            _ => (None, 0),
        }
    }

    /// The text of a body and the character set it was in: what the bytes tell, else what was declared,
    /// else UTF-8. The byte order mark and NULs at the end (padding of sealed messages) are taken off.
    ///
    /// # Errors
    /// [`BadText`].
    pub fn decode(body: &[u8], declared: Option<Self>) -> Result<(Cow<'_, str>, Self), BadText> {
        let (told, skip) = Self::sniff(body);
        let charset = told.or(declared).unwrap_or_default();
        let bytes = body.get(skip..).unwrap_or_default();
        let bad = |at| BadText {
            charset,
            at: skip + at,
        };
        let text = match charset {
            Self::Utf8 => {
                let text = std::str::from_utf8(bytes).map_err(|e| bad(e.valid_up_to()))?;
                Cow::Borrowed(text.trim_end_matches('\0'))
            }
            Self::Utf16Le => Cow::Owned(utf16(bytes, u16::from_le_bytes).map_err(bad)?),
            Self::Utf16Be => Cow::Owned(utf16(bytes, u16::from_be_bytes).map_err(bad)?),
        };
        Ok((text, charset))
    }

    /// How many octets a text takes, without a byte order mark.
    #[must_use]
    pub fn octets(self, text: &str) -> usize {
        match self {
            Self::Utf8 => text.len(),
            Self::Utf16Le | Self::Utf16Be => 2 * text.encode_utf16().count(),
        }
    }

    /// How many octets the byte order mark of an answer takes.
    #[must_use]
    pub const fn mark(self) -> usize {
        match self {
            Self::Utf8 => 0,
            Self::Utf16Le | Self::Utf16Be => 2,
        }
    }

    /// The bytes of an answer.
    #[must_use]
    pub fn encode(self, text: String) -> Vec<u8> {
        let units = |unit: fn(u16) -> [u8; 2]| {
            std::iter::once(0xFEFF)
                .chain(text.encode_utf16())
                .flat_map(unit)
                .collect()
        };
        match self {
            Self::Utf8 => text.into_bytes(),
            Self::Utf16Le => units(u16::to_le_bytes),
            Self::Utf16Be => units(u16::to_be_bytes),
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, usize> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bytes.len() - rest.len());
    }
    let mut text = String::with_capacity(bytes.len() / 2);
    let mut at = 0;
    for c in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let c = c.map_err(|_| at)?;
        text.push(c);
        at += 2 * c.len_utf16();
    }
    text.truncate(text.trim_end_matches('\0').len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn t_5_utf_8_and_utf_16_are_read_with_and_without_mark() {
        let text = "<é𝄞/>";
        let le = utf16(text, u16::to_le_bytes);
        let be = utf16(text, u16::to_be_bytes);
        let with = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        let table = [
            (text.as_bytes().to_vec(), None, Charset::Utf8),
            (
                with(&[0xEF, 0xBB, 0xBF], text.as_bytes()),
                None,
                Charset::Utf8,
            ),
            (with(&[0xFF, 0xFE], &le), None, Charset::Utf16Le),
            (with(&[0xFE, 0xFF], &be), None, Charset::Utf16Be),
            (le.clone(), Some(Charset::Utf16Le), Charset::Utf16Le),
            (le, None, Charset::Utf16Le),
            (be.clone(), Some(Charset::Utf16Be), Charset::Utf16Be),
            // The bytes are right, the declaration is not.
            (
                with(&[0xFE, 0xFF], &be),
                Some(Charset::Utf8),
                Charset::Utf16Be,
            ),
        ];
        for (body, declared, charset) in table {
            let read = Charset::decode(&body, declared).unwrap();
            assert_eq!((&*read.0, read.1), (text, charset), "{body:x?}");
        }
    }

    #[test]
    fn t_5_nuls_at_the_end_are_padding() {
        let read = |body: &[u8]| Charset::decode(body, None).unwrap().0.into_owned();
        assert_eq!(read(b"<a/>\0\0\0"), "<a/>");
        let mut le = utf16("<a/>\0", u16::to_le_bytes);
        assert_eq!(read(&le), "<a/>");
        le.extend([0, 0]);
        assert_eq!(read(&le), "<a/>");
    }

    /// Whatever octet it is: half a character is missing, or the text was cut off.
    #[test]
    fn t_5_utf_16_with_an_odd_octet_at_the_end_is_refused() {
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            for last in [0, 7, b'>'] {
                for mark in ["", "\u{FEFF}"] {
                    let mut bytes = utf16(&format!("{mark}<a/>"), unit);
                    let at = bytes.len();
                    bytes.push(last);
                    assert_eq!(Charset::decode(&bytes, None).map_err(|e| e.at), Err(at));
                }
            }
        }
    }

    #[test]
    fn t_5_bad_bytes_are_refused_with_their_place() {
        let error = |body: &[u8], declared| Charset::decode(body, declared).unwrap_err();
        assert_eq!(error(b"<a>\xFF", None).at, 3);
        assert_eq!(error(b"\xEF\xBB\xBF<\xC3", None).at, 4);
        let lone = [b'<', 0, 0x00, 0xD8, b'a', 0];
        assert_eq!(error(&lone, None).at, 2);
        assert_eq!(error(b"<\0a", None).at, 2);
        assert_eq!(
            error(b"\xFF\xFE<\0a", None).to_string(),
            "the body is not UTF-16 from byte 4 on"
        );
    }

    #[test]
    fn t_6_an_answer_is_read_back_in_the_charset_of_its_request() {
        for charset in [Charset::Utf8, Charset::Utf16Le, Charset::Utf16Be] {
            let bytes = charset.encode("<é𝄞/>".to_owned());
            let read = Charset::decode(&bytes, None).unwrap();
            assert_eq!((&*read.0, read.1), ("<é𝄞/>", charset));
        }
    }
}
