//! XML as this program reads and writes it: namespaces, no DTD, no processing instructions, no indentation.
//!
//! [`parse`] turns a whole text into a [`Document`], a flat tree that borrows from the text; [`Element`] is a
//! place in it. [`Writer`] appends markup to a buffer. Nothing here knows SOAP or CIM.

mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Children, Document, Element, Error, ErrorKind, allowed, parse, parse_first};
pub use write::{Writer, escape};

/// Deepest nesting of elements that is read.
pub const DEPTH_MAX: usize = 64;
/// Most attributes of one element, namespace declarations included.
pub const ATTRIBUTES_MAX: usize = 64;
/// Most namespace declarations in scope at one element.
pub const NAMESPACES_MAX: usize = 128;

/// Longest name, and longest name of a namespace, in bytes. Both may be written again for every element.
pub const NAME_MAX: usize = 2048;

/// `http://www.w3.org/XML/1998/namespace`: the prefix `xml`, and no other, is bound to it without a declaration.
pub const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// `http://www.w3.org/2000/xmlns/`: the namespace of declarations themselves, which no prefix may be bound to.
pub const XMLNS_NAMESPACE: &str = "http://www.w3.org/2000/xmlns/";

/// The characters that XML counts as white space.
pub const WHITE_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
