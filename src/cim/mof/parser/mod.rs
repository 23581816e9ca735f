//! Recursive descent over the words of one source (DSP0004 annex A).
//!
//! After an error it goes on at the next `;` or `}` of the same depth, so that one run reports every error of a file.
//! Nothing recurses, so no input can exhaust the stack.

mod class;
mod constant;
mod qualifier;

use std::ops::Range;
use std::sync::Arc;

use crate::cim::mof::diagnostic::{Diagnostic, Rule, SourceText, Span};
use crate::cim::mof::lexer::{Token, words};
use crate::cim::mof::syntax::{File, Identifier};

/// The error is in the list already; the caller finds a place to go on.
pub(in crate::cim::mof) struct Reported;

/// Parses one source into a tree and its errors. `namespace` holds until a `#pragma namespace`.
pub(in crate::cim::mof) fn parse(
    source: &Arc<SourceText>,
    namespace: &Arc<str>,
) -> (File, Vec<Diagnostic>) {
    let mut parser = Parser {
        source: source.clone(),
        words: words(&source.text),
        at: 0,
        namespace: namespace.clone(),
        file: File::default(),
        errors: Vec::new(),
    };
    while parser.token() != Token::End {
        let start = parser.at;
        if parser.declaration().is_err() {
            parser.skip_declaration(start);
        }
    }
    (parser.file, parser.errors)
}

struct Parser {
    source: Arc<SourceText>,
    words: Vec<(Token, Range<usize>)>,
    at: usize,
    namespace: Arc<str>,
    file: File,
    errors: Vec<Diagnostic>,
}

impl Parser {
    /// One compiler directive, qualifier type, class, or instance.
    fn declaration(&mut self) -> Result<(), Reported> {
        if self.token() == Token::Directive {
            return self.directive();
        }
        if self.keyword("qualifier") {
            return self.qualifier_type();
        }
        let qualifiers = self.qualifier_list()?;
        if self.keyword("class") {
            return self.class(qualifiers);
        }
        if self.keyword("instance") && qualifiers.is_empty() {
            return self.instance();
        }
        Err(self.expected("class, Qualifier, instance of or #pragma"))
    }

    /// `#pragma name ("value")`
    fn directive(&mut self) -> Result<(), Reported> {
        if !self.text().eq_ignore_ascii_case("#pragma") {
            return Err(self.expected("#pragma"));
        }
        self.advance();
        let name = self.identifier("the name of a directive")?;
        self.expect(Token::OpenParenthesis, "(")?;
        let (value, span) = self.string("the directive's value as a string")?;
        self.expect(Token::CloseParenthesis, ")")?;
        match name.name.as_str().to_ascii_lowercase().as_str() {
            "include" => self.file.includes.push((value, span)),
            "namespace" => {
                let value = value.replace('\\', "/");
                self.namespace = Arc::from(value.trim_matches('/'));
            }
            "locale" | "instancelocale" | "source" | "sourcetype" | "nonlocal" | "nonlocaltype" => {
            }
            other => self.errors.push(Diagnostic::warning(
                Rule::Pragma,
                &name.span,
                format!("directive {other} is not known"),
                "ignored",
            )),
        }
        Ok(())
    }

    /// `instance of C { … };` is recognised, reported and passed over.
    fn instance(&mut self) -> Result<(), Reported> {
        let start = self.span();
        self.advance();
        self.expect_keyword("of")?;
        let class = self.identifier("the class of the instance")?;
        self.errors.push(Diagnostic::error(
            Rule::InstanceNotSupported,
            &start.to(&class.span),
            format!("an instance of {} is declared", class.name),
            "only classes and qualifiers are compiled here",
        ));
        let from = self.at;
        self.skip_declaration(from);
        Ok(())
    }

    /// Passes over the rest of a declaration, its closing `;` included. `start` is where it began: at least one
    /// word is always taken.
    fn skip_declaration(&mut self, start: usize) {
        let mut depth = 0_usize;
        loop {
            match self.token() {
                Token::End => break,
                Token::Directive if depth == 0 && self.at > start => return,
                Token::OpenBrace => depth += 1,
                Token::CloseBrace => depth = depth.saturating_sub(1),
                Token::Semicolon if depth == 0 => {
                    self.advance();
                    break;
                }
                Token::Identifier if depth == 0 && self.at > start && self.declaration_ahead() => {
                    return;
                }
                _ => {}
            }
            self.advance();
        }
    }

