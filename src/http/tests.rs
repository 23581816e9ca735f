//! One connection in memory, by a clock that the test owns.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Shared};
use super::places::{Entered, Places};
use super::serving::{Ends, serve};
use super::*;
use crate::auth::Authenticator;
use crate::auth::settings::AuthSettings;
use crate::auth::throttle::{ByKey, ByNetwork, Throttle};
use crate::auth::users::Users;
use crate::clock::SystemClock;
use crate::handler::{Answer, Caller, Handler, Message};

/// Answers with so many octets, and remembers how long ago the head of the request was there.
struct Answers {
    octets: usize,
    waited: Mutex<Option<Duration>>,
}

#[async_trait]
impl Handler for Answers {
    async fn handle(&self, caller: Caller, _: Message) -> Answer {
        *self.waited.lock().unwrap() = Some(caller.waited);
        Answer {
            status: 200,
            content_type: "application/soap+xml",
            body: vec![b'z'; self.octets].into(),
        }
    }

    fn body_limit(&self) -> usize {
        64 << 10
    }
}

/// A client's end of a connection that holds so many octets on their way.
fn connect(octets: usize, buffer: usize) -> (DuplexStream, Arc<Answers>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let users = Users::follow(dir.path(), clock.clone()).unwrap();
    let auth = Authenticator::new(users, AuthSettings::default(), clock).unwrap();
    let handler = Arc::new(Answers {
        octets,
        waited: Mutex::default(),
    });
    let limits = TransportLimits::default();
    let shared = Arc::new(Shared {
        handler: handler.clone(),
        auth: Arc::new(auth),
        limits,
        allowed_origins: Vec::new(),
        audit: Audit::default(),
        crowded_users: Throttle::default(),
        refused: ByKey::default(),
        cross_site: ByNetwork::default(),
        tasks: TaskTracker::new(),
    });
    let places = Places::new(limits.connections, limits.user_connections);
    let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let Entered::Free(place) = places.enter(peer.ip()) else {
        panic!("all are free");
    };
    let ends = Ends {
        stop: CancellationToken::new(),
        kill: CancellationToken::new(),
    };
    let (client, server) = tokio::io::duplex(buffer);
    tokio::spawn(serve(server, Connection::plain(shared, peer, place), ends));
    (client, handler)
}

fn head(length: usize) -> String {
    format!("POST /wsman-anon/identify HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends `piece` each second until there is an answer, or its end; what was answered, and after how long.
async fn drip(client: &mut DuplexStream, piece: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut answer = Vec::new();
    loop {
        tokio::select! {
            read = client.read_buf(&mut answer) => {
                if read.unwrap() == 0 || answer.ends_with(b"\n") || answer.ends_with(b"z") {
                    return (String::from_utf8(answer).unwrap(), began.elapsed());
                }
            }
            () = sleep(Duration::from_secs(1)) => client.write_all(piece).await.unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn h_19_the_time_of_an_operation_counts_from_the_head_of_its_request() {
    let (mut client, handler) = connect(1, 4096);
    client.write_all(head(4).as_bytes()).await.unwrap();
    let (answer, _) = drip(&mut client, b"y").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let waited = handler.waited.lock().unwrap().unwrap();
    assert!((3..=5).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn t_13_a_body_that_drips_is_500_after_the_grace() {
    let (mut client, _) = connect(1, 4096);
    client.write_all(head(30_000).as_bytes()).await.unwrap();
    let (answer, took) = drip(&mut client, b"y").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!((20..=21).contains(&took.as_secs()), "{took:?}");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_at_the_lowest_rate_is_taken() {
    for length in [11_000, 32_000] {
        let (mut client, _) = connect(1, 4096);
        client.write_all(head(length).as_bytes()).await.unwrap();
        let (answer, took) = drip(&mut client, &[b'y'; 500]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(took.as_secs(), u64::try_from(length).unwrap() / 500);
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_an_answer_octet_by_octet_is_left_as_one_who_takes_none() {
    for takes in [false, true] {
        let (mut client, _) = connect(100_000, 64);
        let began = Instant::now();
        client.write_all(head(1).as_bytes()).await.unwrap();
        client.write_all(b"y").await.unwrap();
        let mut octet = [0];
        for _ in 0..400 {
            sleep(Duration::from_secs(1)).await;
            if takes && client.read(&mut octet).await.unwrap() == 0 {
                break;
            }
        }
        if takes {
            let took = began.elapsed().as_secs();
            assert!((300..=380).contains(&took), "{took}");
        } else {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert!(rest.len() < 1000, "{}", rest.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_behind_an_answer_that_was_taken_slowly() {
    let (mut client, _) = connect(20_000, 64);
    for _ in 0..2 {
        client.write_all(head(1).as_bytes()).await.unwrap();
        client.write_all(b"y").await.unwrap();
        let mut left = 20_000;
        while left > 0 {
            let mut octets = [0; 50];
            let read = client.read(&mut octets).await.unwrap();
            assert!(read > 0, "closed with {left} left");
            left -= octets[..read].iter().filter(|o| **o == b'z').count();
            sleep(Duration::from_millis(100)).await;
        }
        // Idle for nearly as long as one may be.
        sleep(Duration::from_secs(200)).await;
    }
}
