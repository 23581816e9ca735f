//! The classes that are served, by namespace; compiled from the MOF that is built into the program.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::class::Class;
use super::mof::{self, Compiled, Place, Source};
use super::name::{Name, compare};
use super::path::{KeyError, Path};
use super::value::Value;
use crate::text::catalog::cim as texts;
use crate::text::{Text, told_by_text};

/// The namespace that Hyper-V tools speak to.
pub const VIRTUALIZATION_V2: &str = "root/virtualization/v2";

/// Path from the root of the package, and text, of every file below `schemas/`.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// The MOF that is built in. Each folder of `schemas/` has its namespace; `schemas/cim/` and the qualifier types
/// are shared by all.
pub fn embedded() -> impl Iterator<Item = Source<'static>> {
    FILES.iter().map(|(name, text)| Source {
        name,
        text,
        place: if name.starts_with("schemas/virtualization/") {
            Place::Namespace(VIRTUALIZATION_V2)
        } else {
            Place::Library
        },
    })
}

/// Most paths inside each other in reference keys that [`Schema::resolve`] follows (H-17).
const NESTING_MAX: usize = 8;

/// All classes of all namespaces. Immutable once loaded. A look-up allocates nothing.
#[derive(Debug, Default)]
pub struct Schema {
    /// INVARIANT: sorted by name, each name once.
    namespaces: Vec<Namespace>,
}

#[derive(Debug)]
struct Namespace {
    name: Name,
    /// INVARIANT: sorted by name, each name once.
    classes: Vec<Arc<Class>>,
    /// Runs parallel to `classes`: each class and everything derived from it, itself first, then by name.
    subtrees: Vec<Vec<Arc<Class>>>,
}

/// A path does not name an object that the schema allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// There is no such namespace.
    UnknownNamespace(String),
    /// The namespace has no such class.
    UnknownClass {
        /// The class that was named.
        class: String,
        /// The namespace.
        namespace: String,
    },
    /// The keys do not fit the class.
    Key(KeyError),
    /// References inside references beyond the limit.
    Depth,
}

impl ResolveError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::UnknownNamespace(namespace) => texts::NO_NAMESPACE.with("namespace", namespace),
            Self::UnknownClass { class, namespace } => {
                let text = texts::NO_CLASS.with("class", class);
                text.with("namespace", namespace)
            }
            Self::Key(error) => error.text(),
            Self::Depth => texts::PATH_DEPTH.text(),
        }
    }
}
told_by_text!(ResolveError);

impl From<KeyError> for ResolveError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl Schema {
    /// The schema that is built in. A test keeps its MOF free of errors, so there is nothing to report here.
    #[must_use]
    pub fn builtin() -> Self {
        let sources: Vec<_> = embedded().collect();
        let Compiled { classes, .. } = mof::compile(&sources);
        Self::new(classes)
    }

    /// A schema of these classes; each goes to the namespace it names. Of two with one name the last stays.
    #[must_use]
    pub fn new(classes: impl IntoIterator<Item = Arc<Class>>) -> Self {
        let mut by_namespace: BTreeMap<Name, BTreeMap<Name, Arc<Class>>> = BTreeMap::new();
        for class in classes {
            let namespace = by_namespace
                .entry(Name::from(&*class.namespace))
                .or_default();
            namespace.insert(class.name.clone(), class);
        }
        let namespaces = by_namespace
            .into_iter()
            .map(|(name, classes)| Namespace::new(name, classes.into_values().collect()))
            .collect();
        Self { namespaces }
    }

