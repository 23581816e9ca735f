//! A certificate authority for tests, made anew each time.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// An authority and the folder into which it writes.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its own certificate.
    pub(crate) file: PathBuf,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// SHA-256 of the certificate.
    pub(crate) fingerprint: String,
    serial: SerialNumber,
}

/// What a certificate is to say.
pub(crate) struct Wish<'a> {
    pub(crate) file: &'a str,
    pub(crate) name: &'a str,
    pub(crate) alternatives: Vec<SanType>,
    /// First and last year.
    pub(crate) years: (i32, i32),
}

impl<'a> Wish<'a> {
    pub(crate) fn named(name: &'a str) -> Self {
        Self {
            file: name,
            name,
            alternatives: Vec::new(),
            years: (2020, 2120),
        }
    }
}

impl Authority {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let file = directory.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            directory: directory.to_owned(),
            file,
        }
    }

    /// For a server on loopback.
    pub(crate) fn server(&self, file: &str) -> Pair {
        let local = ["127.0.0.1", "::1"].map(|a| SanType::IpAddress(a.parse().unwrap()));
        let mut wish = Wish::named(file);
        wish.alternatives = local.to_vec();
        let name = SanType::DnsName("localhost".try_into().unwrap());
        wish.alternatives.push(name);
        self.issue(&wish)
    }

    /// For `CN=name,O=Example`.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.issue(&Wish::named(name))
    }

    pub(crate) fn issue(&self, wish: &Wish<'_>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let serial = SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let dn = &mut params.distinguished_name;
        dn.push(DnType::OrganizationName, "Example");
        dn.push(DnType::CommonName, wish.name);
        params.subject_alt_names = wish.alternatives.clone();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        params.not_before = date_time_ymd(wish.years.0, 1, 1);
        params.not_after = date_time_ymd(wish.years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.directory.join(format!("{}.crt", wish.file)),
            key: self.directory.join(format!("{}.key", wish.file)),
            fingerprint: groupshot::tls::fingerprint(certificate.der()),
            serial,
        };
        fs::write(&pair.certificate, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// A list of revoked certificates, good until that year.
    pub(crate) fn revoke(&self, pairs: &[&Pair], until: i32) -> PathBuf {
        let revoked = pairs.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.directory.join("revoked.crl");
        fs::write(&file, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        file
    }
}
