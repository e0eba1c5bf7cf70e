"""Phones over adb: real commands, files and inferences, on a phone that is a folder behind a server of the protocol."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mnas.latency import adb
from mnas.latency.adb import AdbUnit, Heat, adb_unit
from mnas.latency.android import read_identity, read_state
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.latency.registry import find_device, open_units
from mnas.latency.statistics import MIN_ROUNDS
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch
from tests.latency.phones import make_phone, run_phones, write_program

pytest.importorskip("adbutils")
SIZE = 32
needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb: scripts/install-test-tools installs it")


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    with run_phones(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("program"))


@pytest.fixture
def phone(phones, tmp_path):
    made = make_phone(tmp_path / "phone")
    phones.plug_in(FAKE0001=made)
    return made


@pytest.fixture
def unit(phones, phone, program):
    with_said = make_unit(phones, program)
    yield with_said
    with_said.close()


@pytest.fixture(scope="module")
def models():
    return tuple(graph_bytes(named_arch(name), SIZE, 10) for name in ("mnasnet-small", "mnasnet-small@0.5"))


def make_unit(phones, program, address="FAKE0001", **options):
    said = []
    options = {"heat": Heat(wait_s=0.3, poll_s=0.05), **options}
    unit = AdbUnit(
        "pixel", address, benchmark_model=str(program), adb_server=phones.address, say=said.append, **options
    )
    unit.said = said
    return unit


def run(unit, models, rounds=1, setup=None):
    with unit.session(models, setup or Setup()) as session:
        return [session.round(number % 2 == 1) for number in range(rounds)]


def runs_on(phone):
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    return str(phone.tmp) in shown


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_measurement_is_true_and_leaves_nothing_behind(phone, unit, models):
    reference = make_reference(named_arch("mnasnet-small@0.5"), "tiny", SIZE, 10)
    calibration = calibrate(unit, reference, budget_s=0.1)
    assert (calibration.pinned_core, calibration.realtime, calibration.unit) == (7, False, "pixel")
    latency = measure(unit, models[0], reference, calibration, budget_s=0.1)
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms < math.inf
    assert latency.ratio > 1  # 1.9 times the MACs
    assert latency.rounds >= MIN_ROUNDS
    assert latency.runs >= 3 * latency.rounds
    assert {*(phone.root / "pinned").read_text().split()} == {"80"}  # the one big core of eight
    assert [name.split("/")[1:] for name in phone.files()] == [[], ["benchmark_model"], ["pid"]]
    unit.close()
    assert phone.files() == []


def test_a_round_tells_the_fastest_inference_and_the_mean_of_all(phone, unit, models):
    for pair in run(unit, models, rounds=2):
        for times in pair:
            low, mean = times.kept_ms
            assert 0 < low <= mean
            assert len(times.wall_ms) >= 3
            assert set(times.wall_ms) == {mean}
            assert 0.01 < sum(times.wall_ms) / 1000 < 10  # runs for 50 ms


def test_the_condition_is_what_the_phone_says(phone, unit):
    phone.clock(cap_mhz=2400)
    condition = unit.condition()
    assert (condition.model, condition.soc, condition.temperature_c) == ("Fake Phone 8", "Tensor G0", 41.5)
    assert (condition.clock_mhz, condition.max_clock_mhz, condition.throttled) == (2400, 2850, True)
    assert (condition.battery_percent, condition.charging) == (87.0, True)
    assert condition.cores[4] == {"core": 4, "max_mhz": 2253, "governor": "sched_pixel"}
    phone.clock(cap_mhz=2850)
    (phone.root / "dumpsys/thermalservice").unlink()  # before Android 10: the kernel's zones
    condition = unit.condition()
    assert (condition.temperature_c, condition.throttled) == (43.0, False)
    assert phone.files() == []  # looking brings nothing


def test_what_a_phone_does_not_tell_is_unknown():
    state = read_state("Can't find service: battery")
    assert {*vars(state).values()} == {None}
    assert read_identity("@model\n\n@abi\n\n") is None
    bare = read_identity("@model\nX 1\n@soc\n\n@board\nmt6765\n@abi\narm64-v8a\n@cores\n0  \n1  \n")
    assert (bare.soc, [core.max_khz for core in bare.cores], bare.fastest()[0].number) == ("mt6765", [None, None], 1)


def test_the_fingerprint_names_phone_android_and_program(phone, unit, program):
    told = unit.fingerprint(Setup())
    digest = subprocess.run(["sha256sum", program], capture_output=True, text=True).stdout[:12]
    assert told == {
        "model": "Fake Phone 8", "soc": "Tensor G0", "android": "15 (12345678)", "abi": "arm64-v8a",
        "runtime": f"benchmark_model {digest} XNNPACK",
    }  # fmt: skip
    assert unit.fingerprint(Setup(runtime="litert-builtin"))["runtime"].endswith("without XNNPACK")
    with pytest.raises(ValueError, match="pixel: runtime of a phone must be one of litert, litert-builtin, but got"):
        unit.fingerprint(Setup(runtime="onnxruntime"))


def test_a_program_that_lies_on_the_phone_is_used_and_left(phones, phone, program, models):
    there = phone.tmp / "benchmark_model"
    there.write_text("another version")
    unit = make_unit(phones, program)
    unit.fingerprint(Setup())
    assert any(name.endswith("/benchmark_model") for name in phone.files())  # ours, beside the other
    unit.close()
    assert there.read_text() == "another version"
    shutil.copy(program, there)
    for binary in (program, "device:/data/local/tmp/benchmark_model"):
        unit = make_unit(phones, binary)
        run(unit, models)
        assert not any(name.endswith("/benchmark_model") for name in phone.files())
        unit.close()
        assert phone.files() == ["benchmark_model"]


@pytest.mark.parametrize(
    ("core", "threads", "masks"), [("auto", 2, {"c0"}), (3, 1, {"8"}), (3, 2, {"88"}), (None, 1, set())]
)
def test_cores(phones, phone, program, models, core, threads, masks):
    unit = make_unit(phones, program, core=core)
    with unit.session(models, Setup(threads=threads)) as session:
        session.round(False)
        assert session.pinned_core == (core if threads == 1 else None)
    unit.close()
    pinned = phone.root / "pinned"
    assert (set(pinned.read_text().split()) if pinned.exists() else set()) == masks


def test_a_core_that_is_not_there(phones, phone, program):
    with pytest.raises(ValueError, match="pixel: core must be auto or one of 0, 1, 2, 3, 4, 5, 6, 7, but got 8"):
        make_unit(phones, program, core=8).condition()


def test_batches_runtimes_and_memory(phone, unit, models):
    assert 100_000 < unit.peak_memory_bytes(models[0], Setup()) < 500_000_000
    one, eight = (run(unit, models, setup=Setup(batch=batch))[0][0].kept_ms[0] for batch in (1, 8))
    assert eight > 1.5 * one
    with unit.session(models, Setup(), Setup(runtime="litert-builtin")) as session:
        assert all(times.kept_ms for times in session.round(True))


def test_what_a_killed_process_left_is_removed_and_others_keep_theirs(phone, unit, models):
    mine = unit._found().folder()
    unit._phone = None  # as a connection that broke
    dead = subprocess.Popen(["true"])
    dead.wait()
    prefix = mine.rpartition("/")[2].partition(f"{os.getpid()}-")[0]
    for name in (f"{prefix}{dead.pid}-00", f"{prefix}{os.getppid()}-00", "mnas-other-1-00"):
        (phone.tmp / name).mkdir()
    run(unit, models)
    unit.close()
    assert phone.files() == sorted([f"{prefix}{os.getppid()}-00", "mnas-other-1-00"])


def test_after_a_killed_process_the_next_one_finds_the_phone_free(phones, phone, program, unit, models, tmp_path):
    phone.fault("hang", 2)
    for name, model in zip("ab", models, strict=True):
        (tmp_path / name).write_bytes(model)
    script = f"""
