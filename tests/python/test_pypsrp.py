"""pypsrp 0.9: the requests of a client that others wrote, from Identify to the bytes of a captured disk."""

import hashlib
import json
import re
import xml.etree.ElementTree as ET

import pytest
from pypsrp.exceptions import AuthenticationError, WSManFaultError
from pypsrp.wsman import NAMESPACES

from cim import CQL, XPATH, Instance, Ref, key, system
from conftest import PASSWORD, SIZE, USER, content, tool, write

GROUPS = "Msvm_CollectionManagementService"
SNAPSHOTS = "Msvm_CollectionSnapshotService"
GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
FAMILIES = ["wmi", "dmtf"]

IDENTIFY = b"""<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
 xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">
 <s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"""


def settings(**properties):
    """Snapshot settings as text."""
    inside = "".join(
        f'<PROPERTY NAME="{name}" TYPE="string"><VALUE>{value}</VALUE></PROPERTY>'
        for name, value in properties.items()
    )
    return f'<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">{inside}</INSTANCE>'


def machines(cim):
    """The virtual machines by name."""
    found = cim.all("Msvm_ComputerSystem")
    return {m["ElementName"]: m for m in found if m["Caption"] == "Virtual Machine"}


def group(cim, name, *members):
    """Makes a collection of these machines; a reference to it."""
    answer = cim.invoke(GROUPS, "DefineCollection", Name=name, Type=0)
    assert answer["ReturnValue"] == "0", answer
    collection = answer["DefinedCollection"]
    assert collection.cls == "Msvm_VirtualSystemCollection"
    for member in members:
        answer = cim.invoke(
            GROUPS, "AddMember", Member=system(member["Name"]), Collection=collection
        )
        assert answer["ReturnValue"] == "0", answer
    return collection


def active(machine):
    """A reference to the settings that a machine runs with."""
    return Ref("Msvm_VirtualSystemSettingData", {"InstanceID": f"Microsoft:{machine['Name']}"})


def code(caught):
    """The number of a fault."""
    return caught.value.code


# Reading


@pytest.mark.parametrize("family", FAMILIES)
def test_identify(shared, family):
    wsman = shared.client(family).wsman
    answer = ET.fromstring(wsman.transport.send(IDENTIFY))
    names = {"i": "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"}
    found = answer.find("s:Body", namespaces=NAMESPACES).find("i:IdentifyResponse", names)
    assert found.find("i:ProtocolVersion", names).text == NAMESPACES["wsman"]
    assert found.find("i:ProductVendor", names).text == "Groupshot"
    assert "Stack: 3.0" in found.find("i:ProductVersion", names).text
    profiles = [p.text for p in found.iter("{%s}SecurityProfileName" % names["i"])]
    assert profiles == ["http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/http/basic"]


@pytest.mark.parametrize("family", FAMILIES)
def test_get_by_keys_and_of_the_only_instance(shared, family):
    cim = shared.client(family)
    service = cim.get(SNAPSHOTS)
    assert (service["Started"], service["EnabledState"]) == ("true", "2")
    keys = ["CreationClassName", "Name", "SystemCreationClassName", "SystemName"]
    assert cim.get(key(service, *keys)) == service
    host = cim.get(system(service["SystemName"]))
    assert host["Caption"] == "Hosting Computer System"


@pytest.mark.parametrize("family", FAMILIES)
def test_enumerate_brings_the_imported_machines_with_their_disks(shared, family):
    cim = shared.client(family)
    found = machines(cim)
    assert sorted(found) == ["db", "web"]
    disks = cim.all("Msvm_StorageAllocationSettingData")
    for name, machine in found.items():
        assert GUID.fullmatch(machine["Name"])
        assert machine["EnabledState"] == "3"
        settings_now = cim.get(active(machine))
        assert settings_now["VirtualSystemType"] == "Microsoft:Hyper-V:System:Realized"
        files = [d["HostResource"] for d in disks if machine["Name"] in d["InstanceID"]]
        assert files == [str(d.file) for d in shared.machines[name]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 100])
