//! No request stalls another: evaluations have their own threads, their turns and their time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use groupshot::handler::{Identity, Role};

use super::rig::{Ask, Reply, Rig};

const OPTIMIZE: &str = "<w:OptimizeEnumeration/>";
const ONE_SECOND: &str = "<w:OperationTimeout>PT1S</w:OperationTimeout>";

/// An Enumerate of the things with these numbers.
fn query(numbers: &[usize], more: &str) -> Ask {
    let terms: Vec<_> = numbers.iter().map(|n| format!("Number = {n}")).collect();
    let text = format!("SELECT * FROM Test_Thing WHERE {}", terms.join(" OR "));
    let dialect = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
    let filter = format!("<w:Filter Dialect=\"{dialect}\">{text}</w:Filter>{more}");
    Ask::enumerate("Test_Thing", &filter)
}

fn pull(context: &str) -> Ask {
    Ask::pull(context, "<n:MaxElements>10</n:MaxElements>")
}

/// Pulls to the end, over every page whose time was up; the names, and how often it was.
async fn pull_through(rig: &Rig, context: String, header: &str) -> (Vec<String>, usize) {
    let (mut next, mut names, mut late) = (Some(context), Vec::new(), 0);
    while let Some(context) = next.take() {
        let reply = rig.send(&pull(&context).header(header).text()).await;
        if reply.status == 500 {
            assert_eq!(reply.fault().0, "TimedOut", "{}", reply.text);
            late += 1;
            next = Some(context);
        } else {
            assert!(!reply.all("Name").is_empty() || reply.one("EnumerationContext").is_none());
            names.extend(reply.all("Name"));
            next = reply.one("EnumerationContext");
        }
    }
    (names, late)
}

#[tokio::test]
async fn h_19_a_pull_that_finds_nothing_in_time_faults_and_the_next_one_goes_on() {
    let rig = Rig::new(60);
    let context = rig.send(&query(&[41], "").text()).await.ok();
    let context = context.one("EnumerationContext").unwrap();
    rig.things.slowness.store(100, Ordering::SeqCst);
    let before = rig.clock_now();
    let late = rig.send(&pull(&context).header(ONE_SECOND).text()).await;
    let (subcode, _, code) = late.fault();
    assert_eq!((&*subcode, &*code), ("TimedOut", "2150858793"));
    let took = rig.clock_now() - before;
    assert!(
        took.as_millis() <= 1100,
        "{took:?}: one instance beyond it at most"
    );
    let asked = Ask::pull(&context, "<n:MaxTime>PT1S</n:MaxTime>");
    let (subcode, _, code) = rig.send(&asked.text()).await.fault();
    assert_eq!((&*subcode, &*code), ("TimedOut", "2150858780"));
    let (names, late) = pull_through(&rig, context, ONE_SECOND).await;
    assert_eq!(names, ["thing-00041"]);
    assert!((1..5).contains(&late), "{late}");
}

#[tokio::test]
async fn a_query_over_many_instances_comes_to_its_end_over_pages_and_loses_and_doubles_nothing() {
    let rig = Rig::new(200);
    rig.things.slowness.store(100, Ordering::SeqCst);
    let wanted = [3, 77, 78, 79, 110, 190, 199];
    let ask = query(&wanted, OPTIMIZE).header(ONE_SECOND);
    let first = rig.send(&ask.text()).await.ok();
    assert!(first.all("EndOfSequence").is_empty());
    let context = first.one("EnumerationContext").unwrap();
    let (rest, late) = pull_through(&rig, context, ONE_SECOND).await;
    let mut names = [first.all("Name"), rest].concat();
    names.sort();
    let expected: Vec<_> = wanted.iter().map(|n| format!("thing-{n:05}")).collect();
    assert_eq!(names, expected);
    assert!(late > 3, "{late}");
}

#[tokio::test]
async fn an_optimized_enumerate_that_finds_nothing_in_time_gives_a_context_to_go_on_with() {
    let rig = Rig::new(100);
    rig.things.slowness.store(100, Ordering::SeqCst);
    let ask = query(&[71], OPTIMIZE).header(ONE_SECOND);
    let reply = rig.send(&ask.text()).await.ok();
    assert!(reply.all("Name").is_empty() && reply.all("EndOfSequence").is_empty());
    let made = rig.clock_now();
    assert!(made.as_millis() <= 600, "{made:?}: sent at half its time");
    let context = reply.one("EnumerationContext").unwrap();
    rig.things.slowness.store(0, Ordering::SeqCst);
    let (names, _) = pull_through(&rig, context, "").await;
    assert_eq!(names, ["thing-00071"]);
}

