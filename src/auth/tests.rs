//! Who is let in, and what it costs.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::audit::tests::{QUEUE, hung};
use crate::clock::ManualClock;
use crate::handler::Role;
use crate::telemetry;
use crate::text::catalog::operation as texts;

struct House {
    dir: TempDir,
    clock: Arc<ManualClock>,
    auth: Authenticator,
}

impl House {
    fn new(settings: AuthSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        users::add(dir.path(), "änn", Role::Operator, "pass:wörd").unwrap();
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let users = Users::follow(dir.path(), clock.clone()).unwrap();
        let auth = Authenticator::new(users, settings, clock.clone()).unwrap();
        Self { dir, clock, auth }
    }

    async fn knows(&self, name: &str, password: &str) -> Option<Role> {
        let header = basic(name, password);
        let known = self.auth.check(LOCAL, Some(header.as_bytes())).await?;
        assert_eq!(&*known.user, name);
        Some(known.role)
    }
}

const LOCAL: Channel<'_> = Channel {
    peer: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    secure: false,
    certificate: None,
};

fn basic(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    format!("Basic {}", BASE64_STANDARD.encode(pair))
}

#[tokio::test]
async fn a_3_basic_takes_utf_8_names_and_passwords_with_colons() {
    let house = House::new(AuthSettings::default());
    assert_eq!(house.knows("änn", "pass:wörd").await, Some(Role::Operator));
    for (name, password) in [
        ("änn", "pass"),
        ("änn", ""),
        ("Änn", "pass:wörd"),
        ("bob", "pass:wörd"),
        ("", ""),
    ] {
        assert_eq!(house.knows(name, password).await, None, "{name} {password}");
    }
    assert_eq!(house.auth.basic.remembered(), 1, "only what was right");
}

#[tokio::test]
async fn a_header_that_is_not_basic_proves_nothing() {
    let house = House::new(AuthSettings::default());
    let good = basic("änn", "pass:wörd");
    let lower = good.replace("Basic", "bAsIc ");
    assert!(
        house
            .auth
            .check(LOCAL, Some(lower.as_bytes()))
            .await
            .is_some()
    );
    for bad in [
        "",
        "Basic",
        "Basic ",
        "Basic ?",
        "Basic YQ==",
        "Negotiate YQ==",
        "Basic\u{a0}YTpi",
    ] {
        assert!(
            house
                .auth
                .check(LOCAL, Some(bad.as_bytes()))
                .await
                .is_none(),
            "{bad}"
        );
    }
    assert!(house.auth.check(LOCAL, Some(b"Basic \xff")).await.is_none());
}

#[tokio::test]
async fn a_3_basic_is_closed_on_plain_http_from_elsewhere() {
    let far: IpAddr = "192.0.2.1".parse().unwrap();
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    for (peer, secure, allow_unencrypted, open) in [
        (far, false, false, false),
        (far, true, false, true),
        (far, false, true, true),
        (mapped, false, false, true),
    ] {
        let house = House::new(AuthSettings {
            basic: true,
            allow_unencrypted,
            ..AuthSettings::default()
        });
        let channel = Channel {
            peer,
            secure,
            certificate: None,
        };
        let header = basic("änn", "pass:wörd");
        let known = house.auth.check(channel, Some(header.as_bytes())).await;
        assert_eq!(known.is_some(), open, "{channel:?}");
        assert_eq!(!house.auth.challenges(channel).is_empty(), open);
    }
    let off = House::new(AuthSettings {
        basic: false,
        allow_unencrypted: true,
        ..AuthSettings::default()
    });
    assert_eq!(off.knows("änn", "pass:wörd").await, None);
}

#[tokio::test]
async fn a_running_server_follows_the_users_file() {
    let house = House::new(AuthSettings::default());
    let dir = house.dir.path();
    assert!(house.knows("änn", "pass:wörd").await.is_some());

    users::set_password(dir, "änn", "next").unwrap();
    users::add(dir, "bob", Role::Reader, "b").unwrap();
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.knows("änn", "pass:wörd").await, None);
    assert_eq!(house.knows("änn", "next").await, Some(Role::Operator));
    assert_eq!(house.knows("bob", "b").await, Some(Role::Reader));

    users::remove(dir, "änn", true).unwrap();
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.knows("änn", "next").await, None);

    std::fs::write(dir.join(users::FILE), "{").unwrap();
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.knows("bob", "b").await, Some(Role::Reader));
    std::fs::remove_file(dir.join(users::FILE)).unwrap();
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(house.knows("bob", "b").await, None);
}

