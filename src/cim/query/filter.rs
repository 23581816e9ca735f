//! A checked condition, and its truth for one instance.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::sync::Arc;

use super::Equality;
use super::effort::{Effort, Free, Stopped};
use super::like::Pattern;
use super::syntax::Op;
use crate::cim::{Class, DateTime, Instance, Name, Path, Type, Value};

/// Which instances a query wants.
#[derive(Debug, Clone)]
pub struct Filter {
    pub(super) condition: Option<Arc<Condition>>,
    /// Strings are compared without case.
    pub(super) fold: bool,
    pub(super) equalities: Arc<[Equality]>,
}

/// A column of the result: its name and where its value comes from.
#[derive(Debug, Clone)]
pub struct Column {
    /// The name as declared.
    pub name: Name,
    /// Its type.
    pub ty: Type,
    /// Is it an array?
    pub array: bool,
    pub(super) source: Source,
}

/// INVARIANT: properties exist in the class of the query, comparands have the type of what they are compared
/// with, single values only.
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare(Source, Op, Comparand),
    Both(Source, Op, Source),
    /// The instance itself is the object, or with `false` is not.
    This(Object, bool),
    Like(Source, Pattern),
    IsNull(Source),
    /// The instance, or what the reference means, is of one of these classes.
    IsA(Option<Source>, Vec<Name>),
    /// One element of the array makes `inner` true, or with `every` each of them does. INVARIANT: `inner` holds no
    /// other of these, or an instance would cost the number of elements to the power of the depth.
    Each {
        array: Source,
        every: bool,
        inner: Box<Self>,
    },
    /// What is neither true nor false counts as false, so that its opposite is true.
    Known(Box<Self>),
    /// The same for every instance.
    Always(Option<bool>),
}

/// What a property is compared with.
#[derive(Debug)]
pub(super) enum Comparand {
    Boolean(bool),
    Integer(i128),
    Real(f64),
    /// Without case where case does not count.
    Text(String),
    DateTime(DateTime),
    Object(Object),
}

/// An object that a path means.
#[derive(Debug)]
pub(super) struct Object {
    /// Resolved; `None` if it is on another host.
    pub(super) path: Option<Path>,
    /// The class of the path and those below it.
    pub(super) classes: Vec<Name>,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Property(Name),
    /// One element of an array, from 0; null where the array has no such element.
    Item(Name, usize),
    /// The element of the array that [`Condition::Each`] looks at.
    Element,
    System(System, Arc<str>),
}

/// What a condition is asked about.
#[derive(Clone, Copy)]
struct Row<'i> {
    instance: &'i Instance,
    /// Within [`Condition::Each`].
    element: Option<&'i Value>,
    known: &'i Known,
    effort: &'i dyn Effort,
}

/// What is made of an instance once, however many terms ask for it.
#[derive(Default)]
struct Known {
    path: OnceCell<Option<Path>>,
    system: [OnceCell<Value>; System::ALL.len()],
}

/// A system property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    Class,
    Superclass,
    Dynasty,
    Namespace,
    Server,
    Path,
    RelPath,
    Genus,
    PropertyCount,
    Derivation,
}

impl Filter {
    /// Is the condition true for this instance?
    #[must_use]
    pub fn matches(&self, instance: &Instance) -> bool {
        self.judge(instance, &Free).unwrap_or(false)
    }

    /// [`Filter::matches`] as long as `effort` lets it. The steps are bounded by the terms of the condition and the
    /// texts that they look at.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn judge(&self, instance: &Instance, effort: &dyn Effort) -> Result<bool, Stopped> {
        let Some(condition) = self.condition.as_deref() else {
            return Ok(true);
        };
        let row = Row {
            instance,
            element: None,
            known: &Known::default(),
            effort,
        };
        Ok(condition.truth(row, self.fold)? == Some(true))
    }

    /// Is there no condition at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.condition.is_none()
    }

    /// What every instance that matches has in common: a provider may look these up instead of listing all.
    #[must_use]
    pub fn equalities(&self) -> &[Equality] {
        &self.equalities
    }
}

impl Column {
    /// The value for one instance.
    #[must_use]
    pub fn value<'i>(&self, instance: &'i Instance) -> Cow<'i, Value> {
        match &self.source {
            Source::Property(name) => {
                Cow::Borrowed(instance.get(name.as_str()).unwrap_or(&Value::Null))
            }
            Source::Item(name, n) => {
                Cow::Borrowed(item(instance, name, *n).unwrap_or(&Value::Null))
            }
            Source::Element => Cow::Borrowed(&Value::Null),
            Source::System(system, host) => Cow::Owned(system.value(instance, host)),
        }
    }
}

type Truth = Result<Option<bool>, Stopped>;

