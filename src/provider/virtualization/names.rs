//! An index of machines by name, so that a query for one ElementName is a lookup and not a scan.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cim::Value;
use crate::cim::query::Equality;
use crate::engine::Machines;
use crate::id::VmId;

/// The ids of the machines of each name, in lower case.
type Index = BTreeMap<String, Vec<VmId>>;

/// The index of the machines that the engine showed last; made anew when definitions have changed.
#[derive(Debug, Default)]
pub(super) struct MachineNames(Mutex<Option<(Arc<Machines>, Arc<Index>)>>);

impl MachineNames {
    /// The machines of that name, in any case.
    pub(super) fn find(&self, machines: &Arc<Machines>, name: &str) -> Vec<VmId> {
        let index = self.index(machines);
        index.get(&lower(name)).cloned().unwrap_or_default()
    }

    fn index(&self, machines: &Arc<Machines>) -> Arc<Index> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, index)) = &*cached
            && Arc::ptr_eq(of, machines)
        {
            return index.clone();
        }
        let mut index = Index::new();
        for (id, machine) in machines.iter() {
            index.entry(lower(&machine.name)).or_default().push(*id);
        }
        let index = Arc::new(index);
        *cached = Some((machines.clone(), index.clone()));
        index
    }
}

/// The text that the property must have, if the query says it.
pub(super) fn text<'q>(wanted: &'q [Equality], property: &str) -> Option<&'q str> {
    wanted.iter().find_map(|equality| match equality {
        Equality::Property(name, Value::String(text)) if *name == *property => Some(&**text),
        _ => None,
    })
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