#[tokio::test]
async fn a_verified_pair_is_believed_for_five_minutes_without_a_hash() {
    let house = House::new(AuthSettings::default());
    assert!(house.knows("änn", "pass:wörd").await.is_some());
    // With no turn to be had a hash would wait for ever.
    let turns = house.auth.basic.take_all_turns();
    house.clock.advance(Duration::from_secs(299));
    assert!(house.knows("änn", "pass:wörd").await.is_some());
    house.clock.advance(Duration::from_secs(1));
    let again = house.knows("änn", "pass:wörd");
    let late = tokio::time::timeout(Duration::from_millis(50), again).await;
    assert!(late.is_err(), "it needs a hash now");
    drop(turns);
    assert!(house.knows("änn", "pass:wörd").await.is_some());
}

fn strict() -> AuthSettings {
    AuthSettings {
        lockout_failures: 3,
        lockout_seconds: 60,
        ..AuthSettings::default()
    }
}

#[tokio::test]
async fn a_11_a_right_password_is_refused_while_its_user_is_locked_out() {
    let house = House::new(strict());
    assert!(house.knows("änn", "pass:wörd").await.is_some());
    for _ in 0..3 {
        assert_eq!(house.knows("änn", "guess").await, None);
    }
    // Believed without a hash a moment ago; not now.
    assert_eq!(house.knows("änn", "pass:wörd").await, None);
    house.clock.advance(Duration::from_secs(59));
    assert_eq!(house.knows("änn", "pass:wörd").await, None);
    house.clock.advance(Duration::from_secs(1));
    assert!(house.knows("änn", "pass:wörd").await.is_some());
}

#[tokio::test]
async fn a_11_what_is_refused_without_a_look_locks_no_address() {
    let house = House::new(strict());
    let far = || Channel {
        peer: "192.0.2.1".parse().unwrap(),
        secure: true,
        certificate: None,
    };
    let header = basic("änn", "of last year");
    for _ in 0..60 {
        assert!(
            house
                .auth
                .check(far(), Some(header.as_bytes()))
                .await
                .is_none()
        );
    }
    let lockout = house.auth.basic.lockout();
    assert!(lockout.is_locked(&lockout::Who::new("änn", far().peer)));
    assert!(!lockout.is_address_locked(far().peer), "3 guesses in all");
}

#[tokio::test]
async fn a_11_a_success_forgives_the_failures_before_it() {
    let house = House::new(strict());
    for _ in 0..3 {
        assert_eq!(house.knows("änn", "guess").await, None);
        assert_eq!(house.knows("änn", "guess").await, None);
        assert!(house.knows("änn", "pass:wörd").await.is_some());
    }
}

#[tokio::test]
async fn a_11_unknown_names_cost_a_hash_and_are_locked_out_like_known_ones() {
    let house = House::new(strict());
    let turns = house.auth.basic.take_all_turns();
    let guess = house.knows("nobody", "guess");
    let late = tokio::time::timeout(Duration::from_millis(50), guess).await;
    assert!(late.is_err(), "an unknown name needs a hash as well");
    drop(turns);
    for _ in 0..3 {
        assert_eq!(house.knows("nobody", "guess").await, None);
    }
    let turns = house.auth.basic.take_all_turns();
    assert_eq!(house.knows("nobody", "guess").await, None, "and none now");
    let far = Channel {
        peer: "192.0.2.1".parse().unwrap(),
        secure: true,
        certificate: None,
    };
    let header = basic("nobody", "guess");
    let elsewhere = house.auth.check(far, Some(header.as_bytes()));
    let elsewhere = tokio::time::timeout(Duration::from_millis(50), elsewhere).await;
    assert!(elsewhere.is_err(), "at another address it is looked at");
    drop(turns);
}

#[tokio::test]
async fn a_11_every_judgement_costs_one_hash_whether_the_name_is_known_or_not() {
    let house = House::new(AuthSettings::default());
    for (name, password, cost) in [
        ("änn", "guess", 1),
        ("nobody", "guess", 1),
        ("nobody", "", 1),
        ("", "", 1),
        ("änn", "", 1),
        ("änn", "pass:wörd", 1),
        ("änn", "pass:wörd", 0),
        ("änn", "guess", 1),
    ] {
        let before = house.auth.basic.hashed();
        house.knows(name, password).await;
        let found = house.auth.basic.hashed() - before;
        assert_eq!(found, cost, "`{name}` `{password}`");
    }
}

