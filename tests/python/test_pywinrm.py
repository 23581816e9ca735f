"""pywinrm 0.5: its own headers around hand-made bodies, sent by `Protocol.send_message`."""

import time
import xml.etree.ElementTree as ET

import pytest
import requests
import xmltodict
from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError, WSManFaultError
from winrm.protocol import Protocol

from cim import ANONYMOUS, DMTF, NAMESPACE, RELEASE, WMI, WQL
from conftest import PASSWORD, USER, Server, local
from test_tls import Site

ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
GROUPS = "Msvm_CollectionManagementService"
SNAPSHOTS = "Msvm_CollectionSnapshotService"
SYSTEM = "Msvm_ComputerSystem"
JOB = "Msvm_ConcreteJob"
# WBEM_E_NOT_FOUND, in the error_Code of an MSFT_WmiError.
NOT_FOUND = 0x80041002
NAMES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "n": ENUMERATION,
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
}


class Winrm:
    """A pywinrm client that names classes in one family of URIs."""

    def __init__(self, protocol, base=WMI):
        self.protocol = protocol
        self.base = base

    def send(self, action, uri, body, selectors=None):
        """Sends one message; the content of the answer's body."""
        envelope = self.protocol.build_wsman_header(action=action, resource_uri=uri)
        selectors = dict(selectors or {})
        if uri.startswith("http://schemas.dmtf.org/"):
            selectors["__cimnamespace"] = NAMESPACE
        if selectors:
            envelope["env:Header"]["w:SelectorSet"] = {
                "w:Selector": [{"@Name": n, "#text": v} for n, v in selectors.items()]
            }
        envelope["env:Body"] = body
        answer = ET.fromstring(self.protocol.send_message(xmltodict.unparse({"env:Envelope": envelope})))
        told = answer.find("s:Header/a:RelatesTo", NAMES).text
        assert told == envelope["env:Header"]["a:MessageID"]
        return list(answer.find("s:Body", NAMES))

    def get(self, cls, **keys):
        """The properties of an object, null as an empty text."""
        (instance,) = self.send(f"{TRANSFER}/Get", self.base + cls, None, keys)
        return properties(instance)

    def invoke(self, cls, method, arguments):
        """Calls a method of the only instance of a class; the element of its output."""
        uri = self.base + cls
        body = {f"m:{method}_INPUT": {"@xmlns:m": uri, **arguments}}
        (output,) = self.send(f"{uri}/{method}", uri, body)
        assert output.tag == f"{{{uri}}}{method}_OUTPUT"
        return output

    def reference(self, cls, **keys):
        """A reference as address and reference parameters."""
        selectors = [{"@Name": n, "#text": v} for n, v in keys.items()]
        return {
            "a:Address": ANONYMOUS,
            "a:ReferenceParameters": {
                "w:ResourceURI": self.base + cls,
                "w:SelectorSet": {"w:Selector": selectors},
            },
        }

    def query(self, text, count):
        """The items of a WQL query, page by page, and how many pages there were."""
        uri = WMI + "*" if self.base == WMI else "http://schemas.dmtf.org/wbem/wscim/1/*"
        body = {
            "n:Enumerate": {
                "w:OptimizeEnumeration": None,
                "w:MaxElements": str(count),
                "w:Filter": {"@Dialect": WQL, "#text": text},
            }
        }
        (answer,) = self.send(f"{ENUMERATION}/Enumerate", uri, body)
        found, pages = list(answer.find("w:Items", NAMES)), 1
        context = answer.findtext("n:EnumerationContext", None, NAMES)
        while context:
            body = {"n:Pull": {"n:EnumerationContext": context, "n:MaxElements": str(count)}}
            (answer,) = self.send(f"{ENUMERATION}/Pull", uri, body)
            found += list(answer.find("n:Items", NAMES))
            pages += 1
            context = answer.findtext("n:EnumerationContext", None, NAMES)
            assert (context is None) == (answer.find("n:EndOfSequence", NAMES) is not None)
        return [properties(i) for i in found], pages


def properties(instance):
    """The texts of an instance's properties; those of a projection are in no namespace."""
    return {p.tag.rsplit("}", 1)[-1]: "".join(p.itertext()) for p in instance}


