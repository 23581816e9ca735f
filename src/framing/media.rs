//! The `Content-Type` of a request (rule T-4).

use super::Charset;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// A SOAP message, with the character set that the header declares.
    Soap(Option<Charset>),
    /// `multipart/encrypted` or `multipart/x-multi-encrypted`: a sealed message (rule A-20).
    Encrypted,
}

/// A body that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The media type.
    #[error("the media type {0} is not supported: send application/soap+xml")]
    Media(String),
    /// The character set.
    #[error("the character set {0} is not supported: send UTF-8 or UTF-16")]
    Charset(String),
}

impl Media {
    /// Reads a `Content-Type` header. Without one a body is SOAP in UTF-8, unless its bytes tell otherwise.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn parse(header: Option<&str>) -> Result<Self, Unsupported> {
        let Some(header) = header.map(str::trim).filter(|h| !h.is_empty()) else {
            return Ok(Self::Soap(None));
        };
        let (media, parameters) = header.split_once(';').unwrap_or((header, ""));
        let media = media.trim().to_ascii_lowercase();
        match &*media {
            "application/soap+xml" | "text/xml" => {}
            "multipart/encrypted" | "multipart/x-multi-encrypted" => return Ok(Self::Encrypted),
            _ => return Err(Unsupported::Media(media)),
        }
        let Some(name) = parameter(parameters, "charset") else {
            return Ok(Self::Soap(None));
        };
        match Charset::named(&name) {
            Some(charset) => Ok(Self::Soap(Some(charset))),
            None => Err(Unsupported::Charset(name)),
        }
    }
}

/// The value of a parameter; names are compared without case, a value may be quoted and may then hold `;`.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', '\t', ';']);
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(';').unwrap_or((after, "")),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.trim_matches([' ', '\t', '\'']).to_owned());
        }
        rest = tail;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_4_soap_media_types_are_taken_in_every_spelling() {
        let utf8 = Media::Soap(Some(Charset::Utf8));
        let utf16 = Media::Soap(Some(Charset::Utf16Le));
        let table = [
            (None, Media::Soap(None)),
            (Some(""), Media::Soap(None)),
            (Some("application/soap+xml"), Media::Soap(None)),
            (Some("application/soap+xml;charset=UTF-8"), utf8),
            (Some("Application/SOAP+XML; Charset=\"utf-8\""), utf8),
            (Some("text/xml ; charset = utf-16"), utf16),
            (
                Some("application/soap+xml; action=\"urn:a;charset=x\"; charset=UTF-16"),
                utf16,
            ),
            (
                Some("application/soap+xml;charset=utf-8;action=\"urn:a\""),
                utf8,
            ),
            (
                Some("application/soap+xml; charset=UTF-16BE"),
                Media::Soap(Some(Charset::Utf16Be)),
            ),
            (
                Some(
                    "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";boundary=\"Encrypted Boundary\"",
                ),
                Media::Encrypted,
            ),
            (Some("multipart/x-multi-encrypted"), Media::Encrypted),
        ];
        for (header, media) in table {
            assert_eq!(Media::parse(header), Ok(media), "{header:?}");
        }
    }

    #[test]
    fn t_4_other_media_types_and_t_6_charsets_are_refused_by_name() {
        assert_eq!(
            Media::parse(Some("Text/Plain; charset=utf-8")),
            Err(Unsupported::Media("text/plain".into()))
        );
        assert_eq!(
            Media::parse(Some("application/json")),
            Err(Unsupported::Media("application/json".into()))
        );
        assert_eq!(
            Media::parse(Some("text/xml;charset=iso-8859-1")),
            Err(Unsupported::Charset("iso-8859-1".into()))
        );
    }
}
