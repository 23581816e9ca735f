//! An XPath filter against the schema: steps become properties, literals take their types.

use std::sync::Arc;

use super::syntax::{Expr, Name, Operand, Part, Path, Predicate, Step};
use crate::cim::query::check::{Checker, Typed, constant, two};
use crate::cim::query::filter::{Condition, Source};
use crate::cim::query::like::Pattern;
use crate::cim::query::syntax::{Literal, Op};
use crate::cim::query::{Error, Place};
use crate::cim::{Class, Type};
use crate::text::catalog::query as texts;

/// Where a relative path begins.
#[derive(Clone, Copy)]
enum Context<'c> {
    /// The filter itself: the instance, or what it is the only element of.
    Filter,
    /// A predicate of an instance, which is of this class.
    Instance(&'c Arc<Class>),
    /// A predicate of a property: its value, or one of its values.
    Value(&'c Typed),
}

/// What the next step of a path may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Behind the first `/`: the class of the instance.
    Root,
    /// Where the filter begins: its class or a property.
    Filter,
    /// A property.
    Within,
}

/// What a path leads to.
struct Found {
    /// True of the instance wherever there is such a node.
    given: Vec<Condition>,
    node: Node,
}

enum Node {
    /// The instance, which is of this class.
    Instance(Arc<Class>),
    Value(Typed),
    /// The values of an array that satisfy each of these.
    Values(Typed, Vec<Condition>),
    /// The attribute of a null property.
    Nil(Typed),
    /// A null property, which has nothing but that attribute.
    Null(Typed),
}

impl Node {
    /// Is it there?
    fn exists(self) -> Condition {
        match self {
            Self::Instance(_) => Condition::Always(Some(true)),
            Self::Value(typed) => Condition::Not(Box::new(Condition::IsNull(typed.source))),
            Self::Values(typed, tests) => each(typed, tests),
            Self::Nil(typed) | Self::Null(typed) => Condition::IsNull(typed.source),
        }
    }

    /// What stands at `place` as the only value that it can have.
    fn single(self, place: Place) -> Result<Typed, Error> {
        match self {
            Self::Value(typed) => Ok(typed),
            Self::Values(typed, _) => {
                let error = place.error(texts::XPATH_ARRAY);
                Err(error.with("property", typed.name))
            }
            Self::Instance(_) | Self::Nil(_) | Self::Null(_) => {
                Err(place.error(texts::XPATH_NO_VALUE))
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Instance(_) => "the instance",
            Self::Value(typed) | Self::Values(typed, _) => typed.name.as_str(),
            Self::Nil(_) => "an attribute",
            Self::Null(_) => "a null property",
        }
    }
}

/// The class that the filter begins with: the first step of its first path.
pub(super) fn leading(expr: &Expr) -> Option<&Name> {
    let path = match expr {
        Expr::All(parts) | Expr::Any(parts) => return leading(parts.first()?),
        Expr::Not(_) => return None,
        Expr::Compare(Operand::Path(path), ..)
        | Expr::Compare(_, _, Operand::Path(path))
        | Expr::Part(_, path, _)
        | Expr::Exists(path) => path,
        Expr::Compare(..) => return None,
    };
    match path.steps.first()? {
        Step::Child(name, _) => Some(name),
        _ => None,
    }
}

/// Checks a whole filter on the instances of one class. With `exact` that class is all that is listed, so no step
/// may mean more.
pub(super) fn condition(
    checker: &Checker<'_>,
    expr: &Expr,
    exact: bool,
) -> Result<Condition, Error> {
    Check { checker, exact }.expr(expr, Context::Filter)
}

struct Check<'a> {
    checker: &'a Checker<'a>,
    exact: bool,
}

