//! Patterns of LIKE: `%` any text, `_` one character, `[a-z]`, `[abc]` and `[^a]` one character of a set.

use super::effort::{Effort, Stopped};

/// Judges one text after another; made once for a query.
///
/// The parts between the `%` are searched from left to right, each from where the one before ended, so no character
/// of the text is passed twice. A part of plain characters is searched by Knuth, Morris and Pratt in the sum of both
/// lengths; one with `_` or a set by its positions as bits (Shift-And), 64 of them a step. A text shorter than what
/// the pattern needs at least is not looked at.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// The whole text, where there is no `%`; else what it begins with.
    first: Box<[Item]>,
    /// What stands between two `%`; none is empty.
    middle: Vec<Part>,
    /// What it ends with, where there is a `%`.
    last: Option<Box<[Item]>>,
    /// The shortest text that can fit, in characters.
    least: usize,
    fold: bool,
}

/// One character of a pattern.
#[derive(Debug, Clone)]
enum Item {
    Char(char),
    /// `_`
    Any,
    /// A set: whatever lies in one of the ranges. INVARIANT: sorted, and none touches another.
    Within(Box<[(char, char)]>),
}

/// Something to be searched.
#[derive(Debug, Clone)]
enum Part {
    Plain(Plain),
    Mixed(Mixed),
}

/// Plain characters, and for each beginning of them the longest of its ends that is a beginning too.
#[derive(Debug, Clone)]
struct Plain {
    chars: Vec<char>,
    borders: Vec<usize>,
}

/// The positions of a part in blocks of 64.
#[derive(Debug, Clone)]
struct Mixed {
    length: usize,
    blocks: Vec<Block>,
}

/// Which of 64 positions take a character: from each of these characters on, the bits, up to the next one.
#[derive(Debug, Clone)]
struct Block(Vec<(char, u64)>);

/// What a text costs: characters looked at, each once for 64 positions. It is spent while the text is looked at, so that
/// a long one ends in time.
struct Cost<'e> {
    effort: &'e dyn Effort,
    /// Not spent yet.
    due: usize,
    /// The time is up.
    stopped: bool,
}

/// So many steps are spent at once.
const PORTION: usize = 4096;

impl Cost<'_> {
    /// `None` once the time is up.
    fn add(&mut self, steps: usize) -> Option<()> {
        self.due = self.due.saturating_add(steps);
        if self.due >= PORTION {
            let due = std::mem::take(&mut self.due);
            self.stopped |= self.effort.spend(due).is_err();
        }
        (!self.stopped).then_some(())
    }
}

impl Pattern {
    /// Reads a pattern; with `fold` case does not count. `None` if a `[` is not closed.
    pub(super) fn read(text: &str, fold: bool) -> Option<Self> {
        let folded = if fold { lower(text) } else { text.to_owned() };
        let mut chars = folded.chars();
        let mut parts = vec![Vec::new()];
        while let Some(c) = chars.next() {
            let item = match c {
                '%' => {
                    parts.push(Vec::new());
                    continue;
                }
                '_' => Item::Any,
                '[' => {
                    let (inner, rest) = set(chars.as_str())?;
                    chars = rest.chars();
                    inner
                }
                c => Item::Char(c),
            };
            parts.last_mut()?.push(item);
        }
        Some(Self::of(parts, fold))
    }

    /// The pattern of every text that begins with this one or, `anywhere`, holds it; case counts.
    pub(super) fn of_part(text: &str, anywhere: bool) -> Self {
        let part = text.chars().map(Item::Char).collect();
        let before = anywhere.then(Vec::new);
        Self::of(
            before.into_iter().chain([part, Vec::new()]).collect(),
            false,
        )
    }

    /// From what stands before, between and behind the `%`.
    fn of(mut parts: Vec<Vec<Item>>, fold: bool) -> Self {
        let least = parts.iter().map(Vec::len).sum();
        let last = (parts.len() > 1).then(|| parts.pop()).flatten();
        let last = last.map(Vec::into_boxed_slice);
        let mut parts = parts.into_iter();
        Self {
            first: parts.next().unwrap_or_default().into_boxed_slice(),
            middle: parts
                .filter(|p| !p.is_empty())
                .map(|p| Part::new(&p))
                .collect(),
            last,
            least,
            fold,
        }
    }

    /// Does the whole text fit?
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn matches(&self, text: &str, effort: &dyn Effort) -> Result<bool, Stopped> {
        effort.spend(text.len())?;
        let chars: Vec<char> = match self.fold {
            true => text.chars().flat_map(char::to_lowercase).collect(),
            false => text.chars().collect(),
        };
        let mut cost = Cost {
            effort,
            due: 0,
            stopped: false,
        };
        let fits = self.fits(&chars, &mut cost).is_some();
        if cost.stopped {
            return Err(Stopped);
        }
        effort.spend(cost.due)?;
        Ok(fits)
    }

    fn fits(&self, chars: &[char], cost: &mut Cost<'_>) -> Option<()> {
        if chars.len() < self.least {
            return None;
        }
        let (head, rest) = chars.split_at_checked(self.first.len())?;
        fit(&self.first, head, cost)?;
        let Some(last) = &self.last else {
            return rest.is_empty().then_some(());
        };
        let (mut rest, tail) = rest.split_at_checked(rest.len().checked_sub(last.len())?)?;
        fit(last, tail, cost)?;
        for part in &self.middle {
            rest = rest.get(part.end_in(rest, cost)?..)?;
        }
        Some(())
    }
}

/// Does each character fit its item?
fn fit(items: &[Item], chars: &[char], cost: &mut Cost<'_>) -> Option<()> {
    cost.add(chars.len())?;
    let mut pairs = items.iter().zip(chars);
    pairs.all(|(item, c)| item.takes(*c)).then_some(())
}

