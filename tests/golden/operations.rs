//! Every operation that ends well, in both URI families.

use std::time::Duration;

use groupshot::engine::EngineErrorKind;
use groupshot::engine::sim::{Fault, Step, Trouble};
use groupshot::handler::Role;
use groupshot::inventory::JobState;
use groupshot::wscim::Family;

use super::ask::{ANONYMOUS, Ask, epr, transfer};
use super::book::Book;
use super::world::{
    COLLECTION, FAMILIES, Options, Reply, World, add_member, collection, create_snapshot, machine,
};

const SYSTEM: &str = "Msvm_ComputerSystem";
const IDENTIFY: &str = concat!(
    r#"<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope""#,
    r#" xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">"#,
    "<e:Header/><e:Body><i:Identify/></e:Body></e:Envelope>"
);
const ENVELOPE_32K: &str = "<w:MaxEnvelopeSize>32768</w:MaxEnvelopeSize>";

fn system(family: Family, number: u32) -> Ask {
    Ask::get(family, SYSTEM)
        .selector("CreationClassName", SYSTEM)
        .selector("Name", &machine(number).to_string())
}

#[tokio::test]
async fn o_1_o_2_identify() {
    let mut book = Book::open("identify");
    let world = World::new().await;
    let known = Ask::raw(IDENTIFY);
    book.check_one("known-user", &world.send(&known).await);
    let nobody = known.change(|a| a.identity = None);
    book.check_one("anonymous", &world.send(&nobody).await);
    let without_header =
        nobody.change(|a| a.raw = Some(IDENTIFY.replace("<e:Header/>", "").into()));
    book.check_one(
        "anonymous-without-header",
        &world.send(&without_header).await,
    );
    let units = IDENTIFY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16 = without_header.change(|a| a.raw = Some(units));
    book.check_one("anonymous-utf-16", &world.send(&utf16).await);
    book.close();
}

#[tokio::test]
async fn x_1_x_2_i_18_get() {
    let mut book = Book::open("get");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        let member_of = Ask::get(family, "Msvm_CollectedVirtualSystems")
            .selector("Member", &wrapped(&machine_epr(family)))
            .selector("Collection", &wrapped(&collection_epr(family)));
        let table = [
            ("machine", system(family, 1)),
            (
                "machine-names-in-any-case",
                system(family, 1).change(|a| {
                    a.resource = a.resource.take().map(|r| r.replace("Msvm_C", "MSVM_c"));
                    a.selectors = a.selectors.replace("\"Name\"", "\"NAME\"");
                }),
            ),
            (
                "machine-by-superclass",
                system(family, 2).change(|a| {
                    a.resource = a.resource.take().map(|r| r.replace(SYSTEM, "CIM_ComputerSystem"));
                }),
            ),
            (
                "machine-precise-arrays",
                system(family, 1).header(
                    r#"<w:OptionSet><w:Option Name="msftwinrm:UsePreciseArrays">true</w:Option></w:OptionSet>"#,
                ),
            ),
            (
                "machine-with-types",
                system(family, 1).header(
                    r#"<w:OptionSet><w:Option Name="ShowExtensions">true</w:Option></w:OptionSet>"#,
                ),
            ),
            (
                "machine-in-utf-16",
                system(family, 1).change(|a| {
                    let units = a.envelope().encode_utf16().flat_map(u16::to_be_bytes).collect();
                    a.raw = Some(units);
                }),
            ),
            (
                "reply-parameters",
                Ask::get(family, "Msvm_CollectionSnapshotService").change(|a| {
                    a.reply_to = Some(format!(
                        r#"<a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters><x:Who xmlns:x="urn:x" x:n="1">me &amp; you</x:Who></a:ReferenceParameters>"#
                    ));
                }),
            ),
            ("singleton", Ask::get(family, "Msvm_CollectionSnapshotService")),
            ("management-service", Ask::get(family, "Msvm_CollectionManagementService")),
            (
                "collection",
                Ask::get(family, "Msvm_VirtualSystemCollection").selector("CollectionID", COLLECTION),
            ),
            ("association", member_of),
            (
                "settings",
                Ask::get(family, "Msvm_VirtualSystemSettingData")
                    .selector("InstanceID", &format!("Microsoft:{}", machine(1))),
            ),
            (
                "disk",
                Ask::get(family, "Msvm_StorageAllocationSettingData")
                    .selector("InstanceID", &format!(r"Microsoft:{}\disk0\0\D", machine(1))),
            ),
        ];
        for (name, ask) in table {
            let mut reply = world.send(&ask).await;
            reply.asked_message_id = ask.message_id.clone();
            book.check(name, family, &reply);
        }
    }
    book.close();
}

