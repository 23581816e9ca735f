//! Which request is refused how, before any SOAP is read.

use super::*;

#[tokio::test]
async fn t_9_each_refusal_has_its_status() {
    let server = Server::start().await;
    let auth = authorization();
    let big = BODY_LIMIT + 1;
    let request =
        |line: &str, rest: &str| format!("{line} HTTP/1.1\r\nHost: h\r\n{auth}{rest}\r\n");
    let body = |headers: &str| post(&format!("{auth}{headers}"), "x");
    for (name, bytes, status) in [
        ("no path", request("POST /", ""), 404),
        ("other path", request("POST /wsmanx", ""), 404),
        ("below", request("POST /wsman/x", ""), 404),
        ("T-1 GET", request("GET /wsman", ""), 405),
        (
            "T-1 PUT",
            request("PUT /wsman", "Content-Length: 0\r\n"),
            405,
        ),
        (
            "T-1 DELETE",
            request("DELETE /wsman-anon/identify", ""),
            405,
        ),
        ("T-4 plain", body("Content-Type: text/plain\r\n"), 415),
        (
            "T-4 prefix",
            body("Content-Type: application/soap+xmlx\r\n"),
            415,
        ),
        ("T-14 SLDC", body("Content-Encoding: SLDC\r\n"), 415),
        (
            "Q-1 announced",
            request("POST /wsman", &format!("Content-Length: {big}\r\n")),
            413,
        ),
        (
            "no host",
            format!("POST /wsman HTTP/1.1\r\n{auth}\r\n"),
            400,
        ),
        ("two hosts", request("POST /wsman", "Host: other\r\n"), 400),
        ("no method", "\u{7f} / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "length",
            request("POST /wsman", "Content-Length: -1\r\n"),
            400,
        ),
        (
            "length",
            request("POST /wsman", "Content-Length: 1\r\nContent-Length: 2\r\n"),
            400,
        ),
        (
            "coding",
            request("POST /wsman", "Transfer-Encoding: gzip\r\n"),
            400,
        ),
        (
            "headers",
            request("POST /wsman", &"a: b\r\n".repeat(65)),
            431,
        ),
        (
            "header",
            request("POST /wsman", &format!("a: {}\r\n", "b".repeat(200_000))),
            431,
        ),
    ] {
        let mut client = server.connect().await;
        client.send(&bytes).await;
        let Some(reply) = client.try_reply().await else {
            panic!("{name}: closed");
        };
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        let allow: &[&str] = if status == 405 { &["POST"] } else { &[] };
        assert_eq!(reply.all("allow"), allow, "{name}");
    }
}

#[tokio::test]
async fn a_request_of_http_1_0_needs_no_host() {
    let server = Server::start().await;
    let bytes = signed_post("x").replace("HTTP/1.1\r\nHost: h\r\n", "HTTP/1.0\r\n");
    assert!(!bytes.contains("Host"), "{bytes}");
    let mut client = server.connect().await;
    client.send(&bytes).await;
    assert_eq!(client.try_reply().await.map(|r| r.status), Some(200));
}

