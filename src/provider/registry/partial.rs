//! Gets with some of the keys, or none (rules ): allowed if exactly one instance matches. Clients name a machine
//! by its Name, a service by its CreationClassName. Only selectors may leave keys out; [`Path::partial`] says that they
//! did.

use std::sync::Arc;

use crate::cim::query::Equality;
use crate::cim::{Class, Instance, Path, Value};
use crate::provider::{Arguments, Context, Error, Status};
use crate::text::catalog::provider as texts;

use super::select::candidates;
use super::{Depth, Registry, not_found};

/// The key that names the class of its instance.
const CREATION_CLASS_NAME: &str = "CreationClassName";

impl Registry {
    /// The instance that no keys are needed for: that of a class which has one by nature. How many instances another
    /// class happens to have is nothing to rely on.
    pub(super) fn only_instance(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
    ) -> Result<Instance, Error> {
        let mut leaves = self.served(class, Depth::Deep);
        let (leaf, provider) = match (leaves.next(), leaves.next()) {
            (Some((leaf, provider)), None) if provider.is_singleton(leaf) => (leaf, provider),
            (Some(_), _) => {
                let text = texts::KEYS_ARE_NEEDED.with("class", &class.name);
                return Err(Error::new(Status::InvalidParameter, text));
            }
            (None, _) => return Err(none_of(class)),
        };
        let first = provider.enumerate(ctx, leaf)?.next();
        first.unwrap_or_else(|| Err(none_of(leaf)))
    }

    /// The instance that alone has the keys of `path`, which lacks others.
    ///
    /// # Errors
    /// [`Status::NotFound`]; [`Status::InvalidParameter`] if several have them.
    pub(super) fn only_fitting(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Instance, Error> {
        let path = self.with_whole_references(ctx, path)?;
        let wanted: Vec<Equality> = path
            .keys
            .iter()
            .map(|(name, value)| Equality::Property(name.clone(), value.clone()))
            .collect();
        let mut only = None;
        for (leaf, provider) in self.served(class, Depth::Deep) {
            if !may_have(leaf, &path) {
                continue;
            }
            for instance in candidates(ctx, leaf, provider, &wanted)? {
                let instance = instance?;
                if !path.fits(&instance.path()?) {
                    continue;
                }
                if only.replace(instance).is_some() {
                    let text = texts::KEYS_FIT_SEVERAL
                        .with("class", &class.name)
                        .with("keys", super::keys_in_words(&path))
                        .with("missing", missing(class, &path));
                    return Err(Error::new(Status::InvalidParameter, text));
                }
            }
        }
        only.ok_or_else(|| Error::new(Status::NotFound, not_found(&path)))
    }

    /// The path with every reference among its keys as the instance itself has it.
    pub(super) fn with_whole_references(&self, ctx: &Context, path: &Path) -> Result<Path, Error> {
        let mut whole = path.clone();
        for (_, value) in &mut whole.keys {
            if let Value::Reference(inner) = value {
                if inner.host.is_some() {
                    return Err(Error::new(Status::NotFound, not_found(inner)));
                }
                **inner = self.find(ctx, inner)?.path()?;
            }
        }
        Ok(whole)
    }

    /// The arguments with all keys in each reference that names one instance by some of them. A reference that matches no
    /// instance or several is left as it is; the provider will fail to resolve it and answer with its own return value.
    pub(super) fn with_whole_arguments(&self, ctx: &Context, arguments: Arguments) -> Arguments {
        arguments.map(|value| self.whole(ctx, value))
    }

    pub(super) fn whole(&self, ctx: &Context, value: Value) -> Value {
        match value {
            Value::Reference(path) if path.lacks_keys() && path.host.is_none() => {
                let found = self.find(ctx, &path).and_then(|found| Ok(found.path()?));
                match found {
                    Ok(found) => Value::from(Path {
                        class: path.class,
                        ..found
                    }),
                    Err(_) => Value::Reference(path),
                }
            }
            Value::Array(values) => {
                Value::Array(values.into_iter().map(|v| self.whole(ctx, v)).collect())
            }
            other => other,
        }
    }
}

/// An instance bears the name of its class, so the instances of others need no look.
fn may_have(leaf: &Class, path: &Path) -> bool {
    path.text(CREATION_CLASS_NAME)
        .is_none_or(|name| leaf.name == *name)
}

fn missing(class: &Class, path: &Path) -> String {
    let missing = class
        .keys()
        .filter(|key| path.get(key.name.as_str()).is_none());
    let names: Vec<&str> = missing.map(|key| key.name.as_str()).collect();
    names.join(", ")
}

fn none_of(class: &Class) -> Error {
    let text = texts::NO_INSTANCE_OF.with("class", &class.name);
    Error::new(Status::NotFound, text)
}