def test_queries_find_what_backup_programs_ask_for(shared, family, count):
    cim = shared.client(family)
    vm = machines(cim)["web"]

    def ask(text, **how):
        return [Instance(i, cim.uri) for i in cim.query(text, count=count, **how)]

    system = "Msvm_ComputerSystem"
    everything = "SELECT * FROM Msvm_ComputerSystem"
    assert ask(f"{everything} WHERE ElementName=\"WEB\"") == [vm]
    assert ask(f"select * from msvm_COMPUTERSYSTEM where name = '{vm['Name']}'") == [vm]
    assert ask(f"{everything} WHERE ElementName='web'", dialect=CQL) == [vm]
    running = "Caption='Virtual Machine' AND NOT (EnabledState <> '3')"
    found = ask(f"SELECT * FROM CIM_EnabledLogicalElement WHERE {running}")
    assert sorted(i["ElementName"] for i in found) == ["db", "web"]
    assert {i.cls for i in found} == {system}
    saved = f"VirtualSystemIdentifier='{vm['Name']}' And IsSaved='False'"
    (settings,) = ask(f"SELECT * FROM Msvm_VirtualSystemSettingData WHERE {saved}")
    path = f'Msvm_ComputerSystem.CreationClassName="{system}",Name="{vm["Name"]}"'
    where = "ResultClass = Msvm_VirtualSystemSettingData AssocClass = Msvm_SettingsDefineState"
    assert ask(f"ASSOCIATORS OF {{{path}}} WHERE {where}") == [settings]
    (link,) = ask(f"REFERENCES OF {{{path}}} WHERE ResultClass=Msvm_SettingsDefineState")
    assert link["SettingData"].keys["InstanceID"] == settings["InstanceID"]
    disk = ask("SELECT * FROM Msvm_StorageAllocationSettingData")[0]
    doubled = disk["InstanceID"].replace("\\", "\\\\")
    by_id = f"SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID='{doubled}'"
    assert ask(by_id) == [disk]
    columns = f"SELECT Name, ElementName FROM {system} WHERE Caption LIKE 'Virtual%'"
    fragments = cim.query(columns, count=count)
    rows = [[(c.tag, c.text) for c in fragment] for fragment in fragments]
    assert [("ElementName", "web"), ("Name", vm["Name"])] in rows and len(rows) == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 100])
def test_an_xpath_filter_finds_what_a_query_finds(shared, family, count):
    cim = shared.client(family)
    vm = machines(cim)["web"]

    def ask(text, **how):
        found = cim.query(text, dialect=XPATH, count=count, **how)
        return [Instance(i, cim.uri) for i in found]

    system = "Msvm_ComputerSystem"
    assert ask(f"{system}[ElementName = 'web']") == [vm]
    assert ask(f"/p:{system}[p:Name = '{vm['Name']}']/p:EnabledState = 3") == [vm]
    assert ask(f"{system}[ElementName = 'WEB']") == []
    enabled = "EnabledState = 3 and not(contains(Caption, 'Hosting'))"
    found = ask(f"CIM_EnabledLogicalElement[{enabled}]")
    assert sorted(i["ElementName"] for i in found) == ["db", "web"]
    text = f"SELECT * FROM {system} WHERE Caption='Virtual Machine'"
    query = [Instance(i, cim.uri) for i in cim.query(text, count=count)]
    assert ask(f"{system}/Caption = 'Virtual Machine'") == query
    with pytest.raises(WSManFaultError) as caught:
        ask(f"{system}[Nix = 1]")
    assert caught.value.code == 2150858778
    assert "line 1, column 21" in caught.value.reason


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bad_query_is_an_exception_that_tells_the_place(shared, family):
    with pytest.raises(WSManFaultError) as caught:
        shared.client(family).query("SELECT Nix FROM Msvm_ComputerSystem")
    assert caught.value.code == 2150858778
    assert "line 1, column 8" in caught.value.reason


