//! What a QEMU answers: kept as it came, and read into no more than what is wanted of it. A tree of all values takes many
//! times as much room and time as its text, and who sends it chooses how large it is.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The line of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// In this line, which is one.
    pub(super) const fn of(line: Vec<u8>) -> Self {
        Self(line)
    }

    /// How many bytes it has.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// What it tells. What is of another form than is wanted is left out.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> T {
        #[derive(Deserialize)]
        struct Outer<T> {
            #[serde(rename = "return")]
            returned: T,
        }
        let outer = serde_json::from_slice::<Outer<T>>(&self.0);
        outer.map(|outer| outer.returned).unwrap_or_default()
    }
}

/// Something that a process of any version tells: nothing, where it has another form than is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T>(pub(crate) Option<T>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// A list of such things.
pub type List<T> = Told<Vec<Told<T>>>;

impl Told<String> {
    /// The text; empty if there is none.
    pub(crate) fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Told<bool> {
    /// Whether it is said to be so.
    pub(crate) fn is_so(&self) -> bool {
        self.0 == Some(true)
    }
}

impl<T> List<T> {
    /// Those of them that have the form that is wanted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let all = self.0.iter().flatten();
        all.filter_map(|one| one.0.as_ref())
    }
}

/// What can be told.
pub trait Form: Sized {
    /// By a text.
    fn of_text(_: &str) -> Option<Self> {
        None
    }

    /// By yes or no.
    fn of_flag(_: bool) -> Option<Self> {
        None
    }

    /// By a number.
    fn of_number(_: u64) -> Option<Self> {
        None
    }

    /// By an object.
    ///
    /// # Errors
    /// It is not well-formed.
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// By a list.
    ///
    /// # Errors
    /// It is not well-formed.
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Form for String {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Form for bool {
    fn of_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

impl Form for u64 {
    fn of_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl<T: Form> Form for Vec<Told<T>> {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut all = Self::new();
        while let Some(one) = list.next_element::<Told<T>>()? {
            // What is none of them takes no room.
            if one.0.is_some() {
                all.push(one);
            }
        }
        Ok(Some(all))
    }
}

/// Objects of these types, of which only some members are wanted.
macro_rules! objects {
    ($($object:ty),+ $(,)?) => {
        $(impl Form for $object {
            fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(object)).map(Some)
            }
        })+
    };
}

impl<'de, T: Form> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any(PhantomData)).map(Self)
    }
}

/// Takes whatever comes.
struct Any<T>(PhantomData<T>);

impl<'de, T: Form> Visitor<'de> for Any<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::of_text(text))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::of_flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(T::of_number(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::of_object(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::of_list(list)
    }
}

/// The answer to `query-status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) status: Told<String>,
}

/// One of `query-block`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Block {
    pub(crate) device: Told<String>,
    pub(crate) qdev: Told<String>,
    pub(crate) removable: Told<bool>,
    /// What is in it, if anything.
    pub(crate) inserted: Option<Told<Node>>,
}

/// One of `query-named-block-nodes`, or what is in a [`Block`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) drv: Told<String>,
    #[serde(rename = "node-name")]
    pub(crate) node_name: Told<String>,
    pub(crate) file: Told<String>,
    pub(crate) ro: Told<bool>,
    pub(crate) detect_zeroes: Told<String>,
    pub(crate) image: Told<Image>,
    pub(crate) cache: Told<Cache>,
}

/// Of a [`Node`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Image {
    pub(crate) virtual_size: Told<u64>,
}

/// Of a [`Node`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Cache {
    pub(crate) direct: Told<bool>,
    pub(crate) no_flush: Told<bool>,
}

/// The options of a node by which QEMU names one, with those under it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeOptions {
    pub(crate) driver: Told<String>,
    pub(crate) filename: Told<String>,
    pub(crate) file: Option<Box<Told<Self>>>,
}

/// One of `query-fdsets`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct FdSet {
    pub(crate) fdset_id: Told<u64>,
    pub(crate) fds: List<Fd>,
}

/// Of a [`FdSet`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fd {
    pub(crate) fd: Told<u64>,
}

/// One of `query-chardev`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Chardev {
    pub(crate) label: Told<String>,
    pub(crate) filename: Told<String>,
    pub(crate) frontend_open: Told<bool>,
}

/// One of `query-jobs`, or of `query-block-jobs`, where it has a device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) id: Told<String>,
    pub(crate) device: Told<String>,
    pub(crate) status: Told<String>,
}

/// One of `query-block-exports`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Export {
    pub(crate) id: Told<String>,
}

objects!(
    Status,
    Block,
    Node,
    Image,
    Cache,
    NodeOptions,
    FdSet,
    Fd,
    Chardev,
    Job,
    Export
);
