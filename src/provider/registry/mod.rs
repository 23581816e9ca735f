//! Which provider serves which class, and how a request for a superclass finds its leaves.

mod partial;
mod select;
mod traversal;

pub use traversal::Traversal;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::audit::About;
use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Class, Instance, Method, Name, Path, Schema, Value};
use crate::provider::pace::paced;
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider, Status};
use crate::text::catalog::provider as texts;

/// How deep an enumeration reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Instances of exactly the class.
    Exact,
    /// Instances of the class and of everything derived from it (rule E-30).
    Deep,
}

/// The providers do not cover the schema; the program must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A concrete class has no provider.
    #[error("class {namespace}:{class} has no provider and is not listed as embedded-only")]
    Unserved {
        /// Its namespace.
        namespace: String,
        /// The class.
        class: String,
    },
    /// A provider or the embedded-only list names a class that the schema does not have.
    #[error("the schema has no concrete class {namespace}:{class} that a provider could serve")]
    NoSuchClass {
        /// The namespace.
        namespace: String,
        /// The class.
        class: String,
    },
    /// Two providers want one class.
    #[error("class {namespace}:{class} has two providers")]
    Twice {
        /// Its namespace.
        namespace: String,
        /// The class.
        class: String,
    },
}

/// Awaited before each request: brings the data that providers read up to date.
pub type Ready = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A namespace, and who serves a class of it.
type InNamespace = (&'static str, Arc<dyn Provider>);

/// Every concrete class with its provider. Classes that only live as embedded text have none: nothing is
/// enumerated, nothing is found.
pub struct Registry {
    schema: Arc<Schema>,
    /// By class; a class name seldom stands in more than one namespace.
    providers: BTreeMap<Name, Vec<InNamespace>>,
    ready: Option<Ready>,
}

impl Registry {
    /// A registry of these providers. `embedded_only` names classes of [`VIRTUALIZATION_V2`].
    ///
    /// # Errors
    /// [`RegistryError`] if the providers and the list do not cover the schema exactly.
    pub fn new(
        schema: Arc<Schema>,
        providers: Vec<Arc<dyn Provider>>,
        embedded_only: &[&str],
    ) -> Result<Self, RegistryError> {
        let mut registry = Self {
            schema,
            providers: BTreeMap::new(),
            ready: None,
        };
        for provider in providers {
            for class in provider.classes() {
                registry.add(class, &provider)?;
            }
        }
        for class in embedded_only {
            served_class(&registry.schema, VIRTUALIZATION_V2, class)?;
        }
        registry.check_complete(embedded_only)?;
        Ok(registry)
    }

    /// Sets what [`Registry::ready`] awaits.
    #[must_use]
    pub fn with_ready(self, ready: Ready) -> Self {
        Self {
            ready: Some(ready),
            ..self
        }
    }

    /// Waits, for up to 500 ms, until the engine's view of the machines is at most a second old. Providers themselves
    /// never block.
    pub async fn ready(&self) {
        if let Some(ready) = &self.ready {
            ready().await;
        }
    }

    /// The schema that it serves.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The provider of exactly this class; `None` for abstract and embedded-only ones.
    #[must_use]
    pub fn provider(&self, class: &Class) -> Option<&Arc<dyn Provider>> {
        let candidates = self.providers.get(&class.name)?;
        candidates
            .iter()
            .find(|(namespace, _)| namespace.eq_ignore_ascii_case(&class.namespace))
            .map(|(_, provider)| provider)
    }

    /// The instances of `class`. Each leaf class takes its view of the state now; instances are made when
    /// they are asked for.
    ///
    /// # Errors
    /// [`Error`] if one of the classes cannot be listed at all.
    pub fn enumerate(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        depth: Depth,
    ) -> Result<Instances, Error> {
        Ok(paced(&ctx.pace, self.listed(ctx, class, depth)?))
    }

    /// [`Registry::enumerate`] without pacing: for walks that are not cut into turns.
    fn listed(&self, ctx: &Context, class: &Arc<Class>, depth: Depth) -> Result<Instances, Error> {
        let mut parts = Vec::new();
        for (leaf, provider) in self.served(class, depth) {
            parts.push(provider.enumerate(ctx, leaf)?);
        }
        Ok(Box::new(parts.into_iter().flatten()))
    }

    /// How many instances [`Registry::enumerate`] would give; `None` if some class does not know.
    #[must_use]
    pub fn count(&self, ctx: &Context, class: &Arc<Class>, depth: Depth) -> Option<u64> {
        self.served(class, depth)
            .map(|(leaf, provider)| provider.count(ctx, leaf))
            .try_fold(0, |sum, n| Some(n? + sum))
    }

    /// The instance at `path`, which a reference or a query names.
    ///
    /// # Errors
    /// As [`Registry::get`]; [`Status::NotFound`] too if there is no such class.
    pub fn find(&self, ctx: &Context, path: &Path) -> Result<Instance, Error> {
        let namespace = path.namespace.as_deref().unwrap_or(VIRTUALIZATION_V2);
        let class = self
            .schema
            .class(namespace, path.class.as_str())
            .ok_or_else(|| Error::new(Status::NotFound, not_found(path)))?;
        self.get(ctx, class, path)
    }

    /// The instance of `class`, which `path` names, with the keys of `path`. The class may be a superclass if the keys
    /// identify the instance (rule X-1). Without keys it is the instance of a singleton class (rule X-2). A
    /// [partial](Path::partial) path matches if exactly one instance has these keys (rule X-3).
    ///
    /// # Errors
    /// [`Status::NotFound`]; [`Status::InvalidParameter`] if keys are missing or not those of the class, or if
    /// several instances have those of a partial path.
    pub fn get(&self, ctx: &Context, class: &Arc<Class>, path: &Path) -> Result<Instance, Error> {
        if path.keys.is_empty() {
            return self.only_instance(ctx, class);
        }
        if path.partial {
            return self.only_fitting(ctx, class, path);
        }
        let whole = match path.lacks_keys() {
            true => Cow::Owned(self.with_whole_references(ctx, path)?),
            false => Cow::Borrowed(path),
        };
        let path = &*whole;
        let mut keys_fit = false;
        for (leaf, provider) in self.served(class, Depth::Deep) {
            let Some(leaf_path) = as_leaf(leaf, path) else {
                continue;
            };
            keys_fit = true;
            if let Some(instance) = provider.get(ctx, leaf, &leaf_path)? {
                return Ok(instance);
            }
        }
        let embedded_only = self.served(class, Depth::Deep).next().is_none();
        if keys_fit || embedded_only {
            Err(Error::new(Status::NotFound, not_found(path)))
        } else {
            let text = texts::KEYS_DO_NOT_FIT.with("class", &class.name);
            Err(Error::new(Status::InvalidParameter, text))
        }
    }

    /// Calls `method`, which the class of the instance or one above it has. References among the arguments may be
    /// [partial](Path::partial) too.
    ///
    /// # Errors
    /// What the provider raises; [`Status::MethodNotAvailable`] if the instance has none.
    pub async fn call(
        &self,
        ctx: &Context,
        instance: &Instance,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let provider = self.provider(instance.class()).ok_or_else(|| {
            let text = texts::METHOD_NOT_AVAILABLE.with("method", &method.name);
            Error::new(Status::MethodNotAvailable, text)
        })?;
        let arguments = self.with_whole_arguments(ctx, arguments);
        provider
            .invoke(ctx, &instance.path()?, method, arguments)
            .await
    }

    /// What a call on an object of `class` is about, as far as these parameters or results tell. The object at `path` need
    /// not exist.
    #[must_use]
    pub fn about(
        &self,
        ctx: &Context,
        class: &Class,
        path: &Path,
        values: &[(&str, &Value)],
    ) -> About {
        let provider = self.provider(class);
        provider.map_or_else(About::default, |provider| provider.about(ctx, path, values))
    }

    /// The served classes at or below `class`.
    fn served(
        &self,
        class: &Arc<Class>,
        depth: Depth,
    ) -> impl Iterator<Item = (&Arc<Class>, &Arc<dyn Provider>)> {
        let subtree = self.schema.subtree(&class.namespace, class.name.as_str());
        let end = match depth {
            Depth::Exact => subtree.len().min(1),
            Depth::Deep => subtree.len(),
        };
        subtree
            .get(..end)
            .unwrap_or_default()
            .iter()
            .filter_map(|leaf| self.provider(leaf).map(|provider| (leaf, provider)))
    }

    fn add(&mut self, class: &str, provider: &Arc<dyn Provider>) -> Result<(), RegistryError> {
        let namespace = provider.namespace();
        let class = served_class(&self.schema, namespace, class)?;
        if self.provider(class).is_some() {
            return Err(RegistryError::Twice {
                namespace: namespace.to_owned(),
                class: class.name.to_string(),
            });
        }
        let name = class.name.clone();
        let entry = self.providers.entry(name).or_default();
        entry.push((namespace, provider.clone()));
        Ok(())
    }

    fn check_complete(&self, embedded_only: &[&str]) -> Result<(), RegistryError> {
        for namespace in self.schema.namespaces() {
            for class in self.schema.classes(namespace.as_str()) {
                let embedded = embedded_only.iter().any(|e| class.name == **e);
                if !class.is_abstract() && !embedded && self.provider(class).is_none() {
                    return Err(RegistryError::Unserved {
                        namespace: namespace.to_string(),
                        class: class.name.to_string(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn served_class<'a>(
    schema: &'a Schema,
    namespace: &str,
    class: &str,
) -> Result<&'a Arc<Class>, RegistryError> {
    schema
        .class(namespace, class)
        .filter(|found| !found.is_abstract())
        .ok_or_else(|| RegistryError::NoSuchClass {
            namespace: namespace.to_owned(),
            class: class.to_owned(),
        })
}

/// `path` as a path of the class `leaf`, if it has exactly the keys of that class.
pub(super) fn as_leaf(leaf: &Class, path: &Path) -> Option<Path> {
    path.typed(leaf).ok()
}

fn not_found(path: &Path) -> crate::text::Text {
    texts::NOT_FOUND
        .with("class", &path.class)
        .with("keys", keys_in_words(path))
}

fn keys_in_words(path: &Path) -> String {
    let keys: Vec<String> = path
        .keys
        .iter()
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}=\"{text}\""),
            None => name.to_string(),
        })
        .collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests;
