"""The real program on loopback, over machines with real disks, for clients that others wrote.

GROUPSHOT_BIN names the program. Disks are made, written and read with QEMU's tools alone.
"""

import os
import pathlib
import subprocess
import threading

import pytest

from cim import Cim

USER = "admin"
PASSWORD = "correct horse"
SIZE = 4 << 20


def program():
    """The program under test."""
    path = os.environ.get("GROUPSHOT_BIN")
    if not path:
        pytest.exit("GROUPSHOT_BIN does not name the program", returncode=2)
    return path


def tool(*command):
    """Runs one of QEMU's tools; its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def write(file, form, pattern, offset=0, length=SIZE):
    """Fills a part of a disk with one byte value."""
    done = tool("qemu-io", "-f", form, "-c", f"write -P {pattern} {offset} {length}", str(file))
    assert f"wrote {length}/{length} bytes" in done, done


def content(file, form):
    """All bytes that a guest would read from a disk."""
    raw = f"{file}.read"
    try:
        tool("qemu-img", "convert", "-f", form, "-O", "raw", str(file), raw)
        return pathlib.Path(raw).read_bytes()
    finally:
        pathlib.Path(raw).unlink(missing_ok=True)


class Server:
    """A server on a data directory; ended by its process id."""

    def __init__(self, data, fail_points="", arguments=()):
        self.data = data
        self.arguments = arguments
        self.fail_points = fail_points
        self.start()

    def start(self):
        """Starts it and waits until it listens."""
        environment = dict(os.environ, GROUPSHOT_FAILPOINTS=self.fail_points)
        self.process = subprocess.Popen(
            [program(), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(self.data),
             *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.log = []
        # Both pipes are drained, or the server would stall when they are full.
        threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()
        line = self.process.stdout.readline()
        # With TLS its line is the first of two.
        self.secure_port = None
        if "listening on https://" in line:
            self.secure_port = int(line.split("/wsman")[0].rsplit(":", 1)[1])
            line = self.process.stdout.readline()
        if "listening on http://" not in line:
            self.stop()
            pytest.fail(f"the server did not start: {line} {''.join(self.log)}")
        address = line.split("http://")[1].split("/")[0]
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    def client(self, family="wmi", user=USER, password=PASSWORD, **options):
        """A pypsrp client that speaks in that family of URIs."""
        return Cim(self.host, self.port, user, password, family, **options)

    def stop(self):
        """Asks it to end, and sees to it that it has."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


def local(data, *command, password=None):
    """A command on the data directory."""
    done = subprocess.run(
        [program(), *command, "--data-dir", str(data)],
        input=password,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Disk:
    """A disk that was imported: its file, its format, the pattern it was filled with."""

    def __init__(self, file, form, pattern):
        self.file = file
        self.form = form
        self.pattern = pattern
        self.bytes = bytes([pattern]) * SIZE


def make_machines(folder, data):
    """Imports a machine of two disks, one on a backing chain, and one of a single raw disk."""
    plain = folder / "web.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", str(plain), str(SIZE))
    write(plain, "qcow2", 0x11)
    base = folder / "web-base.raw"
    tool("qemu-img", "create", "-q", "-f", "raw", str(base), str(SIZE))
    write(base, "raw", 0x22)
    chained = folder / "web-data.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(chained))
    raw = folder / "db.raw"
    tool("qemu-img", "create", "-q", "-f", "raw", str(raw), str(SIZE))
    write(raw, "raw", 0x33)
    local(data, "vm", "import", "--overlay-ok", "web", str(plain), str(chained))
    local(data, "vm", "import", "--overlay-ok", "db", str(raw))
    return {
        "web": [Disk(plain, "qcow2", 0x11), Disk(chained, "qcow2", 0x22)],
        "db": [Disk(raw, "raw", 0x33)],
    }


def prepare(folder):
    """A data directory with users and machines."""
    data = folder / "data"
    for user, role in [(USER, "administrator"), ("rita", "reader")]:
        local(data, "user", "add", user, "--role", role, "--password-stdin", password=PASSWORD)
    return data, make_machines(folder, data)


@pytest.fixture
def site(tmp_path):
    """A server of its own, with machines that nothing has touched yet."""
    data, machines = prepare(tmp_path)
    server = Server(data)
    server.machines = machines
    yield server
    server.stop()


@pytest.fixture
def slow_site(tmp_path):
    """The same, but the first capture does not cut before its gate is removed."""
    data, machines = prepare(tmp_path)
    gate = tmp_path / "gate"
    gate.touch()
    server = Server(data, fail_points=f"create.cut.before=hold:{gate}")
    server.machines = machines
    server.gate = gate
    yield server
    gate.unlink(missing_ok=True)
    server.stop()


@pytest.fixture
def failing_site(tmp_path):
    """The same, but the first capture fails when it cuts."""
    data, machines = prepare(tmp_path)
    server = Server(data, fail_points="create.cut.before=error")
    server.machines = machines
    yield server
    server.stop()


@pytest.fixture
def exporting_site(tmp_path):
    """The same, and sets may be exported to the folder `exports`."""
    data, machines = prepare(tmp_path)
    exports = tmp_path / "exports"
    exports.mkdir()
    config = tmp_path / "groupshot.toml"
    config.write_text(f'[export]\nroots = ["{exports}"]\n')
    server = Server(data, arguments=("--config", str(config)))
    server.machines = machines
    server.exports = exports
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for tests that change nothing which others look at."""
    data, machines = prepare(tmp_path_factory.mktemp("shared"))
    server = Server(data)
    server.machines = machines
    yield server
    server.stop()
