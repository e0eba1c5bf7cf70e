"""Fixtures for boards over ssh, and for phones over adb."""

import pytest
from sshd import running_sshd

from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch
from tests.latency.phones import make_phone, make_unit, run_phones, write_program


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A board that listens."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def home(server, monkeypatch):
    """The home of a user whom the server knows."""
    monkeypatch.setenv("HOME", str(server.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return server.home


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    """An adb server."""
    with run_phones(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Its phones' benchmark_model, as the user has it."""
    return write_program(tmp_path_factory.mktemp("program"))


@pytest.fixture
def phone(phones, tmp_path):
    """Its only one."""
    made = make_phone(tmp_path / "phone")
    phones.plug_in(FAKE0001=made)
    return made


@pytest.fixture
def unit(phones, phone, program):
    """The phone as a unit of mnas; `said` contains its notices."""
    pytest.importorskip("adbutils")
    made = make_unit(phones, program)
    yield made
    made.close()


@pytest.fixture(scope="module")
def models():
    """A candidate and a reference."""
    return tuple(graph_bytes(named_arch(name), 32, 10) for name in ("mnasnet-small", "mnasnet-small@0.5"))
