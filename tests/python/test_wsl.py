"""wsl 0.2, Dell's WS-Man shell commands around curl and xmllint, as Debian packages them.

Its invoke command copies prefixes out of answers and so works with no server but its maker's; it reads.
"""

import os
import subprocess
import xml.etree.ElementTree as ET

import pytest

from cim import CQL, DMTF, NAMESPACE, WQL, XSI
from conftest import USER, Server, local

SYSTEM = "Msvm_ComputerSystem"
SETTINGS = "Msvm_VirtualSystemSettingData"
SELECTORS = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter"
ADDRESSING = "{http://schemas.xmlsoap.org/ws/2004/08/addressing}"


# It hands the password to a shell, and a blank would end it.
PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def sim(tmp_path_factory):
    """A server with two simulated machines."""
    data = tmp_path_factory.mktemp("sim")
    local(data, "user", "add", USER, "--role", "reader", "--password-stdin", password=PASSWORD)
    server = Server(data, arguments=["--engine", "sim", "--machines", "2"])
    yield server
    server.stop()


@pytest.fixture
def wsl(sim, tmp_path):
    """Runs one of the commands; what it leaves is in a folder of its own."""

    def run(command, *arguments):
        done = subprocess.run(
            [command, *arguments, "-ns", NAMESPACE],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"], "HOME": str(tmp_path), "WSNOSSL": "true",
                "WSENDPOINT": f"{sim.host}:{sim.port}", "WSUSER": USER, "WSPASS": PASSWORD,
                "NO_PROXY": sim.host,
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )
        assert "s:Fault" not in done.stdout, done.stdout
        answers = sorted(tmp_path.glob("response-*.xml"), key=lambda f: f.stat().st_mtime_ns)
        found = [ET.fromstring(f.read_text()) for f in answers]
        for file in tmp_path.glob("*.xml"):
            file.unlink()
        return found

    return run


def texts(answers, cls, name):
    """The values of a property in all answers."""
    return [e.text for a in answers for e in a.iter(f"{{{DMTF}{cls}}}{name}")]


def test_wsl_gets_and_enumerates_in_pages(wsl):
    service = wsl("wslget", DMTF + "Msvm_CollectionSnapshotService")
    assert texts(service, "Msvm_CollectionSnapshotService", "Started") == ["true"]
    answers = wsl("wslenum", DMTF + SYSTEM, "-opti", "2")
    assert len(answers) == 2
    assert sorted(texts(answers, SYSTEM, "ElementName"))[-2:] == ["sim-000001", "sim-000002"]
    for mode, objects in [("epr", 0), ("objepr", 3)]:
        answers = wsl("wslenum", DMTF + SYSTEM, "-mode", mode)
        references = [e for a in answers for e in a.iter(f"{ADDRESSING}EndpointReference")]
        assert (len(references), len(texts(answers, SYSTEM, "ElementName"))) == (3, objects)


@pytest.mark.parametrize("dialect, text", [
    (CQL, f"select * from {SYSTEM} where ElementName='sim-000002'"),
    (WQL, f"select * from {SYSTEM} where ElementName='sim-000002'"),
    (SELECTORS, "ElementName=sim-000002"),
])
def test_wsl_filters_in_three_dialects(wsl, dialect, text):
    answers = wsl("wslenum", DMTF + SYSTEM, "-dialect", dialect, "-filter", text)
    assert texts(answers, SYSTEM, "ElementName") == ["sim-000002"]


def test_wsl_walks_from_a_machine_to_its_settings_and_host(wsl):
    answers = wsl("wslenum", DMTF + SYSTEM, "-dialect", SELECTORS, "-filter", "ElementName=sim-000002")
    (name,) = texts(answers, SYSTEM, "Name")
    keys = [f"CreationClassName={SYSTEM}", f"Name={name}"]
    # It has the two options the wrong way round: this one asks for the objects,
    answers = wsl("wslenum", DMTF + SYSTEM, "-references", *keys)
    assert texts(answers, SETTINGS, "VirtualSystemIdentifier") == [name]
    assert texts(answers, SYSTEM, "Caption") == ["Hosting Computer System"]
    # and this one for the links to them.
    answers = wsl("wslenum", DMTF + SYSTEM, "-associators", *keys)
    links = {e.tag.rsplit("}", 1)[1] for a in answers for e in a.iter() if e.get(f"{XSI}type")}
    assert "Msvm_SettingsDefineState" in links and SYSTEM not in links
