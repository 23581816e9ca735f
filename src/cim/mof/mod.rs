//! The MOF compiler (DSP0004 MOF 2.x): text in, flattened classes and every error out.
//!
//! `lexer` and `parser` make a tree of each source; `namespace` puts the classes of a namespace in order; `build`
//! flattens and checks them, with `qualifier` for the qualifiers. Order of sources and of declarations does not matter.

mod build;
mod convert;
pub mod diagnostic;
mod lexer;
mod literal;
mod namespace;
mod parser;
mod qualifier;
pub mod report;
mod syntax;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cim::class::Class;
use crate::cim::name::Name;

pub use diagnostic::{Diagnostic, Rule, Severity, SourceText, Span};
use namespace::Declarations;
use qualifier::QualifierTypes;
use syntax::File;

/// A MOF text to compile.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// What messages call it: a file name.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
    /// What becomes of its classes.
    pub place: Place<'a>,
}

/// Where the classes of a source go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Into this namespace, written with `/`, unless a `#pragma namespace` names another.
    Namespace(&'a str),
    /// Into every namespace that names them and does not declare them itself. Qualifier types too give way.
    Library,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The classes, each after its superclass; complete and sound if `diagnostics` has no error.
    pub classes: Vec<Arc<Class>>,
    /// All findings in the order of the sources and of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Compiled {
    /// Is there an error among the findings?
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error)
    }
}

/// Compiles all sources together.
#[must_use]
pub fn compile(sources: &[Source<'_>]) -> Compiled {
    let mut diagnostics = Vec::new();
    let mut files = Vec::with_capacity(sources.len());
    for (order, source) in sources.iter().enumerate() {
        let text = Arc::new(SourceText {
            name: source.name.to_owned(),
            text: source.text.to_owned(),
            order,
        });
        let namespace = match source.place {
            Place::Namespace(namespace) => namespace,
            Place::Library => "",
        };
        let (file, errors) = parser::parse(&text, &Arc::from(namespace));
        diagnostics.extend(errors);
        files.push((file, source.place == Place::Library));
    }
    includes(&files, sources, &mut diagnostics);
    let classes = classes(&files, &mut diagnostics);
    diagnostics.sort_by_key(|d| (d.span.source.order, d.span.range.start));
    Compiled {
        classes,
        diagnostics,
    }
}

/// The files that a text includes, as it names them.
#[must_use]
pub fn included(text: &str) -> Vec<String> {
    if !text.contains('#') {
        return Vec::new();
    }
    let source = Arc::new(SourceText {
        name: String::new(),
        text: text.to_owned(),
        order: 0,
    });
    let (file, _) = parser::parse(&source, &Arc::from(""));
    file.includes.into_iter().map(|(path, _)| path).collect()
}

/// Every included file must be among the sources: this module reads none itself.
fn includes(files: &[(File, bool)], sources: &[Source<'_>], diagnostics: &mut Vec<Diagnostic>) {
    for (path, span) in files.iter().flat_map(|(file, _)| &file.includes) {
        let wanted = path.replace('\\', "/");
        let wanted = wanted.trim_start_matches("./");
        let there = sources.iter().any(|s| {
            let name = s.name.replace('\\', "/");
            name.strip_suffix(wanted)
                .is_some_and(|before| before.is_empty() || before.ends_with('/'))
        });
        if !there {
            diagnostics.push(Diagnostic::error(
                Rule::Include,
                span,
                format!("{path} is included but not given"),
                "expected this file among those to compile",
            ));
        }
    }
}

fn classes(files: &[(File, bool)], diagnostics: &mut Vec<Diagnostic>) -> Vec<Arc<Class>> {
    let mut types = QualifierTypes::default();
    let mut library = Declarations::default();
    let mut namespaces: BTreeMap<Name, (Arc<str>, Declarations<'_>)> = BTreeMap::new();
    for (file, _) in files.iter().filter(|(_, is_library)| !is_library) {
        for declared in &file.qualifiers {
            types.add(declared, diagnostics);
        }
        for class in &file.classes {
            namespaces
                .entry(Name::from(&*class.namespace))
                .or_insert_with(|| (class.namespace.clone(), Declarations::default()))
                .1
                .add(class, diagnostics);
        }
    }
    for (file, _) in files.iter().filter(|(_, is_library)| *is_library) {
        for declared in &file.qualifiers {
            types.add_missing(declared);
        }
        for class in &file.classes {
            library.add(class, diagnostics);
        }
    }
    let mut classes = Vec::new();
    for (namespace, declarations) in namespaces.values_mut() {
        declarations.complete(&library);
        classes.extend(build::build(namespace, &types, declarations, diagnostics));
    }
    classes
}

/// For fuzzing: compiles whatever the bytes are, alone and as a library, and renders every finding.
pub fn fuzz_mof(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for place in [Place::Namespace("root/fuzz"), Place::Library] {
        let compiled = compile(&[Source {
            name: "fuzz.mof",
            text: &text,
            place,
        }]);
        for diagnostic in compiled.diagnostics.iter().take(20) {
            let _ = (diagnostic.render(false), diagnostic.to_string());
        }
    }
}
