//! Enumerate, Pull, Release: pages, limits, contexts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use groupshot::handler::{Identity, Role};
use groupshot::operation::{ContextLimits, ProtocolSettings};

use super::rig::{Ask, Reply, Rig, uri};

const OPTIMIZE: &str = "<w:OptimizeEnumeration/>";

fn max(n: usize) -> String {
    format!("<n:MaxElements>{n}</n:MaxElements>")
}

/// Opens an enumeration of all things; its context.
async fn open(rig: &Rig) -> String {
    let reply = rig
        .send(&Ask::enumerate("Test_Thing", "").text())
        .await
        .ok();
    reply.one("EnumerationContext").unwrap()
}

/// Pulls to the end; names in order and the number of pages.
async fn pull_all(rig: &Rig, context: &str, ask: impl Fn(&str) -> Ask) -> (Vec<String>, usize) {
    let (mut context, mut names, mut pages) = (Some(context.to_owned()), Vec::new(), 0);
    while let Some(now) = context {
        let reply = rig.send(&ask(&now).text()).await.ok();
        pages += 1;
        names.extend(reply.all("Name"));
        assert_eq!(
            reply.all("Items").len(),
            1,
            "every PullResponse has n:Items"
        );
        let ended = !reply.all("EndOfSequence").is_empty();
        context = reply.one("EnumerationContext");
        assert_eq!(
            ended,
            context.is_none(),
            "a context or the end, never both: {}",
            reply.text
        );
    }
    (names, pages)
}

fn expected(count: usize) -> Vec<String> {
    let mut all: Vec<String> = (0..count).map(|n| format!("thing-{n:05}")).collect();
    // The class itself comes first, then its subclasses.
    all.sort_by_key(|name| (name.ends_with('0'), name.clone()));
    all
}

#[tokio::test]
async fn e_5_without_optimization_items_come_by_pull_only() {
    for count in [0, 3] {
        let rig = Rig::new(count);
        let reply = rig
            .send(&Ask::enumerate("Test_Thing", "").text())
            .await
            .ok();
        assert!(reply.all("Items").is_empty() && reply.all("EndOfSequence").is_empty());
        let context = reply.one("EnumerationContext").unwrap();
        assert!(context.starts_with("uuid:"));
        let (names, _) = pull_all(&rig, &context, |c| Ask::pull(c, &max(10))).await;
        assert_eq!(names, expected(count));
        let after = rig.send(&Ask::pull(&context, "").text()).await.fault();
        assert_eq!(after.0, "InvalidEnumerationContext");
        assert_eq!(rig.server.open_enumerations(), 0);
    }
}

#[tokio::test]
async fn e_4_optimization_puts_items_into_the_first_answer() {
    let rig = Rig::new(3);
    let all = format!("{OPTIMIZE}<w:MaxElements>10</w:MaxElements>");
    let reply = rig
        .send(&Ask::enumerate("Test_Thing", &all).text())
        .await
        .ok();
    assert_eq!(reply.all("Name"), expected(3));
    assert!(
        reply.text.contains("<n:EnumerationContext/>"),
        "{}",
        reply.text
    );
    assert!(reply.text.contains("<w:EndOfSequence/>"));
    assert_eq!(rig.server.open_enumerations(), 0);
    let one = rig
        .send(&Ask::enumerate("Test_Thing", OPTIMIZE).text())
        .await
        .ok();
    assert_eq!(
        one.all("Name").len(),
        1,
        "without w:MaxElements there is one"
    );
    let context = one.one("EnumerationContext").unwrap();
    let (names, _) = pull_all(&rig, &context, |c| Ask::pull(c, &max(10))).await;
    assert_eq!(names, expected(3)[1..]);
}

#[tokio::test]
async fn e_12_the_end_comes_with_the_last_items() {
    let rig = Rig::new(20);
    let context = open(&rig).await;
    let (names, pages) = pull_all(&rig, &context, |c| Ask::pull(c, &max(10))).await;
    assert_eq!((names, pages), (expected(20), 2));
}