impl Check<'_> {
    fn expr(&self, expr: &Expr, context: Context<'_>) -> Result<Condition, Error> {
        let list = |parts: &[Expr]| -> Result<Vec<Condition>, Error> {
            parts.iter().map(|p| self.expr(p, context)).collect()
        };
        match expr {
            Expr::All(parts) => Ok(Condition::All(list(parts)?)),
            Expr::Any(parts) => Ok(Condition::Any(list(parts)?)),
            Expr::Not(inner) => {
                let known = Condition::Known(Box::new(self.expr(inner, context)?));
                Ok(Condition::Not(Box::new(known)))
            }
            Expr::Exists(path) => {
                let Found { given, node } = self.path(path, context)?;
                Ok(both(given, node.exists()))
            }
            Expr::Part(part, path, text) => self.part(*part, path, &text.text, context),
            Expr::Compare(left, op, right) => match (left, right) {
                (Operand::Path(path), Operand::Literal(literal, place)) => {
                    self.compare(path, *op, literal, *place, context)
                }
                (Operand::Literal(literal, place), Operand::Path(path)) => {
                    self.compare(path, op.flipped(), literal, *place, context)
                }
                (Operand::Path(left), Operand::Path(right)) => self.two(left, *op, right, context),
                (Operand::Literal(left, place), Operand::Literal(right, _)) => {
                    constant(left, *op, right, *place, false)
                }
            },
        }
    }

    fn compare(
        &self,
        path: &Path,
        op: Op,
        literal: &Literal,
        place: Place,
        context: Context<'_>,
    ) -> Result<Condition, Error> {
        let Found { mut given, node } = self.path(path, context)?;
        let condition = match node {
            Node::Instance(_) | Node::Null(_) => {
                return Err(path.place.error(texts::XPATH_NO_VALUE));
            }
            Node::Value(typed) => {
                has_order(&typed, op, path.place)?;
                let checker = self.checker;
                checker.compare_typed(typed, path.place, op, literal, place)?
            }
            Node::Values(typed, mut tests) => {
                has_order(&typed, op, path.place)?;
                let element = Typed::element(&typed, typed.name.clone());
                let checker = self.checker;
                tests.push(checker.compare_typed(element, path.place, op, literal, place)?);
                each(typed, tests)
            }
            Node::Nil(typed) => {
                given.push(Condition::IsNull(typed.source));
                let nil = Literal::Text("true".to_owned());
                constant(&nil, op, literal, place, false)?
            }
        };
        Ok(both(given, condition))
    }

    fn two(
        &self,
        left: &Path,
        op: Op,
        right: &Path,
        context: Context<'_>,
    ) -> Result<Condition, Error> {
        let (mut a, at) = (self.path(left, context)?, left.place);
        let b = self.path(right, context)?;
        a.given.extend(b.given);
        let (x, y) = (a.node.single(at)?, b.node.single(right.place)?);
        has_order(&x, op, at)?;
        Ok(both(a.given, two(x, at, op, y)?))
    }

    fn part(
        &self,
        part: Part,
        path: &Path,
        text: &str,
        context: Context<'_>,
    ) -> Result<Condition, Error> {
        let Found { given, node } = self.path(path, context)?;
        let (name, ty) = match node {
            Node::Value(typed) if typed.ty == Type::String => {
                let pattern = Pattern::of_part(text, part == Part::Anywhere);
                return Ok(both(given, Condition::Like(typed.source, pattern)));
            }
            Node::Value(typed) => (typed.name, typed.ty.to_string()),
            Node::Values(typed, _) => (typed.name, format!("{}[]", typed.ty)),
            Node::Instance(_) | Node::Nil(_) | Node::Null(_) => {
                return Err(path.place.error(texts::XPATH_NO_VALUE));
            }
        };
        let error = path.place.error(texts::XPATH_PART);
        let error = error.with("property", name).with("type", ty);
        Err(error.with("function", part.function()))
    }

    /// Goes along a path.
    fn path(&self, path: &Path, context: Context<'_>) -> Result<Found, Error> {
        // From the root it could come to an array within an array: every pair, and so on with every depth.
        if path.absolute && matches!(context, Context::Value(_)) {
            let error = path.place.error(texts::NOT_OFFERED);
            return Err(error.with("what", texts::SLASH_IN_PREDICATE));
        }
        let mut given = Vec::new();
        let mut at = match context {
            _ if path.absolute => At::Root,
            Context::Filter => At::Filter,
            Context::Instance(_) | Context::Value(_) => At::Within,
        };
        let mut node = match context {
            Context::Value(typed) => Node::Value(typed.clone()),
            Context::Instance(class) if !path.absolute => Node::Instance(class.clone()),
            _ => Node::Instance(self.checker.class.clone()),
        };
        let mut ended = None;
        for step in &path.steps {
            if let Some(above) = ended {
                return Err(below(step, path.place, above));
            }
            node = match (step, node) {
                (Step::This, node) => node,
                (Step::Child(name, predicates), Node::Instance(class)) => {
                    self.child(name, predicates, &class, at, &mut given)?
                }
                (step, node) => {
                    let (leaf, name) = leaf(step, node, path.place)?;
                    ended = Some(name);
                    leaf
                }
            };
            at = At::Within;
        }
        Ok(Found { given, node })
    }

    /// A step from an instance of `class`.
    fn child(
        &self,
        name: &Name,
        predicates: &[Predicate],
        class: &Arc<Class>,
        at: At,
        given: &mut Vec<Condition>,
    ) -> Result<Node, Error> {
        let property = self.property(class, &name.local.text);
        match (property, at) {
            (Some(typed), At::Filter | At::Within) => self.value(typed, predicates, given),
            (_, At::Filter | At::Root) => {
                let class = self.class(name, at, predicates, given)?;
                Ok(Node::Instance(class))
            }
            (None, At::Within) => {
                let error = name.local.place.error(texts::NO_PROPERTY);
                let error = error.with("class", &class.name);
                Err(error.with("property", &name.local.text))
            }
        }
    }

    /// A step that names the class of the instance; the narrower one of the two that are known now.
    fn class(
        &self,
        name: &Name,
        at: At,
        predicates: &[Predicate],
        given: &mut Vec<Condition>,
    ) -> Result<Arc<Class>, Error> {
        let (scope, own) = (self.checker.scope, self.checker.class);
        let found: &Arc<Class> = match scope.class(&name.local) {
            Ok(class) => class,
            Err(error) if at == At::Root => return Err(error),
            Err(_) => {
                let error = name.local.place.error(texts::XPATH_STEP);
                let error = error.with("name", &name.local.text);
                return Err(error.with("class", &own.name));
            }
        };
        let wider = own.is_a(found.name.as_str());
        if !wider && !found.is_a(own.name.as_str()) || wider && self.exact && own.name != found.name
        {
            let error = name.local.place.error(texts::XPATH_CLASS);
            return Err(error.with("class", &own.name).with("name", &found.name));
        }
        let class = if wider { own } else { found };
        if !wider {
            given.push(Condition::IsA(None, scope.subtree(found)));
        }
        for predicate in predicates {
            given.push(match predicate {
                Predicate::Condition(inner) => self.expr(inner, Context::Instance(class))?,
                Predicate::Position(_, place) => {
                    let error = place.error(texts::NOT_OFFERED);
                    return Err(error.with("what", texts::INSTANCE_POSITION));
                }
            });
        }
        Ok(class.clone())
    }

    /// A property with its predicates.
    fn value(
        &self,
        mut typed: Typed,
        predicates: &[Predicate],
        given: &mut Vec<Condition>,
    ) -> Result<Node, Error> {
        if let [Predicate::Condition(inner)] = predicates
            && is_nil(inner)
        {
            typed.array = false;
            given.push(self.expr(inner, Context::Value(&typed))?);
            return Ok(Node::Null(typed));
        }
        let mut tests = Vec::new();
        for predicate in predicates {
            match predicate {
                Predicate::Position(n, place) => {
                    let at = usize::try_from(*n).ok().and_then(|n| n.checked_sub(1));
                    let (Some(at), true, true) = (at, typed.array, tests.is_empty()) else {
                        let error = place.error(texts::XPATH_POSITION);
                        return Err(error.with("property", &typed.name).with("got", n));
                    };
                    typed.source = Source::Item(typed.name.clone(), at);
                    typed.array = false;
                }
                Predicate::Condition(inner) => {
                    let value = match typed.array {
                        true => Typed::element(&typed, typed.name.clone()),
                        false => typed.clone(),
                    };
                    tests.push(self.expr(inner, Context::Value(&value))?);
                }
            }
        }
        if typed.array {
            return Ok(Node::Values(typed, tests));
        }
        given.append(&mut tests);
        Ok(Node::Value(typed))
    }

    /// A property that is an element: one of the class, none of the system.
    fn property(&self, class: &Arc<Class>, name: &str) -> Option<Typed> {
        let checker = Checker {
            class,
            ..*self.checker
        };
        let found = checker.named(name)?;
        Some(found).filter(|typed| !matches!(typed.source, Source::System(..)))
    }
}

