//! The tokens of a query, read one after another, and the bounds that every parser of them keeps.

use super::cursor::Cursor;
use super::{DEPTH_MAX, Error, Place, TERMS_MAX};
use crate::text::catalog::query as texts;
use crate::text::{Argument, Message};

/// What a cursor has to know of a token.
pub(super) trait Lexeme: PartialEq + 'static {
    /// The token that stands for the end of the text.
    const END: &'static Self;

    /// The token named for an error.
    fn describe(&self) -> Argument;

    /// Is it this sign?
    fn is_sign(&self, sign: &str) -> bool;

    /// Is it this bare word?
    fn is_word(&self, word: &str) -> bool;
}

/// The tokens of a text, and which of them is next.
pub(super) struct Tokens<T> {
    /// INVARIANT: ends in [`Lexeme::END`].
    tokens: Vec<(T, Place)>,
    at: usize,
    depth: usize,
    terms: usize,
}

impl<T: Lexeme> Tokens<T> {
    /// Takes the text apart; `token` reads the token that begins where the cursor stands.
    pub(super) fn read(
        text: &str,
        token: fn(&mut Cursor<'_>) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let mut text = Cursor::new(text)?;
        let mut tokens = Vec::new();
        loop {
            text.skip_blanks();
            let place = text.place();
            let token = token(&mut text)?;
            let ended = token == *T::END;
            tokens.push((token, place));
            if ended {
                return Ok(Self {
                    tokens,
                    at: 0,
                    depth: 0,
                    terms: 0,
                });
            }
        }
    }

    pub(super) fn peek(&self) -> &T {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> &T {
        self.tokens.get(self.at + ahead).map_or(T::END, |(t, _)| t)
    }

    pub(super) fn place(&self) -> Place {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or_else(Place::default, |(_, place)| *place)
    }

    /// Passes over so many tokens.
    pub(super) fn advance(&mut self, count: usize) {
        self.at += count;
    }

    pub(super) fn is_sign(&self, ahead: usize, sign: &str) -> bool {
        self.peek_at(ahead).is_sign(sign)
    }

    /// Takes the sign if it is next.
    pub(super) fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(0, sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.peek_at(ahead).is_word(word)
    }

    /// Takes the word if it is next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.at += usize::from(found);
        found
    }

    /// Something else was expected than what is next.
    pub(super) fn expected(&self, expected: impl Into<Argument>) -> Error {
        self.place()
            .error(texts::SYNTAX)
            .with("expected", expected)
            .with("got", self.peek().describe())
    }

    /// `what` would be all right elsewhere, but is not offered here.
    pub(super) fn not_offered(&self, what: Argument) -> Error {
        self.place().error(texts::NOT_OFFERED).with("what", what)
    }

    /// Goes one level deeper; [`Tokens::leave`] comes back.
    pub(super) fn enter(&mut self) -> Result<(), Error> {
        if self.depth >= DEPTH_MAX {
            return Err(self.place().error(texts::TOO_DEEP).with("max", DEPTH_MAX));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// One more comparison.
    pub(super) fn count(&mut self) -> Result<(), Error> {
        self.terms += 1;
        match self.terms > TERMS_MAX {
            true => Err(self.too_many(texts::COMPARISONS)),
            false => Ok(()),
        }
    }

    pub(super) fn too_many(&self, what: Message) -> Error {
        self.place()
            .error(texts::TOO_MANY)
            .with("max", TERMS_MAX)
            .with("what", what)
    }
}

/// One part, or several with something between them, joined to one. `more` takes what stands between.
pub(super) fn joined<P, E>(
    parser: &mut P,
    part: fn(&mut P) -> Result<E, Error>,
    mut more: impl FnMut(&mut P) -> bool,
    join: fn(Vec<E>) -> E,
) -> Result<E, Error> {
    let first = part(parser)?;
    if !more(parser) {
        return Ok(first);
    }
    let mut parts = vec![first, part(parser)?];
    while more(parser) {
        parts.push(part(parser)?);
    }
    Ok(join(parts))
}
