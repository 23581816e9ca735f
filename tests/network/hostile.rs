//! What is no honest request is refused, and the log tells of it: once in a while, with a count.

use super::*;

/// A request line of POST and these headers.
fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /wsman HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}").into_bytes()
}

/// Name, bytes, the status of the answer (`None`: the connection is closed without one), and a word of the log's line.
fn attacks() -> Vec<(&'static str, Vec<u8>, Option<u16>, &'static str)> {
    let line = |path: &str| {
        let text = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        text.into_bytes()
    };
    let smuggled = "0\r\n\r\nPOST /wsman HTTP/1.1\r\nHost: h\r\n\r\n";
    vec![
        (
            "slow-loris",
            b"POST /wsman HTTP/1.1\r\nX: ".to_vec(),
            None,
            "status=408",
        ),
        (
            "a header of a megabyte",
            post(&format!("X: {}\r\n", "x".repeat(1 << 20)), ""),
            Some(431),
            "status=431",
        ),
        (
            "a path of 128 KiB",
            line(&format!("/{}", "x".repeat(1 << 17))),
            Some(431),
            "status=431",
        ),
        (
            "two lengths",
            post("Content-Length: 1\r\nContent-Length: 2\r\n", "xx"),
            Some(400),
            "status=400",
        ),
        (
            "a length beside chunks",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                smuggled,
            ),
            Some(400),
            "says twice how long its body is",
        ),
        (
            "a length beside a coding that is none",
            post(
                "Content-Length: 4\r\nTransfer-Encoding: chunked, x\r\n",
                smuggled,
            ),
            Some(400),
            "status=400",
        ),
        (
            "45 KiB of Authorization",
            post(
                &format!(
                    "Authorization: Negotiate {}\r\nContent-Length: 0\r\n",
                    "QUJD".repeat(11_520)
                ),
                "",
            ),
            Some(401),
            "status=401",
        ),
        (
            "a path that climbs",
            line("/wsman/../../etc/passwd"),
            Some(404),
            "/etc/passwd",
        ),
        (
            "a path that climbs, encoded",
            line("/wsman/%2e%2e/etc/passwd"),
            Some(404),
            "%2e%2e",
        ),
    ]
}

#[test]
fn what_is_no_honest_request_is_refused_and_told_of_in_the_log() {
    for (name, bytes, status, word) in attacks() {
        let server = Run::start("[limits]\nheader_timeout = \"3s\"\n", |_| ());
        let address = server.address("http");
        assert!(!server.said().contains("refused"), "{}", server.said());
        let begun = Instant::now();
        for _ in 0..3 {
            let mut connection = Connection::open(address);
            let _ = connection.send(&bytes); // the server may close before it has read all
            let answer = connection.receive();
            assert_eq!(answer.map(|a| a.status), status, "{name}");
        }
        until(name, || server.said().contains("request refused"));
        let said = server.said();
        let lines: Vec<_> = said.lines().filter(|l| l.contains("refused")).collect();
        // One in 10 s: on a busy host three take longer.
        let most = 1 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
        assert!((1..=most).contains(&lines.len()), "{name}: {said}");
        assert!(
            lines[0].contains(word) && lines[0].contains("WARN"),
            "{name}: {said}"
        );
        assert!(lines[0].len() < 600, "{name}: a line of {}", lines[0].len());
        // And an honest one is served.
        assert_eq!(
            ask(address, USER, &enumerate("Msvm_ComputerSystem")).status,
            200,
            "{name}"
        );
    }
}

#[test]
fn a_log_that_nobody_takes_is_nothing_to_end_for() {
    for taken in ["a full disk", "a pipe without a reader"] {
        let mut server = Run::start("", |command| match taken {
            "a full disk" => {
                let full = File::options().write(true).open("/dev/full").unwrap();
                command.stderr(full);
            }
            _ => {
                let (_reader, writer) = std::io::pipe().unwrap();
                command.stderr(writer);
            }
        });
        let address = server.address("http");
        for _ in 0..3 {
            let refused = Connection::open(address).post(USER, "guess", b"");
            assert_eq!(refused.status, 401, "{taken}");
        }
        let asked = ask(address, USER, &enumerate("Msvm_ComputerSystem"));
        assert_eq!(asked.status, 200, "{taken}");
        assert!(server.child.try_wait().unwrap().is_none(), "{taken}");
    }
}
