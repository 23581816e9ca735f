//! The certificate that a server makes for itself, so that TLS works before anybody has bought one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustix::fs::{Access, AtFlags, accessat};

use crate::held::Folder;

use super::TlsError;

/// For how many years it is made: whoever trusts it, trusts the file, not an issuer.
const YEARS: i64 = 10;

/// Certificate and key in that directory.
pub(super) fn files(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("certificate.pem"), directory.join("key.pem"))
}

/// That directory, if it is there: no link, and nobody else can exchange what is in it.
fn folder(directory: &Path) -> io::Result<Option<Folder>> {
    super::answered(directory, |directory| {
        let folder = match Folder::open(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        folder.require_private()?;
        Ok(Some(folder))
    })
}

/// Whether they are there.
pub(super) fn is_made(directory: &Path) -> Result<bool, TlsError> {
    let (certificate, _) = files(directory);
    let name = certificate.file_name().unwrap_or_default().to_owned();
    let failed = |e| TlsError::new(directory, &e);
    let Some(folder) = folder(directory).map_err(failed)? else {
        return Ok(false);
    };
    let looked = super::answered(&certificate, move |_| folder.look(name));
    let looked = looked.map_err(|e| TlsError::new(&certificate, &e))?;
    Ok(looked.is_some())
}

/// All of one of them, from the directory as it is now.
pub(super) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let directory = file.parent().ok_or(io::ErrorKind::NotFound)?;
    let folder = folder(directory)?.ok_or(io::ErrorKind::NotFound)?;
    let name = file.file_name().unwrap_or_default().to_owned();
    super::answered(file, move |_| folder.read_short(name))
}

/// Refuses a directory in which they could not be made; what is not there yet is made with them.
pub(super) fn can_make(directory: &Path) -> Result<(), TlsError> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    let failed = |e: io::Error| TlsError::new(directory, &e);
    let Some(folder) = folder(directory).map_err(failed)? else {
        return Ok(());
    };
    let allowed = super::answered(directory, move |_| {
        Ok(accessat(&folder, ".", access, AtFlags::EACCESS)?)
    });
    allowed.map_err(failed)
}

/// Makes both unless the certificate is there. The certificate is written last: with it the pair is whole.
pub(super) fn make_if_missing(
    directory: &Path,
    host: &str,
    now: Timestamp,
) -> Result<(), TlsError> {
    let (certificate, key) = files(directory);
    if is_made(directory)? {
        return Ok(());
    }
    let made = make(host, now).map_err(|e| TlsError::new(&certificate, &e))?;
    let folder = Folder::of(directory).and_then(|(above, name)| {
        let folder = above.make(name, 0o700)?;
        folder.require_private()?;
        Ok(folder)
    });
    let folder = folder.map_err(|e| TlsError::new(directory, &e))?;
    for (file, text) in [(&key, &made.1), (&certificate, &made.0)] {
        // Whole, and for this user alone, or none of that name.
        let name = file.file_name().unwrap_or_default();
        let written = folder.replace_as(name, text.as_bytes(), 0o600, |_| Ok(()));
        written.map_err(|e| TlsError::new(file, &io::Error::from(e)))?;
    }
    Ok(())
}

fn make(host: &str, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = parameters(host, now)?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// For the host's whole name, its first label, and this host's own names for itself.
fn parameters(host: &str, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let host = host.to_lowercase();
    let short = host.split('.').next().unwrap_or_default().to_owned();
    let mut names = vec![host, short, "localhost".to_owned()];
    names.retain(|name| is_dns_name(name));
    names.dedup();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let common = names.first().cloned().unwrap_or_default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common);
    for name in names {
        let name = SanType::DnsName(name.try_into()?);
        if !parameters.subject_alt_names.contains(&name) {
            parameters.subject_alt_names.push(name);
        }
    }
    for address in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        parameters
            .subject_alt_names
            .push(SanType::IpAddress(address));
    }
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let moment = |day: Date| {
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(day.year().into(), part(day.month()), part(day.day()))
    };
    let today = now.to_zoned(TimeZone::UTC).date();
    parameters.not_before = moment(today.saturating_sub(1.day()));
    parameters.not_after = moment(today.saturating_add(YEARS.years()));
    Ok(parameters)
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
            (1..=63).contains(&label.len()) && label.chars().all(sound)
        })
}
