//! Words of MOF (DSP0004 annex A). Keywords are identifiers here; the parser knows where they are keywords,
//! because the schemas in use name properties and parameters `Reference` or `Schema`.

use std::ops::Range;

use logos::{Lexer, Logos};

/// A word.
#[derive(Logos, Debug, Clone, Copy, PartialEq, Eq)]
#[logos(skip r"[ \t\r\n\f\u{FEFF}]+")]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
pub(super) enum Token {
    /// A name or a keyword.
    #[regex(
        r"[A-Za-z_\u{A1}-\u{FEFE}\u{FF00}-\u{FFEF}][0-9A-Za-z_\u{A1}-\u{FEFE}\u{FF00}-\u{FFEF}]*"
    )]
    Identifier,
    /// `$Name`
    #[regex(r"\$[A-Za-z_][0-9A-Za-z_]*")]
    Alias,
    /// `#pragma` or another directive.
    #[regex(r"#[A-Za-z]*")]
    Directive,
    /// Any number; `literal` reads it.
    #[regex(r"[+-]?\.?[0-9]([eE][+-]|[0-9A-Za-z_.])*")]
    Number,
    /// `"text"`
    #[regex(r#""([^"\\\r\n]|\\[^\r\n])*""#)]
    String,
    /// A string that does not end on its line.
    #[regex(r#""([^"\\\r\n]|\\[^\r\n])*\\?"#)]
    OpenString,
    /// `'c'`
    #[regex(r"'([^'\\\r\n]|\\[^\r\n])*'")]
    Char,
    /// A character literal that does not end on its line.
    #[regex(r"'([^'\\\r\n]|\\[^\r\n])*\\?")]
    OpenChar,
    /// A block comment; `OpenComment` if it does not end.
    #[token("/*", comment)]
    Comment(bool),
    /// `{`
    #[token("{")]
    OpenBrace,
    /// `}`
    #[token("}")]
    CloseBrace,
    /// `(`
    #[token("(")]
    OpenParenthesis,
    /// `)`
    #[token(")")]
    CloseParenthesis,
    /// `[`
    #[token("[")]
    OpenBracket,
    /// `]`
    #[token("]")]
    CloseBracket,
    /// `;`
    #[token(";")]
    Semicolon,
    /// `:`
    #[token(":")]
    Colon,
    /// `,`
    #[token(",")]
    Comma,
    /// `=`
    #[token("=")]
    Equals,
    /// A character that begins no word.
    Unknown,
    /// The end of the text.
    End,
}

/// Runs to the end of a block comment. Is there one?
fn comment(lexer: &mut Lexer<'_, Token>) -> bool {
    let rest = lexer.remainder();
    match rest.find("*/") {
        Some(at) => {
            lexer.bump(at + 2);
            true
        }
        None => {
            lexer.bump(rest.len());
            false
        }
    }
}

/// All words of the text with their places, [`Token::End`] last; closed comments are gone.
pub(super) fn words(text: &str) -> Vec<(Token, Range<usize>)> {
    let mut words: Vec<_> = Token::lexer(text)
        .spanned()
        .map(|(token, range)| (token.unwrap_or(Token::Unknown), range))
        .filter(|(token, _)| *token != Token::Comment(true))
        .collect();
    words.push((Token::End, text.len()..text.len()));
    words
}
