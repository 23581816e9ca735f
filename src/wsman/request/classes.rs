//! Class declarations as a resource (rules C-1 to C-5): which ones, and how much of each.

use std::sync::Arc;

use crate::cim::Class;

/// The declarations that an Enumerate lists.
#[derive(Debug, Clone)]
pub struct ClassList {
    /// The namespace.
    pub namespace: String,
    /// Only what is derived from this class; all of the namespace without one.
    pub below: Option<Arc<Class>>,
}

/// How much of a declaration is written (rule C-4), as Windows reads the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassOptions {
    /// `IncludeQualifiers`
    pub qualifiers: bool,
    /// `IncludeClassOrigin`
    pub class_origin: bool,
    /// `IncludeInheritedElements`
    pub inherited: bool,
    /// `IncludeInheritanceHierarchy`: the names of all superclasses.
    pub hierarchy: bool,
    /// `IncludeSubClasses`: not only the next level. Absent: no if a class is named, else yes.
    pub subclasses: Option<bool>,
    /// `ExcludeClassSpecification`: names only.
    pub names_only: bool,
}

impl Default for ClassOptions {
    fn default() -> Self {
        Self {
            qualifiers: false,
            class_origin: true,
            inherited: true,
            hierarchy: false,
            subclasses: None,
            names_only: false,
        }
    }
}

impl ClassOptions {
    /// Takes the option of that name, if it is one of these.
    pub(super) fn set(&mut self, name: &str, on: &dyn Fn() -> bool) -> bool {
        match name {
            "IncludeQualifiers" => self.qualifiers = on(),
            "IncludeClassOrigin" => self.class_origin = on(),
            "IncludeInheritedElements" => self.inherited = on(),
            "IncludeInheritanceHierarchy" => self.hierarchy = on(),
            "IncludeSubClasses" => self.subclasses = Some(on()),
            "ExcludeClassSpecification" => self.names_only = on(),
            _ => return false,
        }
        true
    }
}
