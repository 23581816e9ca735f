//! Classes with their properties, references and methods.

use crate::cim::mof::diagnostic::{Diagnostic, Rule, Span};
use crate::cim::mof::lexer::Token;
use crate::cim::mof::syntax::{
    ClassDeclaration, Identifier, MethodDeclaration, ParameterDeclaration, PropertyDeclaration,
    QualifierUse,
};
use crate::cim::value::Type;

use super::{Parser, Reported};

const INTRINSIC: [Type; 14] = [
    Type::Boolean,
    Type::Uint8,
    Type::Uint16,
    Type::Uint32,
    Type::Uint64,
    Type::Sint8,
    Type::Sint16,
    Type::Sint32,
    Type::Sint64,
    Type::Real32,
    Type::Real64,
    Type::Char16,
    Type::String,
    Type::DateTime,
];

impl Parser {
    /// `class Name [as $Alias] [: Superclass] { … };`
    pub(super) fn class(&mut self, qualifiers: Vec<QualifierUse>) -> Result<(), Reported> {
        self.advance();
        let name = self.identifier("the name of the class")?;
        if self.keyword("as") {
            self.advance();
            self.expect(Token::Alias, "an alias such as $Name")?;
        }
        let superclass = match self.accept(Token::Colon) {
            true => Some(self.identifier("the name of the superclass")?),
            false => None,
        };
        let open = self.expect(Token::OpenBrace, "{")?;
        let mut class = ClassDeclaration {
            namespace: self.namespace.clone(),
            qualifiers,
            name,
            superclass,
            properties: Vec::new(),
            methods: Vec::new(),
        };
        let closed = self.features(&mut class);
        if closed {
            self.semicolon();
        } else {
            let diagnostic = Diagnostic::error(
                Rule::Syntax,
                &self.span(),
                format!("class {} does not end", class.name.name),
                "expected } before this",
            );
            self.errors.push(diagnostic.also(&open, "to close this"));
        }
        self.file.classes.push(class);
        Ok(())
    }

    /// Everything up to `}`. False if there is none: the text ends or another class begins.
    fn features(&mut self, class: &mut ClassDeclaration) -> bool {
        loop {
            match self.token() {
                Token::CloseBrace => {
                    self.advance();
                    return true;
                }
                Token::End | Token::Directive => return false,
                _ if self.class_ahead() => return false,
                _ => {}
            }
            let start = self.at;
            if self.feature(class).is_err() {
                self.skip_feature();
            }
            if self.at == start {
                self.advance();
            }
        }
    }

    /// One property or method.
    fn feature(&mut self, class: &mut ClassDeclaration) -> Result<(), Reported> {
        let qualifiers = self.qualifier_list()?;
        if self.class_ahead() {
            return Ok(());
        }
        let (ty, ty_span) = self.feature_type("a property, a method, or }")?;
        let name = self.identifier("the name of the property or method")?;
        if self.accept(Token::OpenParenthesis) {
            let parameters = self.parameters()?;
            self.semicolon();
            class.methods.push(MethodDeclaration {
                qualifiers,
                returns: ty,
                returns_span: ty_span,
                name,
                parameters,
            });
            return Ok(());
        }
        let array = self.array_size()?;
        let default = match self.accept(Token::Equals) {
            true => Some(self.initializer()?),
            false => None,
        };
        if !matches!(
            self.token(),
            Token::Semicolon | Token::CloseBrace | Token::OpenBracket
        ) && !self.type_ahead()
        {
            return Err(self.expected("= with a default value, or ;"));
        }
        self.semicolon();
        class.properties.push(PropertyDeclaration {
            qualifiers,
            ty,
            ty_span,
            name,
            array,
            default,
        });
        Ok(())
    }

    /// Passes over the rest of a broken feature, `;` included; stops before the `}` of the class.
    fn skip_feature(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.token() {
                Token::End | Token::Directive => return,
                Token::Semicolon => {
                    self.advance();
                    return;
                }
                Token::OpenBrace => depth += 1,
                Token::CloseBrace if depth == 0 => return,
                Token::CloseBrace => depth -= 1,
                _ if depth == 0 && self.class_ahead() => return,
                _ => {}
            }
            self.advance();
        }
    }

    /// What stands between the parentheses of a method, and the closing one.
    fn parameters(&mut self) -> Result<Vec<ParameterDeclaration>, Reported> {
        let mut parameters = Vec::new();
        if self.accept(Token::CloseParenthesis) {
            return Ok(parameters);
        }
        loop {
            let qualifiers = self.qualifier_list()?;
            let (ty, ty_span) = self.feature_type("a parameter")?;
            let name = self.identifier("the name of the parameter")?;
            let array = self.array_size()?;
            parameters.push(ParameterDeclaration {
                qualifiers,
                ty,
                ty_span,
                name,
                array,
            });
            if !self.accept(Token::Comma) {
                break;
            }
        }
        self.expect(Token::CloseParenthesis, ", or ) in the list of parameters")?;
        Ok(parameters)
    }

    /// An intrinsic type or `Class ref`.
    fn feature_type(&mut self, what: &str) -> Result<(Type, Span), Reported> {
        if self.peek(1) == Token::Identifier && self.next_is_ref() {
            let Identifier { name, span } = self.identifier(what)?;
            let end = self.span();
            self.advance();
            return Ok((Type::Reference(name), span.to(&end)));
        }
        self.data_type(what)
    }

    fn next_is_ref(&self) -> bool {
        self.words
            .get(self.at + 1)
            .and_then(|(_, range)| self.source.text.get(range.clone()))
            .is_some_and(|text| text.eq_ignore_ascii_case("ref"))
            && self.token() == Token::Identifier
            && self.peek(2) == Token::Identifier
    }

    /// An intrinsic type.
    pub(super) fn data_type(&mut self, what: &str) -> Result<(Type, Span), Reported> {
        let Some(ty) = self.intrinsic() else {
            return Err(self.expected(what));
        };
        let span = self.span();
        self.advance();
        Ok((ty, span))
    }

    fn intrinsic(&self) -> Option<Type> {
        let text = self.text();
        INTRINSIC
            .iter()
            .find(|t| t.keyword().eq_ignore_ascii_case(text))
            .cloned()
    }

    /// Does a type and a name stand here? Then only a `;` is missing before them.
    fn type_ahead(&self) -> bool {
        self.token() == Token::Identifier && self.peek(1) == Token::Identifier
    }

    /// `[]` or `[5]`; nothing for a scalar.
    pub(super) fn array_size(&mut self) -> Result<bool, Reported> {
        if !self.accept(Token::OpenBracket) {
            return Ok(false);
        }
        if self.token() == Token::Number {
            self.constant()?;
        }
        self.expect(Token::CloseBracket, "] or the size of the array")?;
        Ok(true)
    }
}