#[tokio::test]
async fn q_20_configuration() {
    let mut book = Book::open("config");
    let world = World::new().await;
    let resource = "http://schemas.microsoft.com/wbem/wsman/1/config";
    for (part, name) in [
        ("", "get"),
        ("/service", "service"),
        ("/service/auth", "auth"),
    ] {
        let ask = Ask::on(&transfer("Get"), &format!("{resource}{part}"));
        book.check_one(name, &world.send(&ask).await);
    }
    book.close();
}

#[tokio::test]
async fn h_42_end() {
    let mut book = Book::open("end");
    let world = World::new().await;
    for verb in ["End", "Cancel"] {
        let action = format!("http://schemas.microsoft.com/wbem/wsman/1/wsman/{verb}");
        let resource = "http://schemas.microsoft.com/wbem/wsman/1/wsman/FullDuplex";
        let ask = Ask::on(&action, resource).change(|a| {
            a.to = Some(ANONYMOUS.to_owned());
            a.reply_to = None;
        });
        book.check_one(&verb.to_lowercase(), &world.send(&ask).await);
    }
    book.close();
}

#[tokio::test]
async fn e_3_e_4_e_5_e_7_enumerate_in_every_mode() {
    let mut book = Book::open("enumerate");
    let forms = [
        ("plain", ""),
        ("first", "<w:OptimizeEnumeration/>"),
        (
            "all",
            "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>",
        ),
    ];
    let modes = [
        ("objects", ""),
        (
            "eprs",
            "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>",
        ),
        (
            "both",
            "<w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>",
        ),
    ];
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        for (form, optimize) in forms {
            for (mode, wish) in modes {
                let ask = Ask::enumerate(family, SYSTEM, &format!("{optimize}{wish}"));
                let reply = world.send(&ask).await;
                book.check(&format!("{form}-{mode}"), family, &reply);
            }
        }
        for (name, ask) in enumerations(family) {
            book.check(name, family, &world.send(&ask).await);
        }
    }
    book.close();
}

fn enumerations(family: Family) -> Vec<(&'static str, Ask)> {
    let all = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";
    let poly = |mode: &str| {
        let mode = format!("{all}<b:PolymorphismMode>{mode}</b:PolymorphismMode>");
        Ask::enumerate(family, "CIM_ComputerSystem", &mode)
    };
    let estimate = "<w:RequestTotalItemsCountEstimate/>";
    vec![
        (
            "nothing-there-plain",
            Ask::enumerate(family, "Msvm_SnapshotCollection", ""),
        ),
        (
            "nothing-there-all",
            Ask::enumerate(family, "Msvm_SnapshotCollection", all),
        ),
        (
            "embedded-only-class",
            Ask::enumerate(family, "Msvm_Error", all),
        ),
        (
            "associations",
            Ask::enumerate(family, "Msvm_CollectedVirtualSystems", all),
        ),
        (
            "class-name-in-any-case",
            Ask::enumerate(family, "msvm_COLLECTIONSNAPSHOTSERVICE", all),
        ),
        ("superclass-include", poly("IncludeSubClassProperties")),
        ("superclass-exclude", poly("ExcludeSubClassProperties")),
        ("superclass-none", poly("None")),
        (
            "expires-after",
            Ask::enumerate(family, SYSTEM, "<n:Expires>PT10M</n:Expires>"),
        ),
        (
            "expires-after-more-than-granted",
            Ask::enumerate(family, SYSTEM, "<n:Expires>P2D</n:Expires>"),
        ),
        (
            "expires-at",
            Ask::enumerate(
                family,
                SYSTEM,
                "<n:Expires>2026-01-02T03:14:05Z</n:Expires>",
            ),
        ),
        ("count", Ask::enumerate(family, SYSTEM, "").header(estimate)),
        (
            "another-element-order-and-unknown-children",
            Ask::enumerate(
                family,
                "Msvm_CollectionSnapshotService",
                r#"<x:Own xmlns:x="urn:x"/><w:MaxElements>5</w:MaxElements><m:SessionId>1</m:SessionId><w:OptimizeEnumeration/>"#,
            ),
        ),
    ]
}

