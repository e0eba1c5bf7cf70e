"""The child process that measures on this machine: what ends it, whose failure that is, and what remains."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnas.arch import Arch
from mnas.block import Block
from mnas.latency.devices import host, scripted
from mnas.latency.devices.host import LocalChannel, host_unit
from mnas.latency.devices.scripted import EndedError, ScriptUnit
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.tflite.writer import graph_bytes

MODEL = graph_bytes(
    Arch(blocks=(Block(op="sepconv", kernel=3, stride=2, filters=8),), stem_filters=8, head_filters=8), 16, 4
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Watched(LocalChannel):
    """Prints its process number."""

    @property
    def pid(self):
        return self._process.pid


@pytest.fixture
def unit():
    with contextlib.closing(ScriptUnit("host", Watched)) as unit:
        yield unit


def pid_of(unit):
    return unit._channel.pid


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if os.path.isdir("/proc") else True
    )


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def one_round(unit):
    with unit.session((MODEL, MODEL), Setup()) as session:
        return session.round(False)


def test_a_process_killed_between_measurements_is_a_failure_of_the_device_and_the_next_use_starts_another(unit):
    one_round(unit)
    first = pid_of(unit)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: not lives(first))
    with pytest.raises(UnitError, match=r"host: the measuring process ended with status -9") as raised:
        one_round(unit)
    assert not isinstance(raised.value, EndedError)  # the process had ended before it received a model
    one_round(unit)
    assert pid_of(unit) != first


def test_a_process_killed_within_a_round_is_the_devices_first_and_the_models_fault_when_it_happens_again(unit):
    def killed_within():
        with unit.session((MODEL, MODEL), Setup()) as session:
            session.round(False)
            process = unit._channel._process
            process.poll = lambda: None  # as if the process died just after the request
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            session.round(False)

    with pytest.raises(EndedError, match=r"the measuring process ended with status -9"):
        killed_within()
    one_round(unit)  # a measurement that succeeds clears the model
    with pytest.raises(EndedError):
        killed_within()
    with pytest.raises(MeasurementError, match=r"litert crashed on the model 2 times: host: the measuring process"):
        killed_within()
    with unit.session((MODEL + b"other", MODEL), Setup()) as session:
        assert session.round(False)


def test_a_stopped_process_is_given_up_and_killed(unit, monkeypatch):
    monkeypatch.setattr(scripted, "ROUND_TIMEOUT_S", 1.0)
    stopped = []

    def stop_within():
        with unit.session((MODEL, MODEL), Setup()) as session:
            stopped.append(pid_of(unit))
            os.kill(stopped[0], signal.SIGSTOP)
            session.round(False)

    with pytest.raises(UnitError, match="the measuring process did not answer within 1 s"):
        stop_within()
    assert not lives(stopped[0])
    monkeypatch.undo()
    one_round(unit)


PARENT = """
import sys
from mnas.latency.devices.host import LocalChannel
from mnas.latency.latency import Setup
from mnas.latency.devices.scripted import ScriptUnit
model = open(sys.argv[1], "rb").read()
unit = ScriptUnit("host", LocalChannel)
with unit.session((model, model), Setup()) as session:
    session.round(False)
    print(unit._channel._process.pid, flush=True)
    while True:
        session.round(False)
"""


def test_the_child_ends_when_its_parent_is_killed_and_the_next_removes_its_folder(tmp_path, monkeypatch):
    (tmp_path / "model.tflite").write_bytes(MODEL)
    environment = {**os.environ, "PYTHONPATH": str(Path(host.__file__).parents[3]), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "model.tflite")], stdout=subprocess.PIPE, env=environment
    )
    child = int(parent.stdout.readline())
    assert lives(child)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not lives(child))
    left = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert left.name.startswith(host.PREFIX)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.utime(left, (0, 0))  # as if a minute had passed
    with contextlib.closing(LocalChannel()):
        assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


def test_closing_leaves_no_process_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    unit = host_unit()
    one_round(unit)
    child = unit._channel._process.pid
    unit.close()
    unit.close()
    assert not lives(child)
    assert list(tmp_path.iterdir()) == []


def test_a_request_while_another_thread_closes_the_unit_raises_a_unit_error(unit):
    one_round(unit)
    channel = unit._channel
    channel._requests.close()  # the first act of closing; the process is still there
    with pytest.raises(UnitError, match="the measuring process was closed"):
        channel.ask("{}", 1)
    channel.close()
    with pytest.raises(UnitError, match="the measuring process was closed"):
        channel.ask("{}", 1)


def test_a_full_disk_is_the_devices_failure(unit, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UnitError, match="cannot be written: No space left on device"):
        one_round(unit)


def test_a_missing_runtime_is_named(unit, monkeypatch):
    with pytest.raises(ValueError, match="runtime must be one of"):
        Setup(runtime="tensorflow")
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ValueError, match="host: runtime onnxruntime needs onnxruntime on the device: pip"):
        ScriptUnit("host", without_onnxruntime(monkeypatch)).fingerprint(Setup(runtime="onnxruntime"))


def without_onnxruntime(monkeypatch):
    """Return the channel of a Python that sees none of this environment's packages."""

    class Bare(LocalChannel):
        def __init__(self):
            monkeypatch.setattr(sys, "executable", sys._base_executable)
            super().__init__()

    return Bare


SLOW = """
import sys, time
sys.argv[1:] = []
from mnas.latency.onboard import script
script.INFERENCE_S = 0.3

def load(model, threads, batch):
    import itertools
    return lambda: all(itertools.repeat(True))  # never returns to Python

script.RUNTIMES["litert"] = (load, *script.RUNTIMES["litert"][1:])
script.main()
"""


def test_an_inference_that_never_ends_is_stopped_and_the_model_has_failed(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(Path(host.__file__).parents[3]))
    channels = []

    def connect():
        channels.append(LocalChannel(str(tmp_path / "slow.py")))
        return channels[-1]

    with contextlib.closing(ScriptUnit("host", connect)) as unit:
        with pytest.raises(MeasurementError, match=r"litert must load the model within 60 s and run it within 15 s"):
            one_round(unit)
        assert channels[0]._process.returncode == -signal.SIGALRM
        unit.condition()  # another process has replaced it
    assert len(channels) == 2
