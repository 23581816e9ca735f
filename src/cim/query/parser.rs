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

use super::lexer::{Token, tokens};
use super::syntax::{
    Body, Clause, Columns, Expr, Kind, Literal, Op, Operand, Property, Statement, Word,
};
use super::{DEPTH_MAX, Error, Language, Place, TERMS_MAX};
use crate::text::catalog::query as texts;

/// Reads a query.
///
/// # Errors
/// [`Error`], with the place in the text.
pub fn parse(language: Language, text: &str) -> Result<Statement, Error> {
    let mut parser = Parser {
        language,
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        terms: 0,
    };
    let body = parser.body()?;
    match parser.peek() {
        Token::End => Ok(Statement { language, body }),
        _ => Err(parser.expected("the end of the query")),
    }
}

/// Words that end a name where one could stand.
const KEYWORDS: [&str; 10] = [
    "SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "LIKE", "IS", "ISA", "NULL",
];

struct Parser {
    language: Language,
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
        let last = self.tokens.last();
        let token = self.tokens.get(self.at).or(last);
        token.map_or_else(Place::default, |(_, place)| *place)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    fn expected(&self, expected: &str) -> Error {
        self.place()
            .error(texts::SYNTAX)
            .with("expected", expected)
            .with("got", self.peek().describe())
    }

    fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        matches!(self.peek_at(ahead), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Takes the keyword if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(0, keyword);
        if found {
            self.advance();
        }
        found
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(s) if *s == sign);
        if found {
            self.advance();
        }
        found
    }

    /// A name that is no keyword.
    fn word(&mut self, expected: &str) -> Result<Word, Error> {
        let place = self.place();
        match self.peek() {
            Token::Word(text) if !KEYWORDS.iter().any(|k| text.eq_ignore_ascii_case(k)) => {
                let text = text.clone();
                self.advance();
                Ok(Word { text, place })
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// A name, bare or in quotes.
    fn name(&mut self, expected: &str) -> Result<Word, Error> {
        let place = self.place();
        if let Token::Text(text) = self.peek() {
            let text = text.clone();
            self.advance();
            return Ok(Word { text, place });
        }
        self.word(expected)
    }

    fn body(&mut self) -> Result<Body, Error> {
        if self.keyword("SELECT") {
            return self.select();
        }
        let wql = !self.is_cql();
        let kind = match () {
            () if wql && self.keyword("ASSOCIATORS") => Kind::Associators,
            () if wql && self.keyword("REFERENCES") => Kind::References,
            () if wql => return Err(self.expected("SELECT, ASSOCIATORS OF or REFERENCES OF")),
            () => return Err(self.expected("SELECT")),
        };
        self.related(kind)
    }

    fn select(&mut self) -> Result<Body, Error> {
        if self.is_beyond_select() {
            return Err(self.not_offered());
        }
        let columns = self.columns()?;
        if !self.keyword("FROM") {
            return Err(self.expected("',' or FROM"));
        }
        let class = self.word("the name of a class")?;
        let alias = self.alias()?;
        if self.is_beyond_from() {
            return Err(self.not_offered());
        }
        let condition = if self.keyword("WHERE") {
            Some(Box::new(self.any()?))
        } else if matches!(self.peek(), Token::End) {
            None
        } else {
            return Err(self.expected("WHERE or the end of the query"));
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
        let quantity = self.is_keyword(0, "DISTINCT") || self.is_keyword(0, "FIRST");
        let follows = match self.peek_at(1) {
            Token::Word(_) => !self.is_keyword(1, "FROM"),
            Token::Integer(_) | Token::Sign("*") => true,
            _ => false,
        };
        self.is_cql() && quantity && follows
    }

    /// Does something follow that other queries than these have: another class, an interval, groups, an order?
    fn is_beyond_from(&self) -> bool {
        let keywords = ["WITHIN", "GROUP", "HAVING", "ORDER"];
        let join = self.is_cql() && matches!(self.peek(), Token::Sign(","));
        join || keywords.iter().any(|k| self.is_keyword(0, k))
    }

    fn not_offered(&self) -> Error {
        let what = match self.peek() {
            Token::Sign(",") => "a join of classes".to_owned(),
            token => token.describe(),
        };
        self.place().error(texts::NOT_OFFERED).with("what", what)
    }

    fn is_cql(&self) -> bool {
        self.language == Language::Cql
    }

    fn alias(&mut self) -> Result<Option<Word>, Error> {
        if self.is_cql() && self.keyword("AS") {
            return self.word("an alias").map(Some);
        }
        Ok(None)
    }

    fn columns(&mut self) -> Result<Columns, Error> {
        if self.sign("*") {
            return Ok(Columns::All(None));
        }
        let (dot, star) = (self.peek_at(1), self.peek_at(2));
        if self.is_cql() && *dot == Token::Sign(".") && *star == Token::Sign("*") {
            let qualifier = self.word("a class or an alias")?;
            self.at += 2;
            return Ok(Columns::All(Some(qualifier)));
        }
        let mut columns = vec![self.property("'*' or the name of a property")?];
        while self.sign(",") {
            if columns.len() >= TERMS_MAX {
                return Err(self.too_many("columns"));
            }
            columns.push(self.property("the name of a property")?);
        }
        Ok(Columns::Of(columns))
    }

    fn property(&mut self, expected: &str) -> Result<Property, Error> {
        let function = self.is_cql() && matches!(self.peek_at(1), Token::Sign("("));
        if function && matches!(self.peek(), Token::Word(_)) {
            let what = format!("{}()", self.word(expected)?);
            self.at -= 1;
            return Err(self.place().error(texts::NOT_OFFERED).with("what", what));
        }
        let name = self.word(expected)?;
        if !self.sign(".") {
            return Ok(Property {
                qualifier: None,
                name,
                index: None,
            });
        }
        Ok(Property {
            qualifier: Some(name),
            name: self.word("the name of a property after '.'")?,
            index: None,
        })
    }

    /// A property in a condition: in CQL one element of an array, or what a function of paths gives.
    fn value(&mut self, expected: &str) -> Result<Property, Error> {
        if let Some(property) = self.path_function()? {
            return Ok(property);
        }
        let mut property = self.property(expected)?;
        if self.is_cql() && self.sign("[") {
            property.index = match self.peek() {
                Token::Integer(n) => usize::try_from(*n).ok(),
                _ => None,
            };
            if property.index.is_none() {
                return Err(self.expected("the number of an element, from 0"));
            }
            self.advance();
            if !self.sign("]") {
                return Err(self.expected("']'"));
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
        let called = self.is_cql() && matches!(self.peek_at(1), Token::Sign("("));
        let mut functions = functions.iter().filter(|_| called);
        let Some((_, property)) = functions.find(|(f, _)| self.is_keyword(0, f)) else {
            return Ok(None);
        };
        let place = self.place();
        self.at += 2;
        // The path of the instance is what the others take.
        let nested =
            self.is_keyword(0, "OBJECTPATH") && matches!(self.peek_at(1), Token::Sign("("));
        self.at += if nested { 2 } else { 0 };
        let qualifier = match self.peek() {
            Token::Word(_) => Some(self.word("a class or an alias")?),
            _ => None,
        };
        for _ in 0..=usize::from(nested) {
            if !self.sign(")") {
                return Err(self.expected("a class, an alias or ')'"));
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
        self.list("OR", Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Expr, Error> {
        self.list("AND", Self::not, Expr::All)
    }

    fn list(
        &mut self,
        keyword: &str,
        part: fn(&mut Self) -> Result<Expr, Error>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, Error> {
        let first = part(self)?;
        if !self.is_keyword(0, keyword) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.keyword(keyword) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn not(&mut self) -> Result<Expr, Error> {
        let each = (self.is_keyword(0, "ANY") || self.is_keyword(0, "EVERY"))
            && matches!(self.peek_at(1), Token::Word(_))
            && self.is_keyword(2, "IN");
        let nested = self.is_keyword(0, "NOT") || matches!(self.peek(), Token::Sign("("));
        if self.is_cql() && each {
            return self.each();
        }
        if !nested {
            return self.comparison();
        }
        self.deeper()?;
        let inner = if self.keyword("NOT") {
            Expr::Not(Box::new(self.not()?))
        } else {
            self.parentheses()?
        };
        self.depth -= 1;
        Ok(inner)
    }

    fn deeper(&mut self) -> Result<(), Error> {
        if self.depth >= DEPTH_MAX {
            return Err(self.place().error(texts::TOO_DEEP).with("max", DEPTH_MAX));
        }
        self.depth += 1;
        Ok(())
    }

    fn parentheses(&mut self) -> Result<Expr, Error> {
        if !self.sign("(") {
            return Err(self.expected("'('"));
        }
        let inner = self.any()?;
        if !self.sign(")") {
            return Err(self.expected("AND, OR or ')'"));
        }
        Ok(inner)
    }

    fn each(&mut self) -> Result<Expr, Error> {
        self.deeper()?;
        let every = self.is_keyword(0, "EVERY");
        self.advance();
        let variable = self.word("a name for the element")?;
        self.advance();
        let array = self.property("an array")?;
        if !self.keyword("SATISFIES") {
            return Err(self.expected("SATISFIES"));
        }
        let inner = Box::new(self.parentheses()?);
        self.depth -= 1;
        Ok(Expr::Each {
            every,
            variable,
            array,
            inner,
        })
    }

    fn comparison(&mut self) -> Result<Expr, Error> {
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return Err(self.too_many("comparisons"));
        }
        let left = self.operand("a property, a literal, NOT or '('")?;
        if let Token::Sign(sign) = self.peek()
            && let Some(op) = Op::of(sign)
        {
            self.advance();
            let right = self.operand("a property or a literal")?;
            return Ok(Expr::Compare(left, op, right));
        }
        let Operand::Property(property) = left else {
            return Err(self.expected("a comparison operator"));
        };
        if self.keyword("LIKE") {
            return self.like(property);
        }
        if self.is_keyword(0, "NOT") && self.is_keyword(1, "LIKE") {
            self.at += 2;
            return Ok(Expr::Not(Box::new(self.like(property)?)));
        }
        if self.keyword("ISA") {
            let class = self.name("the name of a class")?;
            return Ok(Expr::IsA(property, class));
        }
        if !self.keyword("IS") {
            return Err(self.expected("a comparison operator, LIKE, IS or ISA"));
        }
        let negated = self.keyword("NOT");
        if !self.keyword("NULL") {
            return Err(self.expected(if negated { "NULL" } else { "NULL or NOT NULL" }));
        }
        let is_null = Expr::IsNull(property);
        Ok(match negated {
            true => Expr::Not(Box::new(is_null)),
            false => is_null,
        })
    }

    fn like(&mut self, property: Property) -> Result<Expr, Error> {
        let place = self.place();
        let Token::Text(text) = self.peek() else {
            return Err(self.expected("a pattern in quotes"));
        };
        let text = text.clone();
        self.advance();
        Ok(Expr::Like(property, Word { text, place }))
    }

    fn operand(&mut self, expected: &str) -> Result<Operand, Error> {
        let place = self.place();
        let literal = match self.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.advance();
                return Ok(Operand::Literal(Literal::Text(self.texts(text)?), place));
            }
            Token::Integer(n) => Literal::Integer(*n),
            Token::Real(n) => Literal::Real(*n),
            Token::Word(word) if word.eq_ignore_ascii_case("NULL") => Literal::Null,
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => Literal::Boolean(true),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => Literal::Boolean(false),
            _ => return self.value(expected).map(Operand::Property),
        };
        self.advance();
        Ok(Operand::Literal(literal, place))
    }

    /// What follows the first of several texts that are joined to one.
    fn texts(&mut self, mut text: String) -> Result<String, Error> {
        while self.is_cql() && self.sign("||") {
            let Token::Text(next) = self.peek() else {
                return Err(self.expected("a text in quotes after '||'"));
            };
            text.push_str(next);
            self.advance();
        }
        Ok(text)
    }

    fn related(&mut self, kind: Kind) -> Result<Body, Error> {
        if !self.keyword("OF") {
            return Err(self.expected("OF"));
        }
        let place = self.place();
        let Token::Braces(text) = self.peek() else {
            return Err(self.expected("an object path in braces"));
        };
        let text = text.clone();
        self.advance();
        let mut clauses: Vec<(Clause, Word)> = Vec::new();
        if self.keyword("WHERE") {
            clauses.push(self.clause(kind)?);
            while !matches!(self.peek(), Token::End) {
                let place = self.place();
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

    fn clause(&mut self, kind: Kind) -> Result<(Clause, Word), Error> {
        let place = self.place();
        let applies = |clause: &Clause| {
            kind == Kind::Associators
                || !matches!(
                    clause,
                    Clause::AssocClass | Clause::ResultRole | Clause::RequiredAssocQualifier
                )
        };
        let mut known = Clause::ALL.into_iter().filter(applies);
        let Some(clause) = known.find(|c| self.is_keyword(0, c.keyword())) else {
            let names: Vec<&str> = Clause::ALL
                .into_iter()
                .filter(applies)
                .map(Clause::keyword)
                .collect();
            return Err(self.expected(&names.join(", ")));
        };
        self.advance();
        if !clause.takes_name() {
            let text = String::new();
            return Ok((clause, Word { text, place }));
        }
        if !self.sign("=") {
            return Err(self.expected("'='"));
        }
        Ok((clause, self.name("a name")?))
    }

    fn too_many(&self, what: &str) -> Error {
        self.place()
            .error(texts::TOO_MANY)
            .with("max", TERMS_MAX)
            .with("what", what)
    }
}
