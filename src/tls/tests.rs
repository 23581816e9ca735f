//! Certificates, keys and what is wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use x509_parser::extensions::GeneralName;

use super::*;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn made(directory: &Path) -> Live {
    Live::load(Files::default(), directory, "Web-1.example.com", now()).unwrap()
}

#[test]
fn the_first_start_makes_a_certificate_and_later_ones_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("tls");
    let first = made(&directory).shown();
    assert_eq!(first.warnings, [""; 0]);
    for file in ["certificate.pem", "key.pem"] {
        let mode = fs::metadata(directory.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    assert_eq!(made(&directory).shown().fingerprint, first.fingerprint);
    // A process that died before the certificate was there.
    fs::remove_file(directory.join("certificate.pem")).unwrap();
    assert_ne!(made(&directory).shown().fingerprint, first.fingerprint);
}

#[test]
fn the_certificate_is_for_every_name_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let (file, _) = own::files(dir.path());
    let der = certificates(&file, regular).unwrap().remove(0);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<String> = names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(octets) => format!("{octets:?}"),
            other => panic!("{other:?}"),
        })
        .collect();
    let loopback = [
        format!("{:?}", std::net::Ipv4Addr::LOCALHOST.octets()),
        format!("{:?}", std::net::Ipv6Addr::LOCALHOST.octets()),
    ];
    assert_eq!(names[..3], ["web-1.example.com", "web-1", "localhost"]);
    assert_eq!(names[3..], loopback);
    assert!(!certificate.is_ca());
    assert_eq!(certificate.subject().to_string(), "CN=web-1.example.com");
}

#[test]
fn a_host_without_a_usable_name_gets_one_for_itself() {
    for host in ["", "höst", "a_b", &"x".repeat(64)] {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::load(Files::default(), dir.path(), host, now());
        assert!(live.is_ok(), "{host}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_one_line_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    made(&file("a"));
    made(&file("b"));
    fs::write(file("empty"), "").unwrap();
    fs::write(file("torn"), "-----BEGIN CERTIFICATE-----\nMII").unwrap();
    fs::write(
        file("odd"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let (good, key) = own::files(&file("a"));
    let (_, other) = own::files(&file("b"));
    let none = file("none");
    for (certificate, key, ca, crl, at, words) in [
        (&none, &key, None, None, &none, "No such file"),
        (&good, &none, None, None, &none, "No such file"),
        (
            &file("empty"),
            &key,
            None,
            None,
            &file("empty"),
            "no certificate in it",
        ),
        (
            &file("torn"),
            &key,
            None,
            None,
            &file("torn"),
            "no sound PEM",
        ),
        (
            &file("odd"),
            &key,
            None,
            None,
            &file("odd"),
            "no sound certificate",
        ),
        (&good, &good, None, None, &good, "no private key in it"),
        (&good, &other, None, None, &other, "this is not the key of"),
        (&good, &key, Some(&none), None, &none, "No such file"),
        (
            &good,
            &key,
            Some(&good),
            Some(&good),
            &good,
            "no revocation list",
        ),
    ] {
        let files = Files {
            pair: Some((certificate.clone(), key.clone())),
            client_ca: ca.cloned(),
            crl: crl.cloned(),
            min_version: Version::Tls12,
        };
        let error = check(&files, now()).unwrap_err();
        let text = error.to_string();
        assert_eq!(&error.file, at, "{text}");
        assert!(text.contains(words) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn what_only_looks_bad_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let (certificate, key) = own::files(dir.path());
    let files = Files {
        pair: Some((certificate, key.clone())),
        ..Files::default()
    };
    for (time, words) in [
        ("2026-11-18T00:00:00Z", "valid from 2026-11-19"),
        ("2036-11-10T00:00:00Z", "expires on 2036-11-20"),
        ("2036-11-21T00:00:00Z", "has expired on 2036-11-20"),
    ] {
        let warnings = check(&files, time.parse().unwrap()).unwrap();
        assert!(
            warnings.len() == 1 && warnings[0].contains(words),
            "{warnings:?}"
        );
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = check(&files, now()).unwrap();
    assert!(warnings[0].contains("every user"), "{warnings:?}");
}

#[test]
fn a_client_takes_the_files_it_is_given_or_says_which_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let (certificate, key) = own::files(dir.path());
    let sound = Trust {
        ca: Some(certificate.clone()),
        insecure: false,
        identity: Some((certificate.clone(), key.clone())),
    };
    assert!(connector(&sound).is_ok());
    assert!(connector(&Trust::default()).is_ok());
    let none = dir.path().join("none");
    for (trust, at) in [
        (
            Trust {
                ca: Some(none.clone()),
                ..sound.clone()
            },
            &none,
        ),
        (
            Trust {
                identity: Some((certificate, none.clone())),
                ..sound
            },
            &none,
        ),
    ] {
        assert_eq!(&connector(&trust).err().unwrap().file, at);
    }
}
