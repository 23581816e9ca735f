//! Reading: a flat tree that borrows from the text.
//!
//! Namespaces are resolved here and not by `quick_xml::NsReader`: its resolver lends names out of its own
//! buffer, which the next event overwrites, while a declaration in the text lives as long as the text.

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::attributes::Attributes;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::text::catalog::xml as texts;
use crate::text::{Text, told_by_text};

use super::{
    ATTRIBUTES_MAX, DEPTH_MAX, NAME_MAX, NAMESPACES_MAX, WHITE_SPACE, XML_NAMESPACE,
    XMLNS_NAMESPACE,
};

/// Why a text is not taken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Byte offset in the text.
    pub at: usize,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not well-formed; the words are the reader's.
    Malformed(String),
    /// A document type declaration.
    Doctype,
    /// A processing instruction, or an XML declaration that is not at the start.
    ProcessingInstruction,
    /// An XML declaration of another version than 1.
    Version(String),
    /// A reference to an entity other than the five of XML.
    UnknownEntity(String),
    /// A prefix without declaration.
    UnknownPrefix(String),
    /// A declaration that Namespaces in XML (section 3) forbids: `xml` as another name, another prefix as that of
    /// `xml`, `xmlns`, or a prefix as nothing.
    BadDeclaration(String),
    /// A character that XML forbids, raw or as a reference.
    Character,
    /// A name that is none.
    Name(String),
    /// A name, or that of a namespace, of more than [`NAME_MAX`] bytes.
    NameLength,
    /// Two attributes of the same expanded name.
    DuplicateAttribute(String),
    /// More than [`DEPTH_MAX`] levels.
    Depth,
    /// More than [`ATTRIBUTES_MAX`] attributes.
    Attributes,
    /// More than [`NAMESPACES_MAX`] declarations.
    Namespaces,
    /// Text or an element beside the root element.
    OutsideRoot,
    /// No root element, or it is not closed.
    Incomplete,
}

impl ErrorKind {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::Malformed(reason) => texts::MALFORMED.with("reason", reason),
            Self::Doctype => texts::DOCTYPE.text(),
            Self::ProcessingInstruction => texts::INSTRUCTION.text(),
            Self::Version(version) => texts::VERSION.with("version", version),
            Self::UnknownEntity(entity) => texts::ENTITY.with("entity", entity),
            Self::UnknownPrefix(prefix) => texts::PREFIX.with("prefix", prefix),
            Self::BadDeclaration(prefix) if prefix.is_empty() => texts::BAD_DEFAULT.text(),
            Self::BadDeclaration(prefix) => texts::BAD_PREFIX.with("prefix", prefix),
            Self::Character => texts::CHARACTER.text(),
            Self::Name(name) => texts::NAME.with("name", name),
            Self::NameLength => texts::NAME_LENGTH.with("max", NAME_MAX),
            Self::DuplicateAttribute(name) => texts::ATTRIBUTE_TWICE.with("attribute", name),
            Self::Depth => texts::DEPTH.text(),
            Self::Attributes => texts::ATTRIBUTES.text(),
            Self::Namespaces => texts::NAMESPACES.text(),
            Self::OutsideRoot => texts::OUTSIDE_ROOT.text(),
            Self::Incomplete => texts::INCOMPLETE.text(),
        }
    }
}
told_by_text!(ErrorKind);

impl Error {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        texts::AT.with("cause", &self.kind).with("at", self.at)
    }
}
told_by_text!(Error);

/// A parsed text. INVARIANT: `nodes[0]` is the root element; the subtree of the element at `n` is `n..end`;
/// `bindings[NONE]` stands for no namespace.
#[derive(Debug)]
pub struct Document<'a> {
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute<'a>>,
    bindings: Vec<Binding<'a>>,
}

#[derive(Debug)]
enum Node<'a> {
    Element(Tag<'a>),
    Text(Cow<'a, str>),
}

#[derive(Debug)]
struct Tag<'a> {
    /// As written, with prefix.
    name: &'a str,
    local: &'a str,
    /// Its binding.
    namespace: usize,
    attributes: Range<usize>,
    /// The newest binding in scope.
    scope: usize,
    /// One past the last node of the subtree.
    end: usize,
    at: usize,
}

/// The binding of names without namespace: the end of every chain.
const NONE: usize = 0;

/// A namespace declaration; `outer` leads to the one before it in scope.
#[derive(Debug)]
struct Binding<'a> {
    prefix: &'a str,
    uri: Cow<'a, str>,
    outer: usize,
    in_scope: usize,
}

