//! The same transport inside TLS: versions, handshakes, who a certificate stands for.

use std::path::Path;

use groupshot::auth::certificate::Owner;
use groupshot::tls::{Files, Trust, Version, connector};
use rcgen::SanType;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use super::*;
use crate::support::pki::{Authority, Pair, Wish};

const MUTUAL: &str =
    "Authorization: http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual\r\n";

/// A server with TLS and everything around it.
struct Site {
    ca: Authority,
    server: Server,
    live: Arc<Live>,
    dir: tempfile::TempDir,
}

struct Wishes {
    limits: TransportLimits,
    settings: AuthSettings,
    min_version: Version,
    mappings: Vec<Mapping>,
    revoked: Option<i32>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            limits: TransportLimits::default(),
            settings: AuthSettings::default(),
            min_version: Version::Tls12,
            mappings: vec![mapping(
                Owner::subject("CN=carol, O=Example").unwrap(),
                "carol",
            )],
            revoked: None,
        }
    }
}

fn mapping(owner: Owner, user: &str) -> Mapping {
    Mapping {
        owner,
        user: user.into(),
        role: Role::Operator,
    }
}

impl Site {
    async fn start(wishes: Wishes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new(dir.path(), "ca");
        let shown = ca.server("server");
        let mut files = Files {
            pair: Some((shown.certificate, shown.key)),
            client_ca: Some(ca.file.clone()),
            crl: None,
            min_version: wishes.min_version,
        };
        files.crl = wishes.revoked.map(|until| {
            let bad = ca.client("revoked");
            ca.revoke(&[&bad], until)
        });
        let live = Arc::new(load(files, dir.path()));
        let tls = Some(live.clone());
        let server = Server::listening(wishes.limits, wishes.settings, tls, wishes.mappings).await;
        Self {
            ca,
            server,
            live,
            dir,
        }
    }

    fn connector(&self, identity: Option<&Pair>) -> TlsConnector {
        let trust = Trust {
            ca: Some(self.ca.file.clone()),
            insecure: false,
            identity: identity.map(|p| (p.certificate.clone(), p.key.clone())),
        };
        connector(&trust).unwrap()
    }

    /// A client that believes the authority and shows that certificate.
    async fn connect(&self, identity: Option<&Pair>) -> Client<TlsStream<TcpStream>> {
        self.try_connect(&self.connector(identity)).await.unwrap()
    }