from pathlib import Path
from mnas.latency.adb import adb_unit
from mnas.latency.latency import Setup
unit = adb_unit("pixel", "FAKE0001", benchmark_model={str(program)!r}, adb_server={phones.address!r})
with unit.session(tuple(Path({str(tmp_path)!r}, name).read_bytes() for name in "ab"), Setup()) as session:
    session.round(False)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_for(lambda: (phone.root / "calls").read_text() == "2")
        process.kill()
    assert len(phone.files()) == 5  # folder, program, two models, number of what runs
    assert runs_on(phone)
    phone.fault("none")
    run(unit, models)
    wait_for(lambda: not runs_on(phone))
    unit.close()
    assert phone.files() == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "must print 1 line|not as it should be"),
        ("garbled", "not as it should be"),
        ("silent", "must print"),
        ("milliseconds", "not as it should be|wrong unit|cannot be true"),
        ("zero", "cannot be true"),
        ("negative", "not as it should be"),
        ("nan", "not as it should be"),
        ("killed", "killed on the phone"),
        ("lost", "lost or changed the model's file"),
    ],
)
def test_a_wrong_answer_in_the_middle_is_no_number(phone, unit, models, kind, said):
    phone.fault(kind, 2)
    with unit.session(models, Setup()) as session:
        with pytest.raises(UnitError, match=f"^pixel: .*({said})") as caught:
            session.round(True)
        assert "\n" not in str(caught.value)
        with pytest.raises(UnitError, match="broke in an earlier round"):
            session.round(False)
    assert phone.files() == []
    assert phone.calls() == 2