impl Condition {
    /// `None` is neither true nor false: something compared is null.
    fn truth(&self, row: Row<'_>, fold: bool) -> Truth {
        row.effort.spend(1)?;
        match self {
            Self::All(parts) => all(parts.iter().map(|part| part.truth(row, fold))),
            Self::Any(parts) => any(parts.iter().map(|part| part.truth(row, fold))),
            Self::Not(inner) => Ok(inner.truth(row, fold)?.map(|t| !t)),
            Self::Each {
                array,
                every,
                inner,
            } => {
                let Value::Array(elements) = array.value(row) else {
                    return Ok(None);
                };
                let truths = elements.iter().map(|element| {
                    let element = Some(element);
                    inner.truth(Row { element, ..row }, fold)
                });
                if *every { all(truths) } else { any(truths) }
            }
            Self::Known(inner) => Ok(Some(inner.truth(row, fold)? == Some(true))),
            Self::Compare(source, op, with) => Ok(with.compare(*op, source.value(row), fold)),
            Self::Both(left, op, right) => {
                let (left, right) = (left.value(row), right.value(row));
                row.effort.spend(length(left) + length(right))?;
                Ok(both(*op, left, right, fold))
            }
            Self::This(object, equal) => {
                let path = row.path();
                Ok(path.map(|path| object.is(path) == *equal))
            }
            Self::Like(source, pattern) => {
                let fits = match source.value(row) {
                    Value::String(text) => pattern.matches(text, row.effort)?,
                    Value::Reference(path) => pattern.matches(&path.to_string(), row.effort)?,
                    _ => return Ok(None),
                };
                Ok(Some(fits))
            }
            Self::IsNull(source) => Ok(Some(source.value(row).is_null())),
            Self::IsA(None, classes) => {
                row.effort.spend(classes.len())?;
                Ok(Some(classes.contains(&row.instance.class().name)))
            }
            Self::IsA(Some(source), classes) => {
                row.effort.spend(classes.len())?;
                Ok(match source.value(row) {
                    Value::Reference(path) => Some(classes.contains(&path.class)),
                    _ => None,
                })
            }
            Self::Always(truth) => Ok(*truth),
        }
    }
}

/// False as soon as one is false, true if each is true.
fn all(truths: impl Iterator<Item = Truth>) -> Truth {
    let mut all = Some(true);
    for truth in truths {
        match truth? {
            Some(true) => {}
            Some(false) => return Ok(Some(false)),
            None => all = None,
        }
    }
    Ok(all)
}

/// True as soon as one is true, false if each is false.
fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    let turned = all(truths.map(|truth| Ok(truth?.map(|t| !t))))?;
    Ok(turned.map(|t| !t))
}

/// The characters of a text, as steps.
fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        _ => 1,
    }
}

impl<'i> Row<'i> {
    fn path(self) -> Option<&'i Path> {
        let made = || self.instance.path().ok();
        self.known.path.get_or_init(made).as_ref()
    }

    fn system(self, system: System, host: &str) -> &'i Value {
        let mut all = System::ALL.iter().zip(&self.known.system);
        let found = all.find(|((_, other), _)| *other == system);
        let made = || system.value(self.instance, host);
        found.map_or(&Value::Null, |(_, known)| known.get_or_init(made))
    }
}

impl Comparand {
    pub(super) fn compare(&self, op: Op, value: &Value, fold: bool) -> Option<bool> {
        let order = match (self, value) {
            (Self::Boolean(own), Value::Boolean(value)) => value.cmp(own),
            (Self::Text(own), Value::String(value)) => order_of_texts(value, own, fold),
            (Self::Text(own), Value::Char16(_)) => {
                order_of_texts(&value.lexical().unwrap_or_default(), own, fold)
            }
            (Self::DateTime(own), Value::DateTime(value)) => order_of_moments(value, own)?,
            (Self::Object(own), Value::Reference(path)) => {
                return Some(own.is(path) == (op == Op::Equal));
            }
            (Self::Integer(own), value) => match value.as_integer() {
                Some(value) => value.cmp(own),
                None => real(value)?.partial_cmp(&approximate(*own))?,
            },
            (Self::Real(own), value) => real(value)?.partial_cmp(own)?,
            _ => return None,
        };
        Some(holds(op, order))
    }
}

impl Object {
    fn is(&self, path: &Path) -> bool {
        let same_namespace = |own: &Path| match (&own.namespace, &path.namespace) {
            (Some(own), Some(theirs)) => own.eq_ignore_ascii_case(theirs),
            _ => true,
        };
        self.path.as_ref().is_some_and(|own| {
            self.classes.contains(&path.class) && same_namespace(own) && own.same_keys(path)
        })
    }
}

