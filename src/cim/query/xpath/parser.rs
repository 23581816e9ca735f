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

use super::lexer::{Token, tokens};
use super::syntax::{Expr, Name, Operand, Part, Path, Predicate, Step};
use crate::cim::query::syntax::{Literal, Op, Word};
use crate::cim::query::{DEPTH_MAX, Error, Place, TERMS_MAX};
use crate::text::catalog::query as texts;

/// Reads a filter.
pub(super) fn parse(text: &str) -> Result<Expr, Error> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        terms: 0,
    };
    let expr = parser.any()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.expected("an operator or the end of the query")),
    }
}

/// What XPath 1.0 has and a filter has not.
const NOT_OFFERED: [&str; 8] = ["//", "::", "..", "*", "|", "+", "-", "$"];

struct Parser {
    /// INVARIANT: ends in [`Token::End`].
    tokens: Vec<(Token, Place)>,
    at: usize,
    depth: usize,
    terms: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens
            .get(self.at + ahead)
            .map_or(&Token::End, |(t, _)| t)
    }

    fn place(&self) -> Place {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        token.map_or_else(Place::default, |(_, place)| *place)
    }

    fn expected(&self, expected: &str) -> Error {
        let what = self.peek().describe();
        let beyond = match self.peek() {
            Token::Sign(sign) => NOT_OFFERED.contains(sign),
            Token::Name(None, name) => matches!(&**name, "div" | "mod"),
            _ => false,
        };
        if beyond {
            return self.place().error(texts::NOT_OFFERED).with("what", what);
        }
        self.place()
            .error(texts::SYNTAX)
            .with("expected", expected)
            .with("got", what)
    }

    fn is_sign(&self, ahead: usize, sign: &str) -> bool {
        matches!(self.peek_at(ahead), Token::Sign(s) if *s == sign)
    }

    /// Takes the sign if it is next.
    fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(0, sign);
        self.at += usize::from(found);
        found
    }

    fn must(&mut self, sign: &str) -> Result<(), Error> {
        match self.sign(sign) {
            true => Ok(()),
            false => Err(self.expected(&format!("'{sign}'"))),
        }
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(None, local) if local == name)
    }

    /// The function that is called here.
    fn function(&self) -> Option<&str> {
        match self.peek() {
            Token::Name(None, name) if self.is_sign(1, "(") => Some(name),
            _ => None,
        }
    }

    fn any(&mut self) -> Result<Expr, Error> {
        self.list("or", Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Error> {
        self.list("and", Self::test, Expr::All)
    }

    fn list(
        &mut self,
        operator: &str,
        part: fn(&mut Self) -> Result<Expr, Error>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, Error> {
        let first = part(self)?;
        if !self.is_name(operator) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.is_name(operator) {
            self.at += 1;
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn test(&mut self) -> Result<Expr, Error> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            let error = self.place().error(texts::TOO_MANY).with("max", TERMS_MAX);
            return Err(error.with("what", "comparisons"));
        }
        if self.sign("(") {
            return self.nested(")");
        }
        match self.function() {
            Some("not") => {
                self.at += 2;
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
        if self.depth >= DEPTH_MAX {
            return Err(self.place().error(texts::TOO_DEEP).with("max", DEPTH_MAX));
        }
        self.depth += 1;
        let inner = self.any()?;
        if !self.sign(end) {
            return Err(self.expected(&format!("an operator or '{end}'")));
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn part(&mut self, part: Part) -> Result<Expr, Error> {
        self.at += 2;
        let path = self.path("the path of a property")?;
        self.must(",")?;
        let place = self.place();
        let Token::Text(text) = self.peek() else {
            return Err(self.expected("a text in quotes"));
        };
        let text = text.clone();
        self.at += 1;
        self.must(")")?;
        Ok(Expr::Part(part, path, Word { text, place }))
    }

    fn comparison(&mut self) -> Result<Expr, Error> {
        let left = self.operand()?;
        let op = match self.peek() {
            Token::Sign(sign) => Op::of(sign),
            _ => None,
        };
        match (op, left) {
            (Some(op), left) => {
                self.at += 1;
                Ok(Expr::Compare(left, op, self.operand()?))
            }
            (None, Operand::Path(path)) => Ok(Expr::Exists(path)),
            (None, Operand::Literal(..)) => Err(self.expected("a comparison operator")),
        }
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        let place = self.place();
        let negative = self.is_sign(0, "-") && !matches!(self.peek_at(1), Token::Sign(_));
        let literal = match self.peek_at(usize::from(negative)) {
            Token::Text(text) if !negative => Literal::Text(text.clone()),
            Token::Integer(n) if negative => Literal::Integer(-n),
            Token::Integer(n) => Literal::Integer(*n),
            // Not `-n`: of zero that would be a zero that is written as no literal is.
            Token::Real(n) if negative => Literal::Real(0.0 - n),
            Token::Real(n) => Literal::Real(*n),
            _ => {
                return self
                    .path("a path, a literal, not() or '('")
                    .map(Operand::Path);
            }
        };
        self.at += 1 + usize::from(negative);
        Ok(Operand::Literal(literal, place))
    }

    fn path(&mut self, expected: &str) -> Result<Path, Error> {
        let place = self.place();
        let absolute = self.sign("/");
        let mut steps = vec![self.step(if absolute {
            "the name of a class"
        } else {
            expected
        })?];
        while self.sign("/") {
            steps.push(self.step("a step after '/'")?);
        }
        Ok(Path {
            absolute,
            place,
            steps,
        })
    }

    fn step(&mut self, expected: &str) -> Result<Step, Error> {
        let place = self.place();
        match self.function() {
            Some("text") => {
                self.at += 2;
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
        if self.sign(".") {
            return Ok(Step::This);
        }
        if self.sign("@") {
            return self.name("the name of an attribute").map(Step::Attribute);
        }
        let name = self.name(expected)?;
        let mut predicates = Vec::new();
        while self.sign("[") {
            predicates.push(self.predicate()?);
        }
        Ok(Step::Child(name, predicates))
    }

    fn name(&mut self, expected: &str) -> Result<Name, Error> {
        let place = self.place();
        let Token::Name(prefix, local) = self.peek() else {
            return Err(self.expected(expected));
        };
        let (prefix, text) = (prefix.clone(), local.clone());
        self.at += 1;
        Ok(Name {
            prefix,
            local: Word { text, place },
        })
    }

    fn predicate(&mut self) -> Result<Predicate, Error> {
        if let (Token::Integer(n), true) = (self.peek(), self.is_sign(1, "]")) {
            let (n, place) = (*n, self.place());
            self.at += 2;
            return Ok(Predicate::Position(n, place));
        }
        self.nested("]").map(Predicate::Condition)
    }
}
