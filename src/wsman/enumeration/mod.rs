//! The answers of WS-Enumeration: pages of items that never exceed what the client can take
//! (rules E-3 to E-8, E-11, E-12, E-14, H-20).

use crate::cim::query::Column;
use crate::cim::{Class, Instance, InstanceError};
use crate::framing::Charset;
use crate::soap::{Reply, ReplyHeaders, Vocabulary};
use crate::wscim::{self, Style, epr};
use crate::xml::Writer;

use crate::wsman::request::Mode;

/// How much a page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most items.
    pub items: usize,
    /// Most octets of the whole envelope, in the character set of the answer.
    pub octets: usize,
    /// Most characters of the items (`n:MaxCharacters`), if the client set a limit.
    pub characters: Option<usize>,
    /// The character set of the answer.
    pub charset: Charset,
}

/// Which answer a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// `n:EnumerateResponse`, with items only where the client asked for them.
    Enumerate { optimized: bool },
    /// `n:PullResponse`.
    Pull,
}

/// An answer under construction. Its frame is counted from the start with everything it may have.
#[derive(Debug)]
pub struct Page {
    start: Reply,
    body: Body,
    count: usize,
    budget: Budget,
    octets: usize,
    characters: usize,
}

/// What goes between the start of the envelope and its end.
#[derive(Debug)]
struct Body {
    answer: Answer,
    context: String,
    expires: Option<String>,
    items: Writer,
}

/// `w:TotalItemsCountEstimate`, where the client wants it (rule H-27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Not asked for.
    Unasked,
    /// Asked for, but not known.
    Unknown,
    /// So many.
    Known(u64),
}

impl Page {
    /// The answer to an Enumerate. `context` is what the enumeration is called if it goes on; `expires` is
    /// the granted lifetime as text, if the client asked for one.
    #[must_use]
    pub fn enumerate(
        headers: &ReplyHeaders<'_>,
        optimized: bool,
        context: &str,
        expires: Option<&str>,
        count: Count,
        budget: Budget,
    ) -> Self {
        let answer = Answer::Enumerate { optimized };
        Self::new(answer, headers, context, expires, count, budget)
    }

    /// The answer to a Pull.
    #[must_use]
    pub fn pull(headers: &ReplyHeaders<'_>, context: &str, count: Count, budget: Budget) -> Self {
        Self::new(Answer::Pull, headers, context, None, count, budget)
    }

    fn new(
        answer: Answer,
        headers: &ReplyHeaders<'_>,
        context: &str,
        expires: Option<&str>,
        count: Count,
        budget: Budget,
    ) -> Self {
        let start = Reply::with_headers(headers, Vocabulary::Enumeration, |w| match count {
            Count::Unasked => {}
            Count::Unknown => w.empty(
                "w",
                "TotalItemsCountEstimate",
                &[("xmlns:xsi", crate::soap::ns::XSI), ("xsi:nil", "true")],
            ),
            Count::Known(n) => w.element("w", "TotalItemsCountEstimate", &[], &n.to_string()),
        });
        let body = Body {
            answer,
            context: context.to_owned(),
            expires: expires.map(str::to_owned),
            items: Writer::with_capacity(8192),
        };
        let mut page = Self {
            body,
            start,
            count: 0,
            budget,
            octets: 0,
            characters: 0,
        };
        // The frame that goes on is the longer one: it holds the context, the other only an end mark.
        let mut frame = Writer::new();
        page.body.write(&mut frame, true);
        page.octets = budget.charset.mark()
            + page.measure(page.start.as_str())
            + page.measure(frame.as_str())
            + page.measure(Reply::TAIL);
        page
    }

    /// Does a page without a single item exceed the budget? Then nothing can be answered.
    #[must_use]
    pub fn frame_exceeds(&self) -> bool {
        self.octets > self.budget.octets
    }

    /// Is the page as full as the client wants it?
    #[must_use]
    pub fn is_full(&self) -> bool {
        let wanted = !matches!(self.body.answer, Answer::Enumerate { optimized: false });
        !wanted || self.count >= self.budget.items
    }

