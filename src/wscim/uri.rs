//! The two families of class URIs (rules N-2, H-16).

use std::borrow::Cow;

/// A class follows.
pub const DMTF_CLASS: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
/// A namespace and a class follow.
pub const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/";

/// How the client names classes; answers use the same form (rule N-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/<Class>` with the selector `__cimnamespace`.
    Dmtf,
    /// `http://schemas.microsoft.com/wbem/wsman/1/wmi/<namespace>/<Class>`.
    Wmi,
}

impl Family {
    /// The resource URI of a class; also the XML namespace of its instances.
    #[must_use]
    pub fn class_uri(self, namespace: &str, class: &str) -> String {
        match self {
            Self::Dmtf => format!("{DMTF_CLASS}{class}"),
            Self::Wmi => format!("{WMI}{namespace}/{class}"),
        }
    }
}

/// A class URI taken apart. The class may be `*`: all classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassUri<'a> {
    /// Its family.
    pub family: Family,
    /// The namespace that it names, with `/`; the DMTF form names none.
    pub namespace: Option<Cow<'a, str>>,
    /// The class, in the case it is written in.
    pub class: &'a str,
}

impl<'a> ClassUri<'a> {
    /// Takes a URI apart; `None` if it is of neither family. Scheme, host and fixed parts are compared
    /// without case; `\` may stand for `/` in the namespace.
    #[must_use]
    pub fn parse(uri: &'a str) -> Option<Self> {
        if let Some(class) = strip_prefix(uri, DMTF_CLASS) {
            let foreign = |b| matches!(b, b'/' | b'\\' | b'?' | b'#');
            let sound = !class.is_empty() && !class.bytes().any(foreign);
            return sound.then_some(Self {
                family: Family::Dmtf,
                namespace: None,
                class,
            });
        }
        let rest = strip_prefix(uri, WMI)?;
        // The class is what follows the last separator, so one search meets whatever is foreign to it first.
        let ends = |b| matches!(b, b'/' | b'\\' | b'?' | b'#');
        let (namespace, behind) = rest.split_at_checked(rest.bytes().rposition(ends)?)?;
        let class = behind.strip_prefix(['/', '\\'])?;
        let namespace = plain_namespace(namespace);
        let sound = !namespace.is_empty() && !class.is_empty();
        sound.then_some(Self {
            family: Family::Wmi,
            namespace: Some(namespace),
            class,
        })
    }
}

/// A namespace with `/` as the only separator and none around.
#[must_use]
pub fn plain_namespace(namespace: &str) -> Cow<'_, str> {
    let namespace = namespace.trim_matches(['/', '\\']);
    match namespace.contains('\\') {
        true => Cow::Owned(namespace.replace('\\', "/")),
        false => Cow::Borrowed(namespace),
    }
}

/// [`str::strip_prefix`] without regard to ASCII case.
#[must_use]
pub fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(tail) = text.strip_prefix(prefix) {
        return Some(tail);
    }
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}
