"""winrm-rs 1.1: WQL by a Rust client that reads answers as text and pulls from another resource than it asked.

GROUPSHOT_WINRM_RS names the program that tests/clients/winrm-rs builds; ./check does both.
"""

import os
import subprocess
import xml.etree.ElementTree as ET

import pytest

from cim import NAMESPACE, WMI
from conftest import PASSWORD, USER, Server, local

SYSTEM = "Msvm_ComputerSystem"
MACHINES = 300
# The smallest envelope that the server writes: a few machines fill it.
SMALL = 8192


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A server with many simulated machines."""
    data = tmp_path_factory.mktemp("crowd")
    local(data, "user", "add", USER, "--role", "reader", "--password-stdin", password=PASSWORD)
    server = Server(data, arguments=["--engine", "sim", "--machines", str(MACHINES)])
    yield server
    server.stop()


def ask(server, query, namespace=NAMESPACE, password=PASSWORD, envelope=512000):
    """Runs the client: what it found, or what it says."""
    client = os.environ.get("GROUPSHOT_WINRM_RS")
    assert client, "GROUPSHOT_WINRM_RS does not name the client"
    return subprocess.run(
        [client, str(server.port), USER, namespace, str(envelope), query],
        env=dict(os.environ, PASSWORD=password, NO_PROXY="127.0.0.1"),
        capture_output=True, text=True, timeout=60,
    )


def names(done):
    """The machines in its output, in their order. It strips the envelope and with it the declarations."""
    assert done.returncode == 0, done.stderr
    wrapped = (
        f'<all xmlns:p="{WMI}{SYSTEM}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common"'
        f' xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd">{done.stdout}</all>'
    )
    return [e.text for e in ET.fromstring(wrapped).iter() if e.tag.endswith("ElementName")]


def test_every_page_arrives_though_it_pulls_from_another_resource(crowd):
    query = f"SELECT * FROM {SYSTEM} WHERE Caption = 'Virtual Machine'"
    at_once = names(ask(crowd, query))
    assert len(set(at_once)) == len(at_once) == MACHINES
    assert names(ask(crowd, query, envelope=SMALL)) == at_once


def test_one_machine_is_found_by_its_name(crowd):
    (name,) = names(ask(crowd, f"SELECT ElementName FROM {SYSTEM} WHERE ElementName = 'SIM-000007'"))
    assert name == "sim-000007"


def test_nothing_is_no_error(crowd):
    done = ask(crowd, f"SELECT * FROM {SYSTEM} WHERE ElementName = 'none'")
    assert (done.returncode, done.stdout.strip()) == (0, "")


@pytest.mark.parametrize("query, namespace, told", [
    ("SELECT * FROM Msvm_Nope", NAMESPACE, "Msvm_Nope"),
    (f"SELECT * FROM {SYSTEM} WHERE", NAMESPACE, "expected"),
    (f"SELECT * FROM {SYSTEM}", "root/cimv2", "root/cimv2"),
])
def test_a_fault_tells_its_reason(crowd, query, namespace, told):
    done = ask(crowd, query, namespace)
    assert done.returncode == 1
    assert "SOAP fault" in done.stderr and told in done.stderr, done.stderr


def test_a_wrong_password_is_an_error(crowd):
    done = ask(crowd, f"SELECT * FROM {SYSTEM}", password="wrong")
    assert done.returncode == 1
    assert "auth" in done.stderr.lower(), done.stderr
