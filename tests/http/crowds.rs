//! More connections than places: who gives way, who does not, and what they hear.

use super::*;

fn roomy(connections: usize, user_connections: usize) -> TransportLimits {
    TransportLimits {
        connections,
        user_connections,
        ..TransportLimits::default()
    }
}

#[tokio::test]
async fn who_says_nothing_gives_way_to_who_comes() {
    let server = Server::with(roomy(3, 9), AuthSettings::default()).await;
    let mut user = server.connect().await;
    user.send(signed_post("x")).await;
    assert_eq!(user.reply().await.status, 200);
    let mut silent = Vec::new();
    for bytes in ["", "POST /ws", "POST /wsman HTTP/1.1\r\nX: "] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        silent.push(client);
    }
    // Three places, one of them a user's: the first of the silent ones has gone.
    assert!(silent[0].is_closed().await);
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    user.send(signed_post("x")).await;
    assert_eq!(user.reply().await.status, 200, "kept its place");
}

/// A body of nobody's that drips (Identify needs no user) holds a place no better than silence.
#[tokio::test]
async fn a_slow_body_of_nobody_gives_way_too() {
    let server = Server::with(roomy(1, 9), AuthSettings::default()).await;
    let mut slow = server.connect().await;
    let head = "POST /wsman-anon/identify HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab";
    slow.send(head).await;
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    assert!(slow.is_closed().await);
}

#[tokio::test]
async fn q_22_one_connection_too_many_of_a_user_is_503_and_others_are_not_concerned() {
    let server = Server::with(roomy(9, 2), AuthSettings::default()).await;
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send(signed_post("x")).await;
        assert_eq!(client.reply().await.status, 200);
        both.push(client);
    }
    let reply = server.ask(signed_post("x")).await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.closes() && reply.body.contains("2 are allowed"),
        "{reply:?}"
    );
    let anonymous = post("WSMANIDENTIFY: unauthenticated\r\n", "x");
    assert_eq!(server.ask(anonymous).await.status, 200);
    both.pop();
    while server.ask(signed_post("x")).await.status == 503 {}
    both[0].send(signed_post("x")).await;
    assert_eq!(both[0].reply().await.status, 200);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_half_a_header() {
    let server = Server::start().await;
    let mut slow = server.connect().await;
    slow.send("POST /wsman HTTP/1.1\r\nX: ").await;
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    server.stop.cancel();
    assert!(slow.is_closed().await);
    let ended = tokio::time::timeout(Duration::from_secs(60), server.task).await;
    ended.unwrap().unwrap();
}
