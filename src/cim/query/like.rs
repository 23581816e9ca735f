//! Patterns of LIKE: `%` any text, `_` one character, `[a-z]`, `[abc]` and `[^a]` one character of a set.

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    items: Vec<Item>,
    fold: bool,
}

#[derive(Debug, Clone)]
enum Item {
    /// `%`
    Any,
    /// `_`
    One,
    Char(char),
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Reads a pattern; with `fold` case does not count. `None` if a `[` is not closed.
    pub(super) fn read(text: &str, fold: bool) -> Option<Self> {
        let folded = if fold { lower(text) } else { text.to_owned() };
        let mut chars = folded.chars();
        let mut items = Vec::new();
        while let Some(c) = chars.next() {
            items.push(match c {
                // Two in a row match what one does.
                '%' if matches!(items.last(), Some(Item::Any)) => continue,
                '%' => Item::Any,
                '_' => Item::One,
                '[' => {
                    let (inner, rest) = set(chars.as_str())?;
                    chars = rest.chars();
                    inner
                }
                c => Item::Char(c),
            });
        }
        Some(Self { items, fold })
    }

    /// The pattern of every text that begins with this one or, `anywhere`, holds it; case counts.
    pub(super) fn of_part(text: &str, anywhere: bool) -> Self {
        let before = anywhere.then_some(Item::Any);
        let chars = text.chars().map(Item::Char);
        Self {
            items: before.into_iter().chain(chars).chain([Item::Any]).collect(),
            fold: false,
        }
    }

    /// Does the whole text fit? Takes at most the product of the two lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        let folded = if self.fold {
            lower(text)
        } else {
            text.to_owned()
        };
        let chars: Vec<char> = folded.chars().collect();
        let (mut item, mut at) = (0, 0);
        // Where to go on if what follows the last `%` does not fit.
        let mut retry: Option<(usize, usize)> = None;
        while let Some(c) = chars.get(at) {
            match self.items.get(item) {
                Some(Item::Any) => {
                    retry = Some((item, at));
                    item += 1;
                }
                Some(one) if one.fits(*c) => {
                    item += 1;
                    at += 1;
                }
                _ => {
                    let Some((any, from)) = retry else {
                        return false;
                    };
                    retry = Some((any, from + 1));
                    (item, at) = (any + 1, from + 1);
                }
            }
        }
        let rest = self.items.get(item..).unwrap_or_default();
        rest.iter().all(|i| matches!(i, Item::Any))
    }
}

impl Item {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Char(own) => *own == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

/// The set behind `[`, and what follows its `]`. A `]` that comes first belongs to the set.
fn set(text: &str) -> Option<(Item, &str)> {
    let (negated, text) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let first = text.chars().next()?;
    let (_, tail) = text.split_at_checked(first.len_utf8())?;
    let (tail, rest) = tail.split_once(']')?;
    let inner: Vec<char> = std::iter::once(first).chain(tail.chars()).collect();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(from) = inner.get(at) {
        match (inner.get(at + 1), inner.get(at + 2)) {
            (Some('-' | '='), Some(to)) => {
                ranges.push((*from, *to));
                at += 3;
            }
            _ => {
                ranges.push((*from, *from));
                at += 1;
            }
        }
    }
    Some((Item::Set { negated, ranges }, rest))
}

/// The text without case.
pub(super) fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
