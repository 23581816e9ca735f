//! The text of a query, read character by character, and the place where it is read.

use super::{Error, LENGTH_MAX, Place};
use crate::cim::Status;
use crate::text::Message;
use crate::text::catalog::query as texts;

/// Longest piece of a text that an error repeats, in characters.
const QUOTED_MAX: usize = 40;

/// A piece of the query named for an error.
pub(super) fn described(text: &str) -> String {
    format!("'{}'", text.chars().take(QUOTED_MAX).collect::<String>())
}

/// What is still to be read.
pub(super) struct Cursor<'a> {
    rest: &'a str,
    place: Place,
}

impl<'a> Cursor<'a> {
    /// Stands at the beginning of a text that is not too long.
    pub(super) fn new(text: &'a str) -> Result<Self, Error> {
        if text.len() > LENGTH_MAX {
            return Err(Error {
                status: Status::InvalidQuery,
                text: texts::TOO_LONG.with("max", LENGTH_MAX),
            });
        }
        Ok(Self {
            rest: text,
            place: Place { line: 1, column: 1 },
        })
    }

    pub(super) const fn place(&self) -> Place {
        self.place
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The character after the next.
    pub(super) fn second(&self) -> Option<char> {
        self.rest.chars().nth(1)
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        if c == '\n' {
            self.place.line += 1;
            self.place.column = 1;
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    pub(super) fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    pub(super) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let start = self.rest;
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
        let taken = start.len() - self.rest.len();
        start.get(..taken).unwrap_or_default()
    }

    /// Takes the first of these signs that is next.
    pub(super) fn sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        let sign = signs.iter().find(|sign| self.rest.starts_with(**sign))?;
        for _ in sign.chars() {
            self.next();
        }
        Some(*sign)
    }

    pub(super) fn unexpected(&self, expected: Message, c: char) -> Error {
        self.place
            .error(texts::SYNTAX)
            .with("expected", expected)
            .with("got", described(c.encode_utf8(&mut [0; 4])))
    }
}
