//! Every fault that names a resource, its keys, an enumeration or a method, in both URI families.

use std::time::Duration;

use groupshot::engine::sim::{Fault, Step, Trouble};
use groupshot::handler::Role;
use groupshot::operation::ContextLimits;
use groupshot::wscim::Family;

use super::ask::{Ask, class_uri, enumeration, epr, transfer};
use super::book::Book;
use super::world::{FAMILIES, Options, World, collection, create_snapshot, machine};

const SYSTEM: &str = "Msvm_ComputerSystem";
const SERVICE: &str = "Msvm_CollectionSnapshotService";
const OMI: &str = "xplat http client";

fn get(family: Family, selectors: &[(&str, &str)]) -> Ask {
    let ask = Ask::get(family, SYSTEM);
    selectors.iter().fold(ask, |ask, (n, v)| ask.selector(n, v))
}

fn system_keys(name: &str) -> [(&'static str, &str); 2] {
    [("CreationClassName", SYSTEM), ("Name", name)]
}

async fn record(folder: &str, cases: impl Fn(Family) -> Vec<(&'static str, Ask)>) {
    let mut book = Book::open(folder);
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        for (name, ask) in cases(family) {
            let reply = world.send(&ask).await;
            book.check(name, family, &reply);
        }
    }
    book.close();
}

#[tokio::test]
async fn h_16_h_18_e_33_x_14_resources() {
    record("faults-resource", |family| {
        let class = |name: &str| Ask::get(family, name);
        let all = match family {
            Family::Dmtf => "http://schemas.dmtf.org/wbem/wscim/1/*".to_owned(),
            Family::Wmi => class_uri(family, "*"),
        };
        let other_namespace = match family {
            Family::Dmtf => class(SYSTEM).change(|a| {
                a.selectors = a.selectors.replace("virtualization/v2", "hardware");
            }),
            Family::Wmi => class(SYSTEM).change(|a| {
                a.resource = a
                    .resource
                    .take()
                    .map(|r| r.replace("virtualization/v2", "hardware"));
            }),
        };
        let with_filter = |dialect: &str, text: &str| {
            let filter = format!("<w:Filter Dialect=\"{dialect}\">{text}</w:Filter>");
            Ask::on(&enumeration("Enumerate"), &all)
                .body(&format!("<n:Enumerate>{filter}</n:Enumerate>"))
        };
        let wql = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
        let query = "select Nix from Msvm_ComputerSystem";
        let association = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
        vec![
            ("unknown-class", class("Msvm_NoSuch")),
            (
                "unknown-class-for-omi",
                class("Msvm_NoSuch").change(|a| a.user_agent = OMI),
            ),
            ("unknown-namespace", other_namespace),
            ("all-classes-get", Ask::on(&transfer("Get"), &all)),
            (
                "all-classes-enumerate-without-filter",
                Ask::on(&enumeration("Enumerate"), &all).body("<n:Enumerate/>"),
            ),
            ("filter-wql", with_filter(wql, query)),
            (
                "filter-wql-for-omi",
                with_filter(wql, query).change(|a| a.user_agent = OMI),
            ),
            (
                "filter-association",
                with_filter(association, "<b:AssociatedInstances/>"),
            ),
            (
                "filter-without-dialect",
                Ask::enumerate(family, SYSTEM, "<w:Filter>//Name</w:Filter>"),
            ),
            (
                "two-filters",
                Ask::enumerate(
                    family,
                    SYSTEM,
                    "<w:Filter>a</w:Filter><n:Filter>b</n:Filter>",
                ),
            ),
            ("put", Ask::new(family, &transfer("Put"), SYSTEM)),
            ("create", Ask::new(family, &transfer("Create"), SYSTEM)),
            (
                "delete",
                Ask::new(family, &transfer("Delete"), "Msvm_SnapshotCollection"),
            ),
            (
                "subscribe",
                Ask::on(
                    "http://schemas.xmlsoap.org/ws/2004/08/eventing/Subscribe",
                    &all,
                ),
            ),
            ("renew", Ask::new(family, &enumeration("Renew"), SYSTEM)),
            (
                "unknown-action",
                Ask::new(family, "http://example.org/Explode", SYSTEM),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn h_17_x_2_e_9_selectors() {
    record("faults-selectors", |family| {
        let absent = "5EED51B0-0000-4000-8000-0000000000FF";
        let reference = epr(family, SYSTEM, &system_keys(absent));
        let wrapped = format!("<a:EndpointReference>{reference}</a:EndpointReference>");
        let association = |member: &str| {
            Ask::get(family, "Msvm_CollectedVirtualSystems")
                .selector("Member", member)
                .selector("Collection", &wrapped)
        };
        let nested = (0..9).fold(wrapped.clone(), |inner, _| {
            let keys = [("Member", inner.as_str())];
            let epr = epr(family, "Msvm_CollectedVirtualSystems", &keys);
            format!("<a:EndpointReference>{epr}</a:EndpointReference>")
        });
        // Only a URI of the WMI family names a namespace that a selector can contradict.
        let keys = [("Name", absent), ("__cimnamespace", "root/cimv2")];
        let contradictory = epr(Family::Wmi, SYSTEM, &keys);
        let contradictory = format!("<a:EndpointReference>{contradictory}</a:EndpointReference>");
        let without_class = "<a:EndpointReference><a:ReferenceParameters/></a:EndpointReference>";
        let many = (0..65).fold(Ask::get(family, SYSTEM), |ask, n| {
            ask.selector(&format!("S{n}"), "v")
        });
        vec![
            ("no-instance", get(family, &system_keys(absent))),
            (
                "no-instance-for-omi",
                get(family, &system_keys(absent)).change(|a| a.user_agent = OMI),
            ),
            ("missing", get(family, &system_keys(absent)[..1])),
            ("none-of-several", get(family, &[])),
            (
                "surplus",
                get(family, &[("Name", absent), ("Colour", "blue")]),
            ),
            ("twice", get(family, &[("Name", absent), ("NAME", absent)])),
            (
                "without-name",
                get(family, &system_keys(absent)).change(|a| {
                    a.selectors = a.selectors.replace(" Name=\"Name\"", "");
                }),
            ),
            (
                "reference-for-text",
                get(family, &[("CreationClassName", SYSTEM), ("Name", &wrapped)]),
            ),
            (
                "text-for-reference",
                association("Msvm_ComputerSystem.Name=\"x\""),
            ),
            ("reference-without-class", association(without_class)),
            (
                "reference-that-contradicts-itself",
                association(&contradictory),
            ),
            ("nested-too-deep", association(&nested)),
            ("too-many", many),
            ("namespace-as-reference", {
                let ask = Ask::get(family, SYSTEM);
                ask.change(|a| a.selectors.clear())
                    .selector("__cimnamespace", &wrapped)
            }),
            (
                "enumerate-by-key",
                Ask::enumerate(family, SYSTEM, "").selector("Name", absent),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn e_1_e_2_e_8_e_15_enumerations() {
    record("faults-enumeration", |family| {
        let enumerate = |children: &str| Ask::enumerate(family, SYSTEM, children);
        let unknown = "uuid:00000000-0000-4000-8000-00000000DEAD";
        vec![
            (
                "unknown-mode",
                enumerate("<w:EnumerationMode>EnumerateAll</w:EnumerationMode>"),
            ),
            (
                "unknown-polymorphism",
                enumerate("<b:PolymorphismMode>Some</b:PolymorphismMode>"),
            ),
            (
                "max-elements-zero",
                enumerate("<w:MaxElements>0</w:MaxElements>"),
            ),
            (
                "end-to",
                enumerate("<n:EndTo><a:Address>http://x/</a:Address></n:EndTo>"),
            ),
            (
                "expires-negative",
                enumerate("<n:Expires>-PT5M</n:Expires>"),
            ),
            ("expires-zero", enumerate("<n:Expires>PT0S</n:Expires>")),
            (
                "expires-past",
                enumerate("<n:Expires>2001-01-01T00:00:00Z</n:Expires>"),
            ),
            (
                "expires-neither",
                enumerate("<n:Expires>tomorrow</n:Expires>"),
            ),
            (
                "wrong-body",
                Ask::enumerate(family, SYSTEM, "").body("<n:Pull/>"),
            ),
            ("no-body", Ask::enumerate(family, SYSTEM, "").body("")),
            (
                "pull-unknown-context",
                Ask::pull(family, SYSTEM, unknown, ""),
            ),
            (
                "pull-unknown-context-for-omi",
                Ask::pull(family, SYSTEM, unknown, "").change(|a| a.user_agent = OMI),
            ),
            (
                "pull-context-is-no-guid",
                Ask::pull(family, SYSTEM, "17", ""),
            ),
            ("pull-no-context", Ask::pull(family, SYSTEM, "", "")),
            (
                "pull-max-elements-text",
                Ask::pull(
                    family,
                    SYSTEM,
                    unknown,
                    "<n:MaxElements>many</n:MaxElements>",
                ),
            ),
            (
                "pull-max-characters-zero",
                Ask::pull(
                    family,
                    SYSTEM,
                    unknown,
                    "<n:MaxCharacters>0</n:MaxCharacters>",
                ),
            ),
            (
                "pull-max-time-bad",
                Ask::pull(family, SYSTEM, unknown, "<n:MaxTime>soon</n:MaxTime>"),
            ),
            (
                "release-unknown-context",
                Ask::release(family, SYSTEM, unknown),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn e_3_e_10_q_6_q_7_open_enumerations() {
    let mut book = Book::open("faults-contexts");
    for family in FAMILIES {
        let contexts = ContextLimits {
            per_user: 1,
            total: 2,
            ..ContextLimits::default()
        };
        let world = World::with(Options {
            contexts: Some(contexts),
            ..Options::default()
        })
        .await;
        let enumerate = Ask::enumerate(family, SYSTEM, "");
        let first = world.send(&enumerate).await.context();
        book.check("too-many-of-user", family, &world.send(&enumerate).await);
        let other = enumerate.clone().by("rita", Role::Reader);
        world.send(&other).await.context();
        let third = enumerate.clone().by("otto", Role::Operator);
        let named = "uuid:00000000-0000-4000-8000-00000000F1F5";
        book.check("too-many-in-total", family, &world.send(&third).await);
        // The context is random, so it is shown under a fixed name.
        let asks = [
            (
                "pull-of-another-user",
                Ask::pull(family, SYSTEM, &first, "").by("rita", Role::Reader),
            ),
            (
                "release-of-another-user",
                Ask::release(family, SYSTEM, &first).by("rita", Role::Reader),
            ),
        ];
        for (name, ask) in asks {
            let mut reply = world.send(&ask).await;
            reply.text = reply.text.replace(&first, named);
            book.check(name, family, &reply);
        }
        let narrow = Ask::pull(
            family,
            SYSTEM,
            &first,
            "<n:MaxCharacters>99</n:MaxCharacters>",
        );
        book.check("pull-item-too-large", family, &world.send(&narrow).await);
        world.clock.advance(Duration::from_secs(61));
        let mut expired = world.send(&Ask::pull(family, SYSTEM, &first, "")).await;
        expired.text = expired.text.replace(&first, named);
        book.check("expired", family, &expired);
    }
    book.close();
}

#[tokio::test]
async fn i_1_i_2_i_4_a_10_methods() {
    record("faults-method", |family| {
        let call = |parameters: &str| Ask::invoke(family, SERVICE, "CreateSnapshot", parameters);
        let given = |name: &str, text: &str| call(&format!("<p:{name}>{text}</p:{name}>"));
        let renamed = |from: &str, to: &str| {
            let (from, to) = (from.to_owned(), to.to_owned());
            call("").change(move |a| a.body = a.body.replace(&from, &to))
        };
        let long = "x".repeat(9000);
        let echo = format!(
            r#"<a:Address>{}</a:Address><a:ReferenceParameters><x:Long xmlns:x="urn:x">{long}</x:Long></a:ReferenceParameters>"#,
            super::ask::ANONYMOUS
        );
        let small = "<w:MaxEnvelopeSize>8192</w:MaxEnvelopeSize>";
        let define = "<p:Name>n</p:Name><p:Type>0</p:Type>";
        vec![
            ("unknown-method", Ask::invoke(family, SERVICE, "Explode", "")),
            (
                "method-of-another-class",
                Ask::new(family, &format!("{}/CreateSnapshot", class_uri(family, SYSTEM)), SERVICE),
            ),
            ("no-such-object", call("").selector("CreationClassName", SERVICE)
                .selector("Name", "other").selector("SystemCreationClassName", SYSTEM)
                .selector("SystemName", "HV01")),
            ("role-too-low", create_snapshot(family, 2, "").by("rita", Role::Reader)),
            ("wrong-body", renamed("CreateSnapshot_INPUT", "CreateSnapshot")),
            ("unknown-parameter", given("Colour", "blue")),
            ("number-is-text", given("SnapshotType", "two")),
            ("number-out-of-range", given("SnapshotType", "65536")),
            ("number-is-empty", given("SnapshotType", "")),
            ("number-is-markup", given("SnapshotType", "<p:Two/>")),
            ("reference-is-text", given("Collection", "the second one")),
            ("reference-without-class", given("Collection", "<a:ReferenceParameters/>")),
            (
                "scalar-twice",
                call("<p:SnapshotType>1</p:SnapshotType><p:SnapshotType>2</p:SnapshotType>"),
            ),
            (
                "embedded-markup-of-unknown-class",
                given("SnapshotSettings", r#"<x:Msvm_NoSuch xmlns:x="urn:x"/>"#),
            ),
            (
                "unreportable-success",
                Ask::invoke(family, "Msvm_CollectionManagementService", "DefineCollection", define)
                    .header(small)
                    .change(|a| a.reply_to = Some(echo.clone())),
            ),
            (
                "answer-too-large",
                call(&collection(family)).header(small).change(|a| a.reply_to = Some(echo.clone())),
            ),
        ]
    })
    .await;
}

#[tokio::test]
async fn h_19_a_call_that_takes_too_long() {
    let mut book = Book::open("faults-timeout");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        world.sim.order(Fault {
            machine: machine(1),
            disk: None,
            step: Step::Plan,
            trouble: Trouble::Hang,
            times: 1,
        });
        let ask = create_snapshot(family, 2, "")
            .header("<w:OperationTimeout>PT0.05S</w:OperationTimeout>");
        let reply = world.send(&ask).await;
        while world.sim.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        world.sim.release();
        book.check("invoke", family, &reply);
    }
    book.close();
}