#[tokio::test]
async fn e_11_e_12_e_15_pull_and_release() {
    let mut book = Book::open("pull");
    for family in FAMILIES {
        let world = World::new().await;
        let open = world
            .send(&Ask::enumerate(family, SYSTEM, ""))
            .await
            .context();
        let one = Ask::pull(family, SYSTEM, &open, "");
        book.check("one-without-max-elements", family, &world.send(&one).await);
        let two = "<n:MaxTime>PT10S</n:MaxTime><n:MaxElements>2</n:MaxElements>";
        let last = Ask::pull(family, SYSTEM, &open, two);
        book.check("last", family, &world.send(&last).await);

        let mode = "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>";
        let open = world
            .send(&Ask::enumerate(family, SYSTEM, mode))
            .await
            .context();
        let counted = Ask::pull(family, SYSTEM, &open, "<n:MaxElements>2</n:MaxElements>")
            .header("<w:RequestTotalItemsCountEstimate/>");
        book.check("two-eprs-and-count", family, &world.send(&counted).await);
        let elsewhere = Ask::pull(family, "CIM_System", &open, "");
        book.check(
            "last-epr-by-another-class",
            family,
            &world.send(&elsewhere).await,
        );

        let nothing = Ask::enumerate(family, "Msvm_SnapshotCollection", "");
        let open = world.send(&nothing).await.context();
        let ask = Ask::pull(family, "Msvm_SnapshotCollection", &open, "");
        book.check("nothing-there", family, &world.send(&ask).await);

        let open = world
            .send(&Ask::enumerate(family, SYSTEM, ""))
            .await
            .context();
        let small = "<n:MaxElements>32000</n:MaxElements><n:MaxCharacters>6000</n:MaxCharacters>";
        let ask = Ask::pull(family, SYSTEM, &open, small).header(ENVELOPE_32K);
        book.check("as-many-as-fit", family, &world.send(&ask).await);
        let release = Ask::release(family, SYSTEM, &open);
        book.check("release", family, &world.send(&release).await);
    }
    book.close();
}

#[tokio::test]
async fn i_10_to_i_15_collection_management() {
    let mut book = Book::open("collections");
    for family in FAMILIES {
        let world = World::new().await;
        let service = "Msvm_CollectionManagementService";
        let call =
            |method: &str, parameters: &str| Ask::invoke(family, service, method, parameters);
        let define = format!("<p:Name>both</p:Name><p:Id>{COLLECTION}</p:Id><p:Type>0</p:Type>");
        let table = [
            ("define", call("DefineCollection", &define)),
            ("define-refused", call("DefineCollection", &define)),
            ("add-member", add_member(family, 1)),
            ("add-member-by-path", add_by_path(family)),
            (
                "rename",
                call(
                    "RenameCollection",
                    &format!(
                        "<p:NewName>two &lt;of&gt; us</p:NewName>{}",
                        collection(family)
                    ),
                ),
            ),
            ("remove-member-by-id", remove_by_id(family)),
            ("remove-member-by-id-again", remove_by_id(family)),
            ("destroy", call("DestroyCollection", &collection(family))),
            (
                "destroy-refused",
                call("DestroyCollection", &collection(family)),
            ),
        ];
        for (name, ask) in table {
            book.check(name, family, &world.send(&ask).await);
        }
    }
    book.close();
}

fn remove_by_id(family: Family) -> Ask {
    let member = machine_epr(family);
    let parameters = format!(
        "<p:Member><a:EndpointReference>{member}</a:EndpointReference></p:Member><p:CollectionId>{COLLECTION}</p:CollectionId>"
    );
    let service = "Msvm_CollectionManagementService";
    Ask::invoke(family, service, "RemoveMemberById", &parameters)
}

fn add_by_path(family: Family) -> Ask {
    let path = format!(
        r#"\\HV01\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="{}""#,
        machine(2)
    );
    let parameters = format!("<p:Member>{path}</p:Member>{}", collection(family));
    Ask::invoke(
        family,
        "Msvm_CollectionManagementService",
        "AddMember",
        &parameters,
    )
}

