//! From an object along its associations: the association instances that refer to it, and the objects at their
//! other ends (DSP0223 `References` and `Associators`). The association filter and the queries
//! `REFERENCES OF` and `ASSOCIATORS OF` all go this way.
//!
//! Which associations can match is read from their declarations first: the reference must take the class of the
//! object, the other end a class that can be the wanted one. Only those are asked, each for the one object.

use std::sync::Arc;

use crate::cim::{Class, Instance, Path, Type};
use crate::provider::pace::paced;
use crate::provider::{Context, Error, Instances, Status};

use super::Registry;

/// What limits a traversal; nothing does by default.
#[derive(Debug, Clone, Default)]
pub struct Traversal {
    /// Associations of this class or below it.
    pub association: Option<Arc<Class>>,
    /// The reference that means the object where the traversal begins, in any case.
    pub role: Option<String>,
    /// Objects of this class or below it at the other end.
    pub result: Option<Arc<Class>>,
    /// The reference that means the other end, in any case.
    pub result_role: Option<String>,
    /// Associations whose class has this qualifier, in any case.
    pub association_qualifier: Option<String>,
}

/// One way through an association: in by `role`, out by `far`.
#[derive(Debug, Clone)]
struct Way {
    class: Arc<Class>,
    role: String,
    far: String,
}

impl Registry {
    /// The association instances that refer to the object at `path`, each once.
    ///
    /// # Errors
    /// As [`Registry::find`] for the object itself.
    pub fn references(
        self: &Arc<Self>,
        ctx: &Context,
        path: &Path,
        traversal: &Traversal,
    ) -> Result<Instances, Error> {
        let start = self.find(ctx, path)?;
        let object = start.path()?;
        let ways = self.ways(start.class(), traversal);
        let mut entries: Vec<&Way> = Vec::new();
        for way in &ways {
            let known = |w: &&Way| Arc::ptr_eq(&w.class, &way.class) && w.role == way.role;
            if !entries.iter().any(known) {
                entries.push(way);
            }
        }
        let mut parts = Vec::new();
        for (n, way) in entries.iter().enumerate() {
            // An instance with the object at both ends has come by the other end already.
            let before: Vec<String> = entries
                .iter()
                .take(n)
                .filter(|w| Arc::ptr_eq(&w.class, &way.class))
                .map(|w| w.role.clone())
                .collect();
            let found = self.along(ctx, way, &object)?;
            let object = object.clone();
            parts.push(found.filter(move |link| {
                let Ok(link) = link else { return true };
                let end = |role: &String| link.get(role).and_then(|v| v.as_reference());
                let means_it = |role: &String| end(role) == Some(&object);
                !before.iter().any(means_it)
            }));
        }
        let result = traversal.result.clone();
        let registry = self.clone();
        Ok(Box::new(parts.into_iter().flatten().filter(move |link| {
            let Ok(link) = link else { return true };
            result.as_ref().is_none_or(|wanted| {
                ways.iter()
                    .filter(|w| Arc::ptr_eq(&w.class, link.class()))
                    .filter_map(|w| link.get(&w.far)?.as_reference())
                    .any(|end| registry.may_be(end, wanted))
            })
        })))
    }

    /// The objects at the other ends of the associations of the object at `path`, each once, under their own
    /// classes.
    ///
    /// # Errors
    /// As [`Registry::find`] for the object itself.
    pub fn associators(
        self: &Arc<Self>,
        ctx: &Context,
        path: &Path,
        traversal: &Traversal,
    ) -> Result<Instances, Error> {
        let start = self.find(ctx, path)?;
        let object = start.path()?;
        let ways = self.ways(start.class(), traversal);
        let mut parts = Vec::new();
        for (n, way) in ways.iter().enumerate() {
            let before: Vec<Way> = ways.iter().take(n).cloned().collect();
            let links = self.along(ctx, way, &object)?;
            let (registry, ctx) = (self.clone(), ctx.clone());
            let (object, far) = (object.clone(), way.far.clone());
            let wanted = traversal.result.clone();
            parts.push(links.filter_map(move |link| {
                let end = match link {
                    Ok(link) => link.get(&far)?.as_reference()?.clone(),
                    Err(error) => return Some(Err(error)),
                };
                if !wanted.as_ref().is_none_or(|w| registry.may_be(&end, w)) {
                    return None;
                }
                let came = |way: &Way| registry.leads(&ctx, way, &object, &end);
                if before.iter().any(came) {
                    return None;
                }
                registry.end(&ctx, &end, wanted.as_ref())
            }));
        }
        Ok(Box::new(parts.into_iter().flatten()))
    }

