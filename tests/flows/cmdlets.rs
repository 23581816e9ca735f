//! The envelopes of PowerShell's CIM cmdlets.

use std::fmt::Write as _;

use groupshot::framing::Charset;
use groupshot::xml::{self, Element};

use crate::support::http::{Connection, basic};
use crate::support::server::{PASSWORD, Server, USER};

const NAMESPACE: &str = "root/virtualization/v2";
const CLASS: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
const ALL: &str = "http://schemas.dmtf.org/wbem/wscim/1/*";
const CLASSES: &str = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/";
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
const FILTER: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
/// Every Enumerate of a cmdlet.
const EVERYTHING: &str = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>\
     <w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>";

/// An instance, or what a method gave back.
#[derive(Debug)]
pub(super) struct Object {
    /// The class it is written as.
    pub(super) class: String,
    /// Its keys.
    keys: Vec<(String, String)>,
    /// Its markup.
    pub(super) text: String,
}

/// An object by its keys, not read yet.
pub(super) fn object(class: &str, keys: &[(&str, &str)]) -> Object {
    let own = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
    Object {
        class: class.to_owned(),
        keys: keys.iter().map(own).collect(),
        text: String::new(),
    }
}

impl Object {
    /// The text of a property; empty if it is null.
    pub(super) fn get(&self, property: &str) -> String {
        let document = xml::parse(&self.text).unwrap();
        let found = document.root().children().find(|c| c.local() == property);
        let found = found.unwrap_or_else(|| panic!("no {property} in {}", self.text));
        found.text().into_owned()
    }

    /// A key of the reference that a property holds.
    pub(super) fn reference(&self, property: &str, key: &str) -> String {
        let document = xml::parse(&self.text).unwrap();
        let found = document.root().children().find(|c| c.local() == property);
        let keys = keys(found.unwrap());
        let key = keys.into_iter().find(|(name, _)| name == key);
        key.unwrap_or_else(|| panic!("no {property} in {}", self.text))
            .1
    }

    /// It as the path text that a client builds: host, namespace, class, keys.
    pub(super) fn path(&self, host: &str) -> String {
        let key = |(n, v): &(String, String)| format!("{n}=\"{}\"", v.replace('\\', "\\\\"));
        let keys: Vec<_> = self.keys.iter().map(key).collect();
        let namespace = NAMESPACE.replace('/', "\\");
        format!("\\\\{host}\\{namespace}:{}.{}", self.class, keys.join(","))
    }

    /// It as a reference.
    pub(super) fn epr(&self) -> String {
        let selectors = self.selectors();
        format!(
            "<a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><w:ResourceURI>{CLASS}{}</w:ResourceURI>\
             <w:SelectorSet>{selectors}</w:SelectorSet></a:ReferenceParameters>",
            self.class
        )
    }

    fn selectors(&self) -> String {
        let mut out = format!("<w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector>");
        for (name, value) in &self.keys {
            write!(out, "<w:Selector Name=\"{name}\">{value}</w:Selector>").unwrap();
        }
        out
    }
}

/// A CIM session.
pub(super) struct Cmdlets {
    connection: Connection,
    utf16: bool,
    count: u32,
}

impl Cmdlets {
    pub(super) fn new(server: &Server, utf16: bool) -> Self {
        Self {
            connection: Connection::open(server.address),
            utf16,
            count: 0,
        }
    }

    /// `Get-CimInstance -ClassName`
    pub(super) fn instances(&mut self, class: &str) -> Vec<Object> {
        let resource = format!("{CLASS}{class}");
        self.enumerate(&resource, "")
    }

    /// `Get-CimAssociatedInstance -ResultClassName -Association`; an empty name is left out.
    pub(super) fn associated(
        &mut self,
        of: &Object,
        association: &str,
        result: &str,
    ) -> Vec<Object> {
        let association = match association {
            "" => String::new(),
            name => format!("<b:AssociationClassName>{name}</b:AssociationClassName>"),
        };
        let filter = format!(
            "<w:Filter Dialect=\"{FILTER}\"><b:AssociatedInstances><b:Object>{}</b:Object>{association}\
             <b:ResultClassName>{result}</b:ResultClassName></b:AssociatedInstances></w:Filter>",
            of.epr()
        );
        self.enumerate(ALL, &filter)
    }

    /// `Get-CimInstance -Query`; -Filter and -Property become the same
    pub(super) fn query(&mut self, text: &str) -> Vec<Object> {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let filter = format!("<w:Filter Dialect=\"{WQL}\">{text}</w:Filter>");
        self.enumerate(ALL, &filter)
    }

