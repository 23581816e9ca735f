//! A query against the schema: classes, properties and the types of literals.

use std::sync::Arc;

use super::filter::{Column, Comparand, Condition, Filter, Object, Source, System};
use super::like::{Pattern, lower};
use super::syntax::{
    Body, Clause, Columns, Expr, Literal, Op, Operand, Property, RelatedKind, Statement, Word,
};
use super::{Equality, Error, Language, Place, Query, Related, Scope, Select};
use crate::cim::{Class, DateTime, Name, Path, Status, Type, Value};
use crate::text::Text;
use crate::text::catalog::query as texts;

impl Statement {
    /// Checks the query against the schema.
    ///
    /// # Errors
    /// [`Error`], with the place in the text.
    pub fn check(&self, scope: &Scope<'_>) -> Result<Query, Error> {
        match &self.body {
            Body::Select {
                columns,
                class,
                alias,
                condition,
            } => {
                let checker = Checker {
                    scope,
                    class: scope.class(class)?,
                    alias: alias.as_ref(),
                    element: None,
                    fold: self.language == Language::Wql,
                };
                let columns = match columns {
                    Columns::All(qualifier) => {
                        qualifier
                            .as_ref()
                            .map_or(Ok(()), |q| checker.qualifier(q))?;
                        None
                    }
                    Columns::Of(columns) => Some(checker.columns(columns)?),
                };
                let condition = condition.as_deref();
                let condition = condition.map(|c| checker.condition(c)).transpose()?;
                Ok(Query::Select(Select {
                    class: checker.class.clone(),
                    columns,
                    filter: Filter::new(condition, checker.fold, checker.class),
                }))
            }
            Body::Related {
                kind,
                object,
                clauses,
            } => related(scope, *kind, object, clauses).map(|r| Query::Related(Box::new(r))),
        }
    }
}

impl Filter {
    pub(super) fn new(condition: Option<Condition>, fold: bool, class: &Class) -> Self {
        let mut equalities = Vec::new();
        if let Some(condition) = &condition {
            collect(condition, class, &mut equalities);
        }
        Self {
            condition: condition.map(Arc::new),
            fold,
            equalities: equalities.into(),
        }
    }
}

/// What must be equal wherever the condition is true.
fn collect(condition: &Condition, class: &Class, found: &mut Vec<Equality>) {
    match condition {
        Condition::All(parts) => parts.iter().for_each(|p| collect(p, class, found)),
        Condition::Compare(Source::Property(name), Op::Equal, with) => {
            let ty = class.property(name.as_str()).map(|p| &p.ty);
            let value = match with {
                Comparand::Text(text) => Some(Value::String(text.clone())),
                Comparand::Integer(n) => ty.and_then(|ty| Value::integer(ty, *n)),
                Comparand::Boolean(b) => Some(Value::Boolean(*b)),
                Comparand::Object(object) => object.path.clone().map(Value::from),
                Comparand::Real(_) | Comparand::DateTime(_) => None,
            };
            found.extend(value.map(|v| Equality::Property(name.clone(), v)));
        }
        Condition::This(object, true) => {
            found.extend(object.path.clone().map(Equality::Object));
        }
        _ => {}
    }
}

