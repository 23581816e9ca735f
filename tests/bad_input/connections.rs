//! What goes wrong before SOAP: path, method, media, framing, credentials, size, time.

use std::time::{Duration, Instant};

use super::*;

/// A request head without the empty line at its end.
fn head(line: &str, headers: &str) -> String {
    let auth = basic(USER, PASSWORD);
    format!("{line} HTTP/1.1\r\nHost: h\r\nAuthorization: {auth}\r\n{headers}")
}

fn post(headers: &str, body: &str) -> String {
    head("POST /wsman", &format!("{headers}\r\n{body}"))
}

#[test]
fn t_1_t_2_t_4_t_9_paths_methods_and_media() {
    let mut table = Table::start();
    let body = get();
    let length = format!("Content-Length: {}\r\n", body.len());
    for (path, expected) in [
        ("/", Status(404)),
        ("/wsmann", Status(404)),
        ("/wsman/..", Status(404)),
        ("/wsman/../wsman", Status(404)),
        ("/%77sman", Status(404)),
        ("/etc/passwd", Status(404)),
        ("/wsman/subscriptions/1", Status(404)),
        ("/wsman/", Good),
        ("/WSMAN?PSVersion=7", Good),
    ] {
        let bytes = head(&format!("POST {path}"), &format!("{length}\r\n{body}"));
        table.bytes(path, bytes, &expected);
    }
    for method in [
        "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW",
    ] {
        let bytes = head(&format!("{method} /wsman"), "\r\n");
        let mut connection = table.connect();
        connection.send(bytes.as_bytes()).unwrap();
        connection.finish();
        if method == "HEAD" {
            // Its answer has the length of a body that is not sent.
            continue;
        }
        let response = connection.receive();
        let allow = response
            .as_ref()
            .and_then(|r| r.header("allow").map(str::to_owned));
        assert_eq!(allow.as_deref(), Some("POST"), "{method}");
        table.check(method, response.as_ref(), &Status(405));
    }
    for (media, expected) in [
        ("text/html", Status(415)),
        ("application/json", Status(415)),
        ("application/soap+xmlx", Status(415)),
        ("\u{1}", Status(415)),
        ("multipart/form-data; boundary=x", Status(415)),
        ("text/xml", Good),
        (
            "APPLICATION/SOAP+XML ; Charset=\"utf-8\"; action=\"x\"",
            Good,
        ),
    ] {
        let bytes = post(&format!("Content-Type: {media}\r\n{length}"), &body);
        // A control character is no header value at all.
        let expected = if media == "\u{1}" {
            Status(400)
        } else {
            expected
        };
        table.bytes(media, bytes, &expected);
    }
    table.bytes("no media type is SOAP", post(&length, &body), &Good);
    table.bytes("no body", post("Content-Length: 0\r\n", ""), &Nothing);
    table.bytes(
        "gzip",
        post(&format!("Content-Encoding: gzip\r\n{length}"), &body),
        &Status(415),
    );
    table.close();
}