    /// `Get-CimInstance -InputObject`
    pub(super) fn get(&mut self, of: &Object) -> Object {
        let (status, reply) = self.exchange_get(of);
        assert_eq!(status, 200, "{reply}");
        Object {
            keys: of.keys.clone(),
            ..payload(&reply)
        }
    }

    /// The same of an object that is not there: what the fault says.
    pub(super) fn get_nothing(&mut self, of: &Object) -> String {
        let (status, reply) = self.exchange_get(of);
        assert_eq!(status, 500, "{reply}");
        reply
    }

    fn exchange_get(&mut self, of: &Object) -> (u16, String) {
        let resource = format!("{CLASS}{}", of.class);
        let action = format!("{TRANSFER}Get");
        self.exchange(&action, &resource, &of.selectors(), "", "")
    }

    /// `Get-CimClass`
    pub(super) fn class(&mut self, name: &str) -> String {
        let selectors = object("", &[("ClassName", name)]).selectors();
        let options: String = [
            "IncludeInheritanceHierarchy",
            "IncludeInheritedElements",
            "IncludeQualifiers",
        ]
        .iter()
        .map(|o| format!("<w:Option Name=\"{o}\" Type=\"xs:boolean\">true</w:Option>"))
        .collect();
        let reply = self.send(&format!("{TRANSFER}Get"), CLASSES, &selectors, &options, "");
        let class = payload(&reply);
        assert_eq!(class.class, "CLASS");
        reply
    }

    /// `Invoke-CimMethod`, which first fetches the class
    pub(super) fn invoke(&mut self, on: &Object, method: &str, arguments: &str) -> Object {
        let class = self.class(&on.class);
        assert!(class.contains(&format!("<METHOD NAME=\"{method}\"")));
        let resource = format!("{CLASS}{}", on.class);
        let body = format!(
            "<p:{method}_INPUT xmlns:p=\"{resource}\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
             {arguments}</p:{method}_INPUT>"
        );
        let action = format!("{resource}/{method}");
        let reply = self.send(&action, &resource, &on.selectors(), "", &body);
        payload(&reply)
    }

    fn enumerate(&mut self, resource: &str, filter: &str) -> Vec<Object> {
        let selectors = object("", &[]).selectors();
        let body = format!("<n:Enumerate>{EVERYTHING}{filter}</n:Enumerate>");
        let action = format!("{ENUMERATION}Enumerate");
        let mut reply = self.send(&action, resource, &selectors, "", &body);
        let mut found = items(&reply);
        // The class of what came first is fetched before the rest is pulled.
        if let Some(first) = found.first().filter(|f| f.class != "XmlFragment") {
            let class = first.class.clone();
            self.class(&class);
        }
        while let Some(context) = context(&reply) {
            let body = format!(
                "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>\
                 <n:MaxElements>32000</n:MaxElements></n:Pull>"
            );
            let action = format!("{ENUMERATION}Pull");
            reply = self.send(&action, resource, &selectors, "", &body);
            found.extend(items(&reply));
        }
        found
    }

    fn send(
        &mut self,
        action: &str,
        resource: &str,
        selectors: &str,
        options: &str,
        body: &str,
    ) -> String {
        let (status, reply) = self.exchange(action, resource, selectors, options, body);
        assert_eq!(status, 200, "{reply}");
        reply
    }

    fn exchange(
        &mut self,
        action: &str,
        resource: &str,
        selectors: &str,
        options: &str,
        body: &str,
    ) -> (u16, String) {
        self.count += 1;
        let id = format!("uuid:00000000-0000-4000-8000-{:012X}", self.count);
        let envelope = envelope(action, resource, selectors, options, body, &id);
        let charset = match self.utf16 {
            true => Charset::Utf16Le,
            false => Charset::Utf8,
        };
        let bytes = charset.encode(envelope);
        let name = if self.utf16 { "UTF-16" } else { "UTF-8" };
        let mut request = format!(
            "POST /wsman?PSVersion=5.1.20348.1 HTTP/1.1\r\nConnection: Keep-Alive\r\n\
             Content-Type: application/soap+xml;charset={name}\r\nUser-Agent: Microsoft WinRM Client\r\n\
             Authorization: {}\r\nContent-Length: {}\r\nHost: hv1:5985\r\n\r\n",
            basic(USER, PASSWORD),
            bytes.len()
        )
        .into_bytes();
        request.extend(bytes);
        self.connection.send(&request).unwrap();
        let response = self.connection.receive().expect("an answer");
        let (text, _) = Charset::decode(&response.body, None).unwrap();
        let end = format!("<a:RelatesTo>{id}</a:RelatesTo>");
        assert!(text.contains(&end), "{text}");
        // Without robust connections these two never come back (rule H-30).
        assert!(!text.contains("OperationID") && !text.contains("SequenceId"));
        (response.status, text.into_owned())
    }
}