#[tokio::test]
async fn i_11_i_12_create_snapshot_and_what_it_leaves() {
    let mut book = Book::open("snapshots");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        let settings = "<p:SnapshotSettings>&lt;INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\">&lt;PROPERTY NAME=\"ElementName\" TYPE=\"string\">&lt;VALUE>nightly&lt;/VALUE>&lt;/PROPERTY>&lt;/INSTANCE></p:SnapshotSettings>";
        let started = world.send(&create_snapshot(family, 2, settings)).await;
        book.check("create-4096", family, &started);
        let job = started.job();
        assert_eq!(world.ended(job).await, JobState::Completed);
        let set = started
            .selector("<p:ResultingSnapshotCollection>", "CollectionID")
            .to_owned();
        let job = Ask::get(family, "Msvm_ConcreteJob").selector("InstanceID", &job.to_string());
        book.check("job-completed", family, &world.send(&job).await);
        let ask = Ask::get(family, "Msvm_SnapshotCollection").selector("CollectionID", &set);
        book.check("set", family, &world.send(&ask).await);
        leftovers(&mut book, &world, family).await;
    }
    book.close();
}

/// What the set of both machines looks like through the classes around it, one answer each.
async fn leftovers(book: &mut Book, world: &World, family: Family) {
    let all = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";
    let classes = [
        (
            "set-of-collection",
            "Msvm_SnapshotOfVirtualSystemCollection",
        ),
        ("affected-by-job", "Msvm_AffectedJobElement"),
        ("owner-of-job", "Msvm_OwningJobElement"),
    ];
    for (name, class) in classes {
        let reply = world.send(&Ask::enumerate(family, class, all)).await;
        book.check(name, family, &reply);
    }
    let members = Ask::enumerate(family, "Msvm_CollectedSnapshots", all);
    let members = world.send(&members).await;
    // The ids of members are random, so only one member shows in an order that holds.
    let id = members.selector("<p:Member>", "InstanceID").to_owned();
    let ask = Ask::get(family, "Msvm_VirtualSystemSettingData").selector("InstanceID", &id);
    let mut settings = world.send(&ask).await;
    for number in [1, 2] {
        // Either machine may come first.
        let id = machine(number).to_string();
        settings.text = settings.text.replace(&id, &machine(1).to_string());
        let name = format!("sim-{number:06}");
        settings.text = settings.text.replace(&name, "sim-000001");
    }
    book.check("member", family, &settings);
}

#[tokio::test]
async fn semantics_1_create_snapshot_with_inline_wait_answers_0() {
    let mut book = Book::open("inline");
    for family in FAMILIES {
        let world = World::with_collection(Options {
            inline_wait: Duration::from_secs(20),
            ..Options::default()
        })
        .await;
        let reply = world
            .send(&create_snapshot(family, 1, "<p:SnapshotSettings/>"))
            .await;
        book.check("create-0", family, &reply);
    }
    book.close();
}

#[tokio::test]
async fn i_11_f_23_refusals_are_return_values_with_a_job() {
    let mut book = Book::open("refused");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        let refused = world.send(&create_snapshot(family, 3, "")).await;
        book.check("create-type-6", family, &refused);
        let job = refused.job();
        let get = Ask::get(family, "Msvm_ConcreteJob").selector("InstanceID", &job.to_string());
        book.check("job-refused", family, &world.send(&get).await);
        let on_job = |method: &str| {
            Ask::invoke(family, "Msvm_ConcreteJob", method, "")
                .selector("InstanceID", &job.to_string())
        };
        book.check("get-error", family, &world.send(&on_job("GetError")).await);
        book.check(
            "get-error-ex",
            family,
            &world.send(&on_job("GetErrorEx")).await,
        );
        let unknown = create_snapshot(family, 2, "").change(|a| {
            a.body = a
                .body
                .replace(COLLECTION, "C0110000-0000-4000-8000-000000000002");
        });
        book.check(
            "create-unknown-collection-4",
            family,
            &world.send(&unknown).await,
        );
        let other = create_snapshot(
            family,
            2,
            "<p:SnapshotSettings>no instance</p:SnapshotSettings>",
        );
        book.check("create-bad-settings-4", family, &world.send(&other).await);
        let none = Ask::invoke(
            family,
            "Msvm_CollectionSnapshotService",
            "CreateSnapshot",
            "",
        );
        book.check("create-nothing-given-4", family, &world.send(&none).await);
        let nothing = Ask::invoke(
            family,
            "Msvm_CollectionSnapshotService",
            "ExportSnapshot",
            "",
        );
        book.check(
            "export-nothing-given-32773",
            family,
            &world.send(&nothing).await,
        );
        let fixed = Ask::invoke(family, "Msvm_CollectionSnapshotService", "StopService", "");
        book.check("stop-service-1", family, &world.send(&fixed).await);
    }
    book.close();
}

