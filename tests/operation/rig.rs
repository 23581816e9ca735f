//! A server over two classes whose instances and methods are made for tests.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use groupshot::cim::mof::{self, Place, Source};
use groupshot::cim::schema::{self, VIRTUALIZATION_V2};
use groupshot::cim::{Class, Instance, Method, Path, Schema, Value};
use groupshot::clock::{Clock, ManualClock};
use groupshot::handler::{Answer, Caller, Handler, Identity, Message, Role};
use groupshot::operation::{ProtocolSettings, Server};
use groupshot::provider::{Arguments, Context, Error, Instances, Outcome, Provider, Registry};

/// Classes of the tests. The methods of `Msvm_ConcreteJob` are the only ones that a reader may call.
const MOF: &str = r#"
[Abstract] class Test_Element { string Description; };
class Test_Thing : Test_Element { [Key] string Name; uint32 Number; string Text; };
class Test_Special : Test_Thing { string Extra; };
class Test_Service : Test_Element {
  [Key] string Name;
  uint32 Slow([IN] uint32 Milliseconds);
  uint32 Big([IN] uint32 Size, [IN] boolean Changes, [OUT] string Out);
  uint32 Panic();
};
class Msvm_ConcreteJob : Test_Element { [Key] string InstanceID; uint32 GetErrorEx([OUT] string Errors[]); };
"#;

pub(super) struct Rig {
    pub(super) server: Arc<Server>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) things: Arc<Things>,
}

/// The provider: `count` things, numbered from 0; every tenth is a special one.
pub(super) struct Things {
    count: usize,
    /// How many instances were made.
    pub(super) made: AtomicUsize,
    /// How many calls of `Slow` came to their end.
    pub(super) finished: AtomicUsize,
    clock: Arc<ManualClock>,
    /// How long it takes to make one instance, milliseconds of the clock.
    pub(super) slowness: Arc<AtomicU64>,
    /// Whoever is called `reader` opens no walk while it is shut.
    pub(super) gate: Arc<Gate>,
}

/// Holds back who comes to it, and knows how many that are.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(super) fn shut(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub(super) fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// How many stand before it.
    pub(super) fn held(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }
}

impl Rig {
    pub(super) fn new(count: usize) -> Self {
        Self::with(count, ProtocolSettings::default())
    }

    pub(super) fn with(count: usize, settings: ProtocolSettings) -> Self {
        let mut sources: Vec<Source<'_>> = schema::embedded()
            .filter(|s| s.name.ends_with("qualifiers.mof"))
            .collect();
        sources.push(Source {
            name: "test.mof",
            text: MOF,
            place: Place::Namespace(VIRTUALIZATION_V2),
        });
        let compiled = mof::compile(&sources);
        assert!(!compiled.has_errors(), "{:?}", compiled.diagnostics);
        let clock = ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap());
        let things = Arc::new(Things {
            count,
            made: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            clock: clock.clone(),
            slowness: Arc::default(),
            gate: Arc::default(),
        });
        let schema = Arc::new(Schema::new(compiled.classes));
        let registry = Registry::new(schema, vec![things.clone()], &[]).unwrap();
        let server = Server::new(Arc::new(registry), settings, clock.clone());
        Self {
            server,
            clock,
            things,
        }
    }

    /// Time since the rig was made.
    pub(super) fn clock_now(&self) -> Duration {
        Clock::elapsed(&*self.clock)
    }

    /// Sends as the administrator `admin`.
    pub(super) async fn send(&self, envelope: &str) -> Reply {
        self.send_as("admin", Role::Administrator, envelope).await
    }

    pub(super) async fn send_as(&self, user: &str, role: Role, envelope: &str) -> Reply {
        let identity = Identity {
            user: user.into(),
            role,
        };
        let body = Bytes::copy_from_slice(envelope.as_bytes());
        Reply::new(&self.send_bytes(Some(identity), body).await)
    }

    pub(super) async fn send_bytes(&self, identity: Option<Identity>, body: Bytes) -> Answer {
        self.send_after(Duration::ZERO, identity, body).await
    }

    /// Of somebody who has waited so long until it was known who they are.
    pub(super) async fn send_after(
        &self,
        waited: Duration,
        identity: Option<Identity>,
        body: Bytes,
    ) -> Answer {
        let caller = Caller {
            identity,
            peer: "127.0.0.1:1".parse().unwrap(),
            secure: false,
            waited,
            user_agent: "".into(),
            host: "rig.example:5985".into(),
        };
        let message = Message {
            content_type: None,
            body,
        };
        self.server.handle(caller, message).await
    }
}