/// An attribute that is no namespace declaration.
#[derive(Debug)]
struct Attribute<'a> {
    prefix: &'a str,
    namespace: usize,
    local: &'a str,
    value: Cow<'a, str>,
}

/// Reads a whole text.
///
/// # Errors
/// [`Error`] for anything that is not one well-formed, namespace-well-formed element without DTD,
/// processing instructions and undeclared entities, within the limits of this module.
pub fn parse(text: &str) -> Result<Document<'_>, Error> {
    read(text, false)
}

/// Reads the root element and its first child from the beginning of a text that may be cut off anywhere. The document has
/// no more than that. Where the text ends or is wrong within the first child, that child ends before its own child at hand.
///
/// # Errors
/// As [`parse`], as far as it has read, if not even the first child has begun; a control character that XML forbids is
/// found anywhere.
pub fn parse_first(text: &str) -> Result<Document<'_>, Error> {
    read(text, true)
}

fn read(text: &str, first_only: bool) -> Result<Document<'_>, Error> {
    let is_plain = is_plain(text.as_bytes());
    if !is_plain && let Some(at) = forbidden(text.as_bytes()) {
        return Err(Error {
            kind: ErrorKind::Character,
            at,
        });
    }
    let mut build = Build {
        text,
        at: 0,
        document: Document {
            nodes: Vec::with_capacity(if first_only { 64 } else { text.len() / 20 + 8 }),
            attributes: Vec::with_capacity(16),
            bindings: Vec::with_capacity(16),
        },
        open: Vec::with_capacity(16),
        // What is neither plain nor forbidden is a carriage return.
        has_returns: !is_plain,
        first_only,
    };
    build.bind("", Cow::Borrowed(""), NONE)?;
    let xml = build.bind("xml", Cow::Borrowed(XML_NAMESPACE), NONE)?;
    match build.read(xml) {
        Err(_) if first_only && build.open.len() > 1 => build.break_off(),
        read => read?,
    }
    Ok(build.document)
}

/// Is there no control character but tabs and line feeds? The whole text is judged at once, which the compiler
/// turns into vector instructions; nearly every message is plain.
fn is_plain(bytes: &[u8]) -> bool {
    let is = |b: &u8| (*b >= 0x20) | (*b == b'\t') | (*b == b'\n');
    bytes.iter().fold(true, |plain, b| plain & is(b))
}

/// Where the first control character stands that XML forbids. Whole blocks are judged at once.
fn forbidden(bytes: &[u8]) -> Option<usize> {
    let is = |b: &u8| (*b < 0x20) & (*b != b'\t') & (*b != b'\n') & (*b != b'\r');
    let block = 64;
    let bad = bytes
        .chunks(block)
        .position(|chunk| chunk.iter().fold(false, |bad, b| bad | is(b)))?;
    let from = bad * block;
    let within = bytes.get(from..).unwrap_or_default().iter().position(is)?;
    Some(from + within)
}

struct Build<'a> {
    text: &'a str,
    /// Where the event at hand begins.
    at: usize,
    document: Document<'a>,
    /// The elements that are not closed yet.
    open: Vec<usize>,
    /// Is there a line end to be normalised?
    has_returns: bool,
    /// Is nothing wanted behind the first child of the root?
    first_only: bool,
}

impl<'a> Build<'a> {
    fn error<T>(&self, kind: ErrorKind) -> Result<T, Error> {
        Err(Error { kind, at: self.at })
    }

    fn malformed<T>(&self, cause: &impl std::fmt::Display) -> Result<T, Error> {
        self.error(ErrorKind::Malformed(cause.to_string()))
    }

