//! `ASSOCIATORS OF` and `REFERENCES OF`: what an object is associated with.

use std::sync::Arc;

use crate::cim::Instance;
use crate::cim::query::{Related, RelatedKind};
use crate::provider::{Context, Error, Instances, Registry, Traversal};

/// The instances that the query asks for.
///
/// # Errors
/// [`Error`]; there is no such object.
pub(super) fn instances(
    registry: &Arc<Registry>,
    context: &Context,
    related: &Related,
) -> Result<Instances, Error> {
    let text = |name: &Option<crate::cim::Name>| name.as_ref().map(|n| n.as_str().to_owned());
    let traversal = match related.kind {
        RelatedKind::Associators => Traversal {
            association: related.assoc_class.clone(),
            role: text(&related.role),
            result: related.result_class.clone(),
            result_role: text(&related.result_role),
            association_qualifier: text(&related.required_assoc_qualifier),
        },
        // There the result is the association itself.
        RelatedKind::References => Traversal {
            association: related.result_class.clone(),
            role: text(&related.role),
            ..Traversal::default()
        },
    };
    let found = match related.kind {
        RelatedKind::Associators => registry.associators(context, &related.object, &traversal),
        RelatedKind::References => registry.references(context, &related.object, &traversal),
    }?;
    let (qualifier, keys_only) = (related.required_qualifier.clone(), related.keys_only);
    let wanted = move |item: &Result<Instance, Error>| match (&qualifier, item) {
        (Some(qualifier), Ok(found)) => {
            let class = found.class();
            class.qualifiers.get(qualifier.as_str()).is_some()
        }
        _ => true,
    };
    let keys = move |item: Result<Instance, Error>| match item {
        Ok(instance) if keys_only => keys(&instance),
        other => other,
    };
    Ok(Box::new(found.filter(wanted).map(keys)))
}

/// The instance with nothing but its keys.
fn keys(instance: &Instance) -> Result<Instance, Error> {
    let mut keys = Instance::new(instance.class());
    for (property, value) in instance.values() {
        let value = match property.key {
            true => value.clone(),
            false => crate::cim::Value::Null,
        };
        keys.set(property.name.as_str(), value)?;
    }
    Ok(keys)
}
