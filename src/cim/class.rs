//! Classes as the MOF compiler leaves them: flattened, every inherited element in its place.

use std::sync::Arc;

use super::name::{Name, folded};
use super::value::{Type, Value};

/// A qualifier with its value (DSP0004 5.6). Flavours are those of its declaration or use.
#[derive(Debug, Clone, PartialEq)]
pub struct Qualifier {
    /// Name, in the case of its declaration: `Key`, `ValueMap`, …
    pub name: Name,
    /// Its type.
    pub ty: Type,
    /// Its value; a boolean qualifier without value is true.
    pub value: Value,
    /// May a subclass change it?
    pub overridable: bool,
    /// Do subclasses inherit it?
    pub to_subclass: bool,
    /// Was it inherited, not written at this element?
    pub propagated: bool,
}

/// The qualifiers of one element. Shared: most elements of most classes are inherited with theirs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Qualifiers(pub Arc<[Qualifier]>);

impl Qualifiers {
    /// The qualifier of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Qualifier> {
        self.0.iter().find(|q| q.name == *name)
    }

    /// Is the boolean qualifier there and true?
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|q| q.value == Value::Boolean(true))
    }

    /// The object that the string with these qualifiers carries, if it carries one.
    #[must_use]
    pub fn embedded(&self) -> Option<Embedded<'_>> {
        let class = ["EmbeddedInstance", "HyperVEmbeddedInstance"]
            .iter()
            .find_map(|name| self.get(name)?.value.as_str());
        class
            .map(Embedded::Instance)
            .or_else(|| self.is("EmbeddedObject").then_some(Embedded::Object))
    }
}

/// What a string holds that carries an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedded<'a> {
    /// Any instance or class (`EmbeddedObject`).
    Object,
    /// An instance of this class or of a subclass of it (`EmbeddedInstance`, `HyperVEmbeddedInstance`).
    Instance(&'a str),
}

/// A property or a reference of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub ty: Type,
    /// Is it an array?
    pub array: bool,
    /// Is it (part of) the key?
    pub key: bool,
    /// The default value, or null.
    pub default: Value,
    /// The class that introduced it.
    pub origin: Name,
    /// Is it inherited, neither introduced nor overridden by this class?
    pub propagated: bool,
    /// Qualifiers, the inherited ones too.
    pub qualifiers: Qualifiers,
}

impl Property {
    /// Its type as in MOF, with `[]` for an array.
    #[must_use]
    pub fn declared_type(&self) -> String {
        format!("{}{}", self.ty, if self.array { "[]" } else { "" })
    }

    /// Does the value belong here? Beyond [`Value::fits`], an embedded instance belongs only where the
    /// qualifiers allow it and its class.
    #[must_use]
    pub fn accepts(&self, value: &Value) -> bool {
        let items = value.as_array().unwrap_or(std::slice::from_ref(value));
        value.fits(&self.ty, self.array)
            && items.iter().all(|item| match item {
                Value::Instance(instance) => match self.qualifiers.embedded() {
                    Some(Embedded::Object) => true,
                    Some(Embedded::Instance(class)) => instance.class().is_a(class),
                    None => false,
                },
                _ => true,
            })
    }
}

/// A parameter of a method.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub ty: Type,
    /// Is it an array?
    pub array: bool,
    /// Does the client give it? True where neither `In` nor `Out` is written.
    pub input: bool,
    /// Does the server give it back?
    pub output: bool,
    /// Its qualifiers.
    pub qualifiers: Qualifiers,
}

/// A method of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// Its name.
    pub name: Name,
    /// What it returns.
    pub returns: Type,
    /// Its parameters in declared order.
    pub parameters: Vec<Parameter>,
    /// The class that introduced it.
    pub origin: Name,
    /// Is it inherited, neither introduced nor overridden by this class?
    pub propagated: bool,
    /// Can it be called on the class itself (`Static`)?
    pub is_static: bool,
    /// Its qualifiers.
    pub qualifiers: Qualifiers,
}

impl Method {
    /// The parameter of that name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == *name)
    }
}

/// A class. INVARIANT: `properties` holds the inherited ones first, root class first, each name once;
/// an overriding declaration stands in the place of the overridden one.
#[derive(Debug, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: Name,
    /// The namespace it is served in, with `/`: `root/virtualization/v2`.
    pub namespace: Arc<str>,
    /// Its superclass.
    pub superclass: Option<Arc<Self>>,
    /// All properties.
    pub properties: Vec<Property>,
    /// All methods, inherited ones first; shared with the calls that name them.
    pub methods: Vec<Arc<Method>>,
    /// Qualifiers, the inherited ones too.
    pub qualifiers: Qualifiers,
    /// Positions in `properties`, sorted by name.
    by_name: Vec<usize>,
    /// What [`folded`] makes of the names, and their positions, in order: a name is looked up for each value that is set.
    by_hash: Vec<(u64, usize)>,
    /// Positions of the keys in `properties`.
    keys: Vec<usize>,
}

impl Class {
    /// A class of these parts.
    #[must_use]
    pub fn new(
        name: Name,
        namespace: Arc<str>,
        superclass: Option<Arc<Self>>,
        properties: Vec<Property>,
        methods: Vec<Method>,
        qualifiers: Qualifiers,
    ) -> Self {
        let name_of = |n: &usize| properties.get(*n).map(|p| p.name.clone());
        let mut by_name: Vec<usize> = (0..properties.len()).collect();
        by_name.sort_by_key(name_of);
        let names = properties.iter().map(|p| folded(p.name.as_str()));
        let mut by_hash: Vec<_> = names.zip(0..).collect();
        by_hash.sort_unstable();
        let is_key = |n: &usize| properties.get(*n).is_some_and(|p| p.key);
        let keys = (0..properties.len()).filter(is_key).collect();
        Self {
            name,
            namespace,
            superclass,
            properties,
            methods: methods.into_iter().map(Arc::new).collect(),
            qualifiers,
            by_name,
            by_hash,
            keys,
        }
    }

    /// Position of the property in `properties` and in the slots of an instance.
    #[must_use]
    pub fn index(&self, property: &str) -> Option<usize> {
        let hash = folded(property);
        let from = self.by_hash.partition_point(|(other, _)| *other < hash);
        let same = self.by_hash.iter().skip(from);
        let mut same = same.take_while(|(other, _)| *other == hash);
        let is_it = |n: usize| self.properties.get(n).is_some_and(|p| p.name == *property);
        same.find(|(_, n)| is_it(*n)).map(|(_, n)| *n)
    }

    /// The property of that name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.index(name).and_then(|n| self.properties.get(n))
    }

    /// Positions in `properties` in the order of the names.
    pub(super) fn by_name(&self) -> &[usize] {
        &self.by_name
    }

    /// The method of that name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Arc<Method>> {
        self.methods.iter().find(|m| m.name == *name)
    }

    /// The key properties in declared order.
    pub fn keys(&self) -> impl Iterator<Item = &Property> {
        self.keys.iter().filter_map(|n| self.properties.get(*n))
    }

    /// This class, its superclass, and so on to the root.
    pub fn lineage(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |c| c.superclass.as_deref())
    }

    /// Is it the class of that name or derived from it?
    #[must_use]
    pub fn is_a(&self, class: &str) -> bool {
        self.lineage().any(|c| c.name == *class)
    }

    /// Does it carry the `Association` qualifier?
    #[must_use]
    pub fn is_association(&self) -> bool {
        self.qualifiers.is("Association")
    }

    /// Does it carry the `Abstract` qualifier itself? (Abstract is not inherited.)
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.qualifiers.is("Abstract")
    }
}