#[test]
fn framing() {
    let mut table = Table::start();
    let body = get();
    let n = body.len();
    let chunks = format!("{n:x}\r\n{body}\r\n0\r\n\r\n");
    let te = "Transfer-Encoding: chunked\r\n";
    let cases = [
        (
            "two lengths that differ",
            post(
                &format!("Content-Length: {n}\r\nContent-Length: 3\r\n"),
                &body,
            ),
            Status(400),
        ),
        (
            "two lengths that agree",
            post(
                &format!("Content-Length: {n}\r\nContent-Length: {n}\r\n"),
                &body,
            ),
            Status(400),
        ),
        (
            "two lengths in one",
            post(&format!("Content-Length: {n}, {n}\r\n"), &body),
            Status(400),
        ),
        (
            "a length in hex",
            post("Content-Length: 0x10\r\n", &body),
            Status(400),
        ),
        (
            "a negative length",
            post("Content-Length: -5\r\n", &body),
            Status(400),
        ),
        (
            "a length beyond 64 bits",
            post("Content-Length: 99999999999999999999999\r\n", &body),
            Status(400),
        ),
        (
            "a coding that is unknown",
            post("Transfer-Encoding: gzip\r\n", &body),
            Status(400),
        ),
        ("chunks", post(te, &chunks), Good),
        (
            "a chunk of no size",
            post(te, "zz\r\nabc\r\n0\r\n\r\n"),
            Status(400),
        ),
        (
            "a chunk of a huge size",
            post(te, "ffffffffffffffff\r\nabc"),
            Status(400),
        ),
        (
            "chunks without end",
            post(te, &format!("{n:x}\r\n{body}\r\n")),
            Status(400),
        ),
        (
            "a body that is cut off",
            post(&format!("Content-Length: {}\r\n", n + 1), &body),
            Status(400),
        ),
        (
            "no HTTP",
            "\u{16}\u{3}\u{1}\0\u{a5}\u{1}\0\0\r\n\r\n".to_owned(),
            Status(400),
        ),
        (
            "HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            Closed,
        ),
        (
            "HTTP/9",
            format!("POST /wsman HTTP/9.9\r\nContent-Length: {n}\r\n\r\n{body}"),
            Status(400),
        ),
        (
            "a header without colon",
            post("nonsense\r\n", ""),
            Status(400),
        ),
        (
            "a header line that is folded",
            post(" folded: x\r\n", ""),
            Status(400),
        ),
        ("nothing", String::new(), Closed),
    ];
    for (name, bytes, expected) in cases {
        table.bytes(name, bytes, &expected);
    }
    table.close();
}

/// Spellings by which one server sees a header, or an end, that another one does not.
#[test]
fn what_two_servers_could_read_differently_is_refused() {
    let mut table = Table::start();
    let body = get();
    let n = body.len();
    let chunks = format!("{n:x}\r\n{body}\r\n0\r\n\r\n");
    let length = format!("Content-Length: {n}\r\n");
    for (name, bytes) in [
        (
            "a space before the colon",
            post(&format!("Content-Length : {n}\r\n"), &body),
        ),
        (
            "a tab before the colon",
            post(&format!("Content-Length\t: {n}\r\n"), &body),
        ),
        (
            "a folded value",
            post(&format!("X: a\r\n b\r\n{length}"), &body),
        ),
        (
            "a bare CR in a value",
            post(&format!("X: a\rContent-Length: 3\r\n{length}"), &body),
        ),
        (
            "a NUL in a value",
            post(&format!("X: a\0b\r\n{length}"), &body),
        ),
        ("an empty name", post(&format!(": a\r\n{length}"), &body)),
        (
            "a sign before the length",
            post(&format!("Content-Length: +{n}\r\n"), &body),
        ),
        (
            "chunked, then something",
            post("Transfer-Encoding: chunked, identity\r\n", &chunks),
        ),
        (
            "something, then chunked",
            post("Transfer-Encoding: identity, chunked\r\n", &chunks),
        ),
        (
            "chunked twice",
            post(&"Transfer-Encoding: chunked\r\n".repeat(2), &chunks),
        ),
        (
            "nearly chunked",
            post("Transfer-Encoding: xchunked\r\n", &chunks),
        ),
        (
            "chunks of HTTP/1.0",
            post("Transfer-Encoding: chunked\r\n", &chunks).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        (
            "a chunk size with a sign",
            post("Transfer-Encoding: chunked\r\n", &format!("+{chunks}")),
        ),
        (
            "a chunk size in 0x",
            post("Transfer-Encoding: chunked\r\n", &format!("0x{chunks}")),
        ),
        (
            "endless chunk extensions",
            post(
                "Transfer-Encoding: chunked\r\n",
                &format!("{n:x};{}\r\n{body}\r\n0\r\n\r\n", "x".repeat(40_000)),
            ),
        ),
    ] {
        table.bytes(name, bytes, &Status(400));
    }
    table.bytes(
        "a chunk extension",
        post(
            "Transfer-Encoding: chunked\r\n",
            &format!("{n:x};a=b\r\n{body}\r\n0\r\n\r\n"),
        ),
        &Good,
    );
    // A Kerberos ticket of a user in many groups is judged, not cut off.
    let ticket = "QUJD".repeat(45 * 1024 / 4);
    let long = format!(
        "POST /wsman HTTP/1.1\r\nHost: h\r\nAuthorization: Negotiate {ticket}\r\n{length}\r\n{body}"
    );
    table.bytes("a ticket of 45 KiB", long, &Status(401));
    table.close();
}

/// Length and chunks: refused, and what follows is no second request.
#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let mut table = Table::start();
    let body = get();
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let second = head("GET /smuggled", "\r\n");
    for (name, both) in [
        (
            "length first",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "chunks first",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ),
        (
            "length of everything",
            "Content-Length: 99999\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "of another case",
            "content-length: 5\r\ntransfer-encoding: Chunked\r\n",
        ),
    ] {
        let mut connection = table.connect();
        connection
            .send(post(both, &format!("{chunks}{second}")).as_bytes())
            .unwrap();
        connection.finish();
        let first = connection.receive();
        table.check(name, first.as_ref(), &Status(400));
        let then = connection.receive();
        table.check(&format!("{name}, then"), then.as_ref(), &Closed);
    }
    table.close();
}

