//! `Msvm_VirtualSystemCollection` and `Msvm_ManagementCollection`: groups of machines, groups of groups.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::{Class, Instance, Path};
use crate::inventory::{self, Collection, CollectionKind};
use crate::provider::{Context, Error, Instances, Provider};

use super::Deps;
use super::element::{Element, GROUP_OF_GROUPS, MACHINE_GROUP};
use super::view::View;

/// Serves both classes of groups.
pub(super) struct Groups(pub(super) Deps);

#[async_trait]
impl Provider for Groups {
    fn classes(&self) -> &'static [&'static str] {
        &[MACHINE_GROUP, GROUP_OF_GROUPS]
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let kind = if class.name == *MACHINE_GROUP {
            CollectionKind::Machines
        } else {
            CollectionKind::Collections
        };
        let class = class.clone();
        Ok(Box::new(view.groups(kind).filter_map(move |group| {
            let collection = collection(&view, &group)?;
            Some(instance(&class, collection))
        })))
    }

    fn get(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        let group = Element::find(&view, class.name.as_str(), path);
        let collection = group.as_ref().and_then(|group| collection(&view, group));
        collection.map(|c| instance(class, c)).transpose()
    }
}

fn collection<'a>(view: &'a View, group: &Element) -> Option<&'a Collection> {
    match group {
        Element::Group(id, _) => view.state.collections.get(id).map(Arc::as_ref),
        _ => None,
    }
}

fn instance(class: &Arc<Class>, collection: &Collection) -> Result<Instance, Error> {
    Instance::new(class)
        .with("CollectionID", collection.id.to_string())?
        .with("ElementName", &*inventory::shown(&collection.name))
        .map_err(Error::from)
}