/// A step that ends a path, and what it leads to in words: a text, the attribute of a null property.
fn leaf(step: &Step, node: Node, path: Place) -> Result<(Node, &'static str), Error> {
    match (step, node) {
        (Step::Text(_), node @ (Node::Value(_) | Node::Values(..))) => Ok((node, "text()")),
        // A datetime is written as an element that tells its kind.
        (Step::Child(name, predicates), Node::Value(typed))
            if typed.ty == Type::DateTime
                && predicates.is_empty()
                && matches!(&*name.local.text, "Datetime" | "Interval") =>
        {
            Ok((Node::Value(typed), "the text of a datetime"))
        }
        (Step::Attribute(name), Node::Value(typed))
            if name.local.text == "nil" && matches!(typed.source, Source::Property(_)) =>
        {
            Ok((Node::Nil(typed), "an attribute"))
        }
        (Step::Attribute(name), Node::Values(typed, tests))
            if name.local.text == "nil" && tests.is_empty() =>
        {
            Ok((Node::Nil(typed), "an attribute"))
        }
        (Step::Attribute(name), _) => {
            let error = name.local.place.error(texts::NOT_OFFERED);
            Err(error.with("what", format!("@{name}")))
        }
        (step, node) => Err(below(step, path, node.name())),
    }
}