def keys_of(output, parameter):
    """The selectors of a reference that a method gave back."""
    (reference,) = [p for p in output if p.tag.endswith("}" + parameter)]
    found = reference.iter("{%s}Selector" % NAMES["w"])
    return {s.get("Name"): s.text for s in found if s.get("Name") != "__cimnamespace"}


def plain(server, password=PASSWORD, **options):
    """A client with a password, as pywinrm logs on to plain HTTP."""
    endpoint = f"http://{server.host}:{server.port}/wsman"
    return Protocol(
        endpoint, transport="plaintext", username=USER, password=password, ca_trust_path=None, **options
    )


BASES = [WMI, DMTF]


@pytest.mark.parametrize("base", BASES)
def test_get_and_queries_in_pages(shared, base):
    client = Winrm(plain(shared), base)
    service = client.get(SNAPSHOTS)
    assert (service["Started"], service["EnabledState"]) == ("true", "2")
    machines, pages = client.query(f"SELECT * FROM {SYSTEM} WHERE Caption = 'Virtual Machine'", 1)
    assert (sorted(m["ElementName"] for m in machines), pages) == (["db", "web"], 2)
    machines, pages = client.query(f"SELECT * FROM {SYSTEM}", 32000)
    assert (len(machines), pages) == (3, 1)
    again = client.get(SYSTEM, CreationClassName=SYSTEM, Name=machines[0]["Name"])
    assert again == machines[0]
    assert client.query(f"SELECT * FROM {SYSTEM} WHERE ElementName = 'none'", 10) == ([], 1)


@pytest.mark.parametrize("base", BASES)
def test_a_machine_is_named_by_its_name_alone(site, base):
    client = Winrm(plain(site), base)
    by_class = client.get(SNAPSHOTS, CreationClassName=SNAPSHOTS)
    assert by_class == client.get(SNAPSHOTS)
    machines, _ = client.query(f"SELECT * FROM {SYSTEM} WHERE ElementName = 'web'", 10)
    name = machines[0]["Name"]
    assert client.get(SYSTEM, Name=name.lower()) == machines[0]
    made = client.invoke(GROUPS, "DefineCollection", {"m:Name": "some keys", "m:Type": "0"})
    group = client.reference("Msvm_VirtualSystemCollection", **keys_of(made, "DefinedCollection"))
    for keys, value in [
        ({"CreationClassName": SYSTEM}, "32773"),
        ({"Name": "5EED51B0-0000-4000-8000-0000000000FF"}, "32773"),
        ({"Name": name}, "0"),
    ]:
        call = {"m:Member": client.reference(SYSTEM, **keys), "m:Collection": group}
        assert properties(client.invoke(GROUPS, "AddMember", call))["ReturnValue"] == value


@pytest.mark.parametrize("base", BASES)
def test_create_snapshot_from_the_call_to_the_set(site, base):
    client = Winrm(plain(site), base)
    made = client.invoke(GROUPS, "DefineCollection", {"m:Name": "by pywinrm", "m:Type": "0"})
    group = client.reference("Msvm_VirtualSystemCollection", **keys_of(made, "DefinedCollection"))
    machines, _ = client.query(f"SELECT Name FROM {SYSTEM} WHERE ElementName = 'web'", 10)
    member = client.reference(SYSTEM, CreationClassName=SYSTEM, Name=machines[0]["Name"])
    added = client.invoke(GROUPS, "AddMember", {"m:Member": member, "m:Collection": group})
    assert properties(added)["ReturnValue"] == "0"
    call = {"m:Collection": group, "m:SnapshotSettings": None, "m:SnapshotType": "2"}
    started = client.invoke(SNAPSHOTS, "CreateSnapshot", call)
    assert properties(started)["ReturnValue"] == "4096"
    job = keys_of(started, "Job")["InstanceID"]
    assert site.client().wait_for(job)["JobState"] == "7"
    path = f'{JOB}.InstanceID="{job}"'
    sets, _ = client.query(
        f"ASSOCIATORS OF {{{path}}} WHERE ResultClass = Msvm_SnapshotCollection", 10
    )
    assert len(sets) == 1
    assert client.get("Msvm_SnapshotCollection", CollectionID=sets[0]["CollectionID"]) == sets[0]


