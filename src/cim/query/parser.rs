//! Recursive descent over the tokens of a query.
//!
//! ```text
//!   query      = SELECT ( [alias .] * | property {, property} ) FROM class [ [AS] alias ] [ WHERE any ]
//!              | ( ASSOCIATORS | REFERENCES ) OF { path } [ WHERE clause {clause} ]        WQL only
//!   any        = all { OR all }          all = not { AND not }
//!   not        = NOT not | ( any ) | comparison | each                                       each: CQL only
//!   comparison = operand op operand | property [NOT] LIKE text | property IS [NOT] NULL | property ISA class
//!   each       = ( ANY | EVERY ) name IN property SATISFIES ( any )
//!   operand    = property | literal | text || text …                                         || and below: CQL only
//!              | property [ number ] | function ( [ class or alias ] )
//! ```

use super::lexer::{Token, token};
use super::syntax::{
    Body, Clause, Columns, Expr, Literal, Op, Operand, Property, RelatedKind, Statement, Word,
};
use super::tokens::{Lexeme, Tokens, joined};
use super::{Error, Language, TERMS_MAX};
use crate::text::catalog::query as texts;
use crate::text::{Argument, Message};

/// Reads a query.
///
/// # Errors
/// [`Error`], with the place in the text.
pub fn parse(language: Language, text: &str) -> Result<Statement, Error> {
    let mut parser = Parser {
        language,
        tokens: Tokens::read(text, token)?,
    };
    let body = parser.body()?;
    match parser.tokens.peek() {
        Token::End => Ok(Statement { language, body }),
        _ => Err(parser.tokens.expected(texts::END)),
    }
}

/// Words that end a name where one could stand.
const KEYWORDS: [&str; 10] = [
    "SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "LIKE", "IS", "ISA", "NULL",
];

struct Parser {
    language: Language,
    tokens: Tokens<Token>,
}

impl Parser {
    /// A name that is no keyword.
    fn word(&mut self, expected: Message) -> Result<Word, Error> {
        let place = self.tokens.place();
        match self.tokens.peek() {
            Token::Word(text) if !KEYWORDS.iter().any(|k| text.eq_ignore_ascii_case(k)) => {
                let text = text.clone();
                self.tokens.advance(1);
                Ok(Word { text, place })
            }
            _ => Err(self.tokens.expected(expected)),
        }
    }

    /// A name, bare or in quotes.
    fn name(&mut self, expected: Message) -> Result<Word, Error> {
        let place = self.tokens.place();
        if let Token::Text(text) = self.tokens.peek() {
            let text = text.clone();
            self.tokens.advance(1);
            return Ok(Word { text, place });
        }
        self.word(expected)
    }

    fn body(&mut self) -> Result<Body, Error> {
        if self.tokens.word("SELECT") {
            return self.select();
        }
        let wql = !self.is_cql();
        let kind = match () {
            () if wql && self.tokens.word("ASSOCIATORS") => RelatedKind::Associators,
            () if wql && self.tokens.word("REFERENCES") => RelatedKind::References,
            () if wql => {
                return Err(self.tokens.expected(texts::SELECT_OR_RELATED));
            }
            () => return Err(self.tokens.expected("SELECT")),
        };
        self.related(kind)
    }

    fn select(&mut self) -> Result<Body, Error> {
        if self.is_beyond_select() {
            return Err(self.not_offered());
        }
        let columns = self.columns()?;
        if !self.tokens.word("FROM") {
            return Err(self.tokens.expected(texts::COMMA_OR_FROM));
        }
        let class = self.word(texts::CLASS_NAME)?;
        let alias = self.alias()?;
        if self.is_beyond_from() {
            return Err(self.not_offered());
        }
        let condition = if self.tokens.word("WHERE") {
            Some(Box::new(self.any()?))
        } else if matches!(self.tokens.peek(), Token::End) {
            None
        } else {
            return Err(self.tokens.expected(texts::WHERE_OR_END));
        };
        if self.is_beyond_from() {
            return Err(self.not_offered());
        }
        Ok(Body::Select {
            columns,
            class,
            alias,
            condition,
        })
    }