    /// Is there no item on the page?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an item if it fits, and tells whether it did. One that does not fit on an empty page never will.
    ///
    /// # Errors
    /// What `write` raises; the page is as before then.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Writer) -> Result<(), E>) -> Result<bool, E> {
        let items = &mut self.body.items;
        let before = items.len();
        let written = write(items);
        let item = self.body.items.as_str().get(before..).unwrap_or_default();
        let octets = self.octets + self.measure(item);
        let characters = match self.budget.characters {
            Some(_) => self.characters + item.chars().count(),
            None => 0,
        };
        let fits = octets <= self.budget.octets
            && self.budget.characters.is_none_or(|max| characters <= max);
        if written.is_err() || !fits {
            self.body.items.truncate(before);
            return written.map(|()| false);
        }
        self.octets = octets;
        self.characters = characters;
        self.count += 1;
        Ok(true)
    }

    /// The envelope. With `more` it names the context to go on with; without, it ends the sequence.
    #[must_use]
    pub fn finish(mut self, more: bool) -> String {
        let w = self.start.body();
        w.reserve(self.body.items.len() + 512);
        self.body.write(w, more);
        self.start.finish()
    }

    fn measure(&self, text: &str) -> usize {
        self.budget.charset.octets(text)
    }
}

impl Body {
    fn write(&self, w: &mut Writer, more: bool) {
        match self.answer {
            Answer::Enumerate { optimized } => {
                w.raw("<n:EnumerateResponse>");
                if let Some(expires) = &self.expires {
                    w.element("n", "Expires", &[], expires);
                }
                if more {
                    w.element("n", "EnumerationContext", &[], &self.context);
                } else {
                    w.raw("<n:EnumerationContext/>");
                }
                if optimized {
                    w.raw("<w:Items>");
                    w.raw(self.items.as_str());
                    w.raw("</w:Items>");
                    w.raw(if more { "" } else { "<w:EndOfSequence/>" });
                }
                w.raw("</n:EnumerateResponse>");
            }
            Answer::Pull => {
                w.raw("<n:PullResponse>");
                if more {
                    w.element("n", "EnumerationContext", &[], &self.context);
                }
                w.raw("<n:Items>");
                w.raw(self.items.as_str());
                w.raw("</n:Items>");
                w.raw(if more { "" } else { "<n:EndOfSequence/>" });
                w.raw("</n:PullResponse>");
            }
        }
    }
}

/// The form of the items, as the Enumerate asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// The instance is written as one of this superclass (rule E-31); the reference always names the leaf class.
    pub cast: Option<&'a Class>,
    /// Only these columns of a query, as a fragment (rule E-43).
    pub columns: Option<&'a [Column]>,
    /// Only these properties, as a fragment (rule E-42); empty means all.
    pub properties: &'a [String],
    /// Objects, references or both (rule E-7).
    pub mode: Mode,
    /// How values and references are written.
    pub style: Style,
}

/// Writes one item.
///
/// # Errors
/// A key of the instance is null, so there is no reference to it. A fragment stands without one then.
pub fn item(w: &mut Writer, instance: &Instance, form: Form<'_>) -> Result<(), InstanceError> {
    let reference = |w: &mut Writer| {
        let path = instance.path()?;
        epr::write_wrapped(w, &path, form.style.family);
        Ok(())
    };
    match form.mode {
        Mode::Object => object(w, instance, form),
        Mode::Epr => reference(w)?,
        Mode::ObjectAndEpr => {
            let is_fragment = form.columns.is_some() || !form.properties.is_empty();
            w.open("w", "Item", &[]);
            object(w, instance, form);
            let written = reference(w);
            if !is_fragment {
                written?;
            }
            w.close("w", "Item");
        }
    }
    Ok(())
}

/// The instance, or what of it is wanted.
fn object(w: &mut Writer, instance: &Instance, form: Form<'_>) {
    match form.columns {
        Some(columns) => wscim::write_columns(w, columns, instance, form.style),
        None if form.properties.is_empty() => {
            wscim::write_instance(w, instance, form.cast, form.style);
        }
        None => wscim::write_fragment(w, instance, form.properties, form.style),
    }
}

#[cfg(test)]
mod tests;