#[tokio::test]
async fn e_11_a_pull_without_a_number_brings_what_the_enumerate_said_or_one() {
    let rig = Rig::new(7);
    for (enumerate, pull, pages) in [
        ("", "", 7),
        ("<w:MaxElements>4</w:MaxElements>", "", 2),
        (
            "<w:MaxElements>4</w:MaxElements>",
            "<w:MaxElements>7</w:MaxElements>",
            2,
        ),
        ("", "<w:MaxElements>7</w:MaxElements>", 1),
        (
            "<w:MaxElements>4</w:MaxElements>",
            "<n:MaxElements>3</n:MaxElements>",
            3,
        ),
    ] {
        let reply = rig
            .send(&Ask::enumerate("Test_Thing", enumerate).text())
            .await
            .ok();
        let context = reply.one("EnumerationContext").unwrap();
        let (names, n) = pull_all(&rig, &context, |c| Ask::pull(c, pull)).await;
        assert_eq!((names.len(), n), (7, pages), "{enumerate} {pull}");
    }
}

#[tokio::test]
async fn h_20_no_page_exceeds_the_envelope_size_and_nothing_is_lost() {
    let rig = Rig::new(60);
    for octets in [8192, 9000, 20_000] {
        let enumerate = Ask::enumerate("Test_Thing", OPTIMIZE).max_envelope(octets);
        let first = rig.send(&enumerate.text()).await.ok();
        let mut names = first.all("Name");
        let mut context = first.one("EnumerationContext");
        while let Some(now) = context {
            let reply = rig
                .send(&Ask::pull(&now, &max(100)).max_envelope(octets).text())
                .await
                .ok();
            assert!(
                reply.text.len() <= octets,
                "{} > {octets}",
                reply.text.len()
            );
            names.extend(reply.all("Name"));
            context = reply.one("EnumerationContext");
        }
        assert_eq!(names, expected(60));
    }
}

#[tokio::test]
async fn t_6_pages_in_utf_16_keep_the_envelope_size_too() {
    let rig = Rig::new(30);
    let context = open(&rig).await;
    let ask = Ask::pull(&context, &max(30)).max_envelope(16_384).text();
    let mut body = vec![0xFF, 0xFE];
    body.extend(ask.encode_utf16().flat_map(u16::to_le_bytes));
    let identity = Identity {
        user: "admin".into(),
        role: Role::Administrator,
    };
    let answer = rig.send_bytes(Some(identity), body.into()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() <= 16_384, "{}", answer.body.len());
    assert!(
        answer.body.len() > 6000,
        "items were sent: {}",
        answer.body.len()
    );
    let units: Vec<u16> = answer
        .body
        .chunks(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]))
        .collect();
    assert!(
        String::from_utf16(&units)
            .unwrap()
            .contains("EnumerationContext")
    );
}

#[tokio::test]
async fn e_14_max_characters_bounds_the_items_and_an_item_that_is_too_long_is_kept() {
    let rig = Rig::new(5);
    let context = open(&rig).await;
    let limit = |n: usize| format!("{}<n:MaxCharacters>{n}</n:MaxCharacters>", max(5));
    let small = rig
        .send(&Ask::pull(&context, &limit(10)).text())
        .await
        .fault();
    assert_eq!(
        (small.0.as_str(), small.1.as_str()),
        ("EncodingLimit", "MaxEnvelopeSizeExceeded")
    );
    let two = rig
        .send(&Ask::pull(&context, &limit(1200)).text())
        .await
        .ok();
    assert_eq!(two.all("Name"), expected(5)[..2]);
    let items = two
        .text
        .split("<n:Items>")
        .nth(1)
        .unwrap()
        .split("</n:Items>")
        .next()
        .unwrap();
    assert!(items.chars().count() <= 1200);
    let (rest, _) = pull_all(&rig, &context, |c| Ask::pull(c, &max(5))).await;
    assert_eq!(rest, expected(5)[2..]);
}

#[tokio::test]
async fn e_7_references_and_objects_with_references() {
    let rig = Rig::new(1);
    let all = format!("{OPTIMIZE}<w:MaxElements>10</w:MaxElements>");
    let mode = |m: &str| format!("{all}<w:EnumerationMode>{m}</w:EnumerationMode>");
    let epr = Ask::enumerate("Test_Thing", &mode("EnumerateEPR")).text();
    let epr = rig.send(&epr).await.ok();
    assert_eq!(epr.all("Selector"), ["thing-00000"]);
    assert_eq!(epr.one("ResourceURI").unwrap(), uri("Test_Special"));
    assert!(epr.all("Number").is_empty());
    let both = Ask::enumerate("Test_Thing", &mode("EnumerateObjectAndEPR"))
        .resource("http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/Test_Thing")
        .selector("__cimnamespace", "root/virtualization/v2");
    let both = rig.send(&both.text()).await.ok();
    assert_eq!(both.all("Item").len(), 1);
    assert_eq!(both.all("Number"), ["0"]);
    assert!(
        both.text
            .contains("<w:Selector Name=\"__cimnamespace\">root/virtualization/v2<")
    );
}