def test_a_phone_that_vanishes_in_a_round_and_comes_back(phones, phone, unit, models):
    phone.fault("vanish", 2)
    with pytest.raises(UnitError, match=r"^pixel: the connection to the phone broke"):
        run(unit, models)
    with pytest.raises(UnitError, match=r"^pixel: adb knows no phone FAKE0001 \(it knows: none\); plug it in"):
        unit.condition()
    assert phone.files() != []
    phones.plug_in(FAKE0001=phone)
    assert len(run(unit, models)) == 1
    unit.close()
    assert phone.files() == []


def test_a_phone_that_hangs(phone, unit, models, monkeypatch):
    monkeypatch.setattr(adb, "CALL_TIMEOUT_S", 0.7)
    phone.fault("hang", 2)
    with pytest.raises(UnitError, match=r"^pixel: the phone did not answer in time"):
        run(unit, models)
    assert phone.files() == []
    wait_for(lambda: not runs_on(phone))  # what hung was ended


def test_a_phone_that_is_full(phones, phone, unit, models):
    phones.tell({"FAKE0001": {"state": "device", "root": str(phone.root), "full": True}})
    with pytest.raises(UnitError, match=r"^pixel: .* cannot be written on the phone: .*No space left on device"):
        run(unit, models)
    phones.plug_in(FAKE0001=phone)
    assert len(run(unit, models)) == 1


def test_a_file_that_arrives_damaged(phones, phone, unit, models):
    phones.tell({"FAKE0001": {"state": "device", "root": str(phone.root), "lossy": True}})
    with pytest.raises(UnitError, match=r"^pixel: .* did not arrive whole on the phone: \d+ of \d+ bytes"):
        run(unit, models)


