//! Recursive descent over the tokens of an XPath filter.
//!
//! ```text
//!   any       = all { or all }           all = test { and test }
//!   test      = not( any ) | ( any ) | starts-with( path , text ) | contains( path , text )
//!             | operand op operand | path
//!   operand   = path | text | [-] number
//!   path      = [/] step { / step }
//!   step      = . | text() | @name | name { [ position ] | [ any ] }
//! ```

use super::lexer::{Token, token};
use super::syntax::{Expr, Name, Operand, Part, Path, Predicate, Step};
use crate::cim::query::Error;
use crate::cim::query::syntax::{Literal, Op, Word};
use crate::cim::query::tokens::{Lexeme, Tokens, joined};
use crate::text::catalog::query as texts;
use crate::text::{Argument, Message};

/// Reads a filter.
pub(super) fn parse(text: &str) -> Result<Expr, Error> {
    let mut parser = Parser {
        tokens: Tokens::read(text, token)?,
    };
    let expr = parser.any()?;
    match parser.tokens.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.expected(texts::OPERATOR_OR_END)),
    }
}

/// What XPath 1.0 has and a filter has not.
const NOT_OFFERED: [&str; 8] = ["//", "::", "..", "*", "|", "+", "-", "$"];

struct Parser {
    tokens: Tokens<Token>,
}

impl Parser {
    fn expected(&self, expected: impl Into<Argument>) -> Error {
        let beyond = match self.tokens.peek() {
            Token::Sign(sign) => NOT_OFFERED.contains(sign),
            Token::Name(None, name) => matches!(&**name, "div" | "mod"),
            _ => false,
        };
        match beyond {
            true => self.tokens.not_offered(self.tokens.peek().describe()),
            false => self.tokens.expected(expected),
        }
    }

    fn must(&mut self, sign: &str) -> Result<(), Error> {
        match self.tokens.sign(sign) {
            true => Ok(()),
            false => Err(self.expected(format!("'{sign}'"))),
        }
    }

    /// The function that is called here.
    fn function(&self) -> Option<&str> {
        match self.tokens.peek() {
            Token::Name(None, name) if self.tokens.is_sign(1, "(") => Some(name),
            _ => None,
        }
    }

    fn any(&mut self) -> Result<Expr, Error> {
        joined(self, Self::all, |p| p.tokens.word("or"), Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Error> {
        joined(self, Self::test, |p| p.tokens.word("and"), Expr::All)
    }

    fn test(&mut self) -> Result<Expr, Error> {
        self.tokens.count()?;
        if self.tokens.sign("(") {
            return self.nested(")");
        }
        match self.function() {
            Some("not") => {
                self.tokens.advance(2);
                Ok(Expr::Not(Box::new(self.nested(")")?)))
            }
            Some(name) => match Part::ALL.into_iter().find(|p| p.function() == name) {
                Some(part) => self.part(part),
                None => self.comparison(),
            },
            None => self.comparison(),
        }
    }

    /// A condition up to what closes it.
    fn nested(&mut self, end: &str) -> Result<Expr, Error> {
        self.tokens.enter()?;
        let inner = self.any()?;
        if !self.tokens.sign(end) {
            return Err(self.expected(texts::OPERATOR_OR.with("sign", format!("'{end}'"))));
        }
        self.tokens.leave();
        Ok(inner)
    }

    fn part(&mut self, part: Part) -> Result<Expr, Error> {
        self.tokens.advance(2);
        let path = self.path(texts::PROPERTY_PATH)?;
        self.must(",")?;
        let place = self.tokens.place();
        let Token::Text(text) = self.tokens.peek() else {
            return Err(self.expected(texts::TEXT_IN_QUOTES));
        };
        let text = text.clone();
        self.tokens.advance(1);
        self.must(")")?;
        Ok(Expr::Part(part, path, Word { text, place }))
    }

    fn comparison(&mut self) -> Result<Expr, Error> {
        let left = self.operand()?;
        let op = match self.tokens.peek() {
            Token::Sign(sign) => Op::of(sign),
            _ => None,
        };
        match (op, left) {
            (Some(op), left) => {
                self.tokens.advance(1);
                Ok(Expr::Compare(left, op, self.operand()?))
            }
            (None, Operand::Path(path)) => Ok(Expr::Exists(path)),
            (None, Operand::Literal(..)) => Err(self.expected(texts::COMPARISON)),
        }
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        let place = self.tokens.place();
        let negative =
            self.tokens.is_sign(0, "-") && !matches!(self.tokens.peek_at(1), Token::Sign(_));
        let literal = match self.tokens.peek_at(usize::from(negative)) {
            Token::Text(text) if !negative => Literal::Text(text.clone()),
            Token::Integer(n) if negative => Literal::Integer(-n),
            Token::Integer(n) => Literal::Integer(*n),
            // Not `-n`: of zero that would be a zero that is written as no literal is.
            Token::Real(n) if negative => Literal::Real(0.0 - n),
            Token::Real(n) => Literal::Real(*n),
            _ => {
                return self.path(texts::XPATH_OPERAND).map(Operand::Path);
            }
        };
        self.tokens.advance(1 + usize::from(negative));
        Ok(Operand::Literal(literal, place))
    }

    fn path(&mut self, expected: Message) -> Result<Path, Error> {
        let place = self.tokens.place();
        let absolute = self.tokens.sign("/");
        let mut steps = vec![self.step(if absolute {
            texts::CLASS_NAME
        } else {
            expected
        })?];
        while self.tokens.sign("/") {
            steps.push(self.step(texts::STEP_AFTER_SLASH)?);
        }
        Ok(Path {
            absolute,
            place,
            steps,
        })
    }

    fn step(&mut self, expected: Message) -> Result<Step, Error> {
        let place = self.tokens.place();
        match self.function() {
            Some("text") => {
                self.tokens.advance(2);
                self.must(")")?;
                return Ok(Step::Text(place));
            }
            Some(name @ ("true" | "false" | "boolean")) => {
                let error = place.error(texts::XPATH_BOOLEAN);
                return Err(error.with("what", format!("{name}()")));
            }
            Some(name) => {
                let error = place.error(texts::NOT_OFFERED);
                return Err(error.with("what", format!("{name}()")));
            }
            None => {}
        }
        if self.tokens.sign(".") {
            return Ok(Step::This);
        }
        if self.tokens.sign("@") {
            return self.name(texts::ATTRIBUTE_NAME).map(Step::Attribute);
        }
        let name = self.name(expected)?;
        let mut predicates = Vec::new();
        while self.tokens.sign("[") {
            predicates.push(self.predicate()?);
        }
        Ok(Step::Child(name, predicates))
    }

    fn name(&mut self, expected: Message) -> Result<Name, Error> {
        let place = self.tokens.place();
        let Token::Name(prefix, local) = self.tokens.peek() else {
            return Err(self.expected(expected));
        };
        let (prefix, text) = (prefix.clone(), local.clone());
        self.tokens.advance(1);
        Ok(Name {
            prefix,
            local: Word { text, place },
        })
    }

    fn predicate(&mut self) -> Result<Predicate, Error> {
        if let (Token::Integer(n), true) = (self.tokens.peek(), self.tokens.is_sign(1, "]")) {
            let (n, place) = (*n, self.tokens.place());
            self.tokens.advance(2);
            return Ok(Predicate::Position(n, place));
        }
        self.nested("]").map(Predicate::Condition)
    }
}