/// Is it a test of nothing but `@xsi:nil`?
fn is_nil(expr: &Expr) -> bool {
    match expr {
        Expr::Exists(path) | Expr::Compare(Operand::Path(path), _, Operand::Literal(..)) => {
            matches!(path.steps.as_slice(), [Step::Attribute(name)] if name.local.text == "nil")
        }
        _ => false,
    }
}

/// One value of the array satisfies each of these.
fn each(array: Typed, tests: Vec<Condition>) -> Condition {
    Condition::Each {
        array: array.source,
        every: false,
        inner: Box::new(Condition::All(tests)),
    }
}

fn both(mut given: Vec<Condition>, condition: Condition) -> Condition {
    if given.is_empty() {
        return condition;
    }
    given.push(condition);
    Condition::All(given)
}

/// XPath makes numbers of what it orders. Here datetimes have an order too, as their types say; texts have none.
fn has_order(typed: &Typed, op: Op, place: Place) -> Result<(), Error> {
    if op.is_equality() || !matches!(typed.ty, Type::String | Type::Char16) {
        return Ok(());
    }
    let error = place.error(texts::XPATH_ORDER);
    Err(error.with("property", &typed.name).with("type", &typed.ty))
}

fn below(step: &Step, path: Place, above: &str) -> Error {
    let place = match step {
        Step::This => path,
        Step::Text(place) => *place,
        Step::Attribute(name) | Step::Child(name, _) => name.local.place,
    };
    place.error(texts::XPATH_BELOW).with("above", above)
}