fn name(n: usize) -> String {
    format!("thing-{n:05}")
}

impl Things {
    fn thing(&self, class: &Arc<Class>, n: usize) -> Result<Instance, Error> {
        self.made.fetch_add(1, Ordering::SeqCst);
        let slowness = self.slowness.load(Ordering::SeqCst);
        self.clock.advance(Duration::from_millis(slowness));
        let mut thing = Instance::new(class)
            .with("Name", name(n).as_str())?
            .with("Number", u32::try_from(n).unwrap())?
            .with("Text", "ä".repeat(100).as_str())?;
        if class.name == *"Test_Special" {
            thing.set("Extra", "more")?;
        }
        Ok(thing)
    }

    fn is_of(class: &Class, n: usize) -> bool {
        (class.name == *"Test_Special") == n.is_multiple_of(10)
    }
}

#[async_trait]
impl Provider for Things {
    fn classes(&self) -> &'static [&'static str] {
        &[
            "Test_Thing",
            "Test_Special",
            "Test_Service",
            "Msvm_ConcreteJob",
        ]
    }

    fn is_singleton(&self, class: &Class) -> bool {
        class.name == *"Test_Service"
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        if &*ctx.identity.user == "reader" {
            self.gate.pass();
        }
        let class = class.clone();
        if class.name == *"Test_Service" {
            let only = Instance::new(&class)
                .with("Name", "service")
                .map_err(Error::from);
            return Ok(Box::new(std::iter::once(only)));
        }
        if class.name == *"Msvm_ConcreteJob" {
            return Ok(Box::new(std::iter::empty()));
        }
        let this = Self {
            count: self.count,
            made: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            clock: self.clock.clone(),
            slowness: self.slowness.clone(),
            gate: Arc::default(),
        };
        let numbers = (0..self.count).filter({
            let class = class.clone();
            move |n| Self::is_of(&class, *n)
        });
        self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(numbers.map(move |n| this.thing(&class, n))))
    }

    fn count(&self, _: &Context, class: &Class) -> Option<u64> {
        let of = match class.name.as_str() {
            "Test_Service" => 1,
            "Msvm_ConcreteJob" => 0,
            _ => (0..self.count).filter(|n| Self::is_of(class, *n)).count(),
        };
        u64::try_from(of).ok()
    }

    fn get(&self, _: &Context, class: &Arc<Class>, path: &Path) -> Result<Option<Instance>, Error> {
        match class.name.as_str() {
            "Test_Service" => Ok(Some(Instance::new(class).with("Name", "service")?)),
            "Msvm_ConcreteJob" => Ok(Some(Instance::new(class).with("InstanceID", "1")?)),
            _ => {
                let wanted = path.text("Name").unwrap_or_default();
                let found = (0..self.count).find(|n| Self::is_of(class, *n) && name(*n) == wanted);
                found.map(|n| self.thing(class, n)).transpose()
            }
        }
    }

    async fn invoke(
        &self,
        _: &Context,
        _: &Path,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let number = |name| arguments.get(name).as_u64().unwrap_or(0);
        let mut outcome = Outcome {
            return_value: Value::Uint32(0),
            outputs: Vec::new(),
            changed: false,
        };
        match method.name.as_str() {
            "Slow" => {
                tokio::time::sleep(Duration::from_millis(number("Milliseconds"))).await;
                self.finished.fetch_add(1, Ordering::SeqCst);
            }
            "Big" => {
                let size = usize::try_from(number("Size")).unwrap();
                outcome
                    .outputs
                    .push(("Out", "x".repeat(size).as_str().into()));
                outcome.changed = arguments.get("Changes").as_bool() == Some(true);
            }
            "Panic" => panic!("on purpose"),
            _ => {}
        }
        Ok(outcome)
    }
}

