//! How the server takes its leave.

use super::*;

#[tokio::test]
async fn a_running_request_is_finished_before_the_server_stops() {
    let server = Server::start().await;
    let mut idle = server.connect().await;
    idle.send(signed_post("x")).await;
    idle.reply().await;
    let mut busy = server.connect().await;
    busy.send(signed_post("wait")).await;
    // The answer of a later request shows that the earlier one has arrived.
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    server.stop.cancel();
    assert!(idle.is_closed().await);
    assert!(!server.task.is_finished());
    server.gate.add_permits(1);
    let reply = busy.reply().await;
    assert_eq!(reply.status, 200);
    assert!(busy.is_closed().await);
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_at_the_deadline() {
    let limits = TransportLimits {
        drain: Duration::from_millis(100),
        ..TransportLimits::default()
    };
    let server = Server::with(limits, AuthSettings::default()).await;
    let mut busy = server.connect().await;
    busy.send(signed_post("wait")).await;
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(busy.try_reply().await.is_none());
}

/// What was begun is finished for a client that has gone: the answer is lost, the work is not.
#[tokio::test]
async fn a_client_that_hangs_up_does_not_cut_the_work() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(signed_post("wait")).await;
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    drop(client);
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
    server.gate.add_permits(1);
    server.stop.cancel();
    server.task.await.unwrap();
    assert_eq!(
        server.gate.available_permits(),
        0,
        "the handler took its permit"
    );
}