impl Scope<'_> {
    pub(super) fn class(&self, name: &Word) -> Result<&Arc<Class>, Error> {
        let found = self.schema.class(self.namespace, &name.text);
        found.ok_or_else(|| {
            let error = name.place.error(texts::NO_CLASS);
            let error = error.with("class", &name.text);
            Error {
                status: Status::InvalidClass,
                ..error.with("namespace", self.namespace)
            }
        })
    }

    /// The names of the class and of those below it.
    pub(super) fn subtree(&self, top: &Class) -> Vec<Name> {
        let subtree = self.schema.subtree(&top.namespace, top.name.as_str());
        subtree.iter().map(|c| c.name.clone()).collect()
    }

    /// The object that the text means.
    fn object(&self, text: &str, place: Place) -> Result<Object, Error> {
        let wrong = |reason: Text| {
            let error = place.error(texts::NO_PATH);
            error
                .with("text", format!("'{text}'"))
                .with("reason", reason)
        };
        // Some clients double every backslash, also where no escape is needed.
        let path = Path::parse(text)
            .or_else(|e| Path::parse(&text.replace(r"\\", r"\")).map_err(|_| e))
            .map_err(|e| wrong(e.text()))?;
        let here = path.host.as_deref().is_none_or(|host| {
            let own = [self.host, "localhost", "127.0.0.1"];
            own.iter().any(|h| h.eq_ignore_ascii_case(host))
        });
        let path = Path { host: None, ..path };
        let resolved = self.schema.resolve(&path, self.namespace);
        let resolved = resolved.map_err(|e| wrong(e.text()))?;
        let namespace = resolved.namespace.as_deref().unwrap_or(self.namespace);
        let subtree = self.schema.subtree(namespace, resolved.class.as_str());
        Ok(Object {
            classes: subtree.iter().map(|c| c.name.clone()).collect(),
            path: Some(resolved).filter(|_| here),
        })
    }
}

fn related(
    scope: &Scope<'_>,
    kind: RelatedKind,
    object: &Word,
    clauses: &[(Clause, Word)],
) -> Result<Related, Error> {
    let found = scope.object(&object.text, object.place)?;
    let path = found.path.ok_or_else(|| {
        let error = object.place.error(texts::NO_PATH);
        let error = error.with("text", format!("'{}'", object.text));
        error.with("reason", texts::ANOTHER_HOST)
    })?;
    let mut related = Related {
        kind,
        object: path,
        result_class: None,
        assoc_class: None,
        role: None,
        result_role: None,
        required_qualifier: None,
        required_assoc_qualifier: None,
        keys_only: false,
    };
    for (clause, word) in clauses {
        let name = Name::from(word.text.as_str());
        match clause {
            Clause::ResultClass => related.result_class = Some(scope.class(word)?.clone()),
            Clause::AssocClass => related.assoc_class = Some(scope.class(word)?.clone()),
            Clause::Role => related.role = Some(name),
            Clause::ResultRole => related.result_role = Some(name),
            Clause::RequiredQualifier => related.required_qualifier = Some(name),
            Clause::RequiredAssocQualifier => related.required_assoc_qualifier = Some(name),
            Clause::KeysOnly => related.keys_only = true,
            Clause::ClassDefsOnly | Clause::SchemaOnly => {
                let error = word.place.error(texts::NOT_OFFERED);
                return Err(error.with("what", clause.keyword()));
            }
        }
    }
    Ok(related)
}

pub(super) struct Checker<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) class: &'a Arc<Class>,
    pub(super) alias: Option<&'a Word>,
    /// Within SATISFIES the name of the element, and the element.
    pub(super) element: Option<(&'a Word, &'a Typed)>,
    pub(super) fold: bool,
}

/// A property with its type.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) source: Source,
    pub(super) name: Name,
    pub(super) ty: Type,
    pub(super) array: bool,
}