@pytest.mark.parametrize("family", FAMILIES)
def test_pull_page_by_page_and_release(shared, family):
    cim = shared.client(family)
    cls = "Msvm_ComputerSystem"
    context, items = cim.start(cls)
    assert items == []
    pages = []
    while context:
        latest = context
        context, items = cim.pull(cls, context)
        pages.append(len(items))
    assert pages == [1, 1, 1], "one item a Pull without MaxElements, the end with the last"
    with pytest.raises(WSManFaultError) as ended:
        cim.pull(cls, latest)
    assert code(ended) == 2150858779

    context, items = cim.start(cls, optimize=1, mode="EnumerateEPR")
    assert [i.tag.split("}")[1] for i in items] == ["EndpointReference"]
    cim.release(cls, context)
    with pytest.raises(WSManFaultError) as released:
        cim.pull(cls, context)
    assert code(released) == 2150858779


def test_a_context_belongs_to_its_user(shared):
    context, _ = shared.client().start("Msvm_ComputerSystem")
    with pytest.raises(WSManFaultError) as other:
        shared.client(user="rita").pull("Msvm_ComputerSystem", context)
    assert code(other) == 5
    assert "another user" in other.value.reason


def test_objects_come_with_their_references(shared):
    cim = shared.client("dmtf")
    _, items = cim.start("Msvm_ComputerSystem", optimize=10, mode="EnumerateObjectAndEPR")
    assert len(items) == 3
    for item in items:
        instance, reference = list(item)
        names = {child.tag.split("}")[1]: child.text for child in instance}
        assert Ref.read(reference) == system(names["Name"])


def test_update_max_payload_size_reads_the_configuration(shared):
    wsman = shared.client().wsman
    assert wsman.max_envelope_size == 153600
    wsman.update_max_payload_size()
    assert wsman.max_envelope_size == 500 * 1024
    body = wsman.get_server_config()
    assert body.find("cfg:Config/cfg:Service/cfg:Auth/cfg:Basic", namespaces=NAMESPACES).text == "true"


def test_answers_stay_within_the_envelope_size(shared):
    cim = shared.client(max_envelope_size=8192)
    assert sorted(machines(cim)) == ["db", "web"]
    context, items = cim.start("Msvm_VirtualSystemSettingData", optimize=1000)
    assert len(items) == 1 and context, "the second has no room"


# Faults


@pytest.mark.parametrize("family", FAMILIES)
def test_faults_are_exceptions_with_code_and_reason(shared, family):
    cim = shared.client(family)
    absent = system("00000000-0000-0000-0000-000000000000")
    cases = [
        (2150858752, "Msvm_NoSuch", lambda: cim.get("Msvm_NoSuch")),
        (2150858752, "Msvm_ComputerSystem", lambda: cim.get(absent)),
        (2150858752, "Name", lambda: cim.get(Ref("Msvm_ComputerSystem", {"Name": "x"}))),
        (
            2150858842, "further keys: Name",
            lambda: cim.get(Ref("Msvm_ComputerSystem", {"CreationClassName": "Msvm_ComputerSystem"})),
        ),
        (2150859002, "no selector", lambda: cim.get("Msvm_ComputerSystem")),
        (2150858843, "Colour", lambda: cim.get(Ref(SNAPSHOTS, {"Colour": "blue"}))),
        (2150858801, "Explode", lambda: cim.invoke(SNAPSHOTS, "Explode")),
        (2150858837, "Colour", lambda: cim.invoke(SNAPSHOTS, "CreateSnapshot", Colour="blue")),
        (2150858836, "SnapshotType", lambda: cim.invoke(SNAPSHOTS, "CreateSnapshot", SnapshotType="two")),
        (2150858779, "uuid:1", lambda: cim.pull("Msvm_ComputerSystem", "uuid:1")),
    ]
    for number, word, call in cases:
        with pytest.raises(WSManFaultError) as caught:
            call()
        assert code(caught) == number, word
        assert word in caught.value.reason
        assert caught.value.machine == cim.get(SNAPSHOTS)["SystemName"]
    # Who said so (rule F-11): the provider where one was asked, nobody where the message was refused before.
    for call, provider in [(cases[1][2], "Groupshot"), (cases[8][2], None)]:
        with pytest.raises(WSManFaultError) as caught:
            call()
        assert caught.value.provider == provider


@pytest.mark.parametrize("user, password", [(USER, "wrong"), ("nobody", PASSWORD), (USER, "")])
def test_wrong_credentials_are_an_authentication_error(shared, user, password):
    with pytest.raises(AuthenticationError):
        shared.client(user=user, password=password).get(SNAPSHOTS)
    assert shared.client().get(SNAPSHOTS)["Started"] == "true"


