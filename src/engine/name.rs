//! The names of machines, as far as their definitions give one. What is wrong with anything else does not matter.

use std::path::Path;

use serde::Deserialize;

use crate::engine::definition::DEFINITION;
use crate::held;
use crate::id::VmId;
use crate::inventory;

/// The name that a definition gives machine `id`, whatever else is wrong with it; `None` if none can be read there.
pub(crate) fn name_in(folder: &Path, id: VmId) -> Option<String> {
    name_of(&held::read_text(&folder.join(DEFINITION)).ok()?, id)
}

fn name_of(text: &str, id: VmId) -> Option<String> {
    #[derive(Deserialize)]
    struct Outline {
        name: String,
        id: Option<String>,
    }
    let outline = |text: &str| toml::from_str::<Outline>(text).ok();
    // A mistake in another line leaves that of the name what it is.
    let mut lines = text
        .lines()
        .take_while(|line| !line.trim_start().starts_with('['));
    let it = outline(text).or_else(|| lines.find_map(outline))?;
    let is_own = it.id.is_none_or(|own| own.parse() == Ok(id));
    // No machine can have such a name, so none may be in the way of that of another.
    let is_name = !it.name.trim().is_empty() && !inventory::is_too_long(&it.name);
    (is_own && is_name).then_some(it.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8A3D0000-0000-0000-0000-0000000000FF";

    #[test]
    fn the_name_of_a_machine_is_read_whatever_else_is_wrong_in_its_definition() {
        let id = format!("id = \"{ID}\"");
        let disk = "[[disk]]\nname = \"other\"\n";
        for (text, name) in [
            (format!("{id}\nname = \"web\"\ncolour = 3\n"), Some("web")),
            ("name = \"web\"".to_owned(), Some("web")),
            (
                format!("format = \n{id}\n  name='web' # mine\n{disk}"),
                Some("web"),
            ),
            (format!("{id}\nname = \"web\n{disk}"), None),
            (format!("{id}\n{disk}"), None),
            (format!("{}\nname = \"web\"", id.replace("FF", "EE")), None),
            ("name = \" \"".to_owned(), None),
            (format!("name = \"{}\"", "a".repeat(257)), None),
            (String::new(), None),
        ] {
            let found = name_of(&text, ID.parse().unwrap());
            assert_eq!(found.as_deref(), name, "{text}");
        }
    }
}
