//! Writing: markup into one buffer, by hand, with one escape function.

use super::Element;

/// Appends markup to a text. Names are given as prefix and local part; prefixes are the caller's to declare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writer {
    out: String,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            out: String::with_capacity(bytes),
        }
    }

    /// Makes room for so many more bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// What is written, in bytes of UTF-8.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Is nothing written yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.out
    }

    /// Takes back what was written after `len` bytes; `len` is an earlier [`Writer::len`].
    pub fn truncate(&mut self, len: usize) {
        if self.out.is_char_boundary(len) {
            self.out.truncate(len);
        }
    }

    /// The text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.out
    }

    /// A start tag. Attribute names are written as given, prefix and all.
    pub fn open(&mut self, prefix: &str, local: &str, attributes: &[(&str, &str)]) {
        self.tag(prefix, local, attributes);
        self.out.push('>');
    }

    /// An end tag.
    pub fn close(&mut self, prefix: &str, local: &str) {
        self.out.push_str("</");
        self.name(prefix, local);
        self.out.push('>');
    }

    /// An empty-element tag.
    pub fn empty(&mut self, prefix: &str, local: &str, attributes: &[(&str, &str)]) {
        self.tag(prefix, local, attributes);
        self.out.push_str("/>");
    }

    /// An empty-element tag whose attributes are markup already, a blank before each.
    pub fn empty_with(&mut self, prefix: &str, local: &str, attributes: &str) {
        self.tag(prefix, local, &[]);
        self.out.push_str(attributes);
        self.out.push_str("/>");
    }

    /// An element that holds text.
    pub fn element(&mut self, prefix: &str, local: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(prefix, local, attributes);
        self.text(text);
        self.close(prefix, local);
    }

    /// Character data.
    pub fn text(&mut self, text: &str) {
        escape(&mut self.out, text, false);
    }

    /// A number in decimal digits.
    pub fn number(&mut self, n: impl Into<u64>) {
        let n = n.into();
        if n >= 10 {
            self.number(n / 10);
        }
        let digit = u32::try_from(n % 10).ok();
        self.out.extend(digit.and_then(|d| char::from_digit(d, 10)));
    }

    /// Markup that is already well-formed, from another [`Writer`] or a constant.
    pub fn raw(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    /// A copy of an element that was read. It declares its own namespaces, so it may stand anywhere, and may be much
    /// longer than what it is made of: `false` once there are more than `max` bytes in all, and it is not complete then.
    #[must_use]
    pub fn copy(&mut self, element: Element<'_>, max: usize) -> bool {
        let prefix = if element.namespace().is_empty() {
            ""
        } else {
            "c"
        };
        self.out.push('<');
        self.name(prefix, element.local());
        match prefix {
            "" => self.attribute("xmlns", ""),
            _ => self.attribute("xmlns:c", element.namespace()),
        }
        for (n, (namespace, local, value)) in element.attributes().enumerate() {
            if namespace.is_empty() {
                self.attribute(local, value);
            } else if namespace == super::XML_NAMESPACE {
                self.attribute(&format!("xml:{local}"), value);
            } else {
                self.attribute(&format!("xmlns:c{n}"), namespace);
                self.attribute(&format!("c{n}:{local}"), value);
            }
        }
        self.out.push('>');
        // Mixed content has no place in what is copied: either text or elements.
        let mut children = element.children().peekable();
        if children.peek().is_none() {
            self.text(&element.text());
        }
        let fits = self.out.len() <= max && children.all(|child| self.copy(child, max));
        self.close(prefix, element.local());
        fits && self.out.len() <= max
    }

    fn tag(&mut self, prefix: &str, local: &str, attributes: &[(&str, &str)]) {
        self.out.push('<');
        self.name(prefix, local);
        for (name, value) in attributes {
            self.attribute(name, value);
        }
    }

    fn name(&mut self, prefix: &str, local: &str) {
        if !prefix.is_empty() {
            self.out.push_str(prefix);
            self.out.push(':');
        }
        self.out.push_str(local);
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        escape(&mut self.out, value, true);
        self.out.push('"');
    }
}

/// Appends `text` as character data, or as an attribute value in double quotes. What XML forbids becomes `?`;
/// what a reader would normalise away (CR, and in attributes TAB and LF) becomes a character reference.
pub fn escape(out: &mut String, text: &str, attribute: bool) {
    // Nearly every text is plain, and seen to be so at once.
    if !text
        .bytes()
        .fold(false, |found, b| found | may_need_care(b))
    {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| needs_care(c, attribute)) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = from.chars();
        match chars.next() {
            Some('&') => out.push_str("&amp;"),
            Some('<') => out.push_str("&lt;"),
            Some('>') => out.push_str("&gt;"),
            Some('"') => out.push_str("&quot;"),
            Some('\r') => out.push_str("&#13;"),
            Some('\n') => out.push_str("&#10;"),
            Some('\t') => out.push_str("&#9;"),
            _ => out.push('?'),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Can the byte begin a character that needs care? `EF` begins U+FFFE and U+FFFF.
fn may_need_care(b: u8) -> bool {
    (b < 0x20) | (b == b'&') | (b == b'<') | (b == b'>') | (b == b'"') | (b == 0xEF)
}

fn needs_care(c: char, attribute: bool) -> bool {
    match c {
        '&' | '<' | '>' | '\r' => true,
        '"' | '\t' | '\n' => attribute,
        '\u{0}'..'\u{20}' | '\u{FFFE}' | '\u{FFFF}' => true,
        _ => false,
    }
}