#[tokio::test]
async fn semantics_5_jobs_that_run_fail_and_are_cancelled() {
    let mut book = Book::open("jobs");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        order(&world, Trouble::Fail(EngineErrorKind::Full));
        let failed = world.start(&create_snapshot(family, 2, "")).await;
        assert_eq!(world.ended(failed).await, JobState::Exception);
        let get = |job: groupshot::id::JobId| {
            Ask::get(family, "Msvm_ConcreteJob").selector("InstanceID", &job.to_string())
        };
        book.check("failed", family, &world.send(&get(failed)).await);
        let errors = Ask::invoke(family, "Msvm_ConcreteJob", "GetErrorEx", "")
            .selector("InstanceID", &failed.to_string())
            .by("rita", Role::Reader);
        book.check("failed-get-error-ex", family, &world.send(&errors).await);

        order(&world, Trouble::Hang);
        let job = world.start(&create_snapshot(family, 2, "")).await;
        world
            .until(job, "preparing disks: machine sim-000001 done")
            .await;
        // A release before the second machine hangs would be lost.
        while world.sim.hanging() == 0 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(Duration::from_millis(2500));
        book.check("running", family, &world.send(&get(job)).await);
        let busy = world.send(&create_snapshot(family, 2, "")).await;
        book.check("members-held-5", family, &busy);
        let cancel = Ask::invoke(
            family,
            "Msvm_ConcreteJob",
            "RequestStateChange",
            "<p:RequestedState>4</p:RequestedState>",
        )
        .selector("InstanceID", &job.to_string());
        book.check("cancel-4096", family, &world.send(&cancel).await);
        world.sim.release();
        assert_eq!(world.ended(job).await, JobState::Terminated);
        book.check("cancelled", family, &world.send(&get(job)).await);
        book.check("cancel-again-4097", family, &world.send(&cancel).await);
    }
    book.close();
}

/// The second machine has this trouble once, when its disk is prepared.
fn order(world: &World, trouble: Trouble) {
    world.sim.order(Fault {
        machine: machine(2),
        disk: None,
        step: Step::Prepare,
        trouble,
        times: 1,
    });
}

fn wrapped(epr: &str) -> String {
    format!("<a:EndpointReference>{epr}</a:EndpointReference>")
}

fn machine_epr(family: Family) -> String {
    let id = machine(1).to_string();
    epr(
        family,
        SYSTEM,
        &[("CreationClassName", SYSTEM), ("Name", &id)],
    )
}

fn collection_epr(family: Family) -> String {
    epr(
        family,
        "Msvm_VirtualSystemCollection",
        &[("CollectionID", COLLECTION)],
    )
}

/// Every answer of a family must have a counterpart in the other that says the same.
#[tokio::test]
async fn n_2_the_families_differ_in_uris_only() {
    let world = World::with_collection(Options::default()).await;
    let plain = |reply: Reply| {
        reply
            .page()
            .lines()
            .filter(|l| !l.contains("__cimnamespace"))
            .map(|l| l.replace("http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/", "URI/"))
            .map(|l| {
                l.replace(
                    "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/",
                    "URI/",
                )
            })
            .collect::<Vec<_>>()
    };
    let mode = "<w:OptimizeEnumeration/><w:MaxElements>9</w:MaxElements><w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>";
    for class in ["Msvm_CollectedVirtualSystems", "CIM_ManagedElement"] {
        let dmtf = world.send(&Ask::enumerate(Family::Dmtf, class, mode)).await;
        let wmi = world.send(&Ask::enumerate(Family::Wmi, class, mode)).await;
        assert!(dmtf.text.contains("__cimnamespace") && !wmi.text.contains("__cimnamespace"));
        assert_eq!(plain(dmtf), plain(wmi), "{class}");
    }
}