def test_ctrl_c_ends_what_runs_on_the_phone(phone, unit, models):
    phone.fault("hang", 1)

    def interrupt():
        wait_for(lambda: phone.calls() == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(unit, models)
    thread.join()
    wait_for(lambda: not runs_on(phone))
    assert phone.files() == []


def test_a_model_that_the_runtime_cannot_run(phone, unit, models):
    with pytest.raises(MeasurementError, match=r"benchmark_model cannot run the model: ERROR: .*exit code 1"):
        run(unit, (b"no model", models[1]))
    with pytest.raises(MeasurementError, match="cannot run the model"):
        unit.peak_memory_bytes(models[0][:2000], Setup())
    with pytest.raises(MeasurementError, match="a model with one input"):
        run(unit, (b"no model", models[1]), setup=Setup(batch=2))
    assert len(run(unit, models)) == 1
    assert not any(name.endswith(".tflite") for name in phone.files())


def test_a_round_that_was_throttled_is_taken_again(phone, unit, models):
    phone.fault("slow", 2)
    run(unit, models)
    assert phone.calls() == 4
    assert unit.said == ["pixel: a round was throttled and is taken again: its core ran at 1200 of 2850 MHz"]


def test_a_phone_that_is_always_throttled_is_given_up(phone, unit, models):
    phone.fault("slow", *range(1, 100))
    with pytest.raises(UnitError, match=r"^pixel: throttled in 3 rounds in a row: its core ran at 1200 of 2850 MHz"):
        run(unit, models)
    assert phone.calls() == 6
    assert phone.files() == []


@pytest.mark.parametrize("heat", [{"battery_c": 41.0}, {"status": 2}, {"cpu_c": 90.0}, None])
def test_a_hot_phone_is_waited_for(phone, unit, models, heat):
    phone.fault("none")
    if heat is None:
        phone.clock(cap_mhz=2400)
    else:
        phone.heat(**heat)
    with pytest.raises(UnitError, match=r"^pixel: it did not cool down within 0\.3 s: "):
        run(unit, models)
    assert phone.calls() == 0

    def cool_down(text):
        unit.said.append(text)
        phone.heat()
        phone.clock(cap_mhz=2850)

    unit._heat, unit._say = Heat(wait_s=30.0, poll_s=0.5), cool_down
    with unit.session(models, Setup()) as session:
        assert session.waited_s >= 0.5  # of no measurement's budget
        session.round(False)
    assert phone.calls() == 2
    assert [text.partition(" at most")[0] for text in unit.said] == [
        "pixel: waiting for it to cool down, 0.3 s",
        "pixel: waiting for it to cool down, 30 s",
    ]


def test_a_lower_full_clock_can_be_agreed(phones, phone, program, models):
    phone.clock(cap_mhz=2400)
    unit = make_unit(phones, program, max_mhz=2400)
    run(unit, models)
    unit.close()
    assert unit.said == []


def test_a_phone_of_the_registry(phones, phone, program, models, tmp_path):
    def entry(**changes):
        told = {"address": "FAKE0001", "benchmark_model": str(program), "adb_server": phones.address, **changes}
        lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
        (tmp_path / "devices.toml").write_text("\n".join(["[pixel]", 'kind = "adb"', *lines]))
        return find_device("pixel", tmp_path / "devices.toml")

    phone.clock(cap_mhz=2400, core=6)
    (unit,) = open_units(entry(core=6, max_mhz=2400), print)
    with unit.session(models, Setup()) as session:
        session.round(False)
        assert session.pinned_core == 6
    unit.close()
    assert [unit.name for unit in open_units(entry(address=["FAKE0001", "FAKE0002"]), print)] == ["pixel/0", "pixel/1"]
    for changes, said in (({"max_mhz": "all"}, "a whole number"), ({"max_mhz": 0}, "a number of MHz or auto")):
        with pytest.raises(ValueError, match=rf"\[pixel\]: max_mhz must be {said}"):
            entry(**changes)


def test_states_and_serials_that_cannot_be_used(phones, phone, program):
    def complaint(address, **told):
        phones.tell({serial: {"state": state, "root": str(phone.root)} for serial, state in told.items()})
        with pytest.raises(UnitError, match=r"^pixel: ") as caught:
            make_unit(phones, program, address).condition()
        return str(caught.value)

    assert "unlock it and confirm the dialog 'Allow USB debugging'" in complaint("A", A="unauthorized")
    assert "it is offline: unplug it" in complaint("A", A="offline", B="device")
    assert "udev" in complaint("A", A="no permissions (user in plugdev group; are your udev rules wrong?)")
    assert "its state is 'rescue'" in complaint("A", A="rescue")
    assert "adb knows no phone A (it knows: B, C)" in complaint("A", B="device", C="device")
    assert "exactly one phone must be connected to adb, but several are: B, C" in complaint(
        None, B="device", C="device"
    )
    assert "but none is; plug the phone in" in complaint(None)
    phones.plug_in(ONLY=phone)
    assert make_unit(phones, program, "").condition().model == "Fake Phone 8"


def test_a_phone_that_loses_its_permission(phones, phone, unit, models):
    run(unit, models)
    phones.tell({"FAKE0001": {"state": "unauthorized", "root": str(phone.root)}})
    with pytest.raises(UnitError, match="confirm the dialog"):
        unit.condition()


def test_programs_that_are_none(phones, phone, tmp_path):
    def complaint(binary):
        with pytest.raises(ValueError, match=r"^pixel: benchmark_model must .*docs/phone\.md says") as caught:
            make_unit(phones, binary).fingerprint(Setup())
        return str(caught.value)

    assert "No such file" in complaint(tmp_path / "none")
    assert "Is a directory" in complaint(tmp_path)
    assert "must be at /data/local/tmp/benchmark_model on the phone" in complaint(
        "device:/data/local/tmp/benchmark_model"
    )
    (tmp_path / "x86").write_bytes(b"\x7fELF" + bytes(100))  # of another machine
    assert "must be the tool for arm64-v8a" in complaint(tmp_path / "x86")
    assert not any(name.endswith("tflite") for name in phone.files())


def test_a_program_that_is_lost_in_a_search_is_the_phone_s_failure(phones, phone, program, models):
    shutil.copy(program, phone.tmp / "benchmark_model")
    unit = make_unit(phones, "device:/data/local/tmp/benchmark_model")
    with unit.session(models, Setup()) as session:
        session.round(False)
        (phone.tmp / "benchmark_model").unlink()
        with pytest.raises(UnitError, match=r"^pixel: benchmark_model did not start: .*(not found|No such file)"):
            session.round(True)
    with pytest.raises(UnitError, match=r"^pixel: benchmark_model must be at /data/local/tmp/benchmark_model"):
        run(unit, models)
    with pytest.raises(ValueError, match=r"^pixel: benchmark_model must be at /data/local/tmp/benchmark_model"):
        unit.fingerprint(Setup())
    with pytest.raises(ValueError, match=r"^pixel: runtime of a phone must be one of"):
        run(unit, models, setup=Setup(runtime="torch"))


def test_no_server_and_no_adb(phones, program, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"127.0.0.1:{taken.getsockname()[1]}"
    unit = adb_unit("pixel", "FAKE0001", benchmark_model=str(program), adb_server=free)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnitError, match=rf"^pixel: no adb server answers at {free}; adb is not installed .*apt"):
        unit.condition()
    unit.close()
    with pytest.raises(ValueError, match="adb_server must be host:port, but got 'here'"):
        adb_unit("pixel", "FAKE0001", benchmark_model=str(program), adb_server="here")
    monkeypatch.setitem(sys.modules, "adbutils", None)
    with pytest.raises(ImportError, match=r"mnas\[adb\]"):
        adb_unit("pixel", "FAKE0001", benchmark_model=str(program))


def test_a_server_that_says_nothing_or_rubbish(program, monkeypatch):
    monkeypatch.setattr("mnas.latency.adb_link.STEP_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        unit = adb_unit("pixel", "A", benchmark_model=str(program), adb_server=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnitError, match="did not answer in time"):
            unit.condition()

        def answer():
            for text in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
                connection = silent.accept()[0]
                connection.sendall(text)
                connection.close()

        silent.accept()[0].close()
        silent.accept()[0].close()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UnitError, match="adb says: Unknown data"):
            unit.condition()
        thread.join()


@needs_adb
def test_a_real_server_without_a_phone(program, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    home = {**os.environ, "HOME": str(tmp_path)}  # it makes a key there
    with subprocess.Popen(
        ["adb", "-P", str(port), "nodaemon", "server"], stderr=subprocess.DEVNULL, env=home
    ) as server:
        try:
            wait_for(lambda: listens(port))
            for address, said in (("28291FDH2", "adb knows no phone 28291FDH2"), (None, "but none is; plug")):
                unit = adb_unit("pixel", address, benchmark_model=str(program), adb_server=f"127.0.0.1:{port}")
                with pytest.raises(UnitError, match=said):
                    unit.condition()
        finally:
            server.kill()