    async fn try_connect(
        &self,
        connector: &TlsConnector,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let socket = TcpStream::connect(self.server.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let socket = connector.connect(name, socket).await?;
        Ok(Client {
            socket,
            unread: Vec::new(),
        })
    }

    async fn ask(&self, identity: Option<&Pair>, request: String) -> Reply {
        let mut client = self.connect(identity).await;
        client.send(request).await;
        client.reply().await
    }

    /// Is the client refused in the handshake or, as TLS 1.3 has it, right after?
    async fn is_refused(&self, identity: &Pair) -> bool {
        match self.try_connect(&self.connector(Some(identity))).await {
            Err(_) => true,
            Ok(mut client) => {
                let _ = client.socket.write_all(post(MUTUAL, "x").as_bytes()).await;
                client.try_reply().await.is_none()
            }
        }
    }
}

fn load(files: Files, directory: &Path) -> Live {
    let now = SystemClock::shared().now();
    Live::load(files, directory, "localhost", now).unwrap()
}

fn versions(site: &Site, only: &'static SupportedProtocolVersion, alpn: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&site.ca.file).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[only])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn t_15_tls_1_2_and_1_3_are_spoken() {
    let site = Site::start(Wishes::default()).await;
    for (only, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let connector = versions(&site, only, &["h2", "http/1.1"]);
        let mut client = site.try_connect(&connector).await.unwrap();
        let inside = client.socket.get_ref().1;
        assert_eq!(inside.protocol_version(), Some(spoken));
        assert_eq!(inside.alpn_protocol(), Some("http/1.1".as_bytes()));
        client.send(signed_post("x")).await;
        assert_eq!(client.reply().await.body, "ann over TLS - 1");
    }
    let connector = versions(&site, &TLS13, &["h2"]);
    assert!(site.try_connect(&connector).await.is_err(), "no HTTP/2");
}

#[tokio::test]
async fn t_15_the_least_version_can_be_1_3() {
    let site = Site::start(Wishes {
        min_version: Version::Tls13,
        ..Wishes::default()
    })
    .await;
    let old = versions(&site, &TLS12, &[]);
    assert!(site.try_connect(&old).await.is_err());
    let new = versions(&site, &TLS13, &[]);
    assert!(site.try_connect(&new).await.is_ok());
}

/// A hello of TLS 1.1 as old clients sent it, answered by the alert `protocol_version`.
#[tokio::test]
async fn t_15_older_versions_are_refused_by_name() {
    let site = Site::start(Wishes::default()).await;
    for minor in [0, 1, 2] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        let ciphers = [0, 0, 8, 0xc0, 0x13, 0xc0, 0x14, 0, 0x2f, 0, 0x35, 1, 0];
        let groups = [0, 10, 0, 4, 0, 2, 0, 23];
        let signatures = [0, 13, 0, 6, 0, 4, 4, 3, 4, 1];
        hello.extend(ciphers);
        hello.extend([0, 18]);
        hello.extend(groups.iter().chain(&signatures));
        let size = u8::try_from(hello.len()).unwrap();
        let mut record = vec![22, 3, 1, 0, size + 4, 1, 0, 0, size];
        record.extend(hello);
        let mut old = site.server.connect().await;
        old.send(record).await;
        while old.more().await.is_some() {}
        assert_eq!(old.unread[..1], [21], "an alert: {:?}", old.unread);
        assert_eq!(old.unread[5..7], [2, 70], "fatal, protocol_version");
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_no_answer_and_no_handler() {
    let site = Site::start(Wishes::default()).await;
    let mut plain = site.server.connect().await;
    plain.send(signed_post("x")).await;
    while plain.more().await.is_some() {}
    assert!(!plain.unread.starts_with(b"HTTP"));
    let mut client = site.connect(None).await;
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_30_a_mapped_certificate_is_a_user_with_or_without_the_header() {
    let site = Site::start(Wishes::default()).await;
    let carol = site.ca.client("carol");
    for headers in [MUTUAL, ""] {
        let reply = site.ask(Some(&carol), post(headers, "x")).await;
        assert_eq!(reply.body, "carol over TLS - 1", "{headers}");
    }
    // The leg that only authenticates, as pypsrp begins.
    let reply = site.ask(Some(&carol), post(MUTUAL, "")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    // Name and password count for themselves.
    let reply = site.ask(Some(&carol), signed_post("x")).await;
    assert_eq!(reply.body, "ann over TLS - 1");
    let wrong = BASE64_STANDARD.encode("ann:wrong");
    let wrong = post(&format!("Authorization: Basic {wrong}\r\n"), "x");
    assert_eq!(site.ask(Some(&carol), wrong).await.status, 401);
}

#[tokio::test]
async fn a_30_the_header_alone_and_a_certificate_without_user_prove_nothing() {
    let site = Site::start(Wishes::default()).await;
    let dave = site.ca.client("dave");
    for identity in [None, Some(&dave)] {
        for headers in [MUTUAL, ""] {
            let reply = site.ask(identity, post(headers, "x")).await;
            assert_eq!(reply.status, 401);
            assert_eq!(reply.all("www-authenticate"), [r#"Basic realm="WSMAN""#]);
        }
    }
    let plain = Server::start().await;
    assert_eq!(plain.ask(post(MUTUAL, "x")).await.status, 401);
    let site = Site::start(Wishes {
        settings: AuthSettings {
            basic: false,
            ..AuthSettings::default()
        },
        ..Wishes::default()
    })
    .await;
    let dave = site.ca.client("dave");
    let reply = site.ask(Some(&dave), post(MUTUAL, "x")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("client certificate"), "{}", reply.body);
}

#[tokio::test]
async fn a_31_a_certificate_is_recognised_by_subject_name_or_fingerprint() {
    let upn = |name: &str| {
        let oid = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
        SanType::OtherName((oid, name.to_owned().into()))
    };
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "ca");
    let mut wish = Wish::named("erin");
    wish.alternatives = vec![
        upn("Erin@example.com"),
        SanType::DnsName("erin.example.com".try_into().unwrap()),
        SanType::Rfc822Name("erin@mail.example.com".try_into().unwrap()),
        SanType::URI("spiffe://example.com/Erin".try_into().unwrap()),
    ];
    let erin = ca.issue(&wish);
    let shown = ca.server("server");
    let files = Files {
        pair: Some((shown.certificate, shown.key)),
        client_ca: Some(ca.file.clone()),
        ..Files::default()
    };
    let live = Arc::new(load(files, dir.path()));
    let two = |a: Owner, b: Owner| vec![mapping(a, "x"), mapping(b, "y")];
    let subject = || Owner::subject("O=Example,CN=erin").unwrap();
    let name = |n: &str| Owner::name(n).unwrap();
    let one = |owner: Owner| vec![mapping(owner, "x")];
    for (mappings, known) in [
        (one(subject()), true),
        (one(Owner::subject("cn = erin, o = Example").unwrap()), true),
        (one(Owner::subject("CN=erin").unwrap()), false),
        (one(Owner::subject("CN=Erin,O=Example").unwrap()), false),
        (one(name("upn:erin@example.com")), true),
        (one(name("email:erin@example.com")), false),
        (one(name("email:erin@mail.example.com")), true),
        (one(name("dns:ERIN.example.com")), true),
        (one(name("dns:example.com")), false),
        (one(name("uri:spiffe://example.com/Erin")), true),
        (one(name("uri:spiffe://example.com/erin")), false),
        (one(Owner::fingerprint(&erin.fingerprint).unwrap()), true),
        (one(Owner::fingerprint(&shown.fingerprint).unwrap()), false),
        (two(subject(), name("dns:other.example.com")), true),
        // Two users for one certificate are none.
        (two(subject(), name("dns:erin.example.com")), false),
    ] {
        let told = format!("{mappings:?}");
        let settings = AuthSettings::default();
        let tls = Some(live.clone());
        let site = Site {
            ca: Authority::new(dir.path(), "unused"),
            server: Server::listening(TransportLimits::default(), settings, tls, mappings).await,
            live: live.clone(),
            dir: tempfile::tempdir().unwrap(),
        };
        let trust = Trust {
            ca: Some(ca.file.clone()),
            insecure: false,
            identity: Some((erin.certificate.clone(), erin.key.clone())),
        };
        let mut client = site.try_connect(&connector(&trust).unwrap()).await.unwrap();
        client.send(post(MUTUAL, "x")).await;
        let status = client.reply().await.status;
        assert_eq!(status, if known { 200 } else { 401 }, "{told}");
    }
}

#[tokio::test]
async fn a_30_certificates_of_others_and_revoked_ones_end_the_handshake() {
    let site = Site::start(Wishes {
        revoked: Some(2120),
        ..Wishes::default()
    })
    .await;
    let carol = site.ca.client("carol");
    assert_eq!(site.ask(Some(&carol), post("", "x")).await.status, 200);
    let other = tempfile::tempdir().unwrap();
    let foreign = Authority::new(other.path(), "ca").client("carol");
    assert!(
        site.is_refused(&foreign).await,
        "another CA of the same name"
    );
    let mut revoked = carol.clone();
    revoked.certificate = site.dir.path().join("revoked.crt");
    revoked.key = site.dir.path().join("revoked.key");
    assert!(site.is_refused(&revoked).await);
    let mut wish = Wish::named("carol");
    wish.years = (2020, 2021);
    assert!(site.is_refused(&site.ca.issue(&wish)).await, "expired");
}

#[tokio::test]
async fn an_expired_revocation_list_lets_nobody_in_by_certificate() {
    let site = Site::start(Wishes {
        revoked: Some(2022),
        ..Wishes::default()
    })
    .await;
    let carol = site.ca.client("carol");
    assert!(site.is_refused(&carol).await);
    assert_eq!(site.ask(None, signed_post("x")).await.status, 200);
}

/// A site with room for three handshakes, and five connections that say nothing or half a word.
async fn crowded(handshake: Duration) -> (Site, Vec<Client>) {
    let site = Site::start(Wishes {
        limits: TransportLimits {
            handshakes: 3,
            handshake,
            header: Duration::from_secs(60),
            ..TransportLimits::default()
        },
        ..Wishes::default()
    })
    .await;
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01\x01\x00", b"", b"\x16", b""] {
        let mut client = site.server.connect().await;
        client.send(bytes).await;
        silent.push(client);
    }
    (site, silent)
}

#[tokio::test]
async fn slow_handshakes_give_way_to_others() {
    let (site, mut silent) = crowded(Duration::from_secs(60)).await;
    let mut client = site.connect(None).await;
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200);
    // Three of six at most: the two oldest gave way to silent ones, the third to the one that spoke.
    for client in &mut silent[..3] {
        assert!(client.is_closed().await);
    }
    let youngest = silent[4].is_closed();
    let youngest = tokio::time::timeout(Duration::from_millis(50), youngest).await;
    assert!(youngest.is_err(), "there is room for it");
    client.send(signed_post("x")).await;
    assert_eq!(client.reply().await.status, 200, "not a handshake any more");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let (_site, silent) = crowded(Duration::from_millis(200)).await;
    for mut client in silent {
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn the_server_stops_without_waiting_for_handshakes() {
    let site = Site::start(Wishes::default()).await;
    let mut silent = site.server.connect().await;
    let mut idle = site.connect(None).await;
    idle.send(signed_post("x")).await;
    idle.reply().await;
    site.server.stop.cancel();
    site.server.task.await.unwrap();
    assert!(silent.is_closed().await);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_broken_ones_for_none() {
    let site = Site::start(Wishes::default()).await;
    let now = SystemClock::shared().now();
    let first = site.live.shown().fingerprint.clone();
    let mut old = site.connect(None).await;
    old.send(signed_post("wait")).await;
    let key = site.dir.path().join("server.key");
    std::fs::write(&key, "nonsense").unwrap();
    let error = site.live.reload(now).unwrap_err().to_string();
    assert!(error.contains("server.key"), "{error}");
    assert_eq!(fingerprint(&site.connect(None).await), first);

    let second = site.ca.server("server").fingerprint;
    assert_eq!(site.live.reload(now).unwrap().fingerprint, second);
    assert_eq!(fingerprint(&site.connect(None).await), second);
    assert_eq!(fingerprint(&old), first);
    site.server.gate.add_permits(1);
    assert_eq!(old.reply().await.status, 200);
    old.send(signed_post("x")).await;
    assert_eq!(old.reply().await.status, 200);
}

/// An open connection does not outlive the trust in its certificate, and one without a certificate stays.
#[tokio::test]
async fn a_30_a_certificate_that_is_revoked_later_is_nobody_on_its_open_connection() {
    let site = Site::start(Wishes {
        revoked: Some(2120),
        ..Wishes::default()
    })
    .await;
    let now = SystemClock::shared().now();
    let carol = site.ca.client("carol");
    let wish = Wish {
        file: "second",
        ..Wish::named("carol")
    };
    let second = site.ca.issue(&wish);
    let mut good = site.connect(Some(&second)).await;
    let mut bad = site.connect(Some(&carol)).await;
    let mut none = site.connect(None).await;
    for (revoked, status) in [(vec![], 200), (vec![&carol], 401)] {
        site.ca.revoke(&revoked, 2120);
        site.live.reload(now).unwrap();
        for (client, request, status) in [
            (&mut bad, post(MUTUAL, "x"), status),
            (&mut good, post("", "x"), 200),
            (&mut none, signed_post("x"), 200),
        ] {
            client.send(request).await;
            assert_eq!(client.reply().await.status, status);
        }
    }
}

fn fingerprint(client: &Client<TlsStream<TcpStream>>) -> String {
    let shown = client.socket.get_ref().1.peer_certificates().unwrap();
    groupshot::tls::fingerprint(&shown[0])
}