#[tokio::test]
async fn a_11_guesses_that_come_at_once_are_no_more_than_those_that_come_in_a_row() {
    let house = House::new(strict());
    let turns = house.auth.basic.take_all_turns();
    let wrong = basic("änn", "guess");
    let right = basic("änn", "pass:wörd");
    let all = (0..8).map(|n| if n < 7 { &wrong } else { &right });
    let all =
        futures_util::future::join_all(all.map(|h| house.auth.check(LOCAL, Some(h.as_bytes()))));
    let release = async {
        tokio::task::yield_now().await;
        drop(turns);
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(
        answers.iter().all(Option::is_none),
        "the last one is too late"
    );
}

#[tokio::test]
async fn a_11_whoever_hangs_up_has_guessed_all_the_same() {
    let house = House::new(strict());
    let wrong = basic("änn", "guess");
    for n in 0..3 {
        let mut guess = std::pin::pin!(house.auth.check(LOCAL, Some(wrong.as_bytes())));
        while house.auth.basic.hashed() == n {
            assert!((&mut guess).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(house.knows("änn", "pass:wörd").await, None, "locked out");
    assert_eq!(house.auth.basic.hashed(), 3);
}

#[tokio::test]
async fn a_11_credentials_that_are_no_text_count_for_their_address() {
    let house = House::new(strict());
    let there = Channel {
        peer: "192.0.2.1".parse().unwrap(),
        secure: true,
        certificate: None,
    };
    let right = basic("änn", "pass:wörd");
    for n in 0..30 {
        let known = house.auth.check(there, Some(right.as_bytes())).await;
        assert!(known.is_some(), "{n}");
        assert_eq!(house.auth.check(there, Some(b"bAsic \xFF")).await, None);
    }
    assert_eq!(house.auth.check(there, Some(right.as_bytes())).await, None);
}

#[tokio::test]
async fn who_guesses_at_one_address_keeps_nobody_else_waiting_for_longer_than_a_hash() {
    let settings = AuthSettings {
        lockout_failures: 0,
        ..AuthSettings::default()
    };
    let house = House::new(settings);
    let turns = house.auth.basic.take_all_turns();
    let at = |peer: &str| Channel {
        peer: peer.parse().unwrap(),
        secure: true,
        certificate: None,
    };
    let (flood, wrong, right) = (
        at("192.0.2.1"),
        basic("nobody", "guess"),
        basic("änn", "pass:wörd"),
    );
    let guesses = (0..60).map(|_| house.auth.check(flood, Some(wrong.as_bytes())));
    let mut guesses = std::pin::pin!(futures_util::future::join_all(guesses));
    // All of them wait by now.
    assert!((&mut guesses).now_or_never().is_none());
    let own = house.auth.check(at("192.0.2.2"), Some(right.as_bytes()));
    let mut own = std::pin::pin!(own);
    assert!((&mut own).now_or_never().is_none());
    drop(turns);
    tokio::select! {
        known = &mut own => assert!(known.is_some()),
        _ = &mut guesses => panic!("the guesses were all before it"),
    }
    assert!(house.auth.basic.hashed() < 30, "and few of them");
}

#[test]
fn users_are_added_listed_and_removed_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(users::list(dir).unwrap().is_empty());
    users::add(dir, "b", Role::Reader, "1").unwrap();
    users::add(dir, "a", Role::Administrator, "2").unwrap();
    let all = users::list(dir).unwrap();
    let names: Vec<_> = all.iter().map(|u| (u.name.as_str(), u.role)).collect();
    assert_eq!(names, [("a", Role::Administrator), ("b", Role::Reader)]);
    let file = dir.join(users::FILE);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("\"2\""));

    for (result, words) in [
        (users::add(dir, "a", Role::Reader, "x"), "already"),
        (users::add(dir, "c:d", Role::Reader, "x"), "no user name"),
        (users::add(dir, "", Role::Reader, "x"), "no user name"),
        (users::add(dir, "c", Role::Reader, ""), "empty"),
        (users::remove(dir, "c", false), "no user `c`"),
        (users::set_password(dir, "c", "x"), "no user `c`"),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
    assert_eq!(users::list(dir).unwrap(), all);
}

/// Whoever hangs up while the audit log is waited for suppresses neither the failure nor the lock-out.
#[tokio::test]
async fn what_a_failed_logon_has_led_to_is_told_though_its_client_hangs_up() {
    let hung = hung();
    let _places = hung.fill(QUEUE).await;
    let failures = 1;
    let settings = AuthSettings {
        lockout_failures: failures,
        ..AuthSettings::default()
    };
    let certified = rcgen::generate_simple_self_signed(["nobody".to_owned()]).unwrap();
    let certificate = Certificate::read(certified.cert.der()).unwrap();
    let peers = ["192.0.2.1", "192.0.2.2"].map(|peer| peer.parse::<IpAddr>().unwrap());
    for (peer, certificate, header) in [
        (peers[0], None, Some(&b"Basic ?"[..])),
        (peers[1], Some(&certificate), None),
    ] {
        let house = House::new(settings);
        let auth = house.auth.with_audit(hung.audit.clone());
        let channel = Channel {
            peer,
            secure: true,
            certificate,
        };
        let (log, _heard) = telemetry::heard();
        for _ in 0..10 {
            let _waits_for_the_audit_log = auth.check(channel, header).now_or_never();
        }
        let told = log.told();
        assert!(told.contains("Locked out; "), "{told}");
        // The lines for the audit log are in the log instead.
        for event in ["logon-failed", "locked-out"] {
            assert!(told.contains(event), "{event}: {told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_unlocked_of_whom_no_line_can_be_kept() {
    let hung = hung();
    let failures = 1;
    let house = House::new(AuthSettings {
        lockout_failures: failures,
        ..AuthSettings::default()
    });
    assert_eq!(house.knows("änn", "wrong").await, None);
    let auth = house.auth.with_audit(hung.audit.clone());
    let (user, peer) = (Some("änn"), Some(LOCAL.peer));
    let who = lockout::Who::new("änn", LOCAL.peer);
    let mut places = hung.fill(QUEUE).await;
    for (user, peer) in [(user, None), (None, peer), (user, peer)] {
        let refused = auth.unlock(user, peer).await.unwrap_err();
        assert_eq!(refused.id(), texts::AUDIT_SILENT.id);
    }
    // There is one for the first of two lines.
    places.pop();
    assert!(auth.unlock(user, peer).await.is_err());
    assert!(auth.basic.lockout().is_locked(&who));
    drop(places);
    assert!(
        auth.unlock(user, peer).now_or_never().is_none(),
        "it is not written"
    );
    assert!(!auth.basic.lockout().is_locked(&who));
}

#[tokio::test(start_paused = true)]
async fn logons_that_cost_no_hash_are_told_seldom_with_a_count_and_not_of_who_is_locked_out() {
    let house = House::new(AuthSettings::default());
    let file = house.dir.path().join("audit.log");
    let audit = Audit::to_file(&file, house.clock.clone()).unwrap();
    let auth = house.auth.with_audit(audit);
    let far = Channel {
        peer: "192.0.2.1".parse().unwrap(),
        secure: true,
        certificate: None,
    };
    let told = || std::fs::read_to_string(&file).unwrap();
    let unreadable: [&[u8]; 3] = [b"Basic !!!!", b"Basic \xff", b"Basic YQ=="];
    for n in 0..150 {
        let header = unreadable.get(n % 3).copied();
        assert!(auth.check(far, header).await.is_none());
    }
    let lines = told();
    assert_eq!(lines.matches(r#""reason":"malformed""#).count(), 1);
    assert_eq!(lines.matches(r#""event":"locked-out""#).count(), 1);
    assert!(!lines.contains("times"));

    // What comes through a proxy on this host is never locked out.
    for _ in 0..150 {
        assert!(
            auth.check(LOCAL, unreadable.first().copied())
                .await
                .is_none()
        );
    }
    assert_eq!(told().lines().count(), 3);
    tokio::time::advance(Duration::from_secs(10)).await;
    for channel in [LOCAL, far] {
        assert!(
            auth.check(channel, unreadable.first().copied())
                .await
                .is_none()
        );
    }
    let lines = told();
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.ends_with("\"reason\":\"malformed\",\"times\":150}\n"));
}

/// The count in a line is of such logons as the line tells of.
#[tokio::test(start_paused = true)]
async fn each_reason_of_a_logon_that_costs_no_hash_has_its_own_count() {
    let house = House::new(AuthSettings::default());
    let file = house.dir.path().join("audit.log");
    let audit = Audit::to_file(&file, house.clock.clone()).unwrap();
    let mut counted = Vec::new();
    for _ in 0..2 {
        for (reason, often) in [("malformed", 3), ("nobody", 5)] {
            for _ in 0..often {
                let told = &house.auth.basic;
                told.failed_otherwise(reason, LOCAL.peer, &audit).await;
            }
        }
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    for line in std::fs::read_to_string(&file).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let times = line.get("times").map_or(1, |n| n.as_u64().unwrap());
        counted.push((line["reason"].as_str().unwrap().to_owned(), times));
    }
    let expected = [
        ("malformed", 1),
        ("nobody", 1),
        ("malformed", 3),
        ("nobody", 5),
    ];
    assert_eq!(counted, expected.map(|(reason, n)| (reason.to_owned(), n)));
}
