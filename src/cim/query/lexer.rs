//! The tokens of WQL and CQL.

use super::Error;
use super::cursor::{Cursor, described};
use super::tokens::Lexeme;
use crate::text::Argument;
use crate::text::catalog::query as texts;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Word(String),
    /// What stood in quotes, escapes resolved.
    Text(String),
    /// An integer, decimal or hex.
    Integer(i128),
    /// A number with point or exponent.
    Real(f64),
    /// What stood in braces.
    Braces(String),
    /// One of [`SIGNS`].
    Sign(&'static str),
    /// The end of the text.
    End,
}

/// Signs, longer ones first.
const SIGNS: [&str; 15] = [
    "<>", "!=", "<=", ">=", "||", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*",
];

impl Lexeme for Token {
    const END: &'static Self = &Self::End;

    fn describe(&self) -> Argument {
        match self {
            Self::Word(text) | Self::Text(text) | Self::Braces(text) => described(text).into(),
            Self::Integer(n) => n.into(),
            Self::Real(n) => n.to_string().into(),
            Self::Sign(sign) => format!("'{sign}'").into(),
            Self::End => texts::END.into(),
        }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(s) if *s == sign)
    }

    /// Keywords have no case.
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w.eq_ignore_ascii_case(word))
    }
}

/// Reads the next token.
pub(super) fn token(text: &mut Cursor<'_>) -> Result<Token, Error> {
    Lexer { text }.token()
}

struct Lexer<'c, 'a> {
    text: &'c mut Cursor<'a>,
}

impl Lexer<'_, '_> {
    fn token(&mut self) -> Result<Token, Error> {
        let Some(c) = self.text.peek() else {
            return Ok(Token::End);
        };
        match c {
            '\'' | '"' => self.quoted(c),
            '{' => self.braces(),
            '0'..='9' => self.number(""),
            '-' | '+' => {
                self.text.next();
                if !self.text.peek().is_some_and(|c| c.is_ascii_digit()) {
                    return Err(self.text.unexpected(texts::A_NUMBER, c));
                }
                self.number(if c == '-' { "-" } else { "" })
            }
            c if c == '_' || c.is_alphabetic() => {
                let word = self.text.take_while(|c| c == '_' || c.is_alphanumeric());
                Ok(Token::Word(word.to_owned()))
            }
            _ => self.sign(c),
        }
    }

    fn sign(&mut self, c: char) -> Result<Token, Error> {
        match self.text.sign(&SIGNS) {
            Some(sign) => Ok(Token::Sign(sign)),
            None => Err(self.text.unexpected(texts::A_TOKEN, c)),
        }
    }

    /// `\\`, `\'` and `\"` are escapes; any other backslash stands for itself.
    fn quoted(&mut self, quote: char) -> Result<Token, Error> {
        let start = self.text.place();
        self.text.next();
        let mut text = String::new();
        while let Some(c) = self.text.next() {
            match (c, self.text.peek()) {
                (c, _) if c == quote => return Ok(Token::Text(text)),
                ('\\', Some(escaped @ ('\\' | '\'' | '"'))) => {
                    self.text.next();
                    text.push(escaped);
                }
                (c, _) => text.push(c),
            }
        }
        Err(start
            .error(texts::SYNTAX)
            .with("expected", texts::AT_END_OF_TEXT.with("sign", quote))
            .with("got", Token::End.describe()))
    }

    /// Everything up to the closing brace that stands outside of quotes.
    fn braces(&mut self) -> Result<Token, Error> {
        let start = self.text.place();
        self.text.next();
        let (mut text, mut quote) = (String::new(), None);
        while let Some(c) = self.text.next() {
            match (c, quote) {
                ('}', None) => return Ok(Token::Braces(text)),
                ('\\', Some(_)) => {
                    text.push(c);
                    text.extend(self.text.next());
                    continue;
                }
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(open)) if c == open => quote = None,
                _ => {}
            }
            text.push(c);
        }
        Err(start
            .error(texts::SYNTAX)
            .with("expected", texts::AFTER_PATH.with("sign", "'}'"))
            .with("got", Token::End.describe()))
    }

    fn number(&mut self, sign: &str) -> Result<Token, Error> {
        let start = self.text.place();
        let mut digits = self
            .text
            .take_while(|c| c.is_ascii_alphanumeric() || c == '.')
            .to_owned();
        let exponent = digits.ends_with(['e', 'E']) && !digits.starts_with("0x");
        if exponent && matches!(self.text.peek(), Some('+' | '-')) {
            digits.extend(self.text.next());
            digits.push_str(self.text.take_while(|c| c.is_ascii_digit()));
        }
        let text = format!("{sign}{digits}");
        if let Some(n) = crate::cim::lexical::integer(&text) {
            return Ok(Token::Integer(n));
        }
        let real = digits
            .contains(['.', 'e', 'E'])
            .then(|| text.parse::<f64>());
        match real {
            Some(Ok(n)) if n.is_finite() => Ok(Token::Real(n)),
            _ => Err(start
                .error(texts::SYNTAX)
                .with("expected", texts::A_NUMBER)
                .with("got", Token::Word(text).describe())),
        }
    }
}
