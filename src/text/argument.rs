//! The arguments of a text: words of the system, numbers, and texts again, none of them in a language yet.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::{Language, Message, Text};

/// An argument of a [`Text`]. Stored as what it is: a string, a number, an object. Versions before stored every argument
/// as a string, which is read as [`Argument::Plain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    /// A name, an id, a path, a word of the system: it reads the same in every language.
    Plain(String),
    /// How many, or how much: of bytes too, where the message has a place for them.
    Count(i64),
    /// Several, with commas between them. It stands before [`Argument::Text`], which a sequence of two would be read as.
    List(Vec<Self>),
    /// A text with its own arguments, rendered in the language of the whole.
    Text(Box<Text>),
}

/// What reads the same in every language: a name, an id, a path, a keyword, the reason that the system gives.
///
/// A text is none, nor is an error that carries one: those are given as they are, and rendered with the whole.
pub trait Word: Display {}

impl<T: Word + ?Sized> Word for &T {}
impl Word for str {}
impl Word for String {}
impl Word for Cow<'_, str> {}
impl Word for char {}
impl Word for f32 {}
impl Word for bool {}
impl Word for std::path::Display<'_> {}
impl Word for std::ffi::os_str::Display<'_> {}
impl<T: Word + ?Sized> Word for std::sync::Arc<T> {}
impl Word for std::fmt::Arguments<'_> {}

impl<T: Word> From<T> for Argument {
    fn from(word: T) -> Self {
        Self::Plain(word.to_string())
    }
}

impl From<Text> for Argument {
    fn from(text: Text) -> Self {
        Self::Text(Box::new(text))
    }
}

impl From<Message> for Argument {
    fn from(message: Message) -> Self {
        message.text().into()
    }
}

impl From<&Self> for Argument {
    fn from(argument: &Self) -> Self {
        argument.clone()
    }
}

impl<T: Into<Self>> FromIterator<T> for Argument {
    fn from_iter<I: IntoIterator<Item = T>>(arguments: I) -> Self {
        Self::List(arguments.into_iter().map(Into::into).collect())
    }
}

impl From<&Text> for Argument {
    fn from(text: &Text) -> Self {
        Self::Text(Box::new(text.clone()))
    }
}

/// What is behind the error of a system call: a [`Text`] if it was made with a [`Reason`], or what the system says.
impl From<&std::io::Error> for Argument {
    fn from(error: &std::io::Error) -> Self {
        match Reason::of(error) {
            Some(reason) => reason.text.clone().into(),
            None => Self::Plain(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Argument {
    fn from(error: std::io::Error) -> Self {
        (&error).into()
    }
}

/// An error of this program within an I/O error: its words, and what it is.
#[derive(Debug)]
pub struct Reason {
    text: Text,
    what: Box<dyn Any + Send + Sync>,
}

impl Reason {
    /// A reason in these words.
    pub fn new(text: Text, what: impl Any + Send + Sync) -> Self {
        let what = Box::new(what);
        Self { text, what }
    }

    /// The reason within an I/O error, if that has one.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What it is, if it is of this type.
    #[must_use]
    pub fn told<T: Any>(&self) -> Option<&T> {
        self.what.downcast_ref()
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text.english())
    }
}

impl std::error::Error for Reason {}

/// A number beyond the range of [`Argument::Count`] is kept by its digits.
macro_rules! counts {
    ($($number:ty)*) => {
        $(impl From<$number> for Argument {
            fn from(number: $number) -> Self {
                i64::try_from(number).map_or_else(|_| Self::Plain(number.to_string()), Self::Count)
            }
        })*
    };
}
counts!(u8 u16 u32 u64 u128 usize i32 i64 i128);

impl From<&i128> for Argument {
    fn from(number: &i128) -> Self {
        (*number).into()
    }
}

impl Argument {
    /// The words in a language.
    #[must_use]
    pub fn render(&self, language: Language) -> String {
        let mut out = String::new();
        self.render_to(&mut out, language);
        out
    }

    pub(super) fn render_to(&self, out: &mut String, language: Language) {
        match self {
            Self::Plain(word) => out.push_str(word),
            Self::Count(number) => out.push_str(&number.to_string()),
            Self::Text(text) => text.render_to(out, language),
            Self::List(arguments) => {
                for (n, argument) in arguments.iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { ", " });
                    argument.render_to(out, language);
                }
            }
        }
    }

    pub(super) fn shorten(&mut self, max: usize) {
        match self {
            Self::Plain(word) => {
                if let Some((end, _)) = word.char_indices().nth(max) {
                    word.truncate(end);
                    word.push('…');
                }
            }
            Self::Count(_) => {}
            Self::Text(text) => {
                for (_, value) in &mut text.args {
                    value.shorten(max);
                }
            }
            Self::List(arguments) => arguments.iter_mut().for_each(|it| it.shorten(max)),
        }
    }

    /// The number of bytes, if it is one.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Plain(word) => word.parse().ok(),
            Self::Count(number) => u64::try_from(*number).ok(),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The argument, if it is a word.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self {
            Self::Plain(word) => Some(word),
            _ => None,
        }
    }
}

/// Makes a type with a method `text` an error that is told by that text: by its words in English to the log, as the text
/// itself where it is an argument of another.
macro_rules! told_by_text {
    ($error:ty) => {
        impl ::std::fmt::Display for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.text().english())
            }
        }

        impl ::std::error::Error for $error {}

        impl From<&$error> for $crate::text::Argument {
            fn from(error: &$error) -> Self {
                error.text().into()
            }
        }

        impl From<$error> for $crate::text::Argument {
            fn from(error: $error) -> Self {
                error.text().into()
            }
        }
    };
}
pub(crate) use told_by_text;
