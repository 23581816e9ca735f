//! Identify, Get, configuration, and who may ask.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use groupshot::handler::Role;

use super::rig::{Ask, Rig, TRANSFER};

const IDENTIFY: &str = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"#;

#[tokio::test]
async fn o_1_identify_tells_versions_to_users_only() {
    let rig = Rig::new(0);
    let known = rig.send_as("ann", Role::Reader, IDENTIFY).await.ok();
    let version = known.one("ProductVersion").unwrap();
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("Stack: 3.0"));
    let anonymous = rig
        .send_bytes(None, Bytes::from_static(IDENTIFY.as_bytes()))
        .await;
    let text = String::from_utf8(anonymous.body.to_vec()).unwrap();
    assert_eq!(anonymous.status, 200);
    assert!(text.contains("Stack: 3.0") && !text.contains(env!("CARGO_PKG_VERSION")));
    assert!(!text.contains("SecurityProfile"));
}

#[tokio::test]
async fn without_authentication_there_is_nothing_but_identify() {
    let rig = Rig::new(1);
    let ask = Ask::get("Test_Thing")
        .selector("Name", "thing-00000")
        .text();
    let answer = rig.send_bytes(None, ask.into()).await;
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8_lossy(&answer.body).contains("AccessDenied"));
}

#[tokio::test]
async fn x_1_get_finds_by_keys_also_through_a_superclass() {
    let rig = Rig::new(11);
    for class in ["Test_Thing", "test_thing", "Test_Special"] {
        let ask = Ask::get(class).selector("Name", "thing-00010");
        let reply = rig.send_as("ann", Role::Reader, &ask.text()).await.ok();
        assert_eq!(reply.one("Number").as_deref(), Some("10"));
        assert_eq!(reply.one("Extra").as_deref(), Some("more"));
        assert_eq!(reply.one("RelatesTo").as_deref(), Some("uuid:7"));
        assert_eq!(
            reply.one("Action").unwrap(),
            format!("{TRANSFER}/GetResponse")
        );
    }
}

#[tokio::test]
async fn x_2_get_without_selectors_means_the_only_instance() {
    let rig = Rig::new(2);
    rig.send(&Ask::get("Test_Service").text()).await.ok();
    let several = rig.send(&Ask::get("Test_Thing").text()).await.fault();
    assert_eq!(several.1, "InsufficientSelectors");
    let ask = Ask::get("Test_Thing").selector("Name", "thing-00002");
    let (subcode, _, code) = rig.send(&ask.text()).await.fault();
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("DestinationUnreachable", "2150858752")
    );
}

#[tokio::test]
async fn q_20_the_configuration_is_told() {
    let rig = Rig::new(0);
    let resource = "http://schemas.microsoft.com/wbem/wsman/1/config";
    let reply = rig
        .send(&Ask::get("x").resource(resource).text())
        .await
        .ok();
    assert_eq!(reply.one("MaxEnvelopeSizekb").as_deref(), Some("500"));
    assert_eq!(reply.one("MaxTimeoutms").as_deref(), Some("60000"));
    assert_eq!(reply.one("MaxBatchItems").as_deref(), Some("32000"));
}

#[tokio::test]
async fn h_42_end_is_answered_by_nothing() {
    let rig = Rig::new(0);
    let ask = Ask::new(
        "http://schemas.microsoft.com/wbem/wsman/1/wsman/End",
        "http://schemas.microsoft.com/wbem/wsman/1/wsman/FullDuplex",
    );
    let reply = rig.send(&ask.text()).await.ok();
    assert_eq!(reply.text, "");
}

#[tokio::test]
async fn h_19_a_get_that_takes_too_long_is_timed_out() {
    let rig = Rig::new(2);
    let ask = Ask::get("Test_Thing")
        .selector("Name", "thing-00001")
        .header("<w:OperationTimeout>PT2S</w:OperationTimeout>");
    rig.things.slowness.store(1900, Ordering::SeqCst);
    rig.send(&ask.text()).await.ok();
    rig.things.slowness.store(2100, Ordering::SeqCst);
    let fault = rig.send(&ask.text()).await;
    assert!(fault.text.contains("Test_Thing"), "{}", fault.text);
    let (subcode, _, code) = fault.fault();
    assert_eq!(
        (subcode.as_str(), code.as_str()),
        ("TimedOut", "2150858793")
    );
}
