//! Constants and initialisers.

use crate::cim::mof::diagnostic::{Diagnostic, Rule, Span};
use crate::cim::mof::lexer::Token;
use crate::cim::mof::literal::{self, Number};
use crate::cim::mof::syntax::{Constant, Initializer, Literal};

use super::{Parser, Reported};

impl Parser {
    /// A constant, or constants in braces.
    pub(super) fn initializer(&mut self) -> Result<Initializer, Reported> {
        let start = self.span();
        let value = if self.accept(Token::OpenBrace) {
            let mut values = Vec::new();
            if self.token() != Token::CloseBrace {
                values.push(self.constant()?);
                while self.accept(Token::Comma) {
                    values.push(self.constant()?);
                }
            }
            self.expect(Token::CloseBrace, ", or } in the list of values")?;
            Constant::Array(values)
        } else {
            Constant::Scalar(self.constant()?)
        };
        Ok(Initializer {
            value,
            span: start.to(&self.previous_span()),
        })
    }

    /// One constant. A literal that cannot be read is reported and counts as null: the words around it are sound.
    pub(super) fn constant(&mut self) -> Result<Literal, Reported> {
        let read = match self.token() {
            Token::String => return self.string("a string").map(|(s, _)| Literal::String(s)),
            Token::Number => literal::number(self.text()).map(|n| match n {
                Number::Integer(n) => Literal::Integer(n),
                Number::Real(n) => Literal::Real(n),
            }),
            Token::Char => literal::character(unquote(self.text())).map(Literal::Char),
            Token::Alias => Ok(Literal::Alias(self.text().to_owned())),
            Token::Identifier if self.keyword("null") => Ok(Literal::Null),
            Token::Identifier if self.keyword("true") => Ok(Literal::Boolean(true)),
            Token::Identifier if self.keyword("false") => Ok(Literal::Boolean(false)),
            _ => return Err(self.expected("a value")),
        };
        let literal = read.unwrap_or_else(|expected| {
            self.bad_literal(expected);
            Literal::Null
        });
        self.advance();
        Ok(literal)
    }

    /// One string, or several side by side, which are one.
    pub(super) fn string(&mut self, what: &str) -> Result<(String, Span), Reported> {
        if self.token() != Token::String {
            return Err(self.expected(what));
        }
        let start = self.span();
        let mut text = String::new();
        while self.token() == Token::String {
            match literal::text(unquote(self.text())) {
                Ok(part) => text.push_str(&part),
                Err(expected) => self.bad_literal(expected),
            }
            self.advance();
        }
        let span = start.to(&self.previous_span());
        Ok((text, span))
    }

    fn bad_literal(&mut self, expected: &str) {
        let diagnostic = Diagnostic::error(
            Rule::Literal,
            &self.span(),
            format!("{} cannot be read", self.found()),
            expected,
        );
        self.errors.push(diagnostic);
    }
}

/// Without the first and the last character.
fn unquote(text: &str) -> &str {
    text.get(1..text.len().saturating_sub(1))
        .unwrap_or_default()
}
