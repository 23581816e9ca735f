//! The agent of a real guest, as QEMU passes it on.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use groupshot::engine::QuiesceError;
use groupshot::engine::qemu::agent::{Agent, listens};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::guest::Guest;
use crate::support::qemu::Sockets;

fn shown(chardevs: &Value) -> bool {
    let told = serde_json::from_value(chardevs.clone()).unwrap();
    listens(&told, |name| name.contains("/qga"))
}

#[tokio::test]
#[ignore = "needs QEMU and a guest, which ./check installs"]
async fn a_real_guest_is_frozen_and_thawed() {
    let sockets = Sockets::new();
    let disks = ["first.qcow2", "second.raw"].map(|name| sockets.path().join(name));
    disks.iter().for_each(|disk| Guest::disk(disk));
    let guest = Guest::start(&sockets, [&disks[0], &disks[1]], "writer", &[]);
    assert!(shown(&guest.chardevs()));
    guest.goes_on();
    let agent = Agent::new("web", guest.agent().to_owned());
    assert!(!agent.is_frozen().await.unwrap());
    let quiesced = agent.quiesce().await.unwrap();
    assert_eq!((quiesced.count, quiesced.limit), (2, None));
    assert!(agent.is_frozen().await.unwrap());
    let again = agent.quiesce().await;
    assert!(
        matches!(again, Err(QuiesceError::Untouched(_))),
        "{again:?}"
    );
    // What was written before the freeze is on its way for a moment.
    std::thread::sleep(Duration::from_millis(200));
    let before = guest.writes();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(guest.writes(), before, "a frozen guest writes nothing");
    let second = UnixStream::connect(guest.agent()).unwrap();
    // It does not answer while it is stopped, and does so afterwards.
    guest.qemu.tell("stop", &json!({}));
    assert!(shown(&guest.chardevs()));
    let stopped = timeout(Duration::from_millis(500), agent.is_frozen());
    assert!(stopped.await.is_err());
    guest.qemu.tell("cont", &json!({}));
    assert!(agent.is_frozen().await.unwrap());
    for _ in 0..2 {
        agent.thaw().await.unwrap();
    }
    assert!(!agent.is_frozen().await.unwrap());
    guest.goes_on();
    // The next in the queue has it now.
    let busy = timeout(Duration::from_millis(500), agent.is_frozen());
    assert!(busy.await.is_err());
    drop(second);
    assert!(!agent.is_frozen().await.unwrap());
    // What is given up while it freezes is thawed, whenever that is.
    let given_up = timeout(Duration::from_millis(1), agent.quiesce());
    let _given_up = given_up.await;
    agent.thaw().await.unwrap();
    assert!(!agent.is_frozen().await.unwrap());
    guest.goes_on();
    guest.qemu.tell("system_reset", &json!({}));
    assert!(
        !shown(&guest.chardevs()),
        "nobody listens in a guest that boots"
    );
}