    fn read(&mut self, outermost: usize) -> Result<(), Error> {
        let mut reader = Reader::from_str(self.text);
        reader.config_mut().check_comments = true;
        // `end` compares them without keeping a copy of each.
        reader.config_mut().check_end_names = false;
        loop {
            self.at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            match reader.read_event() {
                Ok(Event::Start(tag)) => {
                    let n = self.element(&tag, outermost)?;
                    if self.open.len() == DEPTH_MAX {
                        return self.error(ErrorKind::Depth);
                    }
                    self.open.push(n);
                }
                Ok(Event::Empty(tag)) => {
                    let n = self.element(&tag, outermost)?;
                    self.close(n);
                    if self.has_enough() {
                        break;
                    }
                }
                Ok(Event::End(tag)) => {
                    self.end(tag.name().0)?;
                    if self.has_enough() {
                        break;
                    }
                }
                Ok(Event::Text(text)) if self.has_returns => {
                    self.characters(text.xml10_content())?;
                }
                Ok(Event::Text(text)) => self.characters(text.into_inner())?,
                Ok(Event::CData(text)) if !self.open.is_empty() => {
                    self.characters(text.xml10_content())?;
                }
                Ok(Event::CData(_)) => return self.error(ErrorKind::OutsideRoot),
                Ok(Event::GeneralRef(reference)) => self.reference(&reference)?,
                Ok(Event::Comment(_)) => {}
                Ok(Event::Decl(declaration)) if self.at == 0 => match declaration.version() {
                    Ok(version) if version.starts_with("1.") => {}
                    Ok(version) => return self.error(ErrorKind::Version(version.into_owned())),
                    Err(e) => return self.malformed(&e),
                },
                Ok(Event::Decl(_) | Event::PI(_)) => {
                    return self.error(ErrorKind::ProcessingInstruction);
                }
                Ok(Event::DocType(_)) => return self.error(ErrorKind::Doctype),
                Ok(Event::Eof) => break,
                Err(e) => return self.malformed(&e),
            }
        }
        if self.document.nodes.is_empty() || !self.open.is_empty() {
            return self.error(ErrorKind::Incomplete);
        }
        Ok(())
    }

    /// Closes the first child of the root and the root, without the child of the former that is not whole.
    fn break_off(&mut self) {
        if let Some(cut) = self.open.get(2) {
            self.document.nodes.truncate(*cut);
        }
        self.open.truncate(2);
        while let Some(n) = self.open.pop() {
            self.close(n);
        }
    }

    /// Has the first child of the root just been closed, and is no more wanted? The root is closed then as well.
    fn has_enough(&mut self) -> bool {
        let enough = self.first_only && self.open.len() == 1;
        if enough && let Some(root) = self.open.pop() {
            self.close(root);
        }
        enough
    }

    fn end(&mut self, name: &str) -> Result<(), Error> {
        let Some(n) = self.open.pop() else {
            return self.error(ErrorKind::OutsideRoot);
        };
        let start = self.document.tag(n).map_or("", |t| t.name);
        if !same(start, name) {
            let text = format!("the end tag of {start} is missing before that of {name}");
            return self.error(ErrorKind::Malformed(text));
        }
        self.close(n);
        Ok(())
    }

    fn close(&mut self, n: usize) {
        let end = self.document.nodes.len();
        if let Some(Node::Element(tag)) = self.document.nodes.get_mut(n) {
            tag.end = end;
        }
    }

    fn characters(&mut self, text: Cow<'a, str>) -> Result<(), Error> {
        if !self.open.is_empty() {
            self.document.nodes.push(Node::Text(text));
        } else if !text.trim_matches(WHITE_SPACE).is_empty() {
            return self.error(ErrorKind::OutsideRoot);
        }
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'a>) -> Result<(), Error> {
        if self.open.is_empty() {
            return self.error(ErrorKind::OutsideRoot);
        }
        let text = match reference.resolve_char_ref() {
            Ok(Some(c)) if allowed(c) => Cow::Owned(c.to_string()),
            Ok(Some(_)) => return self.error(ErrorKind::Character),
            Ok(None) => match resolve_predefined_entity(reference) {
                Some(text) => Cow::Borrowed(text),
                None => return self.error(ErrorKind::UnknownEntity(reference.to_string())),
            },
            Err(e) => return self.malformed(&e),
        };
        self.document.nodes.push(Node::Text(text));
        Ok(())
    }

    /// Adds the element and what its tag declares; its `end` is set when it closes.
    fn element(&mut self, tag: &BytesStart<'a>, outermost: usize) -> Result<usize, Error> {
        if self.open.is_empty() && !self.document.nodes.is_empty() {
            return self.error(ErrorKind::OutsideRoot);
        }
        // The event lends its parts from itself only; the same bytes of the text live longer.
        let inside = self.at + 1..self.at + 1 + tag.len();
        let content = self.text.get(inside).unwrap_or_default();
        let name_len = tag.name().0.len();
        let name = content.get(..name_len).unwrap_or_default();
        let parent = self.open.last().and_then(|n| self.document.tag(*n));
        let outer = parent.map_or(outermost, |t| t.scope);
        let first = self.document.attributes.len();
        let scope = match content.len() == name_len {
            true => outer,
            false => self.attributes(content, name_len, outer)?,
        };
        let (prefix, local) = self.split(name)?;
        let namespace = self.resolve(prefix, scope)?;
        let n = self.document.nodes.len();
        self.document.nodes.push(Node::Element(Tag {
            name,
            local,
            namespace,
            attributes: first..self.document.attributes.len(),
            scope,
            end: n + 1,
            at: self.at,
        }));
        Ok(n)
    }

