"""python-dracclient 8: it sends no Content-Type, one connection a request, references as path text."""

import pytest
from dracclient.exceptions import WSManInvalidResponse
from dracclient.wsman import NS_WSMAN_ENUM, Client

from conftest import PASSWORD, USER

WMI = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
DMTF = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
ENUM = "{%s}" % NS_WSMAN_ENUM


def drac(server, user=USER, password=PASSWORD):
    """A client of that server."""
    return Client(server.host, user, password, port=server.port, protocol="http")


def texts(answer, uri, name):
    """The texts of a property, in the namespace that the client asked in."""
    return [e.text for e in answer.iter(f"{{{uri}}}{name}")]


def value(answer, uri):
    """The return value of a call."""
    (text,) = texts(answer, uri, "ReturnValue")
    return text


def service(server, cls):
    """The keys of a service."""
    answer = drac(server).enumerate(WMI + cls)
    names = ["CreationClassName", "Name", "SystemCreationClassName", "SystemName"]
    found = {name: texts(answer, WMI + cls, name) for name in names}
    assert all(len(v) == 1 for v in found.values()), found
    return {name: v[0] for name, v in found.items()}


@pytest.mark.parametrize("prefix", [WMI, DMTF])
@pytest.mark.parametrize("page", [1, 2, 100])
def test_enumerate_pulls_by_itself(shared, prefix, page):
    uri = prefix + "Msvm_ComputerSystem"
    answer = drac(shared).enumerate(uri, max_elems=page)
    assert sorted(texts(answer, uri, "ElementName"))[-2:] == ["db", "web"]
    assert len(texts(answer, uri, "ElementName")) == 3
    assert answer.find(f".//{ENUM}EnumerationContext") is None


@pytest.mark.parametrize("dialect, prefix", [("wql", WMI + "*"), ("cql", DMTF + "Msvm_ComputerSystem")])
def test_queries(shared, dialect, prefix):
    query = "select * from Msvm_ComputerSystem where ElementName='web'"
    answer = drac(shared).enumerate(prefix, filter_query=query, filter_dialect=dialect)
    uri = (WMI if dialect == "wql" else DMTF) + "Msvm_ComputerSystem"
    assert texts(answer, uri, "ElementName") == ["web"]


def test_enumerate_of_nothing(shared):
    uri = WMI + "Msvm_LastAppliedSnapshot"
    answer = drac(shared).enumerate(uri)
    assert list(answer.iter(f"{{{uri}}}Msvm_LastAppliedSnapshot")) == []


def test_enumerate_without_optimisation_and_pull_by_hand(shared):
    uri = WMI + "Msvm_ComputerSystem"
    client = drac(shared)
    answer = client.enumerate(uri, optimization=False, auto_pull=False)
    assert texts(answer, uri, "ElementName") == []
    context = answer.find(f".//{ENUM}EnumerationContext").text
    names, pulls = [], 0
    while context:
        # It puts MaxElements into another namespace; the server obeys where nothing else is said.
        answer = client.pull(uri, context, max_elems=2)
        found = answer.find(f".//{ENUM}EnumerationContext")
        context = None if found is None else found.text
        names += texts(answer, uri, "ElementName")
        pulls += 1
    assert sorted(names)[-2:] == ["db", "web"]
    assert (len(names), pulls) == (3, 2)


def test_invoke_without_references_and_with_path_text(site):
    client = drac(site)
    groups = WMI + "Msvm_CollectionManagementService"
    keys = service(site, "Msvm_CollectionManagementService")
    answer = client.invoke(groups, "DefineCollection", keys, {"Name": "by drac", "Type": "0"})
    assert value(answer, groups) == "0"
    (collection_id,) = [e.text for e in answer.iter() if e.get("Name") == "CollectionID"]

    systems = WMI + "Msvm_ComputerSystem"
    machines = client.enumerate(systems)
    (web,) = [
        name
        for name, element in zip(texts(machines, systems, "Name"), texts(machines, systems, "ElementName"))
        if element == "web"
    ]
    collection = f'Msvm_VirtualSystemCollection.CollectionID="{collection_id}"'
    host = keys["SystemName"]
    member = rf'\\{host}\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="{web}"'
    answer = client.invoke(groups, "AddMember", keys, {"Member": member, "Collection": collection})
    assert value(answer, groups) == "0"

    snapshots = WMI + "Msvm_CollectionSnapshotService"
    keys = service(site, "Msvm_CollectionSnapshotService")
    call = {"Collection": f"root/virtualization/v2:{collection}", "SnapshotType": "2"}
    answer = client.invoke(snapshots, "CreateSnapshot", keys, call)
    assert value(answer, snapshots) == "4096"
    (job,) = [e.text for e in answer.iter() if e.get("Name") == "InstanceID"]
    end = site.client().wait_for(job)
    assert end["JobState"] == "7"
    kept = WMI + "Msvm_SnapshotOfVirtualSystem"
    assert len(list(client.enumerate(kept).iter(f"{{{kept}}}Msvm_SnapshotOfVirtualSystem"))) == 1


def test_faults_are_told_by_their_status(shared):
    client = drac(shared)
    for call in [
        lambda: client.enumerate(WMI + "Msvm_NoSuch"),
        lambda: client.enumerate(WMI + "*", filter_query="select * from x", filter_dialect="wql"),
        lambda: client.pull(WMI + "Msvm_ComputerSystem", "uuid:1"),
        lambda: client.invoke(WMI + "Msvm_ComputerSystem", "Explode", {}, {}),
    ]:
        with pytest.raises(WSManInvalidResponse) as caught:
            call()
        assert "500" in str(caught.value)


@pytest.mark.parametrize("user, password", [(USER, "wrong"), ("nobody", PASSWORD)])
def test_wrong_credentials_are_401(shared, user, password):
    with pytest.raises(WSManInvalidResponse) as caught:
        drac(shared, user, password).enumerate(WMI + "Msvm_ComputerSystem")
    assert "401" in str(caught.value)