#[tokio::test]
async fn e_31_polymorphism_modes() {
    let rig = Rig::new(11);
    for (mode, count, special, extra) in [
        ("", 11, 2, 2),
        ("IncludeSubClassProperties", 11, 2, 2),
        ("ExcludeSubClassProperties", 11, 0, 0),
        ("None", 9, 0, 0),
    ] {
        let mode_element = match mode {
            "" => String::new(),
            mode => format!("<b:PolymorphismMode>{mode}</b:PolymorphismMode>"),
        };
        let wish = format!("{OPTIMIZE}<w:MaxElements>50</w:MaxElements>{mode_element}");
        let reply = rig
            .send(&Ask::enumerate("Test_Thing", &wish).text())
            .await
            .ok();
        assert_eq!(reply.all("Name").len(), count, "{mode}");
        assert_eq!(reply.all("Test_Special").len(), special, "{mode}");
        assert_eq!(reply.all("Extra").len(), extra, "{mode}");
    }
}

#[tokio::test]
async fn h_27_the_count_is_told_on_request() {
    let rig = Rig::new(11);
    let wish = "<w:RequestTotalItemsCountEstimate/>";
    let asked = Ask::enumerate("Test_Element", "").header(wish).text();
    let reply = rig.send(&asked).await.ok();
    assert_eq!(
        reply.one("TotalItemsCountEstimate").as_deref(),
        Some("12"),
        "{}",
        reply.text
    );
    let context = reply.one("EnumerationContext").unwrap();
    let pull = rig
        .send(&Ask::pull(&context, "").header(wish).text())
        .await
        .ok();
    assert_eq!(pull.one("TotalItemsCountEstimate").as_deref(), Some("12"));
    let silent = rig
        .send(&Ask::enumerate("Test_Thing", "").text())
        .await
        .ok();
    assert!(silent.all("TotalItemsCountEstimate").is_empty());
}

#[tokio::test]
async fn e_2_expiry_is_granted_up_to_a_limit_and_kept() {
    let rig = Rig::new(2);
    let expires = |text: &str| format!("<n:Expires>{text}</n:Expires>");
    for (wanted, granted) in [
        ("PT100S", "PT100.000S"),
        ("PT99H", "PT3600.000S"),
        ("2026-01-02T03:05:05Z", "2026-01-02T03:05:05Z"),
        ("2027-01-02T03:05:05Z", "2026-01-02T04:04:05Z"),
    ] {
        let reply = rig
            .send(&Ask::enumerate("Test_Thing", &expires(wanted)).text())
            .await
            .ok();
        assert_eq!(reply.one("Expires").as_deref(), Some(granted));
    }
    let past = Ask::enumerate("Test_Thing", &expires("2026-01-02T03:04:05Z")).text();
    assert_eq!(rig.send(&past).await.fault().0, "InvalidExpirationTime");
    let reply = rig
        .send(&Ask::enumerate("Test_Thing", &expires("PT100S")).text())
        .await
        .ok();
    let context = reply.one("EnumerationContext").unwrap();
    rig.clock.advance(Duration::from_secs(99));
    rig.send(&Ask::pull(&context, "").text()).await.ok();
    rig.clock.advance(Duration::from_secs(1));
    let gone = rig.send(&Ask::pull(&context, "").text()).await.fault();
    assert_eq!(gone.0, "InvalidEnumerationContext");
}

#[tokio::test]
async fn q_7_an_idle_enumeration_is_forgotten() {
    let rig = Rig::new(3);
    let context = open(&rig).await;
    rig.clock.advance(Duration::from_secs(59));
    rig.send(&Ask::pull(&context, "").text()).await.ok();
    rig.clock.advance(Duration::from_secs(59));
    rig.server.sweep();
    assert_eq!(rig.server.open_enumerations(), 1);
    rig.clock.advance(Duration::from_secs(1));
    rig.server.sweep();
    assert_eq!(rig.server.open_enumerations(), 0);
    let gone = rig.send(&Ask::pull(&context, "").text()).await.fault();
    assert_eq!(gone.0, "InvalidEnumerationContext");
}