#[test]
fn a_2_a_11_credentials() {
    let mut table = Table::start();
    let body = get();
    let mut realms = Vec::new();
    for (name, authorization) in [
        ("none", String::new()),
        ("a wrong password", basic(USER, "wrong")),
        ("an empty password", basic(USER, "")),
        ("an unknown user", basic("nobody", PASSWORD)),
        ("an empty user", basic("", PASSWORD)),
        ("another case", basic(USER, &PASSWORD.to_uppercase())),
        (
            "a password with more behind",
            basic(USER, &format!("{PASSWORD}\0x")),
        ),
        ("no base64", "Basic ????".to_owned()),
        ("no colon", "Basic YWRtaW4=".to_owned()),
        ("no UTF-8", "Basic //86//8=".to_owned()),
        ("only the scheme", "Basic".to_owned()),
        ("a very long one", format!("Basic {}", "QUFB".repeat(2000))),
        ("another scheme", "Digest username=\"admin\"".to_owned()),
        ("a scheme of later", "Negotiate TlRMTVNTUAABAAAA".to_owned()),
        (
            "certificates",
            "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual".to_owned(),
        ),
    ] {
        let authorization = match authorization.as_str() {
            "" => String::new(),
            value => format!("Authorization: {value}\r\n"),
        };
        let bytes = format!(
            "POST /wsman HTTP/1.1\r\nHost: h\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = table.connect();
        connection.send(bytes.as_bytes()).unwrap();
        let response = connection.receive();
        table.check(name, response.as_ref(), &Status(401));
        let response = response.unwrap();
        realms.push((
            name,
            response.header("www-authenticate").map(str::to_owned),
            response.text(),
        ));
    }
    // A wrong password and an unknown user cannot be told apart.
    let first = realms
        .first()
        .map(|(_, realm, text)| (realm.clone(), text.clone()))
        .unwrap();
    assert!(
        first
            .0
            .as_deref()
            .is_some_and(|r| r.starts_with("Basic realm=")),
        "{first:?}"
    );
    for (name, realm, text) in realms {
        assert_eq!((realm, text), first, "{name}");
    }
    // Two sets of credentials: never whichever suits.
    let two = format!(
        "POST /wsman HTTP/1.1\r\nHost: h\r\nAuthorization: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n{body}",
        basic("nobody", "x"),
        basic(USER, PASSWORD),
        body.len()
    );
    table.bytes("two Authorization headers", two, &Status(401));
    // Nobody gets more than Identify on the anonymous path.
    let anonymous = format!(
        "POST /wsman-anon/identify HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    table.bytes(
        "a Get on the anonymous path",
        anonymous,
        &Fault("w:AccessDenied", ""),
    );
    table.close();
}

#[test]
fn q_1_oversized() {
    let mut table = Table::start();
    let limit = 500 * 1024;
    let fill = |size: usize| {
        let good = get();
        let room = size - good.len();
        good.replace("</s:Body>", &format!("{}</s:Body>", " ".repeat(room)))
    };
    table.message("just not too large", fill(limit), &Good);
    table.message("too large by one", fill(limit + 1), &Status(413));
    let announced = post("Content-Length: 1000000000000\r\n", "");
    table.bytes("a terabyte is announced", announced, &Status(413));
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000)).repeat(6);
    let endless = post("Transfer-Encoding: chunked\r\n", &chunk);
    table.bytes("chunks that add up", endless, &Status(413));
    let expect = post("Content-Length: 600000\r\nExpect: 100-continue\r\n", "");
    table.bytes("Expect of too much", expect, &Status(413));
    let long = format!("X: {}\r\n", "x".repeat(1 << 20));
    table.bytes("a header of a megabyte", post(&long, ""), &Status(431));
    table.bytes(
        "1000 headers",
        post(&"X: y\r\n".repeat(1000), ""),
        &Status(431),
    );
    let path = format!("POST /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 17));
    table.bytes("a path of 128 KiB", path, &Status(431));
    table.close();
}