    /// Takes up the attributes and namespace declarations of a tag; gives the scope that these open.
    fn attributes(
        &mut self,
        content: &'a str,
        name_len: usize,
        outer: usize,
    ) -> Result<usize, Error> {
        let first = self.document.attributes.len();
        let mut scope = outer;
        let mut attributes = Attributes::new(content, name_len);
        attributes.with_checks(false);
        for (n, attribute) in attributes.enumerate() {
            if n == ATTRIBUTES_MAX {
                return self.error(ErrorKind::Attributes);
            }
            let attribute = attribute.or_else(|e| self.malformed(&e))?;
            let value = self.attribute_value(&attribute)?;
            let name = attribute.key.0;
            match name.strip_prefix("xmlns") {
                Some("") => scope = self.declare("", value, outer, scope)?,
                Some(rest) if rest.starts_with(':') => {
                    let prefix = rest.get(1..).unwrap_or_default();
                    scope = self.declare(prefix, value, outer, scope)?;
                }
                _ => {
                    let (prefix, local) = self.split(name)?;
                    self.document.attributes.push(Attribute {
                        prefix,
                        namespace: NONE,
                        local,
                        value,
                    });
                }
            }
        }
        self.resolve_attributes(first, scope)?;
        Ok(scope)
    }

    fn attribute_value(
        &self,
        attribute: &quick_xml::events::attributes::Attribute<'a>,
    ) -> Result<Cow<'a, str>, Error> {
        let special = |b: u8| (b < 0x20) | (b == b'&') | (b == b'<');
        if let Cow::Borrowed(plain) = attribute.value
            && !plain.bytes().fold(false, |found, b| found | special(b))
        {
            return Ok(Cow::Borrowed(plain));
        }
        match attribute.normalized_value(XmlVersion::Implicit1_0) {
            Ok(value) if attribute.value.contains('<') || !value.chars().all(allowed) => {
                self.error(ErrorKind::Character)
            }
            Ok(value) => Ok(value),
            Err(e) => self.malformed(&e),
        }
    }

    /// Once every declaration of the tag is known: the namespaces of the attributes that have a prefix, and
    /// that no name stands twice.
    fn resolve_attributes(&mut self, first: usize, scope: usize) -> Result<(), Error> {
        for n in first..self.document.attributes.len() {
            let Some(Attribute { prefix, local, .. }) = self.document.attributes.get(n) else {
                break;
            };
            let (prefix, local) = (*prefix, *local);
            // The default namespace is not for attributes.
            let namespace = match prefix {
                "" => NONE,
                _ => self.resolve(prefix, scope)?,
            };
            let before = self.document.attributes.get(first..n).unwrap_or_default();
            let uri = |namespace| self.document.uri(namespace);
            let same =
                |a: &Attribute<'_>| a.local == local && same(uri(a.namespace), uri(namespace));
            if before.iter().any(same) {
                return self.error(ErrorKind::DuplicateAttribute(local.to_owned()));
            }
            if let Some(attribute) = self.document.attributes.get_mut(n) {
                attribute.namespace = namespace;
            }
        }
        Ok(())
    }

    /// Takes up a namespace declaration of a tag that stands in the scope `outer`.
    fn declare(
        &mut self,
        prefix: &'a str,
        uri: Cow<'a, str>,
        outer: usize,
        scope: usize,
    ) -> Result<usize, Error> {
        if uri.len() > NAME_MAX {
            return self.error(ErrorKind::NameLength);
        }
        let is_xml = prefix == "xml";
        let is_bad = is_xml != (uri == XML_NAMESPACE)
            || prefix == "xmlns"
            || uri == XMLNS_NAMESPACE
            || (uri.is_empty() && !prefix.is_empty());
        if is_bad {
            return self.error(ErrorKind::BadDeclaration(prefix.to_owned()));
        }
        let found = self.document.binding(prefix, scope);
        if found.is_some_and(|found| found > outer) {
            return self.error(ErrorKind::DuplicateAttribute(format!("xmlns:{prefix}")));
        }
        self.bind(prefix, uri, scope)
    }

    fn bind(&mut self, prefix: &'a str, uri: Cow<'a, str>, outer: usize) -> Result<usize, Error> {
        let before = self.document.bindings.get(outer);
        let in_scope = before.map_or(0, |b| b.in_scope) + 1;
        if in_scope > NAMESPACES_MAX {
            return self.error(ErrorKind::Namespaces);
        }
        self.document.bindings.push(Binding {
            prefix,
            uri,
            outer,
            in_scope,
        });
        Ok(self.document.bindings.len() - 1)
    }

    fn split(&self, name: &'a str) -> Result<(&'a str, &'a str), Error> {
        if name.len() > NAME_MAX {
            return self.error(ErrorKind::NameLength);
        }
        // Prefixes are short: a loop finds the colon sooner than a search that is made for long texts.
        let colon = name.bytes().position(|b| b == b':');
        let parts = match colon {
            None => Some(("", name)),
            Some(at) => name.get(..at).zip(name.get(at + 1..)),
        };
        match parts {
            Some((prefix, local))
                if begins_name(local)
                    && (colon.is_none()
                        || begins_name(prefix) && !local.bytes().any(|b| b == b':')) =>
            {
                Ok((prefix, local))
            }
            _ => self.error(ErrorKind::Name(name.to_owned())),
        }
    }

    fn resolve(&self, prefix: &str, scope: usize) -> Result<usize, Error> {
        match self.document.binding(prefix, scope) {
            Some(found) => Ok(found),
            None => self.error(ErrorKind::UnknownPrefix(prefix.to_owned())),
        }
    }
}

