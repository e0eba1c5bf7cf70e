"""Boards over ssh: a real sshd on this machine, real keys, real processes, and what goes wrong with them."""

import contextlib
import sys

import pytest
from sshd import needs_sshd, running_sshd

from mnas.latency.host import host_unit
from mnas.latency.latency import Setup
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.latency.ssh import ssh_unit
from mnas.zoo.architectures import named_arch

SETUP = Setup()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(autouse=True)
def home(request, monkeypatch):
    """The user's home is the one that the server knows."""
    if "server" in request.fixturenames:
        monkeypatch.setenv("HOME", str(request.getfixturevalue("server").home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="module")
def reference():
    return make_reference(named_arch("mnasnet-small@0.5/s8"), "small", 32, 10)


@pytest.fixture
def board(server):
    with contextlib.closing(ssh_unit("board", server.address, python=sys.executable)) as unit:
        yield unit
    assert server.left() == []


@needs_sshd
def test_a_board_tells_what_this_machine_tells_of_itself(board, reference, server):
    with contextlib.closing(host_unit()) as host:
        assert board.fingerprint(SETUP) == host.fingerprint(SETUP)
        calibration = calibrate(board, reference, budget_s=0.5)
        there = measure(board, reference.light_file, reference, calibration, budget_s=0.5)
        here = measure(host, reference.light_file, reference, calibration, budget_s=0.5)
    assert (there.unit, there.source, there.against) == ("board", "measured", "light")
    assert 0.5 < there.latency_ms / here.latency_ms < 2  # the same model on the same machine
    assert 0.5 < there.ratio / calibration.light_ratio < 2
    assert board.peak_memory_bytes(reference.file, SETUP) > 0
    assert server.measuring() in server.programs()
