"""Devices of the registry, opened as a search opens them: this machine, and two boards behind a real sshd."""

import dataclasses
import functools
import sys
import threading

import pytest
from sshd import needs_sshd

from mnas.latency import protocol
from mnas.latency.devices.kinds import KINDS
from mnas.latency.devices.registry import DeviceEntry
from mnas.latency.fleet import agreement, pool, spread
from mnas.latency.fleet.lease import lease, lease_key
from mnas.latency.fleet.pool import open_device
from mnas.latency.fleet.spread import Patience
from mnas.latency.latency import Latency, UnitError
from mnas.latency.protocol import make_reference
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

QUICK = {"budget_s": 0.1, "interval": 0.5}


@pytest.fixture(scope="module")
def reference():
    return make_reference(named_arch("mnasnet-small@0.5"), "small", 32, 10)


@pytest.fixture(scope="module")
def models():
    return {n: graph_bytes(named_arch("mnasnet-small@0.5"), 32, 11 + n) for n in range(3)}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(agreement, "AGREEMENT", 9)  # other programs may slow one of two


def test_the_host_keeps_its_leases_and_measurements_in_the_users_folders(tmp_path, reference, models):
    said = []
    with open_device(DeviceEntry(name="host", kind="host"), say=said.append) as device:
        assert device._patience.drift == KINDS["host"].drift
        (calibration,) = device.calibrate(reference, budget_s=0.1)
        assert (calibration.unit, calibration.unit_scale) == ("host", 1.0)
        (found,) = dict(device.measure({5: models[0]}, **QUICK)).values()
    assert found.source == "measured"
    assert len(list((tmp_path / "cache" / "mnas" / "latency").iterdir())) == 1
    assert (tmp_path / "state" / "mnas" / "leases" / "host.lock").exists()
    with open_device(DeviceEntry(name="host", kind="host"), say=said.append) as device:
        device.resume(reference, [calibration])
        assert dict(device.measure({0: models[0]}, **QUICK))[0].source == "cached"


@pytest.fixture(scope="module")
def calibration(reference, tmp_path_factory):
    """Return the calibration of this machine, made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(tmp_path_factory.mktemp(name.lower())))
        with open_device(DeviceEntry(name="host", kind="host"), say=print) as device:
            [calibration] = device.calibrate(reference, budget_s=0.1)
    return dataclasses.replace(calibration, pinned_core=0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threads": 2}, "threads 2 instead of 1"),
        ({"batch": 4}, "batch 4 instead of 1"),
        ({"runtime": "litert-builtin"}, "runtime litert-builtin instead of litert"),  # it takes the same files
        ({"core": 77}, "core 77 instead of 0"),
    ],
)
def test_a_run_resumes_only_with_the_settings_of_its_calibration(reference, calibration, changed, words):
    refused = pytest.raises(
        ValueError, match=f"host must have the settings of this run's calibration, but got {words}; restore"
    )
    with open_device(DeviceEntry(name="host", kind="host", **changed), say=print) as device, refused:
        device.resume(reference, [calibration])


def test_a_core_that_does_not_exist_is_rejected_and_not_reported_as_pinned(reference):
    refused = pytest.raises(
        ValueError, match="host: core must be auto or a core that the measuring process may use, but got 1077"
    )
    with open_device(DeviceEntry(name="host", kind="host", core=1077), say=print) as device, refused:
        device.calibrate(reference, budget_s=0.1)


def test_the_messages_of_a_unit_reach_the_caller_in_its_own_thread(tmp_path, reference, models):
    threads = set()
    with open_device(DeviceEntry(name="host", kind="host"), say=lambda _: threads.add(threading.get_ident())) as device:
        device.calibrate(reference, budget_s=0.1)
        device.overhear("said between calls, heard by nobody")
        stop = threading.Event()
        folder, key = tmp_path / "state" / "mnas" / "leases", lease_key("host", "")
        held = threading.Event()

        def hold():
            with lease(folder, key, "host", say=print):
                held.set()
                stop.wait(30)

        threading.Thread(target=hold).start()
        held.wait()
        threading.Timer(0.8, stop.set).start()  # the message about waiting comes after half a second
        assert len(dict(device.measure({0: models[0]}, **QUICK))) == 1
    assert threads == {threading.get_ident()}


@needs_sshd
@pytest.mark.usefixtures("home")
def test_two_boards_share_the_work_and_one_that_is_dropped_comes_back(server, reference, models, monkeypatch):
    pytest.importorskip("asyncssh")
    patience = functools.partial(Patience, backoff_s=0.1, cool_s=0.1, drift=9.0)  # other programs may slow this machine
    monkeypatch.setattr(pool, "Patience", patience)
    monkeypatch.setattr(protocol, "IMPLAUSIBLE_DRIFT", 1e6)
    monkeypatch.setattr(spread, "DISTURBED", 2)
    host, _, port = server.address.rpartition(":")
    other = f"{host.replace('127.0.0.1', 'localhost')}:{port}"
    known = server.home / ".ssh" / "known_hosts"
    known.write_text(known.read_text() + known.read_text().replace("127.0.0.1", "localhost"))
    entry = DeviceEntry(name="pi", kind="ssh", address=(server.address, other), options={"python": sys.executable})
    said = []
    with open_device(entry, say=said.append, patience_s=60.0) as device:
        calibrations = device.calibrate(reference, budget_s=0.1)
        assert [c.unit for c in calibrations] == ["pi/0", "pi/1"]
        assert calibrations[0].reference_ms == calibrations[1].reference_ms
        outcomes = device.measure(models, **QUICK)
        found = dict([next(outcomes)])
        server.drop()  # all connections, in the middle of the work
        found |= dict(outcomes)
        assert sorted(found) == [0, 1, 2]
        assert all(isinstance(outcome, Latency) for outcome in found.values())
    assert server.left() == []


@needs_sshd
@pytest.mark.usefixtures("home")
def test_an_unreachable_board_is_reported_immediately(server, reference):
    pytest.importorskip("asyncssh")
    entry = DeviceEntry(name="pi", kind="ssh", address=("nobody@127.0.0.1:1",), options={"python": sys.executable})
    with open_device(entry, say=print) as device, pytest.raises(UnitError, match=r"^pi: "):
        device.calibrate(reference)
