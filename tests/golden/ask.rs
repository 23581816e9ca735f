//! Requests, built by part so that a case can leave out, repeat or bend any of them.

use groupshot::handler::{Identity, Role};
use groupshot::wscim::Family;

pub(super) const ANONYMOUS: &str =
    "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
pub(super) const NAMESPACE: &str = "root/virtualization/v2";
pub(super) const MESSAGE_ID: &str = "uuid:00000000-0000-4000-8000-000000000001";

/// Class URI in the family.
pub(super) fn class_uri(family: Family, class: &str) -> String {
    family.class_uri(NAMESPACE, class)
}

/// One request.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) to: Option<String>,
    pub(super) action: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) reply_to: Option<String>,
    /// Further header blocks, as markup.
    pub(super) headers: String,
    /// Selectors, as markup.
    pub(super) selectors: String,
    /// The body, as markup.
    pub(super) body: String,
    pub(super) content_type: Option<String>,
    pub(super) user_agent: &'static str,
    pub(super) identity: Option<Identity>,
    /// Sent as it is, in place of everything above.
    pub(super) raw: Option<Vec<u8>>,
}

impl Ask {
    /// A request on a class. The DMTF form names the namespace by its selector.
    pub(super) fn new(family: Family, action: &str, class: &str) -> Self {
        let ask = Self::on(action, &class_uri(family, class));
        match family {
            Family::Dmtf => ask.selector("__cimnamespace", NAMESPACE),
            Family::Wmi => ask,
        }
    }

    /// A request on any resource.
    pub(super) fn on(action: &str, resource: &str) -> Self {
        Self {
            to: Some("http://hv01:5985/wsman".to_owned()),
            action: Some(action.to_owned()),
            resource: Some(resource.to_owned()),
            message_id: Some(MESSAGE_ID.to_owned()),
            reply_to: Some(format!(
                r#"<a:Address s:mustUnderstand="true">{ANONYMOUS}</a:Address>"#
            )),
            headers: String::new(),
            selectors: String::new(),
            body: String::new(),
            content_type: Some("application/soap+xml;charset=UTF-8".to_owned()),
            user_agent: "",
            identity: Some(user("admin", Role::Administrator)),
            raw: None,
        }
    }

    pub(super) fn get(family: Family, class: &str) -> Self {
        Self::new(family, &transfer("Get"), class)
    }

    pub(super) fn enumerate(family: Family, class: &str, children: &str) -> Self {
        Self::new(family, &enumeration("Enumerate"), class)
            .body(&format!("<n:Enumerate>{children}</n:Enumerate>"))
    }

    pub(super) fn pull(family: Family, class: &str, context: &str, children: &str) -> Self {
        Self::new(family, &enumeration("Pull"), class).body(&format!(
            "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{children}</n:Pull>"
        ))
    }

    pub(super) fn release(family: Family, class: &str, context: &str) -> Self {
        Self::new(family, &enumeration("Release"), class).body(&format!(
            "<n:Release><n:EnumerationContext>{context}</n:EnumerationContext></n:Release>"
        ))
    }

    /// A method call; `parameters` are elements of the prefix `p`.
    pub(super) fn invoke(family: Family, class: &str, method: &str, parameters: &str) -> Self {
        let uri = class_uri(family, class);
        Self::new(family, &format!("{uri}/{method}"), class).body(&format!(
            r#"<p:{method}_INPUT xmlns:p="{uri}">{parameters}</p:{method}_INPUT>"#
        ))
    }

    /// A body that is sent as it is.
    pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let mut ask = Self::on("", "");
        ask.raw = Some(bytes.into());
        ask
    }

    pub(super) fn selector(mut self, name: &str, value: &str) -> Self {
        self.selectors += &format!(r#"<w:Selector Name="{name}">{value}</w:Selector>"#);
        self
    }

    pub(super) fn header(mut self, block: &str) -> Self {
        self.headers += block;
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    pub(super) fn by(mut self, name: &str, role: Role) -> Self {
        self.identity = Some(user(name, role));
        self
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The text of the envelope.
    pub(super) fn envelope(&self) -> String {
        let block = |name: &str, text: &Option<String>| match text {
            Some(text) => format!("<{name}>{text}</{name}>"),
            None => String::new(),
        };
        let selectors = match self.selectors.as_str() {
            "" => String::new(),
            set => format!("<w:SelectorSet>{set}</w:SelectorSet>"),
        };
        [
            concat!(
                r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope""#,
                r#" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing""#,
                r#" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration""#,
                r#" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd""#,
                r#" xmlns:b="http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd""#,
                r#" xmlns:m="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header>"#,
            ),
            &block("a:To", &self.to),
            &block("w:ResourceURI", &self.resource),
            &block("a:ReplyTo", &self.reply_to),
            &block("a:Action", &self.action),
            &block("a:MessageID", &self.message_id),
            &self.headers,
            &selectors,
            "</s:Header><s:Body>",
            &self.body,
            "</s:Body></s:Envelope>",
        ]
        .concat()
    }

    /// The bytes of the body.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.raw
            .clone()
            .unwrap_or_else(|| self.envelope().into_bytes())
    }
}

pub(super) fn transfer(verb: &str) -> String {
    format!("http://schemas.xmlsoap.org/ws/2004/09/transfer/{verb}")
}

pub(super) fn enumeration(verb: &str) -> String {
    format!("http://schemas.xmlsoap.org/ws/2004/09/enumeration/{verb}")
}

pub(super) fn user(name: &str, role: Role) -> Identity {
    Identity {
        user: name.into(),
        role,
    }
}

/// The inside of a reference: address and reference parameters, in the family.
pub(super) fn epr(family: Family, class: &str, keys: &[(&str, &str)]) -> String {
    let uri = class_uri(family, class);
    let mut selectors: String = keys
        .iter()
        .map(|(name, value)| format!(r#"<w:Selector Name="{name}">{value}</w:Selector>"#))
        .collect();
    if family == Family::Dmtf {
        selectors += &format!(r#"<w:Selector Name="__cimnamespace">{NAMESPACE}</w:Selector>"#);
    }
    format!(
        "<a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><w:ResourceURI>{uri}</w:ResourceURI>\
         <w:SelectorSet>{selectors}</w:SelectorSet></a:ReferenceParameters>"
    )
}