    /// Does a class, an instance or a qualifier type begin here?
    fn declaration_ahead(&self) -> bool {
        let named = self.peek(1) == Token::Identifier;
        self.class_ahead()
            || self.keyword("instance") && named && self.peek(2) == Token::Identifier
            || self.keyword("qualifier") && named && self.peek(2) == Token::Colon
    }

    /// Does `class Name {` or `class Name :` stand here?
    fn class_ahead(&self) -> bool {
        self.keyword("class")
            && self.peek(1) == Token::Identifier
            && matches!(
                self.peek(2),
                Token::OpenBrace | Token::Colon | Token::Identifier
            )
    }

    fn token(&self) -> Token {
        self.peek(0)
    }

    fn peek(&self, ahead: usize) -> Token {
        self.words
            .get(self.at + ahead)
            .map_or(Token::End, |(token, _)| *token)
    }

    fn span(&self) -> Span {
        self.span_at(self.at)
    }

    fn previous_span(&self) -> Span {
        self.span_at(self.at.saturating_sub(1))
    }

    fn span_at(&self, at: usize) -> Span {
        let end = self.source.text.len();
        Span {
            source: self.source.clone(),
            range: self
                .words
                .get(at)
                .map_or(end..end, |(_, range)| range.clone()),
        }
    }

    /// The text of the word here; empty at the end.
    fn text(&self) -> &str {
        self.words
            .get(self.at)
            .and_then(|(_, range)| self.source.text.get(range.clone()))
            .unwrap_or_default()
    }

    fn keyword(&self, word: &str) -> bool {
        self.token() == Token::Identifier && self.text().eq_ignore_ascii_case(word)
    }

    fn advance(&mut self) {
        if self.token() != Token::End {
            self.at += 1;
        }
    }

    /// Takes the word if it is this one.
    fn accept(&mut self, token: Token) -> bool {
        let here = self.token() == token;
        if here {
            self.advance();
        }
        here
    }

    fn expect(&mut self, token: Token, written: &str) -> Result<Span, Reported> {
        if self.token() != token {
            return Err(self.expected(written));
        }
        let span = self.span();
        self.advance();
        Ok(span)
    }

    /// Takes a `;`. A missing one is reported behind the last word, and parsing goes on as if it were there.
    fn semicolon(&mut self) {
        if self.accept(Token::Semicolon) {
            return;
        }
        let found = self.found();
        let span = self.previous_span();
        self.errors.push(Diagnostic::error(
            Rule::Syntax,
            &span,
            format!("expected ;, found {found}"),
            "expected ; after this",
        ));
    }

    fn expect_keyword(&mut self, word: &str) -> Result<(), Reported> {
        if !self.keyword(word) {
            return Err(self.expected(word));
        }
        self.advance();
        Ok(())
    }

    fn identifier(&mut self, what: &str) -> Result<Identifier, Reported> {
        if self.token() != Token::Identifier {
            return Err(self.expected(what));
        }
        let identifier = Identifier {
            name: self.text().into(),
            span: self.span(),
        };
        self.advance();
        Ok(identifier)
    }

    /// Reports that something else was expected here.
    fn expected(&mut self, what: &str) -> Reported {
        let (message, label) = match self.token() {
            Token::OpenString => (
                "a string does not end on its line".to_owned(),
                "expected \" before the end of the line".to_owned(),
            ),
            Token::OpenChar => (
                "a character does not end on its line".to_owned(),
                "expected ' before the end of the line".to_owned(),
            ),
            Token::Comment(_) => (
                "a comment does not end".to_owned(),
                "expected */ to close this".to_owned(),
            ),
            _ => (
                format!("expected {what}, found {}", self.found()),
                format!("expected {what}"),
            ),
        };
        let span = self.span();
        self.errors
            .push(Diagnostic::error(Rule::Syntax, &span, message, label));
        Reported
    }

    /// The word here as messages show it.
    fn found(&self) -> String {
        match self.token() {
            Token::End => "the end of the text".to_owned(),
            _ => {
                let text = self.text();
                // A character that begins no word may be one that cannot be seen.
                if self.token() == Token::Unknown && !text.is_ascii() {
                    return text.escape_unicode().to_string();
                }
                match text.char_indices().nth(40) {
                    Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
                    None => text.to_owned(),
                }
            }
        }
    }
}
