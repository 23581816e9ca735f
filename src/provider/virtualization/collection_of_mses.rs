//! `Msvm_VirtualSystemCollection` and `Msvm_ManagementCollection`: groups of machines, groups of groups.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::{Class, Instance, Path};
use crate::inventory::{self, Collection, CollectionKind};
use crate::provider::{Context, Error, Instances, Provider};

use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::deps::Deps;
use super::element::{Element, GROUP_OF_GROUPS, MACHINE_GROUP};
use super::view::View;

/// Serves both classes of groups.
pub(super) struct Groups(pub(super) Deps);

#[async_trait]
impl Provider for Groups {
    fn classes(&self) -> &'static [&'static str] {
        &[MACHINE_GROUP, GROUP_OF_GROUPS]
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let kind = if class.name == *MACHINE_GROUP {
            CollectionKind::Machines
        } else {
            CollectionKind::Collections
        };
        let (class, language) = (class.clone(), ctx.language);
        Ok(Box::new(view.groups(kind).filter_map(move |group| {
            let collection = collection(&view, &group)?;
            Some(instance(
                &class,
                collection,
                gone(&view, collection, language).as_deref(),
            ))
        })))
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        let group = Element::find(&view, class.name.as_str(), path);
        let collection = group.as_ref().and_then(|group| collection(&view, group));
        let made = collection.map(|c| instance(class, c, gone(&view, c, ctx.language).as_deref()));
        made.transpose()
    }
}

fn collection<'a>(view: &'a View, group: &Element) -> Option<&'a Collection> {
    match group {
        Element::Group(id, _) => view.state.collections.get(id).map(Arc::as_ref),
        _ => None,
    }
}

/// That members of it are in the library no more, with their ids.
fn gone(view: &View, collection: &Collection, language: Language) -> Option<String> {
    let away = collection.machines.iter();
    let away = away.filter(|id| !view.observed.machines.contains_key(id));
    // What is there and cannot be read is not gone.
    let gone = away.filter(|id| view.observed.trouble(**id).is_none());
    let ids: Vec<_> = gone.map(ToString::to_string).collect();
    let told = || {
        texts::GROUP_GONE
            .with("ids", ids.join(", "))
            .render(language)
    };
    (!ids.is_empty()).then(told)
}

fn instance(
    class: &Arc<Class>,
    collection: &Collection,
    gone: Option<&str>,
) -> Result<Instance, Error> {
    Instance::new(class)
        .with("Description", gone)?
        .with("CollectionID", collection.id.to_string())?
        .with("ElementName", &*inventory::shown(&collection.name))
        .map_err(Error::from)
}