    /// Is there such a namespace? Written with `/`, in any case.
    #[must_use]
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some()
    }

    /// The class of that name, in any case, in that namespace.
    #[must_use]
    pub fn class(&self, namespace: &str, class: &str) -> Option<&Arc<Class>> {
        let namespace = self.namespace(namespace)?;
        namespace.classes.get(namespace.index(class)?)
    }

    /// Every class of the namespace, by name.
    pub fn classes(&self, namespace: &str) -> impl Iterator<Item = &Arc<Class>> {
        self.namespace(namespace)
            .into_iter()
            .flat_map(|n| &n.classes)
    }

    /// The namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Name> {
        self.namespaces.iter().map(|n| &n.name)
    }

    /// `class` and everything derived from it, `class` first; empty if there is no such class.
    #[must_use]
    pub fn subtree(&self, namespace: &str, class: &str) -> &[Arc<Class>] {
        self.namespace(namespace)
            .and_then(|n| n.subtrees.get(n.index(class)?))
            .map_or(&[], Vec::as_slice)
    }

    /// The path checked and completed: its namespace (`namespace` if it names none) and class exist, its keys
    /// have the types and the order of the class, and so have the paths in its reference keys. The class stays
    /// the one that the path names; where that one declares no keys, such as `CIM_CollectionOfMSEs`, the keys
    /// are those of the first class below it which they fit. The host is not looked at.
    ///
    /// # Errors
    /// [`ResolveError`]; it names the namespace, the class or the key.
    pub fn resolve(&self, path: &Path, namespace: &str) -> Result<Path, ResolveError> {
        self.resolve_within(path, namespace, 0)
    }

    fn resolve_within(
        &self,
        path: &Path,
        namespace: &str,
        depth: usize,
    ) -> Result<Path, ResolveError> {
        if depth > NESTING_MAX {
            return Err(ResolveError::Depth);
        }
        let wanted = path.namespace.as_deref().unwrap_or(namespace);
        let known = self.namespace(wanted);
        let namespace = known.ok_or_else(|| ResolveError::UnknownNamespace(wanted.to_owned()))?;
        let n = namespace.index(path.class.as_str());
        let class = n.and_then(|n| namespace.classes.get(n));
        let class = class.ok_or_else(|| ResolveError::UnknownClass {
            class: path.class.to_string(),
            namespace: namespace.name.to_string(),
        })?;
        let subtree = n.and_then(|n| namespace.subtrees.get(n));
        let mut typed = typed(path, class, subtree.map_or(&[], Vec::as_slice))?;
        typed.namespace = Some(namespace.name.to_string());
        for (_, value) in &mut typed.keys {
            if let Value::Reference(inner) = value {
                **inner = self.resolve_within(inner, namespace.name.as_str(), depth + 1)?;
            }
        }
        Ok(typed)
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        let order = |n: &Namespace| compare(n.name.as_str(), name);
        let n = self.namespaces.binary_search_by(order).ok()?;
        self.namespaces.get(n)
    }
}

impl Namespace {
    /// `classes` sorted by name.
    fn new(name: Name, classes: Vec<Arc<Class>>) -> Self {
        let below = |top: &Arc<Class>| {
            let derived = classes
                .iter()
                .filter(|c| c.name != top.name && c.is_a(top.name.as_str()));
            std::iter::once(top).chain(derived).cloned().collect()
        };
        let subtrees = classes.iter().map(below).collect();
        Self {
            name,
            classes,
            subtrees,
        }
    }

    fn index(&self, class: &str) -> Option<usize> {
        let order = |c: &Arc<Class>| compare(c.name.as_str(), class);
        self.classes.binary_search_by(order).ok()
    }
}