/// The headers in the order of the Windows client.
fn envelope(
    action: &str,
    resource: &str,
    selectors: &str,
    options: &str,
    body: &str,
    id: &str,
) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:n=\"http://schemas.xmlsoap.org/ws/2004/09/enumeration\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
         xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" \
         xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\"><s:Header>\
         <a:To>http://hv1:5985/wsman?PSVersion=5.1.20348.1</a:To>\
         <w:ResourceURI s:mustUnderstand=\"true\">{resource}</w:ResourceURI>\
         <a:ReplyTo><a:Address s:mustUnderstand=\"true\">{ANONYMOUS}</a:Address></a:ReplyTo>\
         <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
         <w:MaxEnvelopeSize s:mustUnderstand=\"true\">512000</w:MaxEnvelopeSize>\
         <a:MessageID>{id}</a:MessageID>\
         <w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
         <p:DataLocale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
         <p:SessionId s:mustUnderstand=\"false\">uuid:11111111-0000-4000-8000-000000000001</p:SessionId>\
         <p:OperationID s:mustUnderstand=\"false\">uuid:22222222-0000-4000-8000-000000000001</p:OperationID>\
         <p:SequenceId s:mustUnderstand=\"false\">1</p:SequenceId>\
         <w:SelectorSet>{selectors}</w:SelectorSet>\
         <w:OptionSet xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{options}\
         <w:Option Name=\"__MI_CallbackRegistration\" Type=\"xs:int\">11</w:Option>\
         <w:Option Name=\"wmiarray:__MI_OPERATIONOPTIONS_CHANNELVALUE\" Type=\"xs:unsignedInt\">0</w:Option>\
         <w:Option Name=\"wmiarray:__MI_OPERATIONOPTIONS_CHANNELVALUE\" Type=\"xs:unsignedInt\">1</w:Option>\
         <w:Option Name=\"wmiarray:__MI_OPERATIONOPTIONS_CHANNELVALUE\" Type=\"xs:unsignedInt\">2</w:Option>\
         <w:Option Name=\"wmi:__MI_OPERATIONOPTIONS_WRITEERRORMODE\" Type=\"xs:unsignedInt\">1</w:Option>\
         <w:Option Name=\"msftwinrm:UsePreciseArrays\" Type=\"xs:boolean\">true</w:Option></w:OptionSet>\
         <w:OperationTimeout>PT60.000S</w:OperationTimeout></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// What stands in the body.
pub(super) fn payload(envelope: &str) -> Object {
    let document = xml::parse(envelope).unwrap();
    let body = document.root().children().find(|c| c.local() == "Body");
    of(body.unwrap().children().next().unwrap(), Vec::new())
}

/// The pairs of object and reference; the object may be what a projection left of it.
fn items(envelope: &str) -> Vec<Object> {
    let document = xml::parse(envelope).unwrap();
    let mut found = Vec::new();
    visit(document.root(), &mut |e| {
        if e.local() == "Item" {
            let mut parts = e.children();
            let (instance, epr) = (parts.next().unwrap(), parts.next().unwrap());
            found.push(of(instance, keys(epr)));
        }
    });
    found
}

fn of(element: Element<'_>, keys: Vec<(String, String)>) -> Object {
    let mut w = xml::Writer::new();
    assert!(w.copy(element, usize::MAX));
    Object {
        class: element.local().to_owned(),
        keys,
        text: w.into_string(),
    }
}

fn keys(reference: Element<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    visit(reference, &mut |e| {
        let name = e.attribute("", "Name").unwrap_or_default();
        if e.local() == "Selector" && name != "__cimnamespace" {
            found.push((name.to_owned(), e.text().into_owned()));
        }
    });
    found
}

pub(super) fn context(envelope: &str) -> Option<String> {
    let document = xml::parse(envelope).unwrap();
    let mut found = None;
    visit(document.root(), &mut |e| {
        if e.local() == "EnumerationContext" && !e.text().is_empty() {
            found = Some(e.text().into_owned());
        }
    });
    found
}

pub(super) fn visit(element: Element<'_>, each: &mut dyn FnMut(Element<'_>)) {
    each(element);
    element.children().for_each(|c| visit(c, each));
}
