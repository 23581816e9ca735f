//! What an operation is about: sets, collections, machines, a directory, by id and by the name of that time.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// So many machines are named in one line of a log; of the others their number is told.
const NAMED: usize = 32;

/// A thing by its id and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its name at that time; empty if it had none, or was not there.
    pub name: String,
}

/// The shortest beginning of an id that counts as one, characters.
pub const SHORTEST: usize = 4;

impl Named {
    /// A thing.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers give ids and references to ids alike"
    )]
    pub fn new(id: impl ToString, name: &str) -> Self {
        Self {
            id: id.to_string(),
            name: name.to_owned(),
        }
    }

    /// Is this its name, its id in any case of letters, or the beginning of that?
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        let id = wanted.trim_matches(['{', '}']);
        let begins = self
            .id
            .get(..id.len())
            .is_some_and(|b| b.eq_ignore_ascii_case(id));
        let is_enough = id.len() >= SHORTEST || id.len() == self.id.len();
        self.name == wanted || begins && is_enough
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Snapshot sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Named>,
    /// Collections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<Named>,
    /// Machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Named>,
    /// A folder of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// So many machines more, which are not named here.
    #[serde(rename = "moreMachines", skip_serializing_if = "is_zero")]
    pub more: usize,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
const fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl About {
    /// A set.
    #[must_use]
    pub fn set(mut self, id: impl Display, name: &str) -> Self {
        add(&mut self.sets, Named::new(id, name));
        self
    }

    /// A collection.
    #[must_use]
    pub fn collection(mut self, id: impl Display, name: &str) -> Self {
        add(&mut self.collections, Named::new(id, name));
        self
    }

    /// A machine.
    #[must_use]
    pub fn machine(mut self, id: impl Display, name: &str) -> Self {
        add(&mut self.machines, Named::new(id, name));
        self
    }

    /// Machines that the other list may not have yet; for long lists.
    #[must_use]
    pub fn machines<I: Display>(mut self, all: impl IntoIterator<Item = (I, String)>) -> Self {
        let all = all.into_iter();
        self.machines.extend(all.map(|(id, name)| Named {
            id: id.to_string(),
            name,
        }));
        self
    }

    /// A folder.
    #[must_use]
    pub fn directory(mut self, path: impl Display) -> Self {
        self.directory = Some(path.to_string());
        self
    }

    /// With what the other names.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (list, more) in [
            (&mut self.sets, &other.sets),
            (&mut self.collections, &other.collections),
        ] {
            for it in more {
                add(list, it.clone());
            }
        }
        if self.machines.is_empty() {
            self.machines.clone_from(&other.machines);
        } else {
            let known: BTreeSet<_> = self.machines.iter().map(|m| m.id.clone()).collect();
            let fresh = other.machines.iter().filter(|m| !known.contains(&m.id));
            self.machines.extend(fresh.cloned());
        }
        self.directory = self.directory.or_else(|| other.directory.clone());
        self
    }

    /// Is nothing named?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As it stands in one line: not more machines than a line should hold.
    #[must_use]
    pub fn brief(&self) -> Self {
        let mut brief = self.clone();
        brief.machines.truncate(NAMED);
        brief.more = self.more + self.machines.len() - brief.machines.len();
        brief
    }
}

/// A thing that was there at the start and at the end is named once, by the last name that it had.
fn add(list: &mut Vec<Named>, it: Named) {
    match list.iter_mut().find(|known| known.id == it.id) {
        Some(known) if !it.name.is_empty() => *known = it,
        Some(_) => {}
        None => list.push(it),
    }
}

/// Names of things: `web, db`; one without a name by its id.
#[must_use]
pub fn names(list: &[Named]) -> String {
    let name = |it: &Named| match it.name.is_empty() {
        true => it.id.clone(),
        false => it.name.clone(),
    };
    list.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_named_once_and_a_line_holds_only_so_many_machines() {
        let about = About::default()
            .set("S", "")
            .set("S", "nightly")
            .set("S", "");
        assert_eq!(about.sets, [Named::new("S", "nightly")]);
        let about = about.machines((0..40).map(|n| (n, format!("m{n}"))));
        let brief = about.brief();
        assert_eq!((brief.machines.len(), brief.more), (NAMED, 40 - NAMED));
        assert_eq!(serde_json::to_string(&About::default()).unwrap(), "{}");
        assert!(about.sets[0].is("s") && about.sets[0].is("nightly") && !about.sets[0].is("N"));
        let long = Named::new("8A3D0000-0001", "web");
        assert!(
            ["{8a3d}", "8A3D0000-0", "web"]
                .iter()
                .all(|wanted| long.is(wanted))
        );
        assert!(
            ["8a3", "", "{}", "8a3e", "8A3D0000-00011"]
                .iter()
                .all(|wanted| !long.is(wanted))
        );
        assert_eq!(names(&brief.machines[..2]), "m0, m1");
    }
}
