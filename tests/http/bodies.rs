//! How bodies come in: kept-alive, pipelined, chunked, expected, too large, cut off.

use super::*;

#[tokio::test]
async fn t_7_an_answer_has_status_type_and_length() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for (body, status) in [("x", 200), ("fault", 500), ("x", 200)] {
        client.send(signed_post(body)).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status);
        let kind = reply.all("content-type");
        assert_eq!(kind, ["application/soap+xml;charset=UTF-8"]);
    }
}

#[tokio::test]
async fn t_11_pipelined_requests_are_answered_in_order_each_for_its_own_user() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let two = [signed_post("1"), post("", "22"), signed_post("333")].concat();
    client.send(two).await;
    assert_eq!(client.reply().await.body, "ann - 1");
    assert_eq!(client.reply().await.status, 401);
    assert_eq!(client.reply().await.body, "ann - 3");
}

fn chunked(chunks: &str) -> String {
    let auth = authorization();
    format!("POST /wsman HTTP/1.1\r\nHost: h\r\n{auth}Transfer-Encoding: chunked\r\n\r\n{chunks}")
}

#[tokio::test]
async fn t_12_chunked_bodies_are_taken() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(chunked(
            "3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
        ))
        .await;
    assert_eq!(client.reply().await.body, "ann - 13");
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.body, "ann - 1");
}

#[tokio::test]
async fn broken_chunks_and_truncated_bodies_end_the_connection() {
    let server = Server::start().await;
    for cut in [
        chunked("zz\r\nab\r\n"),
        chunked("5\r\nab"),
        signed_post("abcdef").replace("def", ""),
    ] {
        let mut client = server.connect().await;
        client.send(cut).await;
        client.socket.shutdown().await.unwrap();
        // Never a success, and never a second request out of the rest.
        let reply = client.try_reply().await;
        assert!(reply.is_none_or(|r| r.status == 400));
        assert!(client.is_closed().await);
    }
}

/// It is refused and the connection ends (RFC 9112, 6.3), so that nothing is smuggled in. Behind another request in one
/// packet it is read by its chunks, and the connection ends too.
#[tokio::test]
async fn a_length_beside_chunks_is_not_believed() {
    let server = Server::start().await;
    let (length, te) = ("Content-Length: 99\r\n", "Transfer-Encoding: chunked\r\n");
    for both in [format!("{length}{te}"), format!("{te}{length}")] {
        let request = chunked("2\r\nab\r\n0\r\n\r\n").replace(te, &both);
        let mut client = server.connect().await;
        client.send([request, signed_post("x")].concat()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.closes()), (400, true));
        assert!(reply.body.contains("Transfer-Encoding"), "{}", reply.body);
        assert!(client.is_closed().await, "{both}");
        let mut client = server.connect().await;
        let request = chunked("2\r\nab\r\n0\r\n\r\n").replace(te, &both);
        client
            .send([signed_post("first"), request, signed_post("x")].concat())
            .await;
        assert_eq!(client.reply().await.status, 200);
        let reply = client.reply().await;
        assert_eq!((reply.body.as_str(), reply.closes()), ("ann - 2", true));
        assert!(client.is_closed().await, "{both}");
    }
}

#[tokio::test]
async fn t_9_a_body_over_the_limit_is_413_however_it_comes() {
    let server = Server::start().await;
    let big = "x".repeat(BODY_LIMIT + 1);
    let mut client = server.connect().await;
    client.send(signed_post(&big)).await;
    assert_eq!(client.reply().await.status, 413);
    client
        .send(chunked(&format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len())))
        .await;
    assert_eq!(client.reply().await.status, 413);
    client.send(signed_post(&big[1..])).await;
    assert_eq!(client.reply().await.body, format!("ann - {BODY_LIMIT}"));
}

#[tokio::test]
async fn a_body_without_end_is_413_and_the_end_of_the_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(chunked("")).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    while client.socket.write_all(chunk.as_bytes()).await.is_ok() {
        let mut peeked = [0];
        if client.socket.try_read(&mut peeked).is_ok() {
            client.unread.extend_from_slice(&peeked);
            break;
        }
    }
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.closes()), (413, true));
}

#[tokio::test]
async fn t_10_expect_is_answered_100_or_refused_at_once() {
    let server = Server::start().await;
    let expecting = |auth: &str| {
        format!(
            "POST /wsman HTTP/1.1\r\nHost: h\r\n{auth}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
        )
    };
    let mut client = server.connect().await;
    client.send(expecting(&authorization())).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("ok").await;
    assert_eq!(client.reply().await.body, "ann - 2");

    client.send(expecting("")).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.closes()),
        (401, true),
        "the body is not waited for"
    );
    assert!(client.is_closed().await);
}