def test_faults_are_exceptions_with_all_their_codes(shared):
    client = Winrm(plain(shared))
    release = {"n:Release": {"n:EnumerationContext": "uuid:00000000-0000-4000-8000-000000000001"}}
    for call, subcode, number, wmi in [
        (lambda: client.get("Msvm_Nope"), "a:DestinationUnreachable", 2150858752, None),
        (
            lambda: client.get(SYSTEM, CreationClassName=SYSTEM),
            "w:InvalidSelectors", 2150858842, None,
        ),
        (lambda: client.get(SYSTEM, Name="x"), "a:DestinationUnreachable", 2150858752, NOT_FOUND),
        (
            lambda: client.get(SYSTEM, CreationClassName=SYSTEM, Name="x"),
            "a:DestinationUnreachable", None, NOT_FOUND,
        ),
        (lambda: client.query("SELECT * FROM", 10), "n:CannotProcessFilter", None, None),
        (
            lambda: client.send(RELEASE, WMI + SYSTEM, release),
            "n:InvalidEnumerationContext", None, None,
        ),
    ]:
        with pytest.raises(WSManFaultError) as caught:
            call()
        fault = caught.value
        assert (fault.code, fault.fault_subcode) == (500, subcode)
        assert fault.fault_code in ["s:Sender", "s:Receiver"]
        assert fault.reason and fault.wsman_fault_code > 2**31
        assert number in (None, fault.wsman_fault_code)
        assert wmi in (None, fault.wmierror_code)


def test_wrong_credentials_are_an_error(shared):
    with pytest.raises(InvalidCredentialsError):
        Winrm(plain(shared, password="wrong")).get(GROUPS)


def test_a_call_that_takes_too_long_is_a_timeout_and_goes_on(tmp_path):
    local(tmp_path, "user", "add", USER, "--role", "administrator", "--password-stdin",
          password=PASSWORD)
    gate = tmp_path / "gate"
    gate.touch()
    held = f"store.commit=hold:{gate}"
    server = Server(tmp_path, fail_points=held, arguments=["--engine", "sim"])
    try:
        client = Winrm(plain(server, operation_timeout_sec=1, read_timeout_sec=20))
        with pytest.raises(WinRMOperationTimeoutError):
            client.invoke(GROUPS, "DefineCollection", {"m:Name": "late", "m:Type": "0"})
        gate.unlink()
        client = Winrm(plain(server))
        until = time.monotonic() + 20
        while not client.query("SELECT * FROM Msvm_VirtualSystemCollection", 10)[0]:
            assert time.monotonic() < until, "what has begun does not go on"
            time.sleep(0.05)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """One server with TLS for the tests below."""
    site = Site(tmp_path_factory.mktemp("secure"))
    yield site
    site.server.stop()


def over_tls(secure, ca=None, pair=None, password=PASSWORD):
    """A client that believes a CA and shows a certificate or a password."""
    options = {"transport": "ssl", "username": USER, "password": password}
    if pair:
        options = {"transport": "certificate", "cert_pem": pair[0], "cert_key_pem": pair[1]}
    endpoint = f"https://localhost:{secure.server.secure_port}/wsman"
    return Winrm(Protocol(endpoint, ca_trust_path=ca or secure.ca.file, **options))


def test_tls_needs_the_right_ca(secure):
    assert over_tls(secure).get(GROUPS)["CreationClassName"] == GROUPS
    with pytest.raises(requests.exceptions.SSLError):
        over_tls(secure, ca=secure.other.file).get(GROUPS)
    with pytest.raises(InvalidCredentialsError):
        over_tls(secure, password="wrong").get(GROUPS)


def test_a_30_pywinrm_logs_on_with_a_certificate(secure):
    define = {"m:Name": "by certificate", "m:Type": "0"}
    operator = over_tls(secure, pair=secure.operator)
    assert properties(operator.invoke(GROUPS, "DefineCollection", define))["ReturnValue"] == "0"
    reader = over_tls(secure, pair=secure.reader)
    assert reader.get(GROUPS)["CreationClassName"] == GROUPS
    with pytest.raises(WSManFaultError) as caught:
        reader.invoke(GROUPS, "DefineCollection", define)
    assert caught.value.fault_subcode == "w:AccessDenied"
    # Nobody's certificate proves nothing, and what follows it has no password to try.
    with pytest.raises(InvalidCredentialsError):
        over_tls(secure, pair=secure.stranger).get(GROUPS)
