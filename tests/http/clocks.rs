//! Clients that take their time.

use super::*;

/// Limits short enough to run into.
fn short() -> TransportLimits {
    TransportLimits {
        header: Duration::from_secs(2),
        packet_retrieval: Duration::from_secs(2),
        idle: Duration::from_mins(1),
        ..TransportLimits::default()
    }
}

#[tokio::test]
async fn a_header_that_never_ends_closes_the_connection() {
    let server = Server::with(short(), AuthSettings::default()).await;
    for bytes in ["", "POST /wsman HT", "POST /wsman HTTP/1.1\r\nHost: h\r\n"] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        assert!(client.is_closed().await, "{bytes:?}");
    }
}

#[tokio::test]
async fn t_13_a_body_that_never_ends_is_500_and_closes() {
    let server = Server::with(short(), AuthSettings::default()).await;
    let mut client = server.connect().await;
    client.send(signed_post("abc").trim_end_matches('c')).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.closes()), (500, true));
    assert!(!reply.body.is_empty());
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_header_may_take() {
    let server = Server::with(short(), AuthSettings::default()).await;
    let mut client = server.connect().await;
    client.send(signed_post("x")).await;
    client.reply().await;
    let early = client.is_closed();
    let early = tokio::time::timeout(Duration::from_secs(4), early).await;
    assert!(early.is_err(), "closed too early");
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while() {
    let limits = TransportLimits {
        idle: Duration::from_secs(3),
        ..TransportLimits::default()
    };
    let server = Server::with(limits, AuthSettings::default()).await;
    let mut client = server.connect().await;
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_slow_handler_is_not_cut_off() {
    let server = Server::with(short(), AuthSettings::default()).await;
    let mut client = server.connect().await;
    client.send(signed_post("wait")).await;
    let early = client.is_closed();
    let early = tokio::time::timeout(Duration::from_secs(5), early).await;
    assert!(early.is_err(), "closed while the server worked");
    server.gate.add_permits(1);
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_hundred_idle_connections_stand_beside_a_busy_one() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(server.connect().await);
    }
    for _ in 0..20 {
        assert_eq!(server.ask(signed_post("x")).await.status, 200);
    }
    for client in &mut idle {
        client.send(signed_post("x")).await;
        assert_eq!(client.reply().await.status, 200);
    }
}