    /// The ways that an object of the class `from` can go.
    fn ways(&self, from: &Class, traversal: &Traversal) -> Vec<Way> {
        let limits = |limit: &Option<String>, name: &str| {
            limit
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let mut ways = Vec::new();
        for class in self.associations_of(from, traversal) {
            let ends = || {
                class.properties.iter().filter_map(|p| match &p.ty {
                    Type::Reference(declared) => Some((p.name.as_str(), declared.as_str())),
                    _ => None,
                })
            };
            for (role, near) in ends().filter(|(role, _)| limits(&traversal.role, role)) {
                if !from.is_a(near) {
                    continue;
                }
                let outs = ends().filter(|(far, _)| *far != role);
                for (far, declared) in outs.filter(|(far, _)| limits(&traversal.result_role, far)) {
                    let wanted = traversal.result.as_ref();
                    if wanted.is_none_or(|w| self.overlap(&class.namespace, w, declared)) {
                        ways.push(Way {
                            class: class.clone(),
                            role: role.to_owned(),
                            far: far.to_owned(),
                        });
                    }
                }
            }
        }
        ways
    }

    /// The served association classes of the namespace of `from` that the traversal admits.
    fn associations_of<'a>(
        &'a self,
        from: &'a Class,
        traversal: &'a Traversal,
    ) -> impl Iterator<Item = &'a Arc<Class>> {
        let (top, qualifier) = (&traversal.association, &traversal.association_qualifier);
        self.schema
            .classes(&from.namespace)
            .filter(|class| top.as_ref().is_none_or(|top| class.is_a(top.name.as_str())))
            .filter(|class| {
                qualifier
                    .as_ref()
                    .is_none_or(|q| class.qualifiers.get(q).is_some())
            })
            .filter(|class| class.is_association() && self.provider(class).is_some())
    }

    /// Can one object be of both classes? Then one is derived from the other.
    fn overlap(&self, namespace: &str, wanted: &Class, declared: &str) -> bool {
        wanted.is_a(declared)
            || self
                .schema
                .class(namespace, declared)
                .is_some_and(|d| d.is_a(wanted.name.as_str()))
    }

    /// Can the object at `end` be of the class `wanted`? Its path may name a superclass.
    fn may_be(&self, end: &Path, wanted: &Class) -> bool {
        let namespace = end.namespace.as_deref().unwrap_or(&wanted.namespace);
        self.overlap(namespace, wanted, end.class.as_str())
    }

    /// The association instances on one way from the object.
    fn along(&self, ctx: &Context, way: &Way, object: &Path) -> Result<Instances, Error> {
        match self.provider(&way.class) {
            Some(provider) => {
                let found = provider.references(ctx, &way.class, &way.role, object)?;
                Ok(paced(&ctx.pace, found))
            }
            None => Ok(Box::new(std::iter::empty())),
        }
    }

    /// Does this way lead from the object to `end`? A look-up: what has come before needs no memory.
    fn leads(&self, ctx: &Context, way: &Way, object: &Path, end: &Path) -> bool {
        let takes = way.class.property(&way.far).is_some_and(|p| match &p.ty {
            Type::Reference(declared) => self
                .schema
                .class(&way.class.namespace, end.class.as_str())
                .is_some_and(|class| class.is_a(declared.as_str())),
            _ => false,
        });
        let Some(provider) = self.provider(&way.class).filter(|_| takes) else {
            return false;
        };
        let path = Path::new(&way.class.namespace, way.class.name.clone())
            .key(&way.role, object.clone())
            .key(&way.far, end.clone());
        matches!(provider.get(ctx, &way.class, &path), Ok(Some(_)))
    }

    /// The object at an end, if it is still there and of the class wanted.
    fn end(
        &self,
        ctx: &Context,
        end: &Path,
        wanted: Option<&Arc<Class>>,
    ) -> Option<Result<Instance, Error>> {
        match self.find(ctx, end) {
            Ok(found) => wanted
                .is_none_or(|w| found.class().is_a(w.name.as_str()))
                .then_some(Ok(found)),
            Err(error) if error.status == Status::NotFound => None,
            Err(error) => Some(Err(error)),
        }
    }
}
