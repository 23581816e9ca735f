//! Answering a query: by lookup if its equalities name keys, a reference or an indexed property; else by enumerating and
//! filtering.

use std::sync::Arc;

use crate::cim::query::{Equality, Select};
use crate::cim::{Class, Path, Value};
use crate::provider::pace::{filtered, paced};
use crate::provider::{Context, Error, Instances, Provider};

use super::{Depth, Registry, as_leaf};

impl Registry {
    /// The instances that `select` lets through.
    ///
    /// # Errors
    /// [`Error`] if one of the classes cannot be listed at all.
    pub fn select(&self, ctx: &Context, select: &Select, depth: Depth) -> Result<Instances, Error> {
        let mut parts = Vec::new();
        for (leaf, provider) in self.served(&select.class, depth) {
            parts.push(candidates(ctx, leaf, provider, select.filter.equalities())?);
        }
        let all = paced(&ctx.pace, Box::new(parts.into_iter().flatten()));
        Ok(filtered(&ctx.pace, select.filter.clone(), all))
    }
}

/// The instances of `leaf` among which are all that satisfy `wanted`.
pub(super) fn candidates(
    ctx: &Context,
    leaf: &Arc<Class>,
    provider: &Arc<dyn Provider>,
    wanted: &[Equality],
) -> Result<Instances, Error> {
    if wanted.is_empty() {
        return provider.enumerate(ctx, leaf);
    }
    if let Some(path) = path(leaf, wanted) {
        let found = match path {
            Some(path) => provider.get(ctx, leaf, &path)?,
            None => None,
        };
        return Ok(Box::new(found.map(Ok).into_iter()));
    }
    if leaf.is_association() {
        let reference = wanted.iter().find_map(|equality| match equality {
            Equality::Property(name, Value::Reference(to)) => Some((name, to)),
            _ => None,
        });
        if let Some((role, to)) = reference {
            return provider.references(ctx, leaf, role.as_str(), to);
        }
    }
    match provider.select(ctx, leaf, wanted)? {
        Some(found) => Ok(found),
        None => provider.enumerate(ctx, leaf),
    }
}

/// The path of the only instance that can satisfy `wanted`; `Some(None)` if there cannot be one in this class.
fn path(leaf: &Class, wanted: &[Equality]) -> Option<Option<Path>> {
    let object = wanted.iter().find_map(|equality| match equality {
        Equality::Object(path) => Some(path),
        Equality::Property(..) => None,
    });
    if let Some(object) = object {
        return Some(as_leaf(leaf, object).filter(|_| leaf.is_a(object.class.as_str())));
    }
    let mut path = Path::new(&leaf.namespace, leaf.name.clone());
    for key in leaf.keys() {
        let value = wanted.iter().find_map(|equality| match equality {
            Equality::Property(name, value) if *name == key.name => Some(value),
            _ => None,
        })?;
        path.keys.push((key.name.clone(), value.clone()));
    }
    Some(as_leaf(leaf, &path)).filter(|_| !path.keys.is_empty())
}