/// Whatever it asks for, before its body has come, and whoever sends it. What other clients send is not concerned.
#[tokio::test]
async fn a_3_a_request_of_a_foreign_page_is_403_on_every_path() {
    let console = "https://console.example".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let settings = http::TransportSettings {
        allowed_origins: vec![console],
        audit: Audit::to_file(&file, SystemClock::shared()).unwrap(),
        ..http::TransportSettings::default()
    };
    let server = Server::with(settings, AuthSettings::default()).await;
    let auth = authorization();
    let marks = [
        "Origin: https://pages.example",
        "Origin: null",
        "Origin:",
        "Origin: https://console.example.pages.example",
        "Origin: https://console.example\r\nOrigin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "sec-fetch-site: CROSS-SITE",
    ];
    let lines = [
        "POST /wsman",
        "POST /wsman-anon/identify",
        "POST /",
        "GET /wsman",
        "OPTIONS /wsman",
    ];
    for mark in marks {
        for line in lines {
            for auth in [&*auth, ""] {
                let rest = "Content-Length: 5\r\nContent-Type: text/plain\r\n";
                let bytes = format!("{line} HTTP/1.1\r\nHost: h\r\n{mark}\r\n{auth}{rest}\r\n");
                let mut client = server.connect().await;
                client.send(bytes).await;
                let reply = client.reply().await;
                assert_eq!(reply.status, 403, "{mark} {line}");
                assert!(reply.all("www-authenticate").is_empty());
                assert!(
                    reply.body.contains("http.allowed_origins"),
                    "{}",
                    reply.body
                );
                // The body is read to its end and is no request.
                client.send(["POST ", &signed_post("x")].concat()).await;
                assert_eq!(client.reply().await.body, "ann - 1", "{mark} {line}");
            }
        }
    }
    let told = std::fs::read_to_string(&file).unwrap();
    // One in 10 s, so as many as requests only where each takes so long.
    let asked = marks.len() * lines.len() * 2;
    assert!(told.lines().count() < asked, "{told}");
    // The next line after that tells of all that were not told of.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let page = format!("{auth}Origin: null\r\n");
    assert_eq!(server.ask(post(&page, "x")).await.status, 403);
    let later = std::fs::read_to_string(&file).unwrap();
    let times = later.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.get("times").map_or(1, |n| n.as_u64().unwrap())
    });
    assert_eq!(times.sum::<u64>(), u64::try_from(asked).unwrap() + 1);
    assert_eq!(later.lines().count(), told.lines().count() + 1);
    let first = told.lines().next().unwrap();
    assert!(first.contains(r#","address":"127.0.0.1:"#), "{first}");
    let rest =
        r#","event":"cross-site","origin":"https://pages.example","method":"POST","path":"/wsman""#;
    assert!(first.contains(rest), "{first}");
    for mark in [
        "Origin: https://console.example",
        "Origin: https://CONSOLE.example:443\r\nSec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none",
        "Referer: https://pages.example/",
    ] {
        let reply = server.ask(post(&format!("{auth}{mark}\r\n"), "x")).await;
        assert_eq!((reply.status, &*reply.body), (200, "ann - 1"), "{mark}");
    }
    let renamed = signed_post("x").replace("Host: h", "Host: groupshot.pages.example:8080");
    assert_eq!(
        server.ask(renamed).await.status,
        200,
        "a tunnel changes Host"
    );
}

/// A wrong password in such a request counts for nobody: the lock-out is not a page's to cause.
#[tokio::test]
async fn a_11_a_foreign_page_can_try_no_password() {
    let strict = AuthSettings {
        lockout_failures: 1,
        lockout_seconds: 3600,
        ..AuthSettings::default()
    };
    let server = Server::with(TransportLimits::default(), strict).await;
    let wrong = BASE64_STANDARD.encode("ann:wrong");
    let page = format!("Authorization: Basic {wrong}\r\nOrigin: https://pages.example\r\n");
    for _ in 0..3 {
        assert_eq!(server.ask(post(&page, "x")).await.status, 403);
    }
    assert_eq!(server.ask(signed_post("x")).await.status, 200);
}

/// No HTTP/2 here: authentication belongs to the connection.
#[tokio::test]
async fn t_11_http_2_finds_a_closed_door() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn t_4_soap_media_types_are_taken_in_every_spelling() {
    let server = Server::start().await;
    for kind in [
        "application/soap+xml;charset=UTF-8",
        "Application/SOAP+xml ; charset=\"utf-8\"; action=\"x\"",
        "text/xml",
        "",
    ] {
        let headers = format!("{}Content-Type: {kind}\r\n", authorization());
        let reply = server.ask(post(&headers, "x")).await;
        assert_eq!((reply.status, reply.body), (200, format!("ann {kind} 1")));
    }
    let none = server.ask(signed_post("x")).await;
    assert_eq!(none.body, "ann - 1");
}

#[tokio::test]
async fn t_2_the_path_is_matched_in_any_case_with_slash_and_query() {
    let server = Server::start().await;
    for path in [
        "/wsman",
        "/WSMan",
        "/wsman/",
        "/wsman?PSVersion=7.4.1",
        "/WSMAN/?PSVersion=5",
    ] {
        let request = signed_post("x").replace("/wsman", path);
        assert_eq!(server.ask(request).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_2_without_good_credentials_there_is_one_challenge_and_basic_is_last() {
    let server = Server::start().await;
    let wrong = BASE64_STANDARD.encode("ann:wrong");
    for headers in [
        String::new(),
        format!("Authorization: Basic {wrong}\r\n"),
        "Authorization: Negotiate TlRMTVNTUAAB\r\n".to_owned(),
        "Authorization: Basic \r\n".to_owned(),
    ] {
        for body in ["", "<not xml"] {
            let mut client = server.connect().await;
            client.send(post(&headers, body)).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, 401, "{headers}");
            assert_eq!(reply.all("www-authenticate"), [r#"Basic realm="WSMAN""#]);
            // The second leg comes over the same connection.
            client.send(signed_post("x")).await;
            assert_eq!(client.reply().await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_3_with_no_scheme_open_the_answer_is_403() {
    let closed = AuthSettings {
        basic: false,
        allow_unencrypted: false,
        ..AuthSettings::default()
    };
    let server = Server::with(TransportLimits::default(), closed).await;
    let reply = server.ask(signed_post("x")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.all("www-authenticate").is_empty());
}

#[tokio::test]
async fn a_11_a_locked_out_user_hears_the_same_with_the_right_password() {
    let strict = AuthSettings {
        lockout_failures: 2,
        lockout_seconds: 3600,
        ..AuthSettings::default()
    };
    let server = Server::with(TransportLimits::default(), strict).await;
    let mut busy = server.connect().await;
    busy.send(signed_post("x")).await;
    assert_eq!(busy.reply().await.status, 200);
    let wrong = BASE64_STANDARD.encode("ann:wrong");
    let wrong = post(&format!("Authorization: Basic {wrong}\r\n"), "x");
    let undated = |mut reply: Reply| {
        reply.headers.retain(|(name, _)| name != "date");
        reply
    };
    let refused = undated(server.ask(&wrong).await);
    assert_eq!(refused.status, 401);
    assert_eq!(undated(server.ask(&wrong).await), refused);
    assert_eq!(undated(server.ask(signed_post("x")).await), refused);
    busy.send(signed_post("x")).await;
    assert_eq!(undated(busy.reply().await), refused);
}

#[tokio::test]
async fn a_7_an_empty_body_with_good_credentials_is_200_and_empty() {
    let server = Server::start().await;
    let reply = server.ask(signed_post("")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert!(reply.all("content-type").is_empty());
}

#[tokio::test]
async fn t_16_identify_may_be_asked_by_nobody() {
    let server = Server::start().await;
    let marked = post("wsmanIDENTIFY: Unauthenticated\r\n", "x");
    let reply = server.ask(&marked).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "- - 1"));
    let path = post("", "x").replace("/wsman", "/wsman-anon/Identify");
    assert_eq!(server.ask(path).await.body, "- - 1");
    let other = post("WSMANIDENTIFY: yes\r\n", "x");
    assert_eq!(server.ask(other).await.status, 401);
    let signed = post(
        &format!("WSMANIDENTIFY: unauthenticated\r\n{}", authorization()),
        "x",
    );
    assert_eq!(server.ask(signed).await.body, "ann - 1");
    let long = post("WSMANIDENTIFY: unauthenticated\r\n", &"x".repeat(40_000));
    assert_eq!(server.ask(long).await.status, 413, "nobody sends that much");
}

#[tokio::test]
async fn a_handler_that_panics_is_500_with_words_and_the_connection_lives() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(signed_post("panic")).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 500);
    assert!(!reply.body.is_empty() && !reply.body.contains("order"));
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn q_8_one_connection_too_many_is_503() {
    let limits = TransportLimits {
        connections: 2,
        ..TransportLimits::default()
    };
    let server = Server::with(limits, AuthSettings::default()).await;
    let mut at_work = Vec::new();
    for waiting in 1..=2 {
        let mut client = server.connect().await;
        client.send(signed_post("wait")).await;
        while server.waiting.load(Ordering::SeqCst) < waiting {
            tokio::task::yield_now().await;
        }
        at_work.push(client);
    }
    let reply = server.ask(signed_post("x")).await;
    assert_eq!(reply.status, 503);
    assert!(reply.closes());
    server.gate.add_permits(1);
    // There is a place as soon as one of them has its answer.
    let mut status = 503;
    while status == 503 {
        status = server.ask(signed_post("x")).await.status;
    }
    assert_eq!(status, 200);
}