/// Can it be the prefix or the local part of a name? Beyond the first character nothing is checked: the
/// rest of the grammar of names guards nothing here.
fn begins_name(part: &str) -> bool {
    match part.bytes().next() {
        Some(b) if b.is_ascii() => b.is_ascii_alphabetic() || b == b'_',
        _ => part.starts_with(char::is_alphabetic),
    }
}

/// Equality by a loop: a prefix is one or two letters, and a call of the library's comparison, made for long
/// texts, would be the greater part of resolving a name.
fn same_prefix(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b)
}

/// Equality in vector instructions in place. The library's comparison is a call, which most names are too short
/// for, and some processors take hundreds of cycles for it at the end of a page, or for nothing at a dangling
/// address.
fn same(a: &str, b: &str) -> bool {
    let differ = || {
        a.bytes()
            .zip(b.bytes())
            .fold(0, |all, (a, b)| all | (a ^ b))
            != 0
    };
    a.len() == b.len() && !differ()
}

/// Is it a Char of XML 1.0? Others stand in no document, not even as references.
#[must_use]
pub fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

impl<'a> Document<'a> {
    /// The root element.
    #[must_use]
    pub fn root(&self) -> Element<'_> {
        Element {
            document: self,
            n: 0,
        }
    }

    fn tag(&self, n: usize) -> Option<&Tag<'a>> {
        match self.nodes.get(n) {
            Some(Node::Element(tag)) => Some(tag),
            _ => None,
        }
    }

    /// What a prefix stands for; the empty one stands for no namespace unless it is declared.
    fn binding(&self, prefix: &str, scope: usize) -> Option<usize> {
        let mut n = scope;
        loop {
            let binding = self.bindings.get(n)?;
            if same_prefix(binding.prefix, prefix) {
                return Some(n);
            }
            if n == NONE {
                return None;
            }
            n = binding.outer;
        }
    }

    fn uri(&self, binding: usize) -> &str {
        self.bindings.get(binding).map_or("", |b| &b.uri)
    }
}

/// An element of a [`Document`].
#[derive(Debug, Clone, Copy)]
pub struct Element<'d> {
    document: &'d Document<'d>,
    n: usize,
}

impl<'d> Element<'d> {
    fn tag(&self) -> Option<&'d Tag<'d>> {
        self.document.tag(self.n)
    }

