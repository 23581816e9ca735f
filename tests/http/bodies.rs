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

/// It is refused and the connection ends (RFC 9112, 6.3), so that nothing is smuggled in, also behind other requests in
/// one packet.
#[tokio::test]
async fn t_12_a_length_beside_chunks_is_refused_wherever_it_stands() {
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
        let sound = "1\r\na\r\n0\r\nTrailer: t\r\n\r\n";
        for before in [signed_post("first"), signed_post(""), chunked(sound)] {
            let mut client = server.connect().await;
            let request = chunked("2\r\nab\r\n0\r\n\r\n").replace(te, &both);
            let all = [before.clone(), before, request, signed_post("x")];
            client.send(all.concat()).await;
            assert_eq!(client.reply().await.status, 200);
            assert_eq!(client.reply().await.status, 200);
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.closes()), (400, true));
            assert!(reply.body.contains("Transfer-Encoding"), "{}", reply.body);
            assert!(client.is_closed().await, "{both}");
        }
    }
}

/// Also of two that say the same: what stands in front may have counted one of them and passed on another.
#[tokio::test]
async fn t_12_a_second_length_is_refused_wherever_it_stands() {
    let server = Server::start().await;
    let sound = signed_post("x");
    let length = "Content-Length: 1\r\n";
    for second in [length, "Accept: */*\r\ncontent-length:1\r\n"] {
        let twice = sound.replace(length, &format!("{length}{second}"));
        assert_ne!(twice, sound);
        for before in [String::new(), signed_post("first")] {
            let mut client = server.connect().await;
            let all = [before.clone(), twice.clone(), sound.clone()];
            client.send(all.concat()).await;
            if !before.is_empty() {
                assert_eq!(client.reply().await.status, 200);
            }
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.closes()), (400, true), "{second}");
            assert!(reply.body.contains("Content-Length"), "{}", reply.body);
            assert!(client.is_closed().await, "{second}");
        }
    }
}

/// RFC 9112 6.1: by any other a server in front may find another end of the body.
#[tokio::test]
async fn t_12_only_chunked_once_is_taken_as_a_coding() {
    let server = Server::start().await;
    let te = "Transfer-Encoding: chunked\r\n";
    let sound = chunked("1\r\na\r\n0\r\n\r\n");
    for coding in ["CHUNKED", "chunked ", " chunked\t"] {
        let header = format!("Transfer-Encoding: {coding}\r\n");
        let reply = server.ask(sound.replace(te, &header)).await;
        assert_eq!(reply.body, "ann - 1", "{coding:?}");
    }
    for headers in [
        format!("{te}{te}"),
        format!("Transfer-Encoding: identity\r\n{te}"),
        format!("{te}Transfer-Encoding: gzip\r\n"),
        "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
        "Transfer-Encoding: , chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked;q=1\r\n".to_owned(),
        "Transfer-Encoding: \"chunked\"\r\n".to_owned(),
        "Transfer-Encoding: \r\n".to_owned(),
    ] {
        let mut client = server.connect().await;
        let refused = sound.replace(te, &headers);
        let two = [signed_post("x"), refused, signed_post("x")];
        client.send(two.concat()).await;
        assert_eq!(client.reply().await.status, 200);
        let reply = client.try_reply().await;
        let told = reply.map(|r| (r.status, r.closes()));
        assert_eq!(told, Some((400, true)), "{headers:?}");
        assert!(client.is_closed().await, "{headers:?}");
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

    // The body is neither asked for nor waited for.
    client.send(expecting("")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.closes()), (401, false));
    // It may come all the same, and is no request, whatever it looks like.
    client.send("PO").await;
    client.send(expecting(&authorization())).await;
    assert_eq!(client.reply().await.status, 100);
    client.send("ok").await;
    assert_eq!(client.reply().await.body, "ann - 2");
}

/// However much of the body comes, and whenever: it has its announced length, and the next request begins behind it.
#[tokio::test]
async fn t_10_what_comes_behind_a_401_is_the_body_and_no_request() {
    let server = Server::start().await;
    let smuggled = signed_post("smuggled");
    let head = |framing: &str| {
        format!("POST /wsman HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{framing}\r\n")
    };
    let sized = head(&format!("Content-Length: {}\r\n", smuggled.len()));
    let chunks = head("Transfer-Encoding: chunked\r\n");
    let in_chunks = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    for (head, body) in [(sized, smuggled), (chunks, in_chunks)] {
        let mut client = server.connect().await;
        client.send(&head).await;
        assert_eq!(client.reply().await.status, 401);
        let (first, second) = body.split_at(body.len() / 2);
        client.send(first).await;
        client.send([second, &signed_post("x")].concat()).await;
        assert_eq!(client.reply().await.body, "ann - 1");
        // All at once, as if nothing had been expected.
        client
            .send([&head, &*body, &signed_post("xy")].concat())
            .await;
        assert_eq!(client.reply().await.status, 401);
        assert_eq!(client.reply().await.body, "ann - 2");
        drop(client);
        // One that never comes ends with the connection, and with its client.
        let mut client = server.connect().await;
        client.send(&head).await;
        assert_eq!(client.reply().await.status, 401);
        client.send(first).await;
        client.socket.shutdown().await.unwrap();
        assert!(client.is_closed().await);
    }
    let mut client = server.connect().await;
    client.send(head("Content-Length: 1000000000\r\n")).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.closes()),
        (401, true),
        "nobody reads that much"
    );
    assert!(client.is_closed().await);
}
