"""pypsrp over HTTPS: the right and the wrong CA, and certificates as users."""

import datetime
import ipaddress
import subprocess
import xml.etree.ElementTree as ET

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pypsrp.exceptions import AuthenticationError, WSManFaultError
from pypsrp.wsman import WSMan

from cim import WMI
from conftest import PASSWORD, USER, Server, local

GROUPS = "Msvm_CollectionManagementService"
START = datetime.datetime(2020, 1, 1)
END = datetime.datetime(2120, 1, 1)


class Authority:
    """A CA that writes certificates and keys into a folder."""

    def __init__(self, folder, name):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            self.begin(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file = self.write(f"{name}.pem", certificate)

    def begin(self, subject, key):
        """A certificate of this CA that is not signed yet."""
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(END)
            .add_extension(issuer, critical=False)
            .add_extension(own, critical=False)
        )

    def issue(self, name):
        """Certificate, key and serial number of CN=name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        hosts = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        certificate = (
            self.begin(subject, key)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        file = self.folder / f"{name}.key"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self.write(f"{name}.crt", certificate), str(file), certificate.serial_number

    def revoke(self, serial):
        """Writes a list that holds that number."""
        entry = x509.RevokedCertificateBuilder(serial, START).build()
        number = x509.CRLNumber(1)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        revoked = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(START)
            .next_update(END)
            .add_revoked_certificate(entry)
            .add_extension(number, critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return self.write("revoked.crl", revoked)

    def write(self, name, thing):
        """Writes it as PEM; its path."""
        file = self.folder / name
        file.write_bytes(thing.public_bytes(serialization.Encoding.PEM))
        return str(file)


class Site:
    """A server with a certificate of a CA, and what clients need."""

    def __init__(self, folder):
        self.ca = Authority(folder, "ca")
        self.ca.issue("server")
        self.reader = self.ca.issue("reader")
        self.operator = self.ca.issue("operator")
        self.stranger = self.ca.issue("stranger")
        self.revoked = self.ca.issue("revoked")
        self.ca.revoke(self.revoked[2])
        (folder / "other").mkdir()
        self.other = Authority(folder / "other", "ca")
        self.foreign = self.other.issue("operator")
        config = folder / "groupshot.toml"
        config.write_text(
            """
[tls]
certificate = "server.crt"
key = "server.key"
client_ca = "ca.pem"
crl = "revoked.crl"
[roles]
mappings = [
  { subject = "CN=reader", user = "reader", role = "reader" },
  { subject = "CN=operator", user = "operator", role = "operator" },
  { subject = "CN=revoked", user = "revoked", role = "operator" },
]
"""
        )
        data = folder / "data"
        data.mkdir()
        local(data, "user", "add", USER, "--role", "administrator", "--password-stdin",
              password=PASSWORD)
        arguments = ["--tls-listen", "127.0.0.1:0", "--config", str(config), "--engine", "sim"]
        self.server = Server(data, arguments=arguments)

    def client(self, ca=None, pair=None, user=USER, password=PASSWORD):
        """A pypsrp client that believes a CA and shows a certificate or a password."""
        options = {"auth": "basic", "username": user, "password": password}
        if pair:
            options = {
                "auth": "certificate",
                "certificate_pem": pair[0],
                "certificate_key_pem": pair[1],
            }
        return WSMan(
            "localhost", port=self.server.secure_port, ssl=True, encryption="never",
            cert_validation=ca or self.ca.file, reconnection_retries=0, **options,
        )


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """One server for all tests of this file."""
    site = Site(tmp_path_factory.mktemp("secure"))
    yield site
    site.server.stop()


def get(client):
    """Reads the collection service; its class."""
    body = client.get(WMI + GROUPS)
    return list(body)[0].tag.rsplit("}", 1)[1]


def test_the_right_ca_and_a_password(secure):
    assert get(secure.client()) == GROUPS
    with pytest.raises(AuthenticationError):
        get(secure.client(password="wrong"))


def test_the_wrong_ca_is_refused_by_the_client(secure):
    with pytest.raises(requests.exceptions.SSLError):
        get(secure.client(ca=secure.other.file))


def test_the_self_made_certificate_is_believed_by_itself(tmp_path):
    local(tmp_path, "user", "add", USER, "--role", "reader", "--password-stdin", password=PASSWORD)
    server = Server(tmp_path, arguments=["--tls-listen", "127.0.0.1:0", "--engine", "sim"])
    try:
        for host in ["localhost", "127.0.0.1"]:
            client = WSMan(
                host, port=server.secure_port, ssl=True, auth="basic", username=USER,
                password=PASSWORD, cert_validation=str(tmp_path / "tls" / "certificate.pem"),
            )
            assert get(client) == GROUPS
    finally:
        server.stop()


def test_a_30_a_certificate_is_a_user_with_its_role(secure):
    for pair in [secure.reader, secure.operator]:
        assert get(secure.client(pair=pair)) == GROUPS
    uri = WMI + GROUPS

    def define(pair):
        wish = ET.Element("{%s}DefineCollection_INPUT" % uri)
        ET.SubElement(wish, "{%s}Name" % uri).text = "by certificate"
        ET.SubElement(wish, "{%s}Type" % uri).text = "0"
        client = secure.client(pair=pair)
        return client.invoke(uri + "/DefineCollection", uri, wish)

    define(secure.operator)
    with pytest.raises(WSManFaultError):
        define(secure.reader)


def test_a_30_a_certificate_without_mapping_is_401(secure):
    with pytest.raises(AuthenticationError):
        get(secure.client(pair=secure.stranger))


@pytest.mark.parametrize("which", ["foreign", "revoked"])
def test_a_30_a_certificate_that_is_not_good_ends_the_handshake(secure, which):
    with pytest.raises(requests.exceptions.ConnectionError):
        get(secure.client(pair=getattr(secure, which)))


def test_old_versions_and_weak_ciphers_find_a_closed_door(secure):
    def connects(*options):
        address = f"127.0.0.1:{secure.server.secure_port}"
        done = subprocess.run(
            ["openssl", "s_client", "-connect", address, "-brief", *options],
            input="", capture_output=True, text=True, timeout=20,
        )
        return done.returncode == 0 and "CONNECTION ESTABLISHED" in done.stderr

    for good in [["-tls1_2"], ["-tls1_3"], ["-tls1_2", "-cipher", "ECDHE+AESGCM"]]:
        assert connects(*good), good
    for bad in [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:AES128-GCM-SHA256:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"],
        ["-alpn", "h2"],
    ]:
        assert not connects(*bad), bad