impl Item {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Within(ranges) => {
                let behind = ranges.partition_point(|(from, _)| *from <= c);
                let range = behind.checked_sub(1).and_then(|n| ranges.get(n));
                range.is_some_and(|(_, to)| c <= *to)
            }
        }
    }

    /// The first and the last character of each range that fits.
    fn ranges(&self) -> Vec<(char, char)> {
        match self {
            Self::Char(own) => vec![(*own, *own)],
            Self::Any => vec![(char::MIN, char::MAX)],
            Self::Within(ranges) => ranges.to_vec(),
        }
    }
}

impl Part {
    fn new(items: &[Item]) -> Self {
        let plain = items.iter().map(|item| match item {
            Item::Char(c) => Some(*c),
            Item::Any | Item::Within(_) => None,
        });
        match plain.collect() {
            Some(chars) => Self::Plain(Plain::new(chars)),
            None => Self::Mixed(Mixed::new(items)),
        }
    }

    /// Where its first occurrence ends.
    fn end_in(&self, chars: &[char], cost: &mut Cost<'_>) -> Option<usize> {
        match self {
            Self::Plain(part) => part.end_in(chars, cost),
            Self::Mixed(part) => part.end_in(chars, cost),
        }
    }
}

impl Plain {
    fn new(chars: Vec<char>) -> Self {
        let mut plain = Self {
            borders: vec![0],
            chars,
        };
        for n in 1..plain.chars.len() {
            let before = plain.borders.last().copied().unwrap_or_default();
            let next = plain.chars.get(n).copied();
            let border = next.map_or(0, |c| plain.after(before, c, &mut 0));
            plain.borders.push(border);
        }
        plain
    }

    /// How much of the part stands at the end of the text, if `had` of it stood there before `c` came.
    fn after(&self, mut had: usize, c: char, steps: &mut usize) -> usize {
        loop {
            *steps += 1;
            if self.chars.get(had) == Some(&c) {
                return had + 1;
            }
            let Some(last) = had.checked_sub(1) else {
                return 0;
            };
            had = self.borders.get(last).copied().unwrap_or_default();
        }
    }

    fn end_in(&self, chars: &[char], cost: &mut Cost<'_>) -> Option<usize> {
        let mut had = 0;
        for (at, c) in chars.iter().enumerate() {
            let mut steps = 0;
            had = self.after(had, *c, &mut steps);
            cost.add(steps)?;
            if had == self.chars.len() {
                return Some(at + 1);
            }
        }
        None
    }
}

impl Mixed {
    fn new(items: &[Item]) -> Self {
        Self {
            length: items.len(),
            blocks: items.chunks(64).map(Block::new).collect(),
        }
    }

    fn end_in(&self, chars: &[char], cost: &mut Cost<'_>) -> Option<usize> {
        if chars.len() < self.length {
            return None;
        }
        // Bit n: what came last fits the first n + 1 positions.
        let mut live = vec![0_u64; self.blocks.len()];
        let last = (self.length - 1) % 64;
        for (at, c) in chars.iter().enumerate() {
            cost.add(self.blocks.len())?;
            let mut carry = 1;
            for (bits, block) in live.iter_mut().zip(&self.blocks) {
                let out = *bits >> 63;
                *bits = (*bits << 1 | carry) & block.takes(*c);
                carry = out;
            }
            if live.last().is_some_and(|bits| bits >> last & 1 == 1) {
                return Some(at + 1);
            }
        }
        None
    }
}

impl Block {
    fn new(items: &[Item]) -> Self {
        let mut changes = Vec::new();
        for (bit, item) in (0_u32..).zip(items) {
            for (from, to) in item.ranges() {
                changes.push((from, 1_u64 << bit));
                changes.extend(next(to).map(|behind| (behind, 1_u64 << bit)));
            }
        }
        changes.sort_unstable();
        let mut from: Vec<(char, u64)> = Vec::new();
        let mut bits = 0;
        for (c, change) in changes {
            // The ranges of one item do not touch: the second change of a bit ends what the first began.
            bits ^= change;
            match from.last_mut() {
                Some(entry) if entry.0 == c => entry.1 = bits,
                _ => from.push((c, bits)),
            }
        }
        Self(from)
    }

    fn takes(&self, c: char) -> u64 {
        let behind = self.0.partition_point(|(from, _)| *from <= c);
        let entry = behind.checked_sub(1).and_then(|n| self.0.get(n));
        entry.map_or(0, |(_, bits)| *bits)
    }
}

/// The character behind this one.
fn next(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

/// The character before this one.
fn previous(c: char) -> Option<char> {
    (char::MIN..=c).nth_back(1)
}

/// The ranges in order, those that touch as one; with `negated` what lies between them. One that ends before it begins
/// holds nothing.
fn in_order(mut ranges: Vec<(char, char)>, negated: bool) -> Vec<(char, char)> {
    ranges.retain(|(from, to)| from <= to);
    ranges.sort_unstable();
    let mut merged: Vec<(char, char)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1 || next(last.1) == Some(from) => last.1 = to.max(last.1),
            _ => merged.push((from, to)),
        }
    }
    if !negated {
        return merged;
    }
    let mut between = Vec::new();
    let mut from = Some(char::MIN);
    for (first, last) in merged {
        if let (Some(from), Some(to)) = (from, previous(first))
            && from <= to
        {
            between.push((from, to));
        }
        from = next(last);
    }
    between.extend(from.map(|from| (from, char::MAX)));
    between
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
    Some((Item::Within(in_order(ranges, negated).into()), rest))
}

/// The text without case.
pub(super) fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
