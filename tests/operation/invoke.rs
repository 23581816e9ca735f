//! Method calls: roles, time, size of the answer.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use groupshot::audit::Audit;
use groupshot::clock::ManualClock;
use groupshot::handler::Role;
use groupshot::operation::ProtocolSettings;
use jiff::Timestamp;
use tokio::time::Instant;

use super::rig::{Ask, Rig, uri};

/// So many lines wait for an audit file at most.
const QUEUE: usize = 4096;

fn service(method: &str, input: &str) -> Ask {
    Ask::invoke("Test_Service", method, input)
}

#[tokio::test]
async fn i_10_the_output_stands_in_the_namespace_of_the_request() {
    let rig = Rig::new(0);
    let ask = service("big", "<p:Size>3</p:Size>").selector("Name", "service");
    let reply = rig.send(&ask.text()).await.ok();
    assert_eq!(reply.one("Out").as_deref(), Some("xxx"));
    assert_eq!(reply.one("ReturnValue").as_deref(), Some("0"));
    assert!(reply.text.contains(&format!(
        "<p:Big_OUTPUT xmlns:p=\"{}\"",
        uri("Test_Service")
    )));
    assert_eq!(
        reply.one("Action").unwrap(),
        format!("{}/bigResponse", uri("Test_Service"))
    );
}

#[tokio::test]
async fn a_10_a_role_that_is_too_low_is_denied_and_nothing_is_called() {
    let rig = Rig::new(0);
    for (role, allowed) in [
        (Role::Reader, false),
        (Role::Operator, false),
        (Role::Administrator, true),
    ] {
        let ask = service("Slow", "<p:Milliseconds>0</p:Milliseconds>");
        let reply = rig.send_as("ann", role, &ask.text()).await;
        match allowed {
            true => drop(reply.ok()),
            false => {
                let (subcode, _, code) = reply.fault();
                assert_eq!((subcode.as_str(), code.as_str()), ("AccessDenied", "5"));
            }
        }
        assert_eq!(
            rig.things.finished.load(Ordering::SeqCst),
            usize::from(allowed)
        );
    }
    let read = Ask::invoke("Msvm_ConcreteJob", "GetErrorEx", "").selector("InstanceID", "1");
    rig.send_as("ann", Role::Reader, &read.text()).await.ok();
}

#[tokio::test(start_paused = true)]
async fn h_19_a_call_that_takes_too_long_faults_and_goes_on() {
    let rig = Rig::new(0);
    let ask = service("Slow", "<p:Milliseconds>5000</p:Milliseconds>")
        .header("<w:OperationTimeout>PT1S</w:OperationTimeout>");
    let (subcode, _, code) = rig.send(&ask.text()).await.fault();
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("TimedOut", "2150858793")
    );
    assert_eq!(rig.things.finished.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        rig.things.finished.load(Ordering::SeqCst),
        1,
        "what has begun goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_does_not_stop_a_call() {
    let rig = Rig::new(0);
    let ask = service("Slow", "<p:Milliseconds>5000</p:Milliseconds>").text();
    let gone = tokio::time::timeout(Duration::from_secs(1), rig.send(&ask)).await;
    assert!(gone.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.things.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn h_20_an_answer_that_is_too_large_tells_whether_something_was_done() {
    let rig = Rig::new(0);
    for (changes, detail) in [
        ("false", "MaxEnvelopeSizeExceeded"),
        ("true", "UnreportableSuccess"),
    ] {
        let input = format!("<p:Size>9000</p:Size><p:Changes>{changes}</p:Changes>");
        let ask = service("Big", &input).max_envelope(8192);
        let reply = rig.send(&ask.text()).await;
        assert!(reply.text.len() <= 8192);
        let (subcode, found, _) = reply.fault();
        assert_eq!(
            (subcode.as_str(), found.as_str()),
            ("EncodingLimit", detail)
        );
    }
}

/// As many lines as wait for the file are under way: nothing is called of which none could be kept.
#[tokio::test(start_paused = true)]
async fn a_call_for_whose_line_there_is_no_place_in_time_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    let audit = Audit::to_file(&file, ManualClock::at(Timestamp::UNIX_EPOCH)).unwrap();
    let settings = ProtocolSettings {
        audit: audit.clone(),
        ..ProtocolSettings::default()
    };
    let rig = Rig::with(0, settings);
    let mut places = Vec::new();
    for _ in 0..QUEUE {
        let mut place = audit.place();
        place.wait().await;
        places.push(place);
    }
    let ask = service("Slow", "<p:Milliseconds>0</p:Milliseconds>")
        .header("<w:OperationTimeout>PT3S</w:OperationTimeout>")
        .text();
    let began = Instant::now();
    let (subcode, _, code) = rig.send(&ask).await.fault();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("TimedOut", "2150858793")
    );
    // Whoever may not call it hears so all the same.
    let denied = rig.send_as("ann", Role::Reader, &ask).await.fault();
    assert_eq!(denied.0, "AccessDenied");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.things.finished.load(Ordering::SeqCst), 0);

    places.pop();
    tokio::time::resume();
    let ask = service("Slow", "<p:Milliseconds>0</p:Milliseconds>");
    rig.send(&ask.text()).await.ok();
    assert_eq!(rig.things.finished.load(Ordering::SeqCst), 1);
    let lines = fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains(r#""result":0"#), "{lines}");
}

#[tokio::test]
async fn a_method_that_panics_is_an_internal_error() {
    let rig = Rig::new(0);
    let (subcode, _, _) = rig.send(&service("Panic", "").text()).await.fault();
    assert_eq!(subcode, "InternalError");
}

#[tokio::test(start_paused = true)]
async fn q_22_one_request_too_many_of_a_user_is_a_quota_fault() {
    let rig = Rig::with(
        0,
        ProtocolSettings {
            user_requests: Some(2),
            ..ProtocolSettings::default()
        },
    );
    let slow = service("Slow", "<p:Milliseconds>5000</p:Milliseconds>").text();
    let quick = service("Slow", "<p:Milliseconds>0</p:Milliseconds>").text();
    let both = async { tokio::join!(rig.send(&slow), rig.send(&slow)) };
    let third = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = rig.send(&quick).await.fault();
        let other = rig.send_as("otto", Role::Administrator, &quick).await;
        (third, other)
    };
    let (two, ((subcode, _, code), other)) = tokio::join!(both, third);
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("QuotaLimit", "2150859174")
    );
    drop((two.0.ok(), two.1.ok(), other.ok()));
    // What goes on behind a timed-out answer counts; its end frees the place.
    let late = service("Slow", "<p:Milliseconds>5000</p:Milliseconds>")
        .header("<w:OperationTimeout>PT1S</w:OperationTimeout>")
        .text();
    for _ in 0..2 {
        assert_eq!(rig.send(&late).await.fault().0, "TimedOut");
    }
    assert_eq!(rig.send(&quick).await.fault().0, "QuotaLimit");
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.send(&quick).await.ok();
}

#[tokio::test]
async fn a_call_that_panics_is_told_of_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let clock = groupshot::clock::SystemClock::shared();
    let rig = Rig::with(
        0,
        ProtocolSettings {
            audit: Audit::to_file(&file, clock).unwrap(),
            ..ProtocolSettings::default()
        },
    );
    rig.send(&service("Panic", "").text()).await.fault();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#""fault":"Interrupted""#), "{text}");
}
