//! `groupshot schema …`: the MOF compiler for people, and a look at what is built in.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use crate::cim::mof::{Place, Severity, Source, compile};
use crate::cim::schema::{self, VIRTUALIZATION_V2};
use crate::cim::{Class, Parameter, Schema};

use super::failure::Failure;
use super::output::{Output, count};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Compile MOF files and show every error with its place.
    Check {
        /// The files. They see the built-in qualifier types and classes, and each other.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The namespace their classes go to.
        #[arg(long, default_value = VIRTUALIZATION_V2)]
        namespace: String,
    },
    /// Show the built-in classes, or one of them.
    Show {
        /// The class.
        class: Option<String>,
        /// The namespace.
        #[arg(long, default_value = VIRTUALIZATION_V2)]
        namespace: String,
    },
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Check { files, namespace } => check(files, namespace, output),
        Command::Show { class, namespace } => {
            let schema = Schema::builtin();
            match class {
                Some(class) => show(&schema, namespace, class, output),
                None => list(&schema, namespace, output),
            }
        }
    }
}

fn check(files: &[PathBuf], namespace: &str, output: &Output) -> Result<(), Failure> {
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Failure::failed(format_args!("{}: {e}", file.display())))?;
        texts.push((file.display().to_string(), text));
    }
    let mut sources: Vec<Source<'_>> = schema::embedded()
        .map(|source| Source {
            // What is built in only helps out; a file may declare a class of its own by that name.
            place: Place::Library,
            ..source
        })
        .collect();
    sources.extend(texts.iter().map(|(name, text)| Source {
        name,
        text,
        place: Place::Namespace(namespace),
    }));
    let compiled = compile(&sources);
    let (mut errors, mut warnings) = (0_usize, 0_usize);
    for diagnostic in &compiled.diagnostics {
        match diagnostic.severity {
            Severity::Error => errors += 1,
            Severity::Warning => warnings += 1,
        }
        let _ = write!(
            io::stderr(),
            "{}",
            diagnostic.render(io::stderr().is_terminal())
        );
    }
    if errors > 0 {
        return Err(Failure::failed(format_args!(
            "{}, {}",
            count(errors, "error"),
            count(warnings, "warning")
        )));
    }
    let files = files.len();
    output.result(json!({"files": files, "warnings": warnings}), || {
        let (files, warnings) = (count(files, "file"), count(warnings, "warning"));
        format!("{files}, no errors, {warnings}")
    })
}

fn list(schema: &Schema, namespace: &str, output: &Output) -> Result<(), Failure> {
    let names: Vec<&str> = schema.classes(namespace).map(|c| c.name.as_str()).collect();
    if names.is_empty() {
        return Err(Failure::failed(format_args!(
            "there is no namespace `{namespace}`"
        )));
    }
    output.result(json!({"namespace": namespace, "classes": names}), || {
        names.join("\n")
    })
}

fn show(schema: &Schema, namespace: &str, name: &str, output: &Output) -> Result<(), Failure> {
    let class = schema.class(namespace, name).ok_or_else(|| {
        Failure::failed(format_args!("there is no class `{name}` in {namespace}"))
    })?;
    let fields = json!({
        "name": class.name.as_str(),
        "superclass": class.superclass.as_ref().map(|c| c.name.as_str()),
        "abstract": class.is_abstract(),
        "association": class.is_association(),
        "properties": class.properties.iter().map(|p| json!({
            "name": p.name.as_str(), "type": typed(&p.ty, p.array), "key": p.key,
        })).collect::<Vec<Json>>(),
        "methods": class.methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
    });
    output.result(fields, || in_words(class))
}

fn in_words(class: &Class) -> String {
    let lineage: Vec<&str> = class.lineage().map(|c| c.name.as_str()).collect();
    let mut out = format!("{}\n", lineage.join(" : "));
    for property in &class.properties {
        let key = if property.key { "key " } else { "" };
        let ty = typed(&property.ty, property.array);
        let _ = writeln!(out, "  {key}{ty} {}", property.name);
    }
    for method in &class.methods {
        let parameters: Vec<String> = method.parameters.iter().map(parameter).collect();
        let _ = writeln!(
            out,
            "  {} {}({})",
            method.returns,
            method.name,
            parameters.join(", ")
        );
    }
    out
}

fn parameter(parameter: &Parameter) -> String {
    let way = match (parameter.input, parameter.output) {
        (true, true) => "in out ",
        (false, true) => "out ",
        (_, false) => "",
    };
    format!(
        "{way}{} {}",
        typed(&parameter.ty, parameter.array),
        parameter.name
    )
}

fn typed(ty: &crate::cim::Type, array: bool) -> String {
    format!("{ty}{}", if array { "[]" } else { "" })
}
