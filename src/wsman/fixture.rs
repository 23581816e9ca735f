//! What the tests of this module share: a small schema, and requests made from parts.

use std::sync::{Arc, OnceLock};

use crate::cim::Schema;
use crate::cim::mof::{Place, Source, compile};

use super::fault::Fault;
use super::request::{Incoming, Received, Request, RequestLimits, receive};

const MOF: &str = r#"
class T_Element { string Caption; };
class T_System : T_Element {
  [Key] string CreationClassName;
  [Key] string Name;
  uint16 State;
  uint16 Status[];
  datetime Since;
  uint32 Start([In, Out] uint16 Wanted, [In(false), Out] T_Job ref Job);
};
class T_Machine : T_System { boolean Busy; };
class T_Job { [Key] string InstanceID; };
class T_Number { [Key] uint32 Id; [Key] boolean On; string Text; };
[Association] class T_Link {
  [Key] T_System ref Antecedent;
  [Key] T_Job ref Dependent;
};
[Association] class T_Chain {
  [Key] T_Link ref Link;
  T_Job ref Also;
};
class T_Setting {
  string InstanceID; uint32 Level; string Names[];
  [EmbeddedInstance("T_Setting")] string Inside;
};
class T_Service : T_System {
  uint32 Do(
    [In] T_Element ref Target, [In] uint16 Kind,
    [In, EmbeddedInstance("T_Setting")] string Settings, [In] string Notes[], [In] T_Job ref Jobs[],
    [In] datetime When, [In] boolean Flag, [In] sint32 Delta, [In] real64 Ratio, [In] char16 Letter,
    [In, OctetString] uint8 Bytes[],
    [In, Out] T_Job ref Result, [In(false), Out] string Made[], [In(false), Out] uint64 Size);
  [Static] uint32 Count();
};
"#;

pub(crate) const V2: &str = "root/virtualization/v2";
pub(crate) const WMI: &str =
    "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/";
pub(crate) const DMTF: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
pub(crate) const GET: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get";
pub(crate) const ENUMERATE: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate";

/// The schema of [`MOF`], compiled once.
pub(crate) fn schema() -> &'static Arc<Schema> {
    static SCHEMA: OnceLock<Arc<Schema>> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let source = |name, text| Source {
            name,
            text,
            place: Place::Namespace(V2),
        };
        let qualifiers = include_str!("../../schemas/qualifiers.mof");
        let compiled = compile(&[source("q.mof", qualifiers), source("t.mof", MOF)]);
        assert!(!compiled.has_errors(), "{:#?}", compiled.diagnostics);
        Arc::new(Schema::new(compiled.classes))
    })
}

/// A request from its parts. The usual headers are all there; `more` adds to them.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) text: String,
}

impl Ask {
    pub(crate) fn new(action: &str, uri: &str, more: &str, body: &str) -> Self {
        let text = format!(
            r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:b="http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Header><a:To>http://h:5985/wsman</a:To><w:ResourceURI s:mustUnderstand="true">{uri}</w:ResourceURI><a:ReplyTo><a:Address s:mustUnderstand="true">http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo><a:Action s:mustUnderstand="true">{action}</a:Action><a:MessageID>uuid:1</a:MessageID>{more}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
        );
        Self { text }
    }

    /// Get of the system `a`.
    pub(crate) fn get(more: &str) -> Self {
        let selectors = selectors(&[("CreationClassName", "T_System"), ("Name", "a")]);
        Self::new(GET, &format!("{WMI}T_System"), &(selectors + more), "")
    }

    /// The same with a part replaced, which must be there.
    pub(crate) fn replace(&self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from} is not in {}", self.text);
        Self {
            text: self.text.replacen(from, to, 1),
        }
    }

    /// The same without the first element of that name.
    pub(crate) fn without(&self, name: &str) -> Self {
        let from = self.text.find(&format!("<{name}")).unwrap();
        let end = format!("</{name}>");
        let to = from + self.text[from..].find(&end).unwrap() + end.len();
        Self {
            text: format!("{}{}", &self.text[..from], &self.text[to..]),
        }
    }

    pub(crate) fn received(&self) -> Received {
        let message = Incoming {
            content_type: None,
            user_agent: "test",
            host: "asked.example:5985",
            anonymous: false,
            body: self.text.as_bytes(),
        };
        receive(&message, schema(), &RequestLimits::default())
    }

    pub(crate) fn request(&self) -> Request {
        match self.received().request {
            Ok(request) => request,
            Err(rejected) => panic!("{:?}\n{}", rejected.fault, self.text),
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match self.received().request {
            Ok(request) => panic!("{request:?}\n{}", self.text),
            Err(rejected) => rejected.fault,
        }
    }
}

/// `w:SelectorSet` with these selectors.
pub(crate) fn selectors(selectors: &[(&str, &str)]) -> String {
    let all: String = selectors
        .iter()
        .map(|(name, value)| format!(r#"<w:Selector Name="{name}">{value}</w:Selector>"#))
        .collect();
    format!("<w:SelectorSet>{all}</w:SelectorSet>")
}

/// The inside of a reference.
pub(crate) fn reference(uri: &str, keys: &[(&str, &str)]) -> String {
    format!(
        "<a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address><a:ReferenceParameters><w:ResourceURI>{uri}</w:ResourceURI>{}</a:ReferenceParameters>",
        selectors(keys)
    )
}
