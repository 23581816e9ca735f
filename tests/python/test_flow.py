"""`docs/flows.md` §4b with pypsrp over HTTPS on real disks, from a machine's name to the destroyed set."""

import json

import pytest
from pypsrp.exceptions import WSManFaultError

from cim import Cim, Instance, key, system
from conftest import PASSWORD, USER, Server, content, prepare
from test_pypsrp import (
    assert_a_good_end, captured_disks, fill, group, held, image_format, settings,
)

GROUP = "Msvm_VirtualSystemCollection"
SET = "Msvm_SnapshotCollection"
SETTINGS = "Msvm_VirtualSystemSettingData"
DISK = "Msvm_StorageAllocationSettingData"
SNAPSHOTS = "Msvm_CollectionSnapshotService"


@pytest.fixture
def secure_site(tmp_path):
    """Machines with real disks behind HTTPS; sets may be exported to the folder `exports`."""
    data, disks = prepare(tmp_path)
    exports = tmp_path / "exports"
    exports.mkdir()
    config = tmp_path / "groupshot.toml"
    config.write_text(f'[export]\nroots = ["{exports}"]\n')
    server = Server(data, arguments=["--tls-listen", "127.0.0.1:0", "--config", str(config)])
    server.disks = disks
    server.exports = exports
    yield server
    server.stop()


def over_https(server, family):
    """A client that believes the server's own certificate."""
    return Cim(
        "localhost", server.secure_port, USER, PASSWORD, family, ssl=True,
        cert_validation=str(server.data / "tls" / "certificate.pem"),
    )


@pytest.mark.parametrize("family", ["wmi", "dmtf"])
def test_flow_4b_over_https_from_a_name_to_the_destroyed_set(secure_site, family):
    cim = over_https(secure_site, family)

    def ask(query):
        return [Instance(i, cim.uri) for i in cim.query(query)]

    def finish(method, kind, **arguments):
        answer = cim.invoke(SNAPSHOTS, method, **arguments)
        assert answer["ReturnValue"] == "4096", answer
        seen = cim.wait(answer["Job"])
        assert_a_good_end(seen, kind=kind)
        return seen[-1]

    # Flow 4a: two machines by their names, and a group of them that is found by its own.
    vms = {}
    for name in ["web", "db"]:
        (vms[name],) = ask(f"SELECT * FROM Msvm_ComputerSystem WHERE ElementName = '{name}'")
    group(cim, "nightly", *vms.values())
    # 1 and 2
    (service,) = ask(f"SELECT * FROM {SNAPSHOTS}")
    assert (service["Started"], service["EnabledState"]) == ("true", "2")
    (found,) = ask(f"SELECT * FROM {GROUP} WHERE ElementName = 'nightly'")
    collection = key(found, "CollectionID")
    # 3 to 5
    wish = settings(ConsistencyLevel=2, GuestBackupType=1, IgnoreNonSnapshottableDisks="false")
    job = finish(
        "CreateSnapshot", "198", Collection=collection, SnapshotSettings=wish, SnapshotType=2
    )
    # 6
    path = f'Msvm_ConcreteJob.InstanceID="{job["InstanceID"]}"'
    (one,) = ask(f"ASSOCIATORS OF {{{path}}} WHERE ResultClass = {SET}")
    taken = key(one, "CollectionID")
    # 7, to the bytes of every disk, after each machine has written on
    path = f'{SET}.CollectionID="{one["CollectionID"]}"'
    members = ask(
        f"ASSOCIATORS OF {{{path}}} WHERE ResultClass = {SETTINGS} AssocClass = Msvm_CollectedSnapshots"
    )
    assert len(members) == 2
    by_machine = {m["VirtualSystemIdentifier"]: m for m in members}
    for name, vm in vms.items():
        member = by_machine[vm["Name"]]
        assert member["VirtualSystemType"] == "Microsoft:Hyper-V:Snapshot:Recovery"
        path = f'{SETTINGS}.InstanceID="{member["InstanceID"]}"'
        disks = ask(
            f"ASSOCIATORS OF {{{path}}} WHERE ResultClass = {DISK}"
            " AssocClass = Msvm_VirtualSystemSettingDataComponent"
        )
        assert len(disks) == len(secure_site.disks[name])
        fill(cim, vm, 0x77)
        for disk, kept in zip(secure_site.disks[name], captured_disks(cim, member)):
            file = kept["HostResource"]
            assert content(file, image_format(file)) == disk.bytes
    # 8: stand-alone copies with the same bytes
    finish(
        "ExportSnapshot", "62", SnapshotCollection=taken, ExportDirectory=str(secure_site.exports),
        ExportSettingData="",
    )
    exported = secure_site.exports / one["CollectionID"]
    json.loads((exported / "manifest.json").read_text())
    copies = sorted(content(f, "qcow2") for f in exported.rglob("*.qcow2"))
    assert copies == sorted(d.bytes for disks in secure_site.disks.values() for d in disks)
    # Revert: what the machines have written since is gone.
    finish("ApplySnapshot", "71", SnapshotCollection=taken)
    assert_as_captured(cim, secure_site.disks, vms)
    # Discard: the set and its members are gone, the machines keep what they hold.
    finish("DestroySnapshot", "72", AffectedSnapshotCollection=taken)
    assert cim.all(SET) == []
    for member in members:
        with pytest.raises(WSManFaultError):
            cim.get(key(member, "InstanceID"))
    assert cim.linked("Msvm_SnapshotOfVirtualSystem", Antecedent=system(vms["web"]["Name"])) == []
    assert_as_captured(cim, secure_site.disks, vms)


def assert_as_captured(cim, disks, vms):
    """Each machine runs on what its disks held at first."""
    for name, vm in vms.items():
        assert held(cim, vm) == [disk.bytes for disk in disks[name]]