/// Sends as the reader, beside what the test does.
fn read(rig: &Arc<Rig>, ask: Ask) -> tokio::task::JoinHandle<Reply> {
    let rig = rig.clone();
    tokio::spawn(async move { rig.send_as("reader", Role::Reader, &ask.text()).await })
}

/// Until the reader has all places that one user may have.
async fn share_is_full(rig: &Rig) {
    let places = available_parallelism().map_or(2, usize::from).max(2);
    while rig.things.gate.held() < places / 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_fills_the_share_of_one_user_keeps_nobody_else_waiting() {
    let rig = Arc::new(Rig::new(20));
    rig.things.gate.shut();
    let readers: Vec<_> = (0..40).map(|_| read(&rig, query(&[4], OPTIMIZE))).collect();
    share_is_full(&rig).await;
    let identify = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"#;
    rig.send(identify).await.ok();
    let get = Ask::get("Test_Thing").selector("Name", "thing-00001");
    rig.send(&get.text()).await.ok();
    let call = Ask::invoke("Test_Service", "Slow", "<p:Milliseconds>0</p:Milliseconds>");
    rig.send(&call.selector("Name", "service").text())
        .await
        .ok();
    rig.send(&Ask::enumerate("Test_Thing", OPTIMIZE).text())
        .await
        .ok();
    let found = rig.send(&query(&[7], OPTIMIZE).text()).await.ok();
    assert_eq!(found.all("Name"), ["thing-00007"]);
    // What the reader asks for without an evaluation is answered as well.
    let get = Ask::get("Test_Thing").selector("Name", "thing-00002");
    read(&rig, get).await.unwrap().ok();
    rig.things.gate.open();
    for reader in readers {
        assert_eq!(reader.await.unwrap().ok().all("Name"), ["thing-00004"]);
    }
}

#[tokio::test(start_paused = true)]
async fn h_19_the_time_of_an_operation_counts_while_it_waits_for_a_place() {
    let rig = Arc::new(Rig::new(20));
    rig.things.gate.shut();
    let first: Vec<_> = (0..40).map(|_| read(&rig, query(&[4], OPTIMIZE))).collect();
    share_is_full(&rig).await;
    let late = read(&rig, query(&[5], OPTIMIZE).header(ONE_SECOND))
        .await
        .unwrap();
    let (subcode, _, code) = late.fault();
    assert_eq!((&*subcode, &*code), ("TimedOut", "2150858793"));
    rig.things.gate.open();
    for answer in first {
        let _in_time_or_not = answer.await.unwrap();
    }
}

/// A message that takes long to read: references in references, as the selectors of a Get.
fn references() -> Ask {
    let of = |count: usize, selector: &dyn Fn(usize) -> String| -> String {
        (0..count)
            .map(|n| format!("<w:Selector Name=\"k{n}\">{}</w:Selector>", selector(n)))
            .collect()
    };
    let wrapped = |selectors: String| {
        let class = super::rig::uri("Test_Thing");
        format!(
            "<a:EndpointReference><a:ReferenceParameters><w:ResourceURI>{class}</w:ResourceURI><w:SelectorSet>{selectors}</w:SelectorSet></a:ReferenceParameters></a:EndpointReference>"
        )
    };
    let inner = wrapped(of(60, &|_| "x".to_owned()));
    let middle = wrapped(of(3, &|_| inner.clone()));
    let set = of(60, &|_| middle.clone());
    // Of a long header only the beginning is looked at.
    let ask = Ask::get("Test_Thing").header(ONE_SECOND);
    ask.header(&format!("<w:SelectorSet>{set}</w:SelectorSet>"))
}

fn is_late(reply: &Reply) {
    let (subcode, _, code) = reply.fault();
    assert_eq!((&*subcode, &*code), ("TimedOut", "2150858793"));
    assert!(reply.text.contains("within 1 s"), "{}", reply.text);
    assert_eq!(reply.one("RelatesTo").as_deref(), Some("uuid:7"));
}

#[tokio::test(start_paused = true)]
async fn h_19_the_time_of_an_operation_counts_while_its_message_waits_to_be_read() {
    let rig = Arc::new(Rig::new(20));
    rig.things.gate.shut();
    let first: Vec<_> = (0..40).map(|_| read(&rig, query(&[4], OPTIMIZE))).collect();
    share_is_full(&rig).await;
    let began = tokio::time::Instant::now();
    is_late(&read(&rig, references()).await.unwrap());
    let numbers: Vec<_> = (0..2000).collect();
    let late = read(&rig, query(&numbers, "").header(ONE_SECOND)).await;
    is_late(&late.unwrap());
    assert!(began.elapsed() < Duration::from_secs(3));
    rig.things.gate.open();
    for answer in first {
        let _in_time_or_not = answer.await.unwrap();
    }
}

/// The clock of the test goes on as soon as nothing but the reading is left to wait for.
#[tokio::test(start_paused = true)]
async fn h_19_a_message_that_takes_too_long_to_read_is_answered_in_time() {
    let rig = Rig::new(3);
    let ask = references().text();
    assert!((400_000..500_000).contains(&ask.len()), "{}", ask.len());
    is_late(&rig.send(&ask).await);
}

/// Wants so much returned that a fault with it has more than 8192 octets.
fn wants_much(text: &str) -> String {
    let much = format!(
        "<a:ReferenceParameters><x xmlns=\"urn:x\">{}</x></a:ReferenceParameters></a:ReplyTo>",
        "y".repeat(9000)
    );
    text.replacen("</a:ReplyTo>", &much, 1)
}

fn fits_and_is(fault: &Reply, subcode: &str, what: &str) {
    assert_eq!(fault.fault().0, subcode, "{what}");
    let length = fault.text.len();
    assert!(length <= 8192, "{what}: {length}");
}

/// Of a message that is refused before its header was judged.
#[tokio::test]
async fn h_20_no_fault_for_a_message_that_cannot_be_read_is_larger_than_it_allows() {
    let rig = Rig::new(3);
    let ask = || Ask::get("Test_Thing").max_envelope(8192);
    let twice = ask().header(ONE_SECOND).header(ONE_SECOND);
    let quoted = ask().resource(&"ä".repeat(2000));
    let broken = ask().body("<n:Pull");
    for (ask, subcode) in [
        (twice, "InvalidMessageInformationHeader"),
        (quoted, "DestinationUnreachable"),
        (broken, "SchemaValidationError"),
    ] {
        let fault = rig.send(&wants_much(&ask.text())).await;
        fits_and_is(&fault, subcode, subcode);
    }
    // Who allows more gets back what it wants.
    let twice = Ask::get("Test_Thing").header(ONE_SECOND).header(ONE_SECOND);
    let fault = rig.send(&wants_much(&twice.text())).await;
    assert!(fault.text.contains("yyyy"), "{}", fault.text);
}

/// Only the beginning of it was looked at.
#[tokio::test(start_paused = true)]
async fn h_20_no_fault_for_a_message_that_is_not_read_in_time_is_larger_than_it_allows() {
    let rig = Rig::new(3);
    let late = references().max_envelope(8192).text();
    fits_and_is(&rig.send(&wants_much(&late)).await, "TimedOut", "late");
    // What it allows stands too far behind.
    let size = "<w:MaxEnvelopeSize>8192</w:MaxEnvelopeSize>";
    let end = format!("{size}</s:Header>");
    let unknown = late.replace(size, "").replace("</s:Header>", &end);
    fits_and_is(
        &rig.send(&wants_much(&unknown)).await,
        "TimedOut",
        "unknown",
    );
    let fault = rig.send(&wants_much(&references().text())).await;
    assert!(fault.text.contains("yyyy"), "{}", fault.text);
}

#[tokio::test]
async fn h_19_the_time_of_an_operation_counts_while_it_is_not_known_who_asks() {
    let rig = Rig::new(3);
    rig.clock.advance(Duration::from_secs(60));
    let identity = Identity {
        user: "admin".into(),
        role: Role::Administrator,
    };
    let get = Ask::get("Test_Thing").selector("Name", "thing-00001");
    let enumerate = Ask::enumerate("Test_Thing", OPTIMIZE);
    let call = Ask::invoke("Test_Service", "Slow", "<p:Milliseconds>0</p:Milliseconds>");
    for ask in [get, enumerate, call.selector("Name", "service")] {
        let text = ask.header(ONE_SECOND).text();
        for (waited, status) in [(900, 200), (1000, 500), (30_000, 500)] {
            let body = Bytes::copy_from_slice(text.as_bytes());
            let waited = Duration::from_millis(waited);
            let answer = rig.send_after(waited, Some(identity.clone()), body).await;
            let reply = Reply::new(&answer);
            assert_eq!(reply.status, status, "{waited:?}: {}", reply.text);
            if status == 500 {
                assert_eq!(reply.fault().0, "TimedOut");
            }
        }
    }
}