#[tokio::test]
async fn e_10_too_many_open_enumerations_are_a_quota_fault() {
    let contexts = ContextLimits {
        per_user: 2,
        total: 3,
        ..ContextLimits::default()
    };
    let rig = Rig::with(
        3,
        ProtocolSettings {
            contexts,
            ..ProtocolSettings::default()
        },
    );
    let first = open(&rig).await;
    open(&rig).await;
    let enumerate = Ask::enumerate("Test_Thing", "").text();
    let (subcode, _, code) = rig.send(&enumerate).await.fault();
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("QuotaLimit", "2150859174")
    );
    rig.send_as("bob", Role::Reader, &enumerate).await.ok();
    assert_eq!(
        rig.send_as("bob", Role::Reader, &enumerate).await.fault().2,
        "2150859174"
    );
    // What ends in its first answer needs no context.
    let all = format!("{OPTIMIZE}<w:MaxElements>10</w:MaxElements>");
    rig.send(&Ask::enumerate("Test_Thing", &all).text())
        .await
        .ok();
    rig.send(&Ask::release(&first).text()).await.ok();
    open(&rig).await;
}

#[tokio::test]
async fn e_3_a_context_belongs_to_its_user_and_is_enough_by_itself() {
    let rig = Rig::new(3);
    let context = open(&rig).await;
    for ask in [Ask::pull(&context, ""), Ask::release(&context)] {
        let (subcode, _, _) = rig
            .send_as("bob", Role::Administrator, &ask.text())
            .await
            .fault();
        assert_eq!(subcode, "AccessDenied");
    }
    let other = Ask::pull(&context, "").resource(&uri("Test_Service"));
    assert_eq!(rig.send(&other.text()).await.ok().all("Name").len(), 1);
    for wrong in ["uuid:7", "", "uuid:00000000-0000-4000-8000-000000000000"] {
        let reply = rig.send(&Ask::pull(wrong, "").text()).await;
        assert_eq!(reply.fault().0, "InvalidEnumerationContext", "{wrong}");
    }
}

#[tokio::test]
async fn e_15_release_ends_an_enumeration() {
    let rig = Rig::new(3);
    let context = open(&rig).await;
    let released = rig.send(&Ask::release(&context).text()).await.ok();
    assert!(released.text.contains("<s:Body></s:Body>"));
    for ask in [Ask::pull(&context, ""), Ask::release(&context)] {
        assert_eq!(
            rig.send(&ask.text()).await.fault().0,
            "InvalidEnumerationContext"
        );
    }
}

#[tokio::test]
async fn q_3_a_page_has_at_most_32000_items() {
    let settings = ProtocolSettings::default();
    let rig = Rig::with(40_000, settings);
    let mode = "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>";
    let reply = rig
        .send(&Ask::enumerate("Test_Thing", mode).text())
        .await
        .ok();
    let context = reply.one("EnumerationContext").unwrap();
    let page: Reply = rig
        .send(&Ask::pull(&context, &max(40_000)).text())
        .await
        .ok();
    assert!(page.all("EndpointReference").len() <= 32_000);
    assert!(page.text.len() <= 512_000);
}

#[tokio::test]
async fn e_13_a_page_ends_when_its_time_does_and_nothing_is_lost() {
    let count = 200;
    let rig = Rig::new(count);
    let context = open(&rig).await;
    rig.things.slowness.store(100, Ordering::SeqCst);
    // MaxTime, and the shorter OperationTimeout where there is one.
    for (headers, max_time) in [
        ("", "PT1S"),
        ("<w:OperationTimeout>PT1S</w:OperationTimeout>", "PT1H"),
    ] {
        let content = format!("<n:MaxTime>{max_time}</n:MaxTime>{}", max(1000));
        let ask = Ask::pull(&context, &content).header(headers);
        let reply = rig.send(&ask.text()).await.ok();
        let got = reply.all("Name").len();
        assert!(
            (1..count / 4).contains(&got),
            "{got} in {headers}{max_time}"
        );
        assert!(reply.all("EndOfSequence").is_empty());
    }
    rig.things.slowness.store(0, Ordering::SeqCst);
    let (names, _) = pull_all(&rig, &context, |c| Ask::pull(c, &max(1000))).await;
    let rest = expected(count);
    assert!(rest.ends_with(&names) && rest.len() - names.len() < count / 2);
}