/// The path with the key types of `class`, or of the first class of its subtree that has keys and takes them.
fn typed(path: &Path, class: &Class, subtree: &[Arc<Class>]) -> Result<Path, KeyError> {
    let declared = path.typed(class);
    if declared.is_ok() || class.keys().next().is_some() {
        return declared;
    }
    let fitting = subtree.iter().find_map(|leaf| path.typed(leaf).ok());
    fitting.map_or(declared, |found| {
        Ok(Path {
            class: class.name.clone(),
            ..found
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real classes narrow these three references to classes beside the declared one.
    const NOT_COVARIANT: [&str; 3] = [
        "Msvm_CollectedCollections.Member",
        "Msvm_CollectedSnapshots.Collection",
        "Msvm_CollectedSnapshots.Member",
    ];

    #[test]
    fn the_builtin_mof_has_no_findings_but_three_known_warnings() {
        let sources: Vec<_> = embedded().collect();
        let compiled = mof::compile(&sources);
        assert!(!compiled.has_errors(), "{:#?}", compiled.diagnostics);
        let found: Vec<_> = compiled
            .diagnostics
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        assert_eq!(found.len(), NOT_COVARIANT.len(), "{found:#?}");
        for (message, property) in found.iter().zip(NOT_COVARIANT) {
            assert!(message.starts_with(property), "{message}");
        }
    }

    #[test]
    fn every_file_is_one_served_class_of_its_name() {
        let schema = Schema::builtin();
        for source in embedded().filter(|s| !s.name.ends_with("/qualifiers.mof")) {
            let name = source.name.rsplit('/').next().unwrap_or_default();
            let class = name.trim_end_matches(".mof");
            let found = schema.class(VIRTUALIZATION_V2, class).expect(class);
            assert_eq!(found.name.as_str(), class);
        }
        assert_eq!(
            embedded().count(),
            schema.classes(VIRTUALIZATION_V2).count() + 1
        );
    }

    const GROUP: &str = "Msvm_VirtualSystemCollection.CollectionID='A'";

    fn resolve(text: &str) -> Result<Path, ResolveError> {
        Schema::builtin().resolve(&Path::parse(text).unwrap(), VIRTUALIZATION_V2)
    }

    #[test]
    fn look_ups_know_no_case() {
        let schema = Schema::builtin();
        assert!(schema.has_namespace("ROOT/Virtualization/V2"));
        assert!(!schema.has_namespace("root/virtualization"));
        let class = schema.class("ROOT/virtualization/v2", "msvm_COMPUTERsystem");
        assert_eq!(class.unwrap().name.as_str(), "Msvm_ComputerSystem");
        assert!(schema.class(VIRTUALIZATION_V2, "Msvm_Computer").is_none());
    }

    #[test]
    fn a_subtree_is_the_class_and_all_below() {
        let schema = Schema::builtin();
        let subtree = schema.subtree(VIRTUALIZATION_V2, "cim_collectionofmses");
        assert_eq!(
            subtree.first().unwrap().name.as_str(),
            "CIM_CollectionOfMSEs"
        );
        assert!(
            subtree
                .iter()
                .any(|c| c.name == "Msvm_VirtualSystemCollection")
        );
        assert!(subtree.iter().all(|c| c.is_a("CIM_CollectionOfMSEs")));
        let below = schema
            .classes(VIRTUALIZATION_V2)
            .filter(|c| c.is_a("CIM_CollectionOfMSEs"));
        assert_eq!(below.count(), subtree.len());
        assert!(schema.subtree(VIRTUALIZATION_V2, "Nix").is_empty());
    }

    #[test]
    fn a_path_is_completed_from_the_schema() {
        let found = resolve("msvm_virtualsystemcollection.collectionid='A'").unwrap();
        assert_eq!(
            found.to_string(),
            r#"root\virtualization\v2:Msvm_VirtualSystemCollection.CollectionID="A""#
        );
        let by_superclass = resolve("CIM_CollectionOfMSEs.CollectionID='A'").unwrap();
        assert_eq!(by_superclass.class.as_str(), "CIM_CollectionOfMSEs");
        assert_eq!(by_superclass.text("CollectionID"), Some("A"));
    }

    #[test]
    fn references_in_keys_are_resolved_too() {
        let vm = r"Msvm_ComputerSystem.CreationClassName=\'Msvm_ComputerSystem\',Name=\'B\'";
        let text = format!("Msvm_CollectedVirtualSystems.Collection=\"{GROUP}\",Member='{vm}'");
        let found = resolve(&text).unwrap();
        let group = found
            .get("Collection")
            .and_then(Value::as_reference)
            .unwrap();
        assert_eq!(group.namespace.as_deref(), Some(VIRTUALIZATION_V2));
        let broken = text.replace("Msvm_ComputerSystem.", "Nix.");
        assert!(
            matches!(resolve(&broken), Err(ResolveError::UnknownClass { class, .. }) if class == "Nix")
        );
    }

    #[test]
    fn what_the_schema_has_not_is_told_apart() {
        let error = |text| resolve(text).unwrap_err();
        assert_eq!(
            error("root/cimv2:Msvm_ComputerSystem"),
            ResolveError::UnknownNamespace("root/cimv2".to_owned())
        );
        assert!(matches!(
            error("Nix.A=1"),
            ResolveError::UnknownClass { .. }
        ));
        assert!(matches!(
            error("Msvm_VirtualSystemCollection.Id='A'"),
            ResolveError::Key(KeyError::Unknown { .. })
        ));
        assert!(matches!(
            error("Msvm_VirtualSystemCollection"),
            ResolveError::Key(KeyError::Missing { .. })
        ));
    }
}
