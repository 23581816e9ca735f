//! Texts that a client may read: a message id with arguments, kept as such and rendered late.
//!
//! What is stored (in a job, in a fault) is [`Text`], which carries no language: an argument that is itself a text is
//! kept as one. The words stand once, in the tables of `catalog`, one module per area. `operation` and the providers
//! render in the language of the request, log, audit and command line in English; today every table is en-US.

mod argument;
pub mod catalog;
pub mod reader;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub(crate) use argument::told_by_text;
pub use argument::{Argument, Reason, Word};

/// A language that texts are rendered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English of the United States: what is given where a client asks for no language, or for one that is not here.
    #[default]
    EnUs,
}

impl Language {
    /// Its tag (RFC 5646), for `xml:lang`.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::EnUs => "en-US",
        }
    }

    /// Is the language of this tag here? None that is named is as good as any.
    #[must_use]
    pub fn has(tag: &str) -> bool {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        primary.is_empty() || primary.eq_ignore_ascii_case("en")
    }

    /// The best for whoever asks for a tag.
    #[must_use]
    pub const fn best(_tag: Option<&str>) -> Self {
        Self::EnUs
    }
}

/// One message of the catalogue: a stable id and the en-US words with `{name}` places, and `{name:size}` for
/// [bytes](size_exactly).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Stable, dotted: `snapshot.member-busy`. Stored in databases; never reused for another meaning.
    pub id: &'static str,
    /// The words; `{name}` is replaced by the argument of that name.
    pub en_us: &'static str,
}

/// At the end of the name of a place for bytes.
const SIZE: &str = ":size";

impl Message {
    /// The message without arguments.
    #[must_use]
    pub fn text(self) -> Text {
        Text {
            id: Cow::Borrowed(self.id),
            args: Vec::new(),
        }
    }

    /// The message with its first argument; go on with [`Text::with`].
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<Argument>) -> Text {
        self.text().with(name, value)
    }

    /// The words in a language.
    const fn words(self, language: Language) -> &'static str {
        match language {
            Language::EnUs => self.en_us,
        }
    }
}

/// A message with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    id: Cow<'static, str>,
    args: Vec<(Cow<'static, str>, Argument)>,
}

impl Text {
    /// Adds an argument.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Argument>) -> Self {
        self.args.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// The same arguments in the words of another message.
    #[must_use]
    pub fn in_words_of(mut self, message: Message) -> Self {
        self.id = Cow::Borrowed(message.id);
        self
    }

    /// The text with every argument cut to that many characters, those of its arguments too; what is cut ends in `…`.
    #[must_use]
    pub fn shortened(mut self, max: usize) -> Self {
        for (_, value) in &mut self.args {
            value.shorten(max);
        }
        self
    }

    /// The message id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// An argument.
    #[must_use]
    pub fn arg(&self, name: &str) -> Option<&Argument> {
        let found = self.args.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value)
    }

    /// The words in English: for the log, the audit and the command line.
    #[must_use]
    pub fn english(&self) -> String {
        self.render(Language::EnUs)
    }

    /// The words in a language. An id that the catalogue no longer knows gives the id and its arguments.
    #[must_use]
    pub fn render(&self, language: Language) -> String {
        let mut out = String::with_capacity(128);
        self.render_to(&mut out, language);
        out
    }

    fn render_to(&self, out: &mut String, language: Language) {
        let Some(message) = catalog::find(&self.id) else {
            out.push_str(&self.id);
            for (name, value) in &self.args {
                out.push(' ');
                out.push_str(name);
                out.push('=');
                value.render_to(out, language);
            }
            return;
        };
        let mut rest = message.words(language);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                out.push('{');
                rest = after;
                continue;
            };
            let (is_size, name) = match name.strip_suffix(SIZE) {
                Some(name) => (true, name),
                None => (false, name),
            };
            match self.arg(name) {
                Some(value) if is_size => match value.bytes() {
                    Some(bytes) => out.push_str(&size_exactly(bytes)),
                    None => value.render_to(out, language),
                },
                Some(value) => value.render_to(out, language),
                None => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                }
            }
            rest = tail;
        }
        out.push_str(rest);
    }
}

/// Does a terminal obey the character: a control character, or one that turns the text around or begins another line
/// (Unicode's Bidi_Control and separators)?
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The text as one word of a command line that can be typed as it stands.
#[must_use]
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| {
        c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | ':' | '=' | '@')
    };
    match !text.is_empty() && text.chars().all(plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

/// Is there nothing in the text that anybody sees? Spaces, control characters, those that join, part and direct others
/// (Unicode's Default_Ignorable_Code_Point), and blanks that are letters.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    let is_unseen = |c: char| {
        is_obeyed(c)
            || c.is_whitespace()
            || matches!(c,
                '\u{AD}' | '\u{34F}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{2800}' | '\u{3164}'
                | '\u{FEFF}' | '\u{FFA0}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
                | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFF0}'..='\u{FFFB}'
                | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
    };
    text.chars().all(is_unseen)
}

/// Bytes in a sentence, which scripts read too: `512 bytes`, `1.5 GiB (1610612736 bytes)`.
#[must_use]
pub fn size_exactly(bytes: u64) -> String {
    match bytes {
        0..1024 => size(bytes),
        _ => format!("{} ({bytes} bytes)", size(bytes)),
    }
}

/// Bytes in a table: `512 bytes`, `1.5 GiB`. A scaled number is rounded; JSON has the bytes.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut tenths, mut unit) = (None, None);
    for (n, name) in (1_u32..).zip(UNITS) {
        let one = 1_u128 << (10 * n);
        if u128::from(bytes) >= one {
            tenths = Some((u128::from(bytes) * 10 + one / 2) / one);
            unit = Some(name);
        }
    }
    match (tenths, unit) {
        (Some(tenths), Some(unit)) if tenths % 10 == 0 => format!("{} {unit}", tenths / 10),
        (Some(tenths), Some(unit)) => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_a_text_are_scaled_and_exact() {
        let told = |size: u64, was: u64| {
            let text = catalog::engine::SHRUNK.with("size", size).with("was", was);
            let text = text.english();
            let (_, rest) = text.split_once(" has ").unwrap();
            rest.split_once(" when ").unwrap().0.to_owned()
        };
        assert_eq!(
            told(512, 3 << 29),
            "512 bytes and had 1.5 GiB (1610612736 bytes)"
        );
        assert_eq!(
            told(1 << 20, (1 << 20) + 512),
            "1 MiB (1048576 bytes) and had 1 MiB (1049088 bytes)"
        );
    }

    #[test]
    fn a_name_that_nobody_sees_is_blank() {
        for name in [
            "",
            " ",
            "\t",
            "\u{200B}",
            "\u{2060}\u{FEFF}",
            "\u{3164}",
            "\u{202E} \u{AD}",
            "\u{E0041}",
        ] {
            assert!(is_blank(name), "{}", name.escape_unicode());
        }
        for name in ["a", "\u{200B}a", "ä", "语", "👩\u{200D}👩", "-"] {
            assert!(!is_blank(name), "{name}");
        }
    }

    #[test]
    fn a_size_is_told_in_the_largest_unit_that_it_fills() {
        let table = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, told) in table {
            assert_eq!(size(bytes), told);
        }
    }
}