impl Checker<'_> {
    fn columns(&self, columns: &[Property]) -> Result<Arc<[Column]>, Error> {
        let mut found = std::collections::BTreeMap::new();
        for column in columns {
            let typed = self.property(column)?;
            found.insert(
                typed.name.clone(),
                Column {
                    name: typed.name,
                    ty: typed.ty,
                    array: typed.array,
                    source: typed.source,
                },
            );
        }
        Ok(found.into_values().collect())
    }

    fn condition(&self, expr: &Expr) -> Result<Condition, Error> {
        let list = |parts: &[Expr]| -> Result<Vec<Condition>, Error> {
            parts.iter().map(|p| self.condition(p)).collect()
        };
        Ok(match expr {
            Expr::All(parts) => Condition::All(list(parts)?),
            Expr::Any(parts) => Condition::Any(list(parts)?),
            Expr::Not(inner) => Condition::Not(Box::new(self.condition(inner)?)),
            Expr::IsNull(property) => Condition::IsNull(self.property(property)?.source),
            Expr::Like(property, pattern) => self.like(property, pattern)?,
            Expr::IsA(property, class) => self.is_a(property, class)?,
            Expr::Each {
                every,
                variable,
                array,
                inner,
            } => self.each(*every, variable, array, inner)?,
            Expr::Compare(left, op, right) => match (left, right) {
                (Operand::Property(left), Operand::Property(right)) => {
                    self.two_properties(left, *op, right)?
                }
                (Operand::Property(property), Operand::Literal(literal, place)) => {
                    self.compare(property, *op, literal, *place)?
                }
                (Operand::Literal(literal, place), Operand::Property(property)) => {
                    self.compare(property, op.flipped(), literal, *place)?
                }
                (Operand::Literal(left, place), Operand::Literal(right, _)) => {
                    constant(left, *op, right, *place, self.fold)?
                }
            },
        })
    }

    fn property(&self, property: &Property) -> Result<Typed, Error> {
        if let Some(qualifier) = &property.qualifier {
            self.qualifier(qualifier)?;
        }
        let (name, place) = (&property.name.text, property.name.place);
        let element = self.element.filter(|(variable, _)| {
            property.qualifier.is_none() && variable.text.eq_ignore_ascii_case(name)
        });
        let found = element.map(|(_, element)| element.clone());
        let mut typed = found.or_else(|| self.named(name)).ok_or_else(|| {
            let error = place.error(texts::NO_PROPERTY);
            error.with("class", &self.class.name).with("property", name)
        })?;
        if let Some(index) = property.index {
            let (Source::Property(name), true) = (&typed.source, typed.array) else {
                return Err(place.error(texts::NO_ARRAY).with("property", name));
            };
            typed.source = Source::Item(name.clone(), index);
            typed.array = false;
        }
        Ok(typed)
    }

    /// What stands before a property or `*` is the class of the query or its alias.
    fn qualifier(&self, qualifier: &Word) -> Result<(), Error> {
        let is_alias = self
            .alias
            .is_some_and(|a| a.text.eq_ignore_ascii_case(&qualifier.text));
        if is_alias || self.class.name == *qualifier.text {
            return Ok(());
        }
        let error = qualifier.place.error(texts::NO_OTHER_CLASS);
        Err(error.with("qualifier", &qualifier.text))
    }

    /// A condition on the elements of an array.
    fn each(
        &self,
        every: bool,
        variable: &Word,
        array: &Property,
        inner: &Expr,
    ) -> Result<Condition, Error> {
        // One within another would look at every pair, and so on with every depth.
        if self.element.is_some() {
            let error = variable.place.error(texts::NOT_OFFERED);
            return Err(error.with("what", texts::NESTED_EACH));
        }
        let typed = self.property(array)?;
        if !typed.array {
            let error = array.name.place.error(texts::NO_ARRAY);
            return Err(error.with("property", &typed.name));
        }
        let element = Typed::element(&typed, Name::from(variable.text.as_str()));
        let checker = Checker {
            element: Some((variable, &element)),
            ..*self
        };
        Ok(Condition::Each {
            array: typed.source,
            every,
            inner: Box::new(checker.condition(inner)?),
        })
    }

    pub(super) fn named(&self, name: &str) -> Option<Typed> {
        let mut systems = System::ALL.iter();
        if let Some((name, system)) = systems.find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            return Some(Typed {
                source: Source::System(*system, Arc::from(self.scope.host)),
                name: Name::from(*name),
                ty: system.ty(),
                array: *system == System::Derivation,
            });
        }
        self.class.property(name).map(|p| Typed {
            source: Source::Property(p.name.clone()),
            name: p.name.clone(),
            ty: p.ty.clone(),
            array: p.array,
        })
    }

    fn single(&self, property: &Property) -> Result<Typed, Error> {
        let typed = self.property(property)?;
        if typed.array {
            let error = property.name.place.error(texts::ARRAY);
            return Err(error.with("property", &typed.name));
        }
        Ok(typed)
    }

    fn compare(
        &self,
        property: &Property,
        op: Op,
        literal: &Literal,
        place: Place,
    ) -> Result<Condition, Error> {
        if *literal == Literal::Null {
            let is_null = Condition::IsNull(self.property(property)?.source);
            return match op {
                Op::Equal => Ok(is_null),
                Op::NotEqual => Ok(Condition::Not(Box::new(is_null))),
                _ => Err(place.error(texts::NULL_ORDER)),
            };
        }
        self.compare_typed(
            self.single(property)?,
            property.name.place,
            op,
            literal,
            place,
        )
    }

    /// A comparison of what stands at `at` with a literal that is not null.
    pub(super) fn compare_typed(
        &self,
        typed: Typed,
        at: Place,
        op: Op,
        literal: &Literal,
        place: Place,
    ) -> Result<Condition, Error> {
        has_order(&typed, op, at)?;
        let is_path = matches!(&typed.source, Source::System(system, _) if system.is_path());
        match literal {
            Literal::Text(text) if is_path && op.is_equality() => {
                let object = self.scope.object(text, place)?;
                Ok(Condition::This(object, op == Op::Equal))
            }
            _ => {
                let with = self.comparand(&typed, literal, place)?;
                Ok(Condition::Compare(typed.source, op, with))
            }
        }
    }

    fn comparand(
        &self,
        typed: &Typed,
        literal: &Literal,
        place: Place,
    ) -> Result<Comparand, Error> {
        if let (Type::Reference(_), Literal::Text(text)) = (&typed.ty, literal) {
            return self.scope.object(text, place).map(Comparand::Object);
        }
        let namespace = matches!(typed.source, Source::System(System::Namespace, _));
        let with = match literal {
            Literal::Text(text) if namespace => {
                let text = text.replace('/', "\\");
                comparand(&typed.ty, &Literal::Text(text), self.fold)
            }
            literal => comparand(&typed.ty, literal, self.fold),
        };
        with.ok_or_else(|| {
            place
                .error(texts::TYPE_CLASH)
                .with("property", &typed.name)
                .with("type", &typed.ty)
                .with("literal", literal)
        })
    }

    fn two_properties(
        &self,
        left: &Property,
        op: Op,
        right: &Property,
    ) -> Result<Condition, Error> {
        two(self.single(left)?, left.name.place, op, self.single(right)?)
    }

    fn like(&self, property: &Property, pattern: &Word) -> Result<Condition, Error> {
        let typed = self.single(property)?;
        if typed.ty != Type::String {
            let error = property.name.place.error(texts::NO_PATTERN);
            return Err(error.with("property", &typed.name).with("type", &typed.ty));
        }
        let read = Pattern::read(&pattern.text, self.fold);
        let read = read.ok_or_else(|| {
            let error = pattern.place.error(texts::BAD_PATTERN);
            error.with("pattern", format!("'{}'", pattern.text))
        })?;
        Ok(Condition::Like(typed.source, read))
    }

    fn is_a(&self, property: &Property, class: &Word) -> Result<Condition, Error> {
        let classes = self.scope.subtree(self.scope.class(class)?);
        let name = &property.name.text;
        let is_alias = self
            .alias
            .is_some_and(|a| a.text.eq_ignore_ascii_case(name));
        let this = name.eq_ignore_ascii_case("__THIS") || self.class.name == **name || is_alias;
        if this && property.qualifier.is_none() {
            return Ok(Condition::IsA(None, classes));
        }
        let typed = self.single(property)?;
        if !matches!(typed.ty, Type::Reference(_)) {
            let error = property.name.place.error(texts::NOT_ISA);
            return Err(error.with("property", &typed.name).with("type", &typed.ty));
        }
        Ok(Condition::IsA(Some(typed.source), classes))
    }
}

