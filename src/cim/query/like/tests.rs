//! LIKE against a matcher that tries everything, and what it costs.

use std::cell::Cell;

use proptest::prelude::*;

use super::{Effort, Item, Pattern, Stopped, lower, set};

/// Counts, and never stops.
#[derive(Default)]
struct Counted(Cell<usize>);

impl Effort for Counted {
    fn spend(&self, steps: usize) -> Result<(), Stopped> {
        self.0.set(self.0.get() + steps);
        Ok(())
    }
}

/// Whether the text fits, and what it has cost to find out.
fn matches(pattern: &Pattern, text: &str) -> (bool, usize) {
    let counted = Counted::default();
    let fits = pattern.matches(text, &counted).unwrap();
    (fits, counted.0.get())
}

/// Reads pattern and text side by side and goes back wherever a `%` could have taken more.
fn naive(pattern: &str, text: &str, fold: bool) -> Option<bool> {
    enum Own {
        Any,
        One(Item),
    }
    let folded = |text: &str| if fold { lower(text) } else { text.to_owned() };
    let (pattern, text) = (folded(pattern), folded(text));
    let mut chars = pattern.chars();
    let mut items = Vec::new();
    while let Some(c) = chars.next() {
        items.push(match c {
            '%' => Own::Any,
            '_' => Own::One(Item::Any),
            '[' => {
                let (item, rest) = set(chars.as_str())?;
                chars = rest.chars();
                Own::One(item)
            }
            c => Own::One(Item::Char(c)),
        });
    }
    fn fits(items: &[Own], text: &[char]) -> bool {
        match items.split_first() {
            None => text.is_empty(),
            Some((Own::Any, rest)) => (0..=text.len()).any(|n| fits(rest, &text[n..])),
            Some((Own::One(item), rest)) => text.split_first().is_some_and(|(c, behind)| {
                item.ranges().iter().any(|(a, b)| (a..=b).contains(&c)) && fits(rest, behind)
            }),
        }
    }
    Some(fits(&items, &text.chars().collect::<Vec<_>>()))
}

/// A set as it was read before its ranges were put in order: element for element.
fn in_set(inner: &str, c: char) -> bool {
    let (negated, inner) = inner
        .strip_prefix('^')
        .map_or((false, inner), |i| (true, i));
    let chars: Vec<char> = inner.chars().collect();
    let (mut found, mut at) = (false, 0);
    while at < chars.len() {
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-' | '='), Some(to)) => {
                found |= (chars[at]..=*to).contains(&c);
                at += 3;
            }
            _ => {
                found |= chars[at] == c;
                at += 1;
            }
        }
    }
    found != negated
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_pattern_judges_as_one_that_tries_everything(
        pattern in "[abA%_]{0,9}(\\[\\^?[ab][abc-]{0,3}\\])?[ab%_]{0,6}",
        text in "[abcAB]{0,14}",
        fold: bool,
    ) {
        let compiled = Pattern::read(&pattern, fold).map(|p| matches(&p, &text).0);
        prop_assert_eq!(compiled, naive(&pattern, &text, fold));
    }

    #[test]
    fn a_set_holds_what_its_elements_hold(inner in "\\^?[a-f][a-f-]{0,8}", c in "[a-h-]") {
        let c = c.chars().next().unwrap();
        let pattern = Pattern::read(&format!("[{inner}]"), false).unwrap();
        prop_assert_eq!(matches(&pattern, &c.to_string()).0, in_set(&inner, c));
        // The same as part of something that is searched.
        let searched = Pattern::read(&format!("%[{inner}]_%"), false).unwrap();
        prop_assert_eq!(matches(&searched, &format!("{c}x")).0, in_set(&inner, c));
    }

    #[test]
    fn long_parts_are_judged_across_their_blocks(
        before in 0_usize..200, length in 1_usize..200, text in 0_usize..500, odd in 0_usize..200,
    ) {
        let part: String = (0..length).map(|n| if n == odd { 'b' } else { '_' }).collect();
        let pattern = Pattern::read(&format!("%{part}%"), false).unwrap();
        let text: String = (0..text).map(|n| if n % 97 == before % 97 { 'b' } else { 'a' }).collect();
        let fits = match odd < length {
            true => (0..(text.len() + 1).saturating_sub(length)).any(|n| text.as_bytes()[n + odd] == b'b'),
            false => length <= text.len(),
        };
        prop_assert_eq!(matches(&pattern, &text).0, fits);
    }
}

#[test]
fn a_text_costs_no_more_than_its_length_for_each_64_positions() {
    let text = "a".repeat(20_000);
    for (pattern, most) in [
        ("%a".repeat(5_000), 4),
        (format!("{}b", "%a".repeat(5_000)), 4),
        (format!("%{}b%", "a".repeat(10_000)), 4),
        (format!("%{}b%c", "ab".repeat(5_000)), 4),
        (format!("{}%", "_".repeat(10_000)), 4),
        (format!("%{}b%", "_".repeat(63)), 4),
        (format!("%{}[b-c]%", "a".repeat(255)), 6),
        // Longer than the text: not looked at.
        (format!("%{}[b-c]%", "a".repeat(30_000)), 1),
    ] {
        let (_, steps) = matches(&Pattern::read(&pattern, true).unwrap(), &text);
        assert!(
            steps <= most * text.len(),
            "{steps} for {} characters",
            pattern.len()
        );
    }
}

#[test]
fn a_pattern_takes_room_in_the_order_of_its_length() {
    let many = |part: &str| Pattern::read(&format!("%{}_%", part.repeat(1000)), false).unwrap();
    let every: String = ('\u{4e00}'..'\u{7700}').collect();
    for pattern in [
        many("[a-zb-yc-x^]"),
        many(&"[a-z]".repeat(2)),
        Pattern::read(&format!("%{every}_%"), false).unwrap(),
    ] {
        for part in &pattern.middle {
            let super::Part::Mixed(part) = part else {
                panic!("has a `_`")
            };
            let entries: usize = part.blocks.iter().map(|b| b.0.len()).sum();
            assert!(
                entries <= 2 * part.length + 2 * part.blocks.len(),
                "{entries}"
            );
        }
    }
}

/// A condition lives as long as the enumeration that it is for.
#[test]
fn a_character_of_a_pattern_takes_little_room() {
    assert!(size_of::<Item>() <= 24, "{}", size_of::<Item>());
    let pattern = Pattern::read(&"_".repeat(1000), false).unwrap();
    assert!(pattern.first.iter().all(|item| matches!(item, Item::Any)));
    assert!(matches(&pattern, &"x".repeat(1000)).0);
    assert!(!matches(&pattern, &"x".repeat(999)).0);
}