    /// Does a quantity stand before the columns, as DSP0202 has it?
    fn is_beyond_select(&self) -> bool {
        let quantity = self.tokens.is_word(0, "DISTINCT") || self.tokens.is_word(0, "FIRST");
        let follows = match self.tokens.peek_at(1) {
            Token::Word(_) => !self.tokens.is_word(1, "FROM"),
            Token::Integer(_) | Token::Sign("*") => true,
            _ => false,
        };
        self.is_cql() && quantity && follows
    }

    /// Does something follow that other queries than these have: another class, an interval, groups, an order?
    fn is_beyond_from(&self) -> bool {
        let keywords = ["WITHIN", "GROUP", "HAVING", "ORDER"];
        let join = self.is_cql() && self.tokens.is_sign(0, ",");
        join || keywords.iter().any(|k| self.tokens.is_word(0, k))
    }

    fn not_offered(&self) -> Error {
        let what = match self.tokens.peek() {
            Token::Sign(",") => texts::JOIN.into(),
            token => token.describe(),
        };
        self.tokens.not_offered(what)
    }

    fn is_cql(&self) -> bool {
        self.language == Language::Cql
    }

    fn alias(&mut self) -> Result<Option<Word>, Error> {
        if self.is_cql() && self.tokens.word("AS") {
            return self.word(texts::ALIAS).map(Some);
        }
        Ok(None)
    }

    fn columns(&mut self) -> Result<Columns, Error> {
        if self.tokens.sign("*") {
            return Ok(Columns::All(None));
        }
        let (dot, star) = (self.tokens.peek_at(1), self.tokens.peek_at(2));
        if self.is_cql() && *dot == Token::Sign(".") && *star == Token::Sign("*") {
            let qualifier = self.word(texts::CLASS_OR_ALIAS)?;
            self.tokens.advance(2);
            return Ok(Columns::All(Some(qualifier)));
        }
        let mut columns = vec![self.property(texts::STAR_OR_PROPERTY)?];
        while self.tokens.sign(",") {
            if columns.len() >= TERMS_MAX {
                return Err(self.tokens.too_many(texts::COLUMNS));
            }
            columns.push(self.property(texts::PROPERTY_NAME)?);
        }
        Ok(Columns::Of(columns))
    }

    fn property(&mut self, expected: Message) -> Result<Property, Error> {
        let function = self.is_cql() && self.tokens.is_sign(1, "(");
        if function && matches!(self.tokens.peek(), Token::Word(_)) {
            let place = self.tokens.place();
            let what = format!("{}()", self.word(expected)?);
            return Err(place.error(texts::NOT_OFFERED).with("what", what));
        }
        let name = self.word(expected)?;
        if !self.tokens.sign(".") {
            return Ok(Property {
                qualifier: None,
                name,
                index: None,
            });
        }
        Ok(Property {
            qualifier: Some(name),
            name: self.word(texts::PROPERTY_AFTER_DOT)?,
            index: None,
        })
    }

    /// A property in a condition: in CQL one element of an array, or what a function of paths gives.
    fn value(&mut self, expected: Message) -> Result<Property, Error> {
        if let Some(property) = self.path_function()? {
            return Ok(property);
        }
        let mut property = self.property(expected)?;
        if self.is_cql() && self.tokens.sign("[") {
            property.index = match self.tokens.peek() {
                Token::Integer(n) => usize::try_from(*n).ok(),
                _ => None,
            };
            if property.index.is_none() {
                return Err(self.tokens.expected(texts::ELEMENT_NUMBER));
            }
            self.tokens.advance(1);
            if !self.tokens.sign("]") {
                return Err(self.tokens.expected("']'"));
            }
        }
        Ok(property)
    }

