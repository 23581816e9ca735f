//! The tokens of XPath 1.0 (section 3.7), as far as a filter may hold them or they are refused by name.

use crate::cim::lexical;
use crate::cim::query::Error;
use crate::cim::query::cursor::{Cursor, described};
use crate::cim::query::tokens::Lexeme;
use crate::text::Argument;
use crate::text::catalog::query as texts;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name with its prefix, or the name of an operator or a function.
    Name(Option<String>, String),
    /// What stood in quotes; XPath has no escapes.
    Text(String),
    Integer(i128),
    Real(f64),
    Sign(&'static str),
    /// The end of the text.
    End,
}

/// Signs, longer ones first.
const SIGNS: [&str; 23] = [
    "//", "::", "..", "!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", "/", "@", ",", ".", "*",
    "|", "+", "-", "$", ":",
];

impl Lexeme for Token {
    const END: &'static Self = &Self::End;

    fn describe(&self) -> Argument {
        match self {
            Self::Name(Some(prefix), local) => described(&format!("{prefix}:{local}")).into(),
            Self::Name(None, text) | Self::Text(text) => described(text).into(),
            Self::Integer(n) => n.into(),
            Self::Real(n) => n.to_string().into(),
            Self::Sign(sign) => format!("'{sign}'").into(),
            Self::End => texts::END.into(),
        }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(s) if *s == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Name(None, local) if local == word)
    }
}

/// Reads the next token.
pub(super) fn token(text: &mut Cursor<'_>) -> Result<Token, Error> {
    let Some(c) = text.peek() else {
        return Ok(Token::End);
    };
    match c {
        '\'' | '"' => quoted(text, c),
        '0'..='9' => number(text),
        '.' if text.second().is_some_and(|c| c.is_ascii_digit()) => number(text),
        c if starts_name(c) => Ok(name(text)),
        _ => match text.sign(&SIGNS) {
            Some(sign) => Ok(Token::Sign(sign)),
            None => Err(text.unexpected(texts::A_TOKEN, c)),
        },
    }
}

fn starts_name(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn name(text: &mut Cursor<'_>) -> Token {
    let mut part = || {
        let part = text.take_while(|c| starts_name(c) || matches!(c, '-' | '.') || c.is_numeric());
        part.to_owned()
    };
    let first = part();
    let prefixed = text.peek() == Some(':') && text.second().is_some_and(starts_name);
    if !prefixed {
        return Token::Name(None, first);
    }
    text.next();
    let local = text.take_while(|c| starts_name(c) || matches!(c, '-' | '.') || c.is_numeric());
    Token::Name(Some(first), local.to_owned())
}

fn quoted(text: &mut Cursor<'_>, quote: char) -> Result<Token, Error> {
    let start = text.place();
    text.next();
    let inner = text.take_while(|c| c != quote).to_owned();
    match text.next() {
        Some(_) => Ok(Token::Text(inner)),
        None => Err(start
            .error(texts::SYNTAX)
            .with("expected", texts::AT_END_OF_TEXT.with("sign", quote))
            .with("got", Token::End.describe())),
    }
}

fn number(text: &mut Cursor<'_>) -> Result<Token, Error> {
    let start = text.place();
    let digits = text.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if let Some(n) = lexical::integer(digits).filter(|_| plain) {
        return Ok(Token::Integer(n));
    }
    match digits.parse::<f64>() {
        Ok(n) if plain && n.is_finite() => Ok(Token::Real(n)),
        _ => Err(start
            .error(texts::SYNTAX)
            .with("expected", texts::A_NUMBER)
            .with("got", described(digits))),
    }
}