def test_a_reader_reads_and_is_denied_the_rest(shared):
    reader = shared.client(user="rita")
    assert sorted(machines(reader)) == ["db", "web"]
    with pytest.raises(WSManFaultError) as denied:
        reader.invoke(GROUPS, "DefineCollection", Name="mine", Type=0)
    assert code(denied) == 5
    names = [c["ElementName"] for c in shared.client().all("CIM_CollectionOfMSEs")]
    assert "mine" not in names


# The main job


def assert_a_good_end(seen, kind="198"):
    """What every poller relies on (`docs/flows.md` §1 and §7): states, progress, no error."""
    percent = [int(job["PercentComplete"]) for job in seen]
    assert percent == sorted(percent)
    assert all(p < 100 for p in percent[:-1]) and percent[-1] == 100
    for job in seen[:-1]:
        assert (job["JobState"], job["ErrorCode"], job["ErrorDescription"]) == ("4", "0", None)
    end = seen[-1]
    assert (end["JobState"], end["ErrorCode"], end["ErrorDescription"]) == ("7", "0", None)
    assert end.many("OperationalStatus")[0] == "2"
    assert (end["JobType"], end["Owner"], end["Cancellable"]) == (kind, USER, "false")


def captured_disks(cim, member):
    """The disks of a snapshot, by the file that each is kept in."""
    settings_of = key(member, "InstanceID")
    links = cim.linked("Msvm_VirtualSystemSettingDataComponent", GroupComponent=settings_of)
    disks = [cim.get(link["PartComponent"]) for link in links]
    for disk in disks:
        assert disk["ResourceType"] == "31"
        assert disk["ResourceSubType"] == "Microsoft:Hyper-V:Virtual Hard Disk"
        assert len(disk.many("HostResource")) == 1
    return disks


def image_format(file):
    """The format that QEMU sees; raw is named by its suffix here."""
    return "raw" if file.endswith(".raw") else "qcow2"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind, word", [(1, "Realized"), (2, "Recovery")])