    /// Its namespace; empty if it has none.
    #[must_use]
    pub fn namespace(&self) -> &'d str {
        self.tag().map_or("", |t| self.document.uri(t.namespace))
    }

    /// Its name without prefix.
    #[must_use]
    pub fn local(&self) -> &'d str {
        self.tag().map_or("", |t| t.local)
    }

    /// The prefix it is written with; empty if there is none.
    #[must_use]
    pub fn prefix(&self) -> &'d str {
        let name = self.tag().map_or("", |t| t.name);
        name.split_once(':').map_or("", |(prefix, _)| prefix)
    }

    /// Byte offset of its tag in the text.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.tag().map_or(0, |t| t.at)
    }

    /// Is it the element of that expanded name?
    #[must_use]
    pub fn is(&self, namespace: &str, local: &str) -> bool {
        same(self.local(), local) && same(self.namespace(), namespace)
    }

    /// The attribute of that expanded name; the namespace is empty for a name without prefix.
    #[must_use]
    pub fn attribute(&self, namespace: &str, local: &str) -> Option<&'d str> {
        self.attributes()
            .find(|(ns, name, _)| same(name, local) && same(ns, namespace))
            .map(|(_, _, value)| value)
    }

    /// Every attribute: namespace, local name, value. Namespace declarations are not among them.
    pub fn attributes(&self) -> impl Iterator<Item = (&'d str, &'d str, &'d str)> + use<'d> {
        let document = self.document;
        self.tag()
            .and_then(|t| document.attributes.get(t.attributes.clone()))
            .unwrap_or_default()
            .iter()
            .map(|a| (document.uri(a.namespace), a.local, &*a.value))
    }

    /// The child elements.
    #[must_use]
    pub fn children(&self) -> Children<'d> {
        Children {
            document: self.document,
            next: self.n + 1,
            end: self.tag().map_or(0, |t| t.end),
        }
    }

    /// The first child of that expanded name.
    #[must_use]
    pub fn child(&self, namespace: &str, local: &str) -> Option<Self> {
        self.children().find(|c| c.is(namespace, local))
    }

    /// The namespace that a prefix stands for here; for QNames in content. Empty is the default namespace.
    #[must_use]
    pub fn resolve(&self, prefix: &str) -> Option<&'d str> {
        let found = self.document.binding(prefix, self.tag()?.scope)?;
        Some(self.document.uri(found))
    }

    /// How many bytes the text, the names and the attributes in it take.
    #[must_use]
    pub fn size(&self) -> usize {
        let end = self.tag().map_or(0, |t| t.end);
        let nodes = self.document.nodes.get(self.n..end).unwrap_or_default();
        let attributes = |tag: &Tag<'_>| self.document.attributes.get(tag.attributes.clone());
        let size = |node: &Node<'_>| match node {
            Node::Text(text) => text.len(),
            Node::Element(tag) => {
                let attributes = attributes(tag).unwrap_or_default().iter();
                tag.name.len()
                    + attributes
                        .map(|a| a.local.len() + a.value.len())
                        .sum::<usize>()
            }
        };
        nodes.iter().map(size).sum()
    }

    /// Its own text: character data, CDATA and references joined, without that of its child elements.
    #[must_use]
    pub fn text(&self) -> Cow<'d, str> {
        let mut pieces = self.pieces();
        let Some(first) = pieces.next() else {
            return Cow::Borrowed("");
        };
        let Some(second) = pieces.next() else {
            return Cow::Borrowed(first);
        };
        let mut text = String::with_capacity(first.len() + second.len() + 32);
        text.push_str(first);
        text.push_str(second);
        pieces.for_each(|piece| text.push_str(piece));
        Cow::Owned(text)
    }

    /// [`Element::text`] without the white space around it.
    #[must_use]
    pub fn trimmed(&self) -> Cow<'d, str> {
        match self.text() {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(WHITE_SPACE)),
            Cow::Owned(text) => Cow::Owned(text.trim_matches(WHITE_SPACE).to_owned()),
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        let document = self.document;
        let end = self.tag().map_or(0, |t| t.end);
        let mut next = self.n + 1;
        std::iter::from_fn(move || {
            while next < end {
                match document.nodes.get(next)? {
                    Node::Text(text) => {
                        next += 1;
                        return Some(&**text);
                    }
                    Node::Element(tag) => next = tag.end,
                }
            }
            None
        })
    }
}

/// The child elements of an element.
#[derive(Debug, Clone)]
pub struct Children<'d> {
    document: &'d Document<'d>,
    next: usize,
    end: usize,
}

impl<'d> Iterator for Children<'d> {
    type Item = Element<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let n = self.next;
            match self.document.nodes.get(n)? {
                Node::Text(_) => self.next += 1,
                Node::Element(tag) => {
                    self.next = tag.end;
                    return Some(Element {
                        document: self.document,
                        n,
                    });
                }
            }
        }
        None
    }
}