/// A comparison of two single values, the left one at `at`.
pub(super) fn two(left: Typed, at: Place, op: Op, right: Typed) -> Result<Condition, Error> {
    has_order(&left, op, at)?;
    if category(&left.ty) != category(&right.ty) {
        return Err(at
            .error(texts::TWO_TYPES)
            .with("left", &left.name)
            .with("left_type", &left.ty)
            .with("right", &right.name)
            .with("right_type", &right.ty));
    }
    Ok(Condition::Both(left.source, op, right.source))
}

fn has_order(typed: &Typed, op: Op, place: Place) -> Result<(), Error> {
    let unordered = matches!(typed.ty, Type::Boolean | Type::Reference(_));
    if op.is_equality() || !unordered {
        return Ok(());
    }
    Err(place.error(texts::NO_ORDER).with("type", &typed.ty))
}

/// The literal in the type of the property; `None` if it has none. Numbers, booleans and datetimes may stand in
/// quotes.
pub(super) fn comparand(ty: &Type, literal: &Literal, fold: bool) -> Option<Comparand> {
    let parse = |text: &str| Value::parse(ty, text).ok();
    match (category(ty), literal) {
        (Category::Boolean, Literal::Boolean(b)) => Some(Comparand::Boolean(*b)),
        (Category::Boolean, Literal::Integer(n)) => match n {
            0 => Some(Comparand::Boolean(false)),
            1 => Some(Comparand::Boolean(true)),
            _ => None,
        },
        (Category::Boolean, Literal::Text(text)) => parse(text)?.as_bool().map(Comparand::Boolean),
        (Category::Number, Literal::Integer(n)) => Some(Comparand::Integer(*n)),
        (Category::Number, Literal::Real(n)) => Some(Comparand::Real(*n)),
        (Category::Number, Literal::Text(text)) => {
            if let Some(n) = crate::cim::lexical::integer(text) {
                return Some(Comparand::Integer(n));
            }
            match Value::parse(&Type::Real64, text).ok()? {
                Value::Real64(n) => Some(Comparand::Real(n)),
                _ => None,
            }
        }
        (Category::Text, Literal::Text(text)) => Some(Comparand::Text(match fold {
            true => lower(text),
            false => text.clone(),
        })),
        (Category::DateTime, Literal::Text(text)) => match DateTime::parse(text)? {
            // A datetime with open fields is no single moment.
            DateTime::Partial(_) => None,
            whole => Some(Comparand::DateTime(whole)),
        },
        _ => None,
    }
}

