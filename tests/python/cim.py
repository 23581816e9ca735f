"""CIM over pypsrp's WSMan class: just enough to read like the calls that a backup program makes."""

import time
import xml.etree.ElementTree as ET

from pypsrp.wsman import NAMESPACES, SelectorSet, WSMan

NAMESPACE = "root/virtualization/v2"
DMTF = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
WMI = f"http://schemas.microsoft.com/wbem/wsman/1/wmi/{NAMESPACE}/"
ANONYMOUS = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
CQL = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf"
XPATH = "http://www.w3.org/TR/1999/REC-xpath-19991116"
RELEASE = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Release"

WSA = "{%s}" % NAMESPACES["wsa"]
WSMAN = "{%s}" % NAMESPACES["wsman"]
WSEN = "{%s}" % NAMESPACES["wsen"]
XSI = "{%s}" % NAMESPACES["xsi"]

# `docs/flows.md` §1 and §7: what a poller takes as the end.
TERMINAL = {7, 8, 9, 10}


class Ref:
    """A reference: class and keys."""

    def __init__(self, cls, keys):
        self.cls = cls
        self.keys = keys

    def __eq__(self, other):
        return (self.cls, self.keys) == (other.cls, other.keys)

    def __hash__(self):
        return hash((self.cls, tuple(sorted(self.keys.items()))))

    def __repr__(self):
        return f"{self.cls}.{self.keys}"

    @classmethod
    def read(cls, element):
        """Reads the inside of an endpoint reference, bare or wrapped."""
        inner = element.find(f"{WSA}EndpointReference")
        element = element if inner is None else inner
        parameters = element.find(f"{WSA}ReferenceParameters")
        if parameters is None:
            return None
        assert element.find(f"{WSA}Address").text == ANONYMOUS
        uri = parameters.find(f"{WSMAN}ResourceURI").text
        keys = {}
        for selector in parameters.findall(f"{WSMAN}SelectorSet/{WSMAN}Selector"):
            keys[selector.get("Name")] = cls.read(selector) or selector.text
        # Only the DMTF form names the namespace by a selector (rule E-7).
        assert (keys.pop("__cimnamespace", None) is not None) == uri.startswith(DMTF)
        return cls(uri.rsplit("/", 1)[1], keys)


class Instance(dict):
    """Properties by name. Null is None; what stands more than once is a list."""

    def __init__(self, element, uri):
        super().__init__()
        namespace, self.cls = element.tag[1:].split("}")
        assert namespace == uri(self.cls), "the namespace of an instance is the URI of its class"
        for child in element:
            tag_namespace, name = child.tag[1:].split("}")
            assert tag_namespace == namespace, name
            value = self.value(child)
            if name in self:
                old = self[name]
                value = (old if isinstance(old, list) else [old]) + [value]
            self[name] = value

    @staticmethod
    def value(element):
        """The value of one property or parameter."""
        if element.get(f"{XSI}nil") == "true":
            return None
        reference = Ref.read(element)
        if reference is not None:
            return reference
        inner = list(element)
        return inner[0].text if inner else element.text or ""

    def many(self, name):
        """A property as a list."""
        value = self[name]
        if value is None:
            return []
        return value if isinstance(value, list) else [value]


