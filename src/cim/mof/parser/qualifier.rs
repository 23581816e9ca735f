//! Qualifier types, and qualifiers at elements.

use crate::cim::mof::diagnostic::Span;
use crate::cim::mof::lexer::Token;
use crate::cim::mof::syntax::{Constant, Flavor, Initializer, QualifierType, QualifierUse, Scope};

use super::{Parser, Reported};

impl Parser {
    /// `Qualifier Name : type [= default], Scope(…) [, Flavor(…)];`
    pub(super) fn qualifier_type(&mut self) -> Result<(), Reported> {
        self.advance();
        let name = self.identifier("the name of the qualifier")?;
        self.expect(Token::Colon, ": and the type of the qualifier")?;
        let (ty, _) = self.data_type("the type of the qualifier")?;
        let array = self.array_size()?;
        let default = match self.accept(Token::Equals) {
            true => Some(self.initializer()?),
            false => None,
        };
        self.expect(Token::Comma, ", and the scope of the qualifier")?;
        self.expect_keyword("scope")?;
        let scopes = self.words_in_parentheses("a scope", Scope::named)?;
        let flavors = match self.accept(Token::Comma) {
            true => {
                self.expect_keyword("flavor")?;
                self.words_in_parentheses("a flavor", Flavor::named)?
            }
            false => Vec::new(),
        };
        self.semicolon();
        self.file.qualifiers.push(QualifierType {
            name,
            ty,
            array,
            default,
            scopes: scopes.into_iter().map(|(scope, _)| scope).collect(),
            flavors,
        });
        Ok(())
    }

    fn words_in_parentheses<T>(
        &mut self,
        what: &str,
        named: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<(T, Span)>, Reported> {
        self.expect(Token::OpenParenthesis, "(")?;
        let mut found = Vec::new();
        loop {
            match named(self.text()) {
                Some(value) => found.push((value, self.span())),
                None => return Err(self.expected(what)),
            }
            self.advance();
            if !self.accept(Token::Comma) {
                break;
            }
        }
        self.expect(Token::CloseParenthesis, ", or )")?;
        Ok(found)
    }

    /// `[Key, MaxLen (256), ValueMap {"1", "2"}]`, or nothing.
    pub(super) fn qualifier_list(&mut self) -> Result<Vec<QualifierUse>, Reported> {
        let mut list = Vec::new();
        if !self.accept(Token::OpenBracket) {
            return Ok(list);
        }
        loop {
            list.push(self.qualifier_use()?);
            if !self.accept(Token::Comma) {
                break;
            }
        }
        self.expect(Token::CloseBracket, ", or ] in the list of qualifiers")?;
        Ok(list)
    }

    fn qualifier_use(&mut self) -> Result<QualifierUse, Reported> {
        let name = self.identifier("a qualifier")?;
        let value = match self.token() {
            Token::OpenParenthesis => Some(self.in_parentheses()?),
            Token::OpenBrace => Some(self.initializer()?),
            _ => None,
        };
        let mut flavors = Vec::new();
        if self.accept(Token::Colon) {
            while self.token() == Token::Identifier {
                match Flavor::named(self.text()) {
                    Some(flavor) => flavors.push((flavor, self.span())),
                    None => break,
                }
                self.advance();
            }
            if flavors.is_empty() {
                return Err(self.expected("a flavor"));
            }
        }
        Ok(QualifierUse {
            name,
            value,
            flavors,
        })
    }

    /// `( constant )`
    fn in_parentheses(&mut self) -> Result<Initializer, Reported> {
        let start = self.span();
        self.advance();
        let value = Constant::Scalar(self.constant()?);
        let end = self.expect(Token::CloseParenthesis, ")")?;
        Ok(Initializer {
            value,
            span: start.to(&end),
        })
    }
}