    /// The functions of DSP0202 that tell where an instance is; here they are the system properties of WQL.
    fn path_function(&mut self) -> Result<Option<Property>, Error> {
        let functions = [
            ("OBJECTPATH", "__PATH"),
            ("CLASSNAME", "__CLASS"),
            ("NAMESPACENAME", "__NAMESPACE"),
            ("HOSTPORT", "__SERVER"),
        ];
        let called = self.is_cql() && self.tokens.is_sign(1, "(");
        let mut functions = functions.iter().filter(|_| called);
        let Some((_, property)) = functions.find(|(f, _)| self.tokens.is_word(0, f)) else {
            return Ok(None);
        };
        let place = self.tokens.place();
        self.tokens.advance(2);
        // The path of the instance is what the others take.
        let nested = self.tokens.is_word(0, "OBJECTPATH") && self.tokens.is_sign(1, "(");
        self.tokens.advance(if nested { 2 } else { 0 });
        let qualifier = match self.tokens.peek() {
            Token::Word(_) => Some(self.word(texts::CLASS_OR_ALIAS)?),
            _ => None,
        };
        for _ in 0..=usize::from(nested) {
            if !self.tokens.sign(")") {
                return Err(self.tokens.expected(texts::CLASS_ALIAS_OR_END));
            }
        }
        let text = (*property).to_owned();
        Ok(Some(Property {
            qualifier,
            name: Word { text, place },
            index: None,
        }))
    }

    fn any(&mut self) -> Result<Expr, Error> {
        joined(self, Self::all, |p| p.tokens.word("OR"), Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Error> {
        joined(self, Self::not, |p| p.tokens.word("AND"), Expr::All)
    }

    fn not(&mut self) -> Result<Expr, Error> {
        let each = (self.tokens.is_word(0, "ANY") || self.tokens.is_word(0, "EVERY"))
            && matches!(self.tokens.peek_at(1), Token::Word(_))
            && self.tokens.is_word(2, "IN");
        let nested = self.tokens.is_word(0, "NOT") || self.tokens.is_sign(0, "(");
        if self.is_cql() && each {
            return self.each();
        }
        if !nested {
            return self.comparison();
        }
        self.tokens.enter()?;
        let inner = if self.tokens.word("NOT") {
            Expr::Not(Box::new(self.not()?))
        } else {
            self.parentheses()?
        };
        self.tokens.leave();
        Ok(inner)
    }

    fn parentheses(&mut self) -> Result<Expr, Error> {
        if !self.tokens.sign("(") {
            return Err(self.tokens.expected("'('"));
        }
        let inner = self.any()?;
        if !self.tokens.sign(")") {
            return Err(self.tokens.expected(texts::AND_OR_END));
        }
        Ok(inner)
    }

    fn each(&mut self) -> Result<Expr, Error> {
        self.tokens.enter()?;
        let every = self.tokens.is_word(0, "EVERY");
        self.tokens.advance(1);
        let variable = self.word(texts::ELEMENT_NAME)?;
        self.tokens.advance(1);
        let array = self.property(texts::AN_ARRAY)?;
        if !self.tokens.word("SATISFIES") {
            return Err(self.tokens.expected("SATISFIES"));
        }
        let inner = Box::new(self.parentheses()?);
        self.tokens.leave();
        Ok(Expr::Each {
            every,
            variable,
            array,
            inner,
        })
    }

    fn comparison(&mut self) -> Result<Expr, Error> {
        self.tokens.count()?;
        let left = self.operand(texts::OPERAND_OR_NOT)?;
        if let Token::Sign(sign) = self.tokens.peek()
            && let Some(op) = Op::of(sign)
        {
            self.tokens.advance(1);
            let right = self.operand(texts::OPERAND)?;
            return Ok(Expr::Compare(left, op, right));
        }
        let Operand::Property(property) = left else {
            return Err(self.tokens.expected(texts::COMPARISON));
        };
        if self.tokens.word("LIKE") {
            return self.like(property);
        }
        if self.tokens.is_word(0, "NOT") && self.tokens.is_word(1, "LIKE") {
            self.tokens.advance(2);
            return Ok(Expr::Not(Box::new(self.like(property)?)));
        }
        if self.tokens.word("ISA") {
            let class = self.name(texts::CLASS_NAME)?;
            return Ok(Expr::IsA(property, class));
        }
        if !self.tokens.word("IS") {
            return Err(self.tokens.expected(texts::COMPARISON_OR_WORD));
        }
        let negated = self.tokens.word("NOT");
        if !self.tokens.word("NULL") {
            return Err(self.tokens.expected(match negated {
                true => Argument::from("NULL"),
                false => texts::NULL_OR_NOT_NULL.into(),
            }));
        }
        let is_null = Expr::IsNull(property);
        Ok(match negated {
            true => Expr::Not(Box::new(is_null)),
            false => is_null,
        })
    }

    fn like(&mut self, property: Property) -> Result<Expr, Error> {
        let place = self.tokens.place();
        let Token::Text(text) = self.tokens.peek() else {
            return Err(self.tokens.expected(texts::PATTERN_IN_QUOTES));
        };
        let text = text.clone();
        self.tokens.advance(1);
        Ok(Expr::Like(property, Word { text, place }))
    }

    fn operand(&mut self, expected: Message) -> Result<Operand, Error> {
        let place = self.tokens.place();
        let literal = match self.tokens.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.tokens.advance(1);
                return Ok(Operand::Literal(Literal::Text(self.texts(text)?), place));
            }
            Token::Integer(n) => Literal::Integer(*n),
            Token::Real(n) => Literal::Real(*n),
            Token::Word(word) if word.eq_ignore_ascii_case("NULL") => Literal::Null,
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => Literal::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => Literal::Boolean(false),
            _ => return self.value(expected).map(Operand::Property),
        };
        self.tokens.advance(1);
        Ok(Operand::Literal(literal, place))
    }