class Cim:
    """A client. With `family` "dmtf" or "wmi" it names classes in that form."""

    def __init__(self, host, port, user, password, family, **options):
        self.family = family
        options.setdefault("ssl", False)
        self.wsman = WSMan(
            host, port=port, username=user, password=password, auth="basic",
            encryption="never", **options,
        )

    def uri(self, cls):
        """The resource URI of a class."""
        return (DMTF if self.family == "dmtf" else WMI) + cls

    def selectors(self, keys=None):
        """Selectors for these keys, and the namespace where the family asks for it."""
        chosen = SelectorSet()
        for name, value in (keys or {}).items():
            chosen.add_option(name, value)
        if self.family == "dmtf":
            chosen.add_option("__cimnamespace", NAMESPACE)
        return chosen if chosen.values else None

    def get(self, ref):
        """WS-Transfer Get. A class name means its only instance."""
        if isinstance(ref, str):
            ref = Ref(ref, {})
        body = self.wsman.get(self.uri(ref.cls), selector_set=self.selectors(ref.keys))
        (element,) = list(body)
        return Instance(element, self.uri)

    def start(self, cls, optimize=0, mode=None):
        """Enumerate: the context (None when all has come) and the first items."""
        wish = ET.Element(f"{WSEN}Enumerate")
        if optimize:
            ET.SubElement(wish, f"{WSMAN}OptimizeEnumeration")
            ET.SubElement(wish, f"{WSMAN}MaxElements").text = str(optimize)
        if mode:
            ET.SubElement(wish, f"{WSMAN}EnumerationMode").text = mode
        body = self.wsman.enumerate(self.uri(cls), wish, selector_set=self.selectors())
        answer = body.find(f"{WSEN}EnumerateResponse")
        items = answer.find(f"{WSMAN}Items")
        assert (items is not None) == bool(optimize)
        ended = answer.find(f"{WSMAN}EndOfSequence") is not None
        context = answer.find(f"{WSEN}EnumerationContext").text
        assert ended == (not context), "either the end or a context"
        return context, list(items if items is not None else [])

    def pull(self, cls, context, count=None):
        """Pull: the context (None at the end) and the items."""
        wish = ET.Element(f"{WSEN}Pull")
        ET.SubElement(wish, f"{WSEN}EnumerationContext").text = context
        if count:
            ET.SubElement(wish, f"{WSEN}MaxElements").text = str(count)
        body = self.wsman.pull(self.uri(cls), wish, selector_set=self.selectors())
        answer = body.find(f"{WSEN}PullResponse")
        ended = answer.find(f"{WSEN}EndOfSequence") is not None
        found = answer.find(f"{WSEN}EnumerationContext")
        assert ended == (found is None), "either the end or a context"
        return None if ended else found.text, list(answer.find(f"{WSEN}Items"))

    def release(self, cls, context):
        """Release."""
        wish = ET.Element(f"{WSEN}Release")
        ET.SubElement(wish, f"{WSEN}EnumerationContext").text = context
        answer = self.wsman.invoke(RELEASE, self.uri(cls), wish, selector_set=self.selectors())
        body = answer.find("s:Body", namespaces=NAMESPACES)
        assert list(body) == []

    def all(self, cls):
        """Every instance of a class and its subclasses."""
        context, items = self.start(cls, optimize=2)
        while context:
            context, more = self.pull(cls, context, count=3)
            items += more
        return [Instance(item, self.uri) for item in items]

    def query(self, text, dialect=WQL, count=3, mode=None):
        """The items of a query on the URI of all classes, pulled to the end."""
        everything = "http://schemas.dmtf.org/wbem/wscim/1/*"
        uri = WMI + "*" if self.family == "wmi" else everything
        wish = ET.Element(f"{WSEN}Enumerate")
        ET.SubElement(wish, f"{WSMAN}OptimizeEnumeration")
        ET.SubElement(wish, f"{WSMAN}MaxElements").text = str(count)
        ET.SubElement(wish, f"{WSMAN}Filter", Dialect=dialect).text = text
        if mode:
            ET.SubElement(wish, f"{WSMAN}EnumerationMode").text = mode
        answer = self.wsman.enumerate(uri, wish, selector_set=self.selectors())
        answer = answer.find(f"{WSEN}EnumerateResponse")
        items = list(answer.find(f"{WSMAN}Items"))
        context = answer.find(f"{WSEN}EnumerationContext").text
        while context:
            wish = ET.Element(f"{WSEN}Pull")
            ET.SubElement(wish, f"{WSEN}EnumerationContext").text = context
            ET.SubElement(wish, f"{WSEN}MaxElements").text = str(count)
            answer = self.wsman.pull(uri, wish, selector_set=self.selectors())
            answer = answer.find(f"{WSEN}PullResponse")
            items += list(answer.find(f"{WSEN}Items"))
            found = answer.find(f"{WSEN}EnumerationContext")
            context = None if found is None else found.text
        return items

    def linked(self, association, **ends):
        """Instances of an association with these references."""
        found = self.all(association)
        return [i for i in found if all(i[role] == ref for role, ref in ends.items())]

    def element(self, parent, tag, ref):
        """Writes a reference as address and reference parameters."""
        element = ET.SubElement(parent, tag)
        ET.SubElement(element, f"{WSA}Address").text = ANONYMOUS
        parameters = ET.SubElement(element, f"{WSA}ReferenceParameters")
        ET.SubElement(parameters, f"{WSMAN}ResourceURI").text = self.uri(ref.cls)
        parameters.append((self.selectors(ref.keys)).pack())

    def invoke(self, target, method, **arguments):
        """Calls a method on the only instance of a class, or on the object of a reference."""
        if isinstance(target, str):
            target = Ref(target, {})
        uri = self.uri(target.cls)
        call = ET.Element(f"{{{uri}}}{method}_INPUT")
        for name, value in arguments.items():
            if isinstance(value, Ref):
                self.element(call, f"{{{uri}}}{name}", value)
            else:
                ET.SubElement(call, f"{{{uri}}}{name}").text = str(value)
        answer = self.wsman.invoke(
            f"{uri}/{method}", uri, call, selector_set=self.selectors(target.keys)
        )
        action = answer.find("s:Header/wsa:Action", namespaces=NAMESPACES).text
        assert action == f"{uri}/{method}Response"
        output = answer.find("s:Body", namespaces=NAMESPACES).find(f"{{{uri}}}{method}_OUTPUT")
        result = {}
        for child in output:
            name = child.tag.split("}")[1]
            result.setdefault(name, []).append(Instance.value(child))
        return {name: values if len(values) > 1 else values[0] for name, values in result.items()}

    def wait(self, job):
        """Polls a job until it has ended, as the clients do: every reading of it, the last one at the end."""
        seen = []
        until = time.monotonic() + 60
        while True:
            seen.append(self.get(job))
            state = int(seen[-1]["JobState"])
            if state in TERMINAL:
                return seen
            assert state == 4, "a poller takes any other state as the end"
            assert time.monotonic() < until, "the job does not end"
            time.sleep(0.02)

    def wait_for(self, job_id):
        """Polls the job of that id; its last reading."""
        return self.wait(Ref("Msvm_ConcreteJob", {"InstanceID": job_id}))[-1]


def key(instance, *names):
    """A reference to an instance by these keys."""
    return Ref(instance.cls, {name: instance[name] for name in names})


def system(name):
    """A reference to a machine or the host."""
    return Ref("Msvm_ComputerSystem", {"CreationClassName": "Msvm_ComputerSystem", "Name": name})