/// Slow clients are cut off at the configured limits, and hold nobody else up.
#[test]
fn t_13_q_9_slow() {
    let limit = Duration::from_secs(10);
    let patience = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("groupshot.toml");
    let text =
        "[limits]\nheader_timeout = \"10s\"\npacket_timeout = \"10s\"\nidle_timeout = \"10s\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut table = Table::with(&["--engine", "sim", "--machines", "2", "--config", file]);
    let body = get();
    let length = format!("Content-Length: {}\r\n", body.len());
    let started = Instant::now();
    let parts = [
        ("says nothing", String::new(), Closed),
        ("half a request line", "POST /ws".to_owned(), Closed),
        ("half a header", head("POST /wsman", "Content-"), Closed),
        ("no body", post(&length, ""), Status(500)),
        ("half a body", post(&length, &body[..100]), Status(500)),
        (
            "half a chunk",
            post("Transfer-Encoding: chunked\r\n", "ff\r\nabc"),
            Status(500),
        ),
    ];
    let mut slow: Vec<_> = parts
        .iter()
        .map(|(name, bytes, expected)| {
            let mut connection = table.connect();
            connection.send(bytes.as_bytes()).unwrap();
            (name, connection, expected)
        })
        .collect();
    // Whoever comes meanwhile is answered at once.
    table.message("meanwhile", &body, &Good);
    for (name, connection, expected) in &mut slow {
        let response = connection.receive();
        table.check(name, response.as_ref(), expected);
        if response.is_some() {
            assert!(
                connection.receive().is_none(),
                "{name}: closed behind the answer"
            );
        }
    }
    let took = started.elapsed();
    assert!(took >= limit && took < patience, "cut off after {took:?}");
    // Byte by byte is no way to stay: the limit counts from the first.
    let mut drip = table.connect();
    let started = Instant::now();
    let mut sent = drip.send(b"POST /wsman HTTP/1.1\r\nX: ");
    while sent.is_ok() && started.elapsed() < patience {
        std::thread::sleep(limit / 20);
        sent = drip.send(b"x");
    }
    assert!(sent.is_err(), "a header that drips is cut off");
    table.close();
}

/// Connections come and go; an enumeration shows what was there when it was opened.
#[test]
fn e_18_an_enumeration_outlives_its_connection_and_shows_what_was_there_when_it_began() {
    const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
    const CLASS: &str = "Msvm_VirtualSystemCollection";
    let table = Table::start();
    let ask = |verb: &str, body: &str| {
        let action = format!("{ENUMERATION}/{verb}");
        let body = envelope(&action, CLASS, "", body);
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut connection = table.connect();
        connection.send(post(&length, &body).as_bytes()).unwrap();
        connection.receive().unwrap() // and the connection is closed
    };
    let command = |args: &[&str]| assert!(table.server.cli(args).status.success(), "{args:?}");
    for name in ["first", "second", "third"] {
        command(&["collection", "create", name]);
    }
    let opened = ask("Enumerate", "<n:Enumerate/>");
    let context = opened.element("EnumerationContext").unwrap();
    command(&["collection", "create", "late"]);
    command(&["collection", "delete", "second"]);
    let pull = format!(
        "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext><n:MaxElements>1</n:MaxElements></n:Pull>"
    );
    let mut names = Vec::new();
    loop {
        let page = ask("Pull", &pull);
        names.extend(page.element("ElementName"));
        if page.element("EndOfSequence").is_some() {
            break;
        }
        assert!(
            page.element("EnumerationContext").is_some(),
            "{}",
            page.text()
        );
    }
    names.retain(|name| name != "second"); // what is gone may be there or not
    names.sort();
    assert_eq!(names, ["first", "third"]);
}
