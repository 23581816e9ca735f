//! What a word of the command line names: an id, a name, or the beginning of an id.

use crate::audit::SHORTEST;

use super::failure::Failure;
use super::output::{count, one_line};

/// The one thing that is meant by `wanted`; `None` if nothing is. An id counts before a name, and a name before the
/// beginning of an id. `of` gives id and name, `word` is what such a thing is called.
///
/// # Errors
/// Several are meant; the message lists their ids.
pub(super) fn pick<'a, T>(
    all: &'a [T],
    wanted: &str,
    word: &str,
    of: impl Fn(&T) -> (String, String),
) -> Result<Option<&'a T>, Failure> {
    let id = wanted.trim_matches(['{', '}']);
    let begins = id.len() >= SHORTEST && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let (mut named, mut begun) = (Vec::new(), Vec::new());
    for one in all {
        let (its, name) = of(one);
        if its.eq_ignore_ascii_case(id) {
            return Ok(Some(one));
        }
        let beginning = its.get(..id.len());
        if name == wanted && !name.is_empty() {
            named.push((its, one));
        } else if begins && beginning.is_some_and(|b| b.eq_ignore_ascii_case(id)) {
            begun.push((its, one));
        }
    }
    let (found, how) = match named.is_empty() {
        false => (named, "is the name of"),
        true => (begun, "begins the ids of"),
    };
    match found.as_slice() {
        [] => Ok(None),
        [(_, one)] => Ok(Some(one)),
        several => {
            let ids: Vec<_> = several.iter().map(|(id, _)| id.as_str()).collect();
            Err(Failure::failed(format_args!(
                "`{}` {how} {}; give the id of one: {}",
                one_line(wanted),
                count(ids.len(), word),
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_before_a_name_and_a_name_before_the_beginning_of_an_id() {
        let all = [
            ("8A3D0000-0000-0000-0000-000000000001", "web"),
            ("8A3D0000-0000-0000-0000-000000000002", "db"),
            ("8A3E0000-0000-0000-0000-000000000003", "db"),
            ("00000000-0000-0000-0000-000000000004", "8a3e"),
        ];
        let of = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        let found = |wanted| pick(&all, wanted, "thing", of).map(|it| it.map(|it| it.0));
        assert_eq!(found("web"), Ok(Some(all[0].0)));
        assert_eq!(
            found("{8a3d0000-0000-0000-0000-000000000002}"),
            Ok(Some(all[1].0))
        );
        assert_eq!(found("8a3e"), Ok(Some(all[3].0)));
        assert_eq!(found("8A3E0"), Ok(Some(all[2].0)));
        assert_eq!(found("0000"), Ok(Some(all[3].0)));
        assert_eq!(found("000"), Ok(None));
        assert_eq!(found("none"), Ok(None));
        for (wanted, how) in [
            ("db", "is the name of 2 things"),
            ("8a3d", "begins the ids of 2 things"),
        ] {
            let message = found(wanted).unwrap_err().message;
            assert!(
                message.contains(how) && message.contains(all[1].0),
                "{message}"
            );
        }
    }
}