def test_create_snapshot_from_the_call_to_the_bytes(site, family, kind, word):
    cim = site.client(family)
    all_machines = machines(cim)
    collection = group(cim, "both", *all_machines.values())
    service = cim.get(SNAPSHOTS)
    service_ref = key(service, "CreationClassName", "Name", "SystemCreationClassName", "SystemName")

    answer = cim.invoke(
        service_ref,
        "CreateSnapshot",
        Collection=collection,
        SnapshotSettings=settings(ElementName="before the change", ConsistencyLevel=2),
        SnapshotType=kind,
    )
    assert answer["ReturnValue"] == "4096"
    job, promised = answer["Job"], answer["ResultingSnapshotCollection"]
    assert (job.cls, promised.cls) == ("Msvm_ConcreteJob", "Msvm_SnapshotCollection")
    seen = cim.wait(job)
    assert_a_good_end(seen)

    # From the job to exactly one set, and nothing that a per-machine client would mistake for its result.
    links = cim.linked("Msvm_AffectedJobElement", AffectingElement=job)
    affected = [link["AffectedElement"] for link in links]
    assert [ref for ref in affected if ref.cls == "Msvm_SnapshotCollection"] == [promised]
    members_of_job = {ref for ref in affected if ref.cls == "Msvm_ComputerSystem"}
    assert members_of_job == {system(m["Name"]) for m in all_machines.values()}
    assert len(affected) == 3
    (owner,) = cim.linked("Msvm_OwningJobElement", OwnedElement=job)
    assert owner["OwningElement"] == service_ref

    # The set, and its collection.
    one = cim.get(promised)
    assert one["ElementName"] == "before the change"
    (link,) = cim.linked("Msvm_SnapshotOfVirtualSystemCollection", Dependent=promised)
    assert link["Antecedent"] == collection
    assert [s["CollectionID"] for s in cim.all("Msvm_SnapshotCollection")] == [one["CollectionID"]]

    # Its members: settings of snapshots, each linked to its machine.
    links = cim.linked("Msvm_CollectedSnapshots", Collection=promised)
    members = [cim.get(link["Member"]) for link in links]
    by_machine = {m["VirtualSystemIdentifier"]: m for m in members}
    assert sorted(by_machine) == sorted(m["Name"] for m in all_machines.values())
    listed = {i["InstanceID"] for i in cim.all("CIM_VirtualSystemSettingData")}
    for name, machine in all_machines.items():
        member = by_machine[machine["Name"]]
        assert member["VirtualSystemType"] == f"Microsoft:Hyper-V:Snapshot:{word}"
        assert member["InstanceID"] == f"Microsoft:{member['ConfigurationID']}"
        assert GUID.fullmatch(member["ConfigurationID"])
        assert member["ElementName"] == "before the change"
        assert member["CreationTime"].endswith("Z")
        assert member["InstanceID"] in listed
        (of,) = cim.linked("Msvm_SnapshotOfVirtualSystem", Dependent=key(member, "InstanceID"))
        assert of["Antecedent"] == system(machine["Name"])
        (latest,) = cim.linked("Msvm_MostCurrentSnapshotInBranch", Antecedent=system(machine["Name"]))
        assert latest["Dependent"] == key(member, "InstanceID")
        assert_captured_bytes(cim, site.machines[name], machine, member)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_snapshot_from_the_call_to_the_bytes(exporting_site, family):
    site = exporting_site
    cim = site.client(family)
    all_machines = machines(cim)
    collection = group(cim, "both", *all_machines.values())
    answer = cim.invoke(
        SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotSettings="", SnapshotType=1
    )
    assert_a_good_end(cim.wait(answer["Job"]))
    snapshots = answer["ResultingSnapshotCollection"]
    arguments = {
        "SnapshotCollection": snapshots,
        "ExportDirectory": str(site.exports),
        "ExportSettingData": '<INSTANCE CLASSNAME="Msvm_CollectionSnapshotExportSettingData">'
        '<PROPERTY NAME="CopyVmStorage" TYPE="boolean"><VALUE>TRUE</VALUE></PROPERTY></INSTANCE>',
    }
    answer = cim.invoke(SNAPSHOTS, "ExportSnapshot", **arguments)
    assert answer["ReturnValue"] == "4096"
    assert_a_good_end(cim.wait(answer["Job"]), kind="62")
    folder = site.exports / cim.get(snapshots)["CollectionID"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {m["name"] for m in manifest["machines"]} == set(site.machines)
    for machine in manifest["machines"]:
        for disk, told in zip(site.machines[machine["name"]], machine["disks"], strict=True):
            file = folder / told["image"]["file"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == told["image"]["sha256"]
            assert content(file, "qcow2") == disk.bytes
            assert "backing" not in tool("qemu-img", "info", str(file))
    assert cim.invoke(SNAPSHOTS, "ExportSnapshot", **arguments)["ReturnValue"] == "32775"
    arguments["ExportDirectory"] = str(site.exports / "..")
    assert cim.invoke(SNAPSHOTS, "ExportSnapshot", **arguments)["ReturnValue"] == "32773"
    reader = site.client(family, user="rita")
    with pytest.raises(WSManFaultError) as caught:
        reader.invoke(SNAPSHOTS, "ExportSnapshot", **arguments)
    assert code(caught) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_destroy_snapshot_from_the_call_to_the_bytes(site, family):
    cim = site.client(family)
    all_machines = machines(cim)
    collection = group(cim, "both", *all_machines.values())
    sets = []
    for pattern in (0x51, 0x52, 0x53):
        answer = cim.invoke(
            SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotSettings="", SnapshotType=1
        )
        assert_a_good_end(cim.wait(answer["Job"]))
        sets.append(answer["ResultingSnapshotCollection"])
        for machine in all_machines.values():
            for disk in captured_disks(cim, cim.get(active(machine))):
                file = disk["HostResource"]
                write(file, image_format(file), pattern, offset=SIZE // 4, length=SIZE // 2)
    kept = [sets[0], sets[2]]
    before = all_that_is_held(cim, all_machines, kept)
    arguments = {"AffectedSnapshotCollection": sets[1]}
    reader = site.client(family, user="rita")
    with pytest.raises(WSManFaultError) as caught:
        reader.invoke(SNAPSHOTS, "DestroySnapshot", **arguments)
    assert code(caught) == 5
    answer = cim.invoke(SNAPSHOTS, "DestroySnapshot", **arguments)
    assert answer["ReturnValue"] == "4096"
    assert_a_good_end(cim.wait(answer["Job"]), kind="72")
    assert all_that_is_held(cim, all_machines, kept) == before
    assert len(cim.all("Msvm_SnapshotCollection")) == 2
    with pytest.raises(WSManFaultError):
        cim.get(sets[1])
    again = cim.invoke(SNAPSHOTS, "DestroySnapshot", **arguments)
    assert again["ReturnValue"] == "4"


def all_that_is_held(cim, all_machines, sets):
    """What each disk of these sets, and each active disk, holds."""
    settings = [active(machine) for machine in all_machines.values()]
    for one in sets:
        members = cim.linked("Msvm_CollectedSnapshots", Collection=one)
        settings += [link["Member"] for link in members]
    contents = []
    for one in settings:
        setting = cim.get(one)
        owner = setting["InstanceID"]
        for disk in captured_disks(cim, setting):
            file = disk["HostResource"]
            form = image_format(file)
            if form == "qcow2":
                tool("qemu-img", "check", "-q", "-U", file)
            contents.append((disk["InstanceID"].split("\\")[1], owner, content(file, form)))
    return sorted(contents)


def assert_captured_bytes(cim, disks, machine, member):
    """What a snapshot keeps stays what it was when the machine writes on."""
    captured = captured_disks(cim, member)
    assert len(captured) == len(disks)
    running = captured_disks(cim, cim.get(active(machine)))
    assert len(running) == len(disks)
    for disk, kept, now in zip(disks, captured, running):
        kept_file, file = kept["HostResource"], now["HostResource"]
        assert kept_file != file
        form = image_format(file)
        assert content(file, form) == disk.bytes, "the machine sees what it had"
        write(file, form, 0x99, offset=SIZE // 4, length=SIZE // 2)
        changed = content(file, form)
        assert changed != disk.bytes
        assert changed[SIZE // 4] == 0x99 and changed[0] == disk.pattern
        kept_form = image_format(kept_file)
        assert content(kept_file, kept_form) == disk.bytes, "the snapshot keeps what was"
        for checked in (file, kept_file):
            if image_format(checked) == "qcow2":
                tool("qemu-img", "check", "-q", checked)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_can_be_watched_while_it_runs(slow_site, family):
    cim = slow_site.client(family)
    collection = group(cim, "both", *machines(cim).values())
    answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    job, promised = answer["Job"], answer["ResultingSnapshotCollection"]
    first = cim.get(job)
    assert first["JobState"] == "4" and int(first["PercentComplete"]) < 100
    assert first["JobStatus"] and first["ElapsedTime"]
    # What is not there yet is not found, and the text leads to the job.
    with pytest.raises(WSManFaultError) as early:
        cim.get(promised)
    assert code(early) == 2150858752
    assert job.keys["InstanceID"] in early.value.reason
    # The machines are held: a second call is refused at once, and says why.
    busy = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    assert busy["ReturnValue"] == "5"
    refused = cim.get(busy["Job"])
    assert (refused["JobState"], refused["ErrorCode"]) == ("10", "5")
    slow_site.gate.unlink()
    seen = [first] + cim.wait(job)
    assert_a_good_end(seen)
    assert cim.get(promised)["CollectionID"] == promised.keys["CollectionID"]


def test_a_cancelled_job_leaves_nothing(slow_site):
    cim = slow_site.client()
    web = machines(cim)["web"]
    collection = group(cim, "one", web)
    answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    # As os-win stops jobs: those of a machine, by the association.
    (link,) = cim.linked("Msvm_AffectedJobElement", AffectedElement=system(web["Name"]))
    job = link["AffectingElement"]
    assert job == answer["Job"]
    assert cim.get(job)["Cancellable"] == "true"
    stop = cim.invoke(job, "RequestStateChange", RequestedState=5)
    assert stop["ReturnValue"] == "4096"
    slow_site.gate.unlink()
    end = cim.wait(job)[-1]
    assert end["JobState"] == "9" and end["ErrorCode"] != "0"
    assert USER in end["ErrorDescription"]
    assert int(end["PercentComplete"]) < 100
    assert_nothing_left(cim, slow_site, answer["ResultingSnapshotCollection"])


def test_a_failed_job_tells_why_and_leaves_nothing(failing_site):
    cim = failing_site.client()
    collection = group(cim, "both", *machines(cim).values())
    answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    assert answer["ReturnValue"] == "4096"
    end = cim.wait(answer["Job"])[-1]
    assert_a_bad_end(cim, answer["Job"], end)
    assert_nothing_left(cim, failing_site, answer["ResultingSnapshotCollection"])
    # The order is used up: the same call works now.
    again = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    assert_a_good_end(cim.wait(again["Job"]))


def assert_a_bad_end(cim, job, end):
    """A failed job carries everything that any client looks at (`docs/flows.md` §1 and §7)."""
    assert end["JobState"] == "10"
    assert end["ErrorCode"] not in (None, "0")
    assert end["ErrorDescription"] and end["ErrorSummaryDescription"]
    assert end.many("OperationalStatus")[0] == "6"
    assert int(end["PercentComplete"]) < 100
    answer = cim.invoke(job, "GetErrorEx")
    assert answer["ReturnValue"] == "0"
    errors = answer["Errors"] if isinstance(answer["Errors"], list) else [answer["Errors"]]
    for text in errors:
        # Clients look for NAME as the first attribute of each property.
        tags = re.findall(r"<PROPERTY[. ][^>]*>", text)
        assert tags and all(re.match(r'<PROPERTY(\.ARRAY)? NAME="', tag) for tag in tags)
        error = ET.fromstring(text)
        values = {p.get("NAME"): p.findtext("VALUE") for p in error.iter("PROPERTY")}
        assert values["Message"]
        assert job.keys["InstanceID"] in values["ErrorSource"]


def assert_nothing_left(cim, site, promised):
    """No set, no member, no file; the machines have the disks they had."""
    with pytest.raises(WSManFaultError):
        cim.get(promised)
    assert cim.all("Msvm_SnapshotCollection") == []
    assert cim.all("Msvm_CollectedSnapshots") == []
    kinds = {s["VirtualSystemType"] for s in cim.all("Msvm_VirtualSystemSettingData")}
    assert kinds == {"Microsoft:Hyper-V:System:Realized"}
    wanted = {str(d.file) for disks in site.machines.values() for d in disks}
    assert {d["HostResource"] for d in cim.all("Msvm_StorageAllocationSettingData")} == wanted
    images = [f for f in site.data.rglob("*") if f.suffix in (".qcow2", ".raw")]
    assert images == []
    for disks in site.machines.values():
        for disk in disks:
            assert content(disk.file, disk.form) == disk.bytes


def test_a_refused_call_answers_a_value_and_a_job_that_tells_why(site):
    cim = site.client()
    empty = group(cim, "empty")
    full = group(cim, "full", machines(cim)["web"])
    gone = Ref(empty.cls, {"CollectionID": "00000000-0000-0000-0000-000000000000"})
    cases = [
        ("5", dict(Collection=empty, SnapshotType=2)),
        ("4", dict(Collection=gone, SnapshotType=2)),
        ("4", dict(SnapshotType=2)),
        ("4", dict(Collection=full)),
        ("6", dict(Collection=full, SnapshotType=7)),
        ("4", dict(Collection=full, SnapshotType=2, SnapshotSettings="nonsense")),
    ]
    for value, arguments in cases:
        answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", **arguments)
        assert answer["ReturnValue"] == value, arguments
        assert answer["ResultingSnapshotCollection"] is None
        job = cim.get(answer["Job"])
        assert job["ErrorCode"] == value
        assert_a_bad_end(cim, answer["Job"], job)
    assert cim.all("Msvm_SnapshotCollection") == []


def test_the_second_set_grows_from_the_first(site):
    cim = site.client()
    db = machines(cim)["db"]
    collection = group(cim, "one", db)
    parents = []
    for n in range(3):
        name = f"set {n}"
        answer = cim.invoke(
            SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=1,
            SnapshotSettings=settings(ElementName=name),
        )
        assert_a_good_end(cim.wait(answer["Job"]))
        (link,) = cim.linked("Msvm_CollectedSnapshots", Collection=answer["ResultingSnapshotCollection"])
        member = cim.get(link["Member"])
        assert member["ElementName"] == name
        if parents:
            assert parents[-1]["InstanceID"] in member["Parent"]
        else:
            assert member["Parent"] is None
        parents.append(member)
        (disk,) = captured_disks(cim, cim.get(active(db)))
        write(disk["HostResource"], image_format(disk["HostResource"]), 0x50 + n)
    # Each still holds what the machine had when it was taken.
    for n, member in enumerate(parents):
        (disk,) = captured_disks(cim, member)
        pattern = 0x33 if n == 0 else 0x50 + n - 1
        assert content(disk["HostResource"], image_format(disk["HostResource"])) == bytes([pattern]) * SIZE
    links = cim.all("Msvm_ParentChildSettingData")
    chain = [key(member, "InstanceID") for member in parents] + [active(db)]
    found = {(link["Antecedent"], link["Dependent"]) for link in links}
    assert found == set(zip(chain, chain[1:]))


def test_sets_survive_the_server(site):
    cim = site.client()
    collection = group(cim, "both", *machines(cim).values())
    answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=2)
    before = cim.wait(answer["Job"])[-1]
    sets = cim.all("Msvm_SnapshotCollection")
    disks = cim.all("Msvm_StorageAllocationSettingData")
    site.stop()
    assert site.process.returncode == 0
    site.start()
    cim = site.client()
    assert cim.all("Msvm_SnapshotCollection") == sets
    assert cim.all("Msvm_StorageAllocationSettingData") == disks
    after = cim.get(answer["Job"])
    assert after["JobState"] == "7"
    assert after["ErrorDescription"] == before["ErrorDescription"]


def fill(cim, machine, pattern):
    """The machine fills all of its active disks."""
    for disk in captured_disks(cim, cim.get(active(machine))):
        write(disk["HostResource"], image_format(disk["HostResource"]), pattern)


def held(cim, machine):
    """What the machine would read from each of its active disks."""
    files = [disk["HostResource"] for disk in captured_disks(cim, cim.get(active(machine)))]
    return [content(file, image_format(file)) for file in files]


@pytest.mark.parametrize("family", FAMILIES)
def test_apply_snapshot_from_the_call_to_the_bytes(site, family):
    cim = site.client(family)
    all_machines = machines(cim)
    collection = group(cim, "both", *all_machines.values())
    answer = cim.invoke(SNAPSHOTS, "CreateSnapshot", Collection=collection, SnapshotType=1)
    assert_a_good_end(cim.wait(answer["Job"]))
    taken = answer["ResultingSnapshotCollection"]
    before = {name: held(cim, machine) for name, machine in all_machines.items()}
    for machine in all_machines.values():
        fill(cim, machine, 0x77)

    answer = cim.invoke(SNAPSHOTS, "ApplySnapshot", SnapshotCollection=taken)
    assert answer["ReturnValue"] == "4096"
    assert_a_good_end(cim.wait(answer["Job"]), "71")
    assert {name: held(cim, machine) for name, machine in all_machines.items()} == before

    # And one machine alone.
    for machine in all_machines.values():
        fill(cim, machine, 0x78)
    links = cim.linked("Msvm_CollectedSnapshots", Collection=taken)
    members = [cim.get(link["Member"]) for link in links]
    db = all_machines["db"]
    (member,) = [m for m in members if m["VirtualSystemIdentifier"] == db["Name"]]
    service = "Msvm_VirtualSystemSnapshotService"
    answer = cim.invoke(service, "ApplySnapshot", Snapshot=key(member, "InstanceID"))
    assert answer["ReturnValue"] == "4096"
    assert_a_good_end(cim.wait(answer["Job"]), "71")
    assert held(cim, db) == before["db"]
    assert held(cim, all_machines["web"]) == [bytes([0x78]) * SIZE] * len(before["web"])
    (last,) = cim.linked("Msvm_LastAppliedSnapshot", Antecedent=key(member, "InstanceID"))
    assert last["Dependent"].cls == "Msvm_ComputerSystem"