    /// What follows the first of several texts that are joined to one.
    fn texts(&mut self, mut text: String) -> Result<String, Error> {
        while self.is_cql() && self.tokens.sign("||") {
            let Token::Text(next) = self.tokens.peek() else {
                return Err(self.tokens.expected(texts::TEXT_AFTER_BARS));
            };
            text.push_str(next);
            self.tokens.advance(1);
        }
        Ok(text)
    }

    fn related(&mut self, kind: RelatedKind) -> Result<Body, Error> {
        if !self.tokens.word("OF") {
            return Err(self.tokens.expected("OF"));
        }
        let place = self.tokens.place();
        let Token::Braces(text) = self.tokens.peek() else {
            return Err(self.tokens.expected(texts::PATH_IN_BRACES));
        };
        let text = text.clone();
        self.tokens.advance(1);
        let mut clauses: Vec<(Clause, Word)> = Vec::new();
        if self.tokens.word("WHERE") {
            clauses.push(self.clause(kind)?);
            while !matches!(self.tokens.peek(), Token::End) {
                let place = self.tokens.place();
                let clause = self.clause(kind)?;
                if clauses.iter().any(|(known, _)| *known == clause.0) {
                    let what = clause.0.keyword();
                    return Err(place.error(texts::TWICE).with("what", what));
                }
                clauses.push(clause);
            }
        }
        Ok(Body::Related {
            kind,
            object: Word { text, place },
            clauses,
        })
    }

    fn clause(&mut self, kind: RelatedKind) -> Result<(Clause, Word), Error> {
        let place = self.tokens.place();
        let applies = |clause: &Clause| {
            kind == RelatedKind::Associators
                || !matches!(
                    clause,
                    Clause::AssocClass | Clause::ResultRole | Clause::RequiredAssocQualifier
                )
        };
        let mut known = Clause::ALL.into_iter().filter(applies);
        let Some(clause) = known.find(|c| self.tokens.is_word(0, c.keyword())) else {
            let names: Vec<&str> = Clause::ALL
                .into_iter()
                .filter(applies)
                .map(Clause::keyword)
                .collect();
            return Err(self.tokens.expected(names.join(", ")));
        };
        self.tokens.advance(1);
        if !clause.takes_name() {
            let text = String::new();
            return Ok((clause, Word { text, place }));
        }
        if !self.tokens.sign("=") {
            return Err(self.tokens.expected("'='"));
        }
        Ok((clause, self.name(texts::A_NAME)?))
    }
}