impl Source {
    fn value<'i>(&self, row: Row<'i>) -> &'i Value {
        let found = match self {
            Self::Property(name) => row.instance.get(name.as_str()),
            Self::Item(name, n) => item(row.instance, name, *n),
            Self::Element => row.element,
            Self::System(system, host) => Some(row.system(*system, host)),
        };
        found.unwrap_or(&Value::Null)
    }
}

/// One element of an array.
fn item<'i>(instance: &'i Instance, name: &Name, n: usize) -> Option<&'i Value> {
    match instance.get(name.as_str()) {
        Some(Value::Array(elements)) => elements.get(n),
        _ => None,
    }
}

impl System {
    pub(super) const ALL: [(&'static str, Self); 10] = [
        ("__CLASS", Self::Class),
        ("__SUPERCLASS", Self::Superclass),
        ("__DYNASTY", Self::Dynasty),
        ("__NAMESPACE", Self::Namespace),
        ("__SERVER", Self::Server),
        ("__PATH", Self::Path),
        ("__RELPATH", Self::RelPath),
        ("__GENUS", Self::Genus),
        ("__PROPERTY_COUNT", Self::PropertyCount),
        ("__DERIVATION", Self::Derivation),
    ];

    pub(super) const fn ty(self) -> Type {
        match self {
            Self::Genus | Self::PropertyCount => Type::Sint32,
            _ => Type::String,
        }
    }

    /// Is it compared as the path of an object?
    pub(super) const fn is_path(self) -> bool {
        matches!(self, Self::Path | Self::RelPath)
    }

    fn value(self, instance: &Instance, host: &str) -> Value {
        let class = instance.class();
        match self {
            Self::Class => class.name.as_str().into(),
            Self::Superclass => {
                let superclass = class.superclass.as_ref();
                superclass.map(|c| c.name.as_str()).into()
            }
            Self::Dynasty => class.lineage().last().map(|c| c.name.as_str()).into(),
            Self::Namespace => class.namespace.replace('/', "\\").into(),
            Self::Server => host.into(),
            Self::Path => instance.path().ok().map(|p| p.on(host).to_string()).into(),
            Self::RelPath => instance.path().ok().map(|p| relative(p).to_string()).into(),
            // 2: an instance, not a class.
            Self::Genus => 2_i32.into(),
            Self::PropertyCount => i32::try_from(class.properties.len()).ok().into(),
            Self::Derivation => derivation(class).into(),
        }
    }
}

fn relative(path: Path) -> Path {
    Path {
        namespace: None,
        ..path
    }
}

fn derivation(class: &Class) -> Vec<&str> {
    class.lineage().skip(1).map(|c| c.name.as_str()).collect()
}

/// Compares two values of one category.
fn both(op: Op, left: &Value, right: &Value, fold: bool) -> Option<bool> {
    let order = match (left, right) {
        (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
        (Value::String(left), Value::String(right)) if fold => {
            order_of_texts(left, &super::like::lower(right), true)
        }
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::DateTime(left), Value::DateTime(right)) => order_of_moments(left, right)?,
        (Value::Reference(left), Value::Reference(right)) => {
            return Some((left == right) == (op == Op::Equal));
        }
        _ => match (left.as_integer(), right.as_integer()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => real(left)?.partial_cmp(&real(right)?)?,
        },
    };
    Some(holds(op, order))
}

fn holds(op: Op, order: Ordering) -> bool {
    match op {
        Op::Equal => order.is_eq(),
        Op::NotEqual => order.is_ne(),
        Op::Less => order.is_lt(),
        Op::LessOrEqual => order.is_le(),
        Op::Greater => order.is_gt(),
        Op::GreaterOrEqual => order.is_ge(),
    }
}

/// With `fold` without regard to the case of `value`; `own` has none left then.
fn order_of_texts(value: &str, own: &str, fold: bool) -> Ordering {
    match fold {
        true => value.chars().flat_map(char::to_lowercase).cmp(own.chars()),
        false => value.cmp(own),
    }
}

/// Moments wherever on earth they were written, or lengths; a moment and a length have no order.
fn order_of_moments(left: &DateTime, right: &DateTime) -> Option<Ordering> {
    match (left, right) {
        (DateTime::Timestamp { micros: left, .. }, DateTime::Timestamp { micros: right, .. }) => {
            Some(left.cmp(right))
        }
        (DateTime::Interval { micros: left }, DateTime::Interval { micros: right }) => {
            Some(left.cmp(right))
        }
        _ => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Real32(n) => Some(f64::from(*n)),
        Value::Real64(n) => Some(*n),
        other => other.as_integer().map(approximate),
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a real has no more digits"
)]
fn approximate(n: i128) -> f64 {
    n as f64
}