/// An answer with its text.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn new(answer: &Answer) -> Self {
        Self {
            status: answer.status,
            text: String::from_utf8(answer.body.to_vec()).unwrap(),
        }
    }

    /// The text of every element of that local name, in order.
    pub(super) fn all(&self, local: &str) -> Vec<String> {
        let document = groupshot::xml::parse(&self.text).unwrap();
        let mut found = Vec::new();
        collect(document.root(), local, &mut found);
        found
    }

    /// The text of the first element of that local name.
    pub(super) fn one(&self, local: &str) -> Option<String> {
        self.all(local).into_iter().next()
    }

    /// Subcode, last part of the FaultDetail, Microsoft's code. Asserts that it is a fault.
    pub(super) fn fault(&self) -> (String, String, String) {
        assert_eq!(self.status, 500, "{}", self.text);
        let subcode = self.all("Value").pop().unwrap();
        let detail = self.one("FaultDetail").unwrap_or_default();
        let code = self
            .text
            .split(" Code=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        (
            subcode.split(':').next_back().unwrap().to_owned(),
            detail.rsplit('/').next().unwrap().to_owned(),
            code.to_owned(),
        )
    }

    /// Asserts success.
    pub(super) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }
}

fn collect(element: groupshot::xml::Element<'_>, local: &str, found: &mut Vec<String>) {
    if element.local() == local {
        found.push(element.text().into_owned());
    }
    element
        .children()
        .for_each(|child| collect(child, local, found));
}

/// The resource URI of a class, WMI form.
pub(super) fn uri(class: &str) -> String {
    format!("http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/{class}")
}

pub(super) const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
pub(super) const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";

/// A request under construction.
pub(super) struct Ask {
    action: String,
    resource: String,
    headers: String,
    selectors: String,
    body: String,
    max_envelope: usize,
}

impl Ask {
    pub(super) fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            resource: resource.into(),
            headers: String::new(),
            selectors: String::new(),
            body: String::new(),
            max_envelope: 512_000,
        }
    }

    pub(super) fn get(class: &str) -> Self {
        Self::new(format!("{TRANSFER}/Get"), uri(class))
    }

    pub(super) fn enumerate(class: &str, content: &str) -> Self {
        Self::new(format!("{ENUMERATION}/Enumerate"), uri(class))
            .body(&format!("<n:Enumerate>{content}</n:Enumerate>"))
    }

    pub(super) fn pull(context: &str, content: &str) -> Self {
        Self::new(format!("{ENUMERATION}/Pull"), uri("Test_Thing")).body(&format!(
            "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{content}</n:Pull>"
        ))
    }

    pub(super) fn release(context: &str) -> Self {
        Self::new(format!("{ENUMERATION}/Release"), uri("Test_Thing")).body(&format!(
            "<n:Release><n:EnumerationContext>{context}</n:EnumerationContext></n:Release>"
        ))
    }

    pub(super) fn invoke(class: &str, method: &str, input: &str) -> Self {
        let resource = uri(class);
        Self::new(format!("{resource}/{method}"), &resource).body(&format!(
            "<p:{method}_INPUT xmlns:p=\"{resource}\">{input}</p:{method}_INPUT>"
        ))
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    pub(super) fn resource(mut self, resource: &str) -> Self {
        self.resource = resource.to_owned();
        self
    }

    pub(super) fn header(mut self, header: &str) -> Self {
        self.headers.push_str(header);
        self
    }

    pub(super) fn selector(mut self, name: &str, value: &str) -> Self {
        self.selectors += &format!("<w:Selector Name=\"{name}\">{value}</w:Selector>");
        self
    }

    pub(super) fn max_envelope(mut self, octets: usize) -> Self {
        self.max_envelope = octets;
        self
    }

    pub(super) fn text(&self) -> String {
        let Self {
            action,
            resource,
            headers,
            selectors,
            body,
            max_envelope,
        } = self;
        let selectors = match selectors.as_str() {
            "" => String::new(),
            some => format!("<w:SelectorSet>{some}</w:SelectorSet>"),
        };
        format!(
            r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="{ENUMERATION}" xmlns:b="http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd"><s:Header><a:To>http://h:5985/wsman</a:To><w:ResourceURI s:mustUnderstand="true">{resource}</w:ResourceURI><a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo><a:Action s:mustUnderstand="true">{action}</a:Action><w:MaxEnvelopeSize>{max_envelope}</w:MaxEnvelopeSize><a:MessageID>uuid:7</a:MessageID>{selectors}{headers}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
        )
    }
}