#[derive(PartialEq, Eq)]
enum Category {
    Boolean,
    Number,
    Text,
    DateTime,
    Reference,
}

fn category(ty: &Type) -> Category {
    match ty {
        Type::Boolean => Category::Boolean,
        Type::String | Type::Char16 => Category::Text,
        Type::DateTime => Category::DateTime,
        Type::Reference(_) => Category::Reference,
        _ => Category::Number,
    }
}

/// A comparison of two literals: the same for every instance.
pub(super) fn constant(
    left: &Literal,
    op: Op,
    right: &Literal,
    place: Place,
    fold: bool,
) -> Result<Condition, Error> {
    let (ty, value) = match left {
        Literal::Null => return Ok(Condition::Always(None)),
        Literal::Boolean(b) => (Type::Boolean, Value::Boolean(*b)),
        Literal::Integer(n) => match i64::try_from(*n) {
            Ok(n) => (Type::Sint64, Value::Sint64(n)),
            Err(_) => (Type::Real64, Value::Null),
        },
        Literal::Real(n) => (Type::Real64, Value::Real64(*n)),
        Literal::Text(text) => (Type::String, Value::String(text.clone())),
    };
    if *right == Literal::Null {
        return Ok(Condition::Always(None));
    }
    let with = comparand(&ty, right, fold).ok_or_else(|| {
        let error = place.error(texts::TYPE_CLASH);
        error
            .with("property", left)
            .with("type", &ty)
            .with("literal", right)
    })?;
    Ok(Condition::Always(with.compare(op, &value, fold)))
}

impl Typed {
    /// What [`Condition::Each`] looks at, under this name.
    pub(super) fn element(array: &Self, name: Name) -> Self {
        Self {
            source: Source::Element,
            name,
            ty: array.ty.clone(),
            array: false,
        }
    }

    pub(super) fn is_array(&self) -> bool {
        self.array
    }

    pub(super) fn ty(&self) -> &Type {
        &self.ty
    }

    pub(super) fn equals(self, with: Comparand) -> Condition {
        Condition::Compare(self.source, Op::Equal, with)
    }
}
