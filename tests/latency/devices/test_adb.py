"""Phones over adb: real commands, files and inferences on a simulated phone behind a server of the protocol."""

import json
import math
import os
import shutil
import socket
import subprocess

import pytest

from mnas.cli.main import run
from mnas.latency import protocol, statistics
from mnas.latency.devices import benchmark_model
from mnas.latency.devices.adb import adb_unit
from mnas.latency.devices.android import read_identity, read_state
from mnas.latency.devices.registry import find_device, open_units
from mnas.latency.latency import Setup, UnitError
from mnas.latency.protocol import calibrate, make_reference, measure
from mnas.zoo.architectures import named_arch
from tests.latency.phones import listens, make_unit, needs_adb, run_rounds, wait_for

pytest.importorskip("adbutils")
SIZE = 32


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Shorten the turns: the phone's clock counts a process's own time, so long turns would not be more accurate."""
    monkeypatch.setattr(benchmark_model, "WARM_UP_S", 0.005)
    monkeypatch.setattr(benchmark_model, "TURN_S", 0.01)


def test_a_measurement_is_true_and_leaves_nothing_behind(phone, unit, models, monkeypatch):
    for module in (protocol, statistics):
        monkeypatch.setattr(module, "MIN_ROUNDS", 3)  # enough on an idle phone
    reference = make_reference(named_arch("mnasnet-small@0.5"), "tiny", SIZE, 10)
    calibration = calibrate(unit, reference, budget_s=0.1)
    assert (calibration.pinned_core, calibration.realtime, calibration.unit) == (7, False, "pixel")
    latency = measure(unit, models[0], reference, calibration, budget_s=0.1)
    assert 0 < latency.low_ms <= latency.latency_ms <= latency.high_ms < math.inf
    assert latency.ratio > 1  # 1.9 times the MACs
    assert latency.rounds >= 3
    assert latency.runs >= 3 * latency.rounds
    assert {*(phone.root / "pinned").read_text().split()} == {"80"}  # the one big core of eight
    assert [name.split("/")[1:] for name in phone.files()] == [[], ["benchmark_model"], ["pid"]]
    unit.close()
    assert phone.files() == []


def test_a_round_has_the_fastest_inference_and_the_mean_of_all(phone, unit, models):
    for pair in run_rounds(unit, models, rounds=2):
        for times in pair:
            low, mean = times.kept_ms
            assert 0 < low <= mean
            assert len(times.wall_ms) >= 3
            assert set(times.wall_ms) == {mean}
            assert 0.0002 < sum(times.wall_ms) / 1000 < 10  # in 10 ms, of which a busy machine gives only a part


def test_the_condition_is_what_the_phone_reports(phone, unit):
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
    assert phone.files() == []  # looking pushes no file


def test_a_value_that_a_phone_does_not_report_is_none():
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
    with pytest.raises(
        ValueError, match="pixel: the runtime of a phone must be one of litert, litert-builtin, but got"
    ):
        unit.fingerprint(Setup(runtime="onnxruntime"))


def test_a_program_that_lies_on_the_phone_is_used_and_left(phones, phone, program, models):
    there = phone.tmp / "benchmark_model"
    there.write_text("another version")
    unit = make_unit(phones, program)
    unit.fingerprint(Setup())
    assert any(name.endswith("/benchmark_model") for name in phone.files())  # our program, beside the other one
    unit.close()
    assert there.read_text() == "another version"
    shutil.copy(program, there)
    for binary in (program, "device:/data/local/tmp/benchmark_model"):
        unit = make_unit(phones, binary)
        run_rounds(unit, models)
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
    one, eight = (run_rounds(unit, models, setup=Setup(batch=batch))[0][0].kept_ms[0] for batch in (1, 8))
    assert eight > 1.5 * one
    with unit.session(models, Setup(), Setup(runtime="litert-builtin")) as session:
        assert all(times.kept_ms for times in session.round(True))


def test_what_a_killed_process_left_is_removed_and_others_keep_theirs(phone, unit, models):
    mine = unit._found().folder()
    unit._phone = None  # like a lost connection
    dead = subprocess.Popen(["true"])
    dead.wait()
    prefix = mine.rpartition("/")[2].partition(f"{os.getpid()}-")[0]
    for name in (f"{prefix}{dead.pid}-00", f"{prefix}{os.getppid()}-00", "mnas-other-1-00"):
        (phone.tmp / name).mkdir()
    run_rounds(unit, models)
    unit.close()
    assert phone.files() == sorted([f"{prefix}{os.getppid()}-00", "mnas-other-1-00"])


def test_a_lower_full_clock_can_be_agreed(phones, phone, program, models):
    phone.clock(cap_mhz=2400)
    unit = make_unit(phones, program, max_mhz=2400)
    run_rounds(unit, models)
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
    for value in ("all", 0):
        with pytest.raises(ValueError, match=r"\[pixel\]: max_mhz must be \"auto\" or an integer of 1 or more"):
            entry(max_mhz=value)


def test_states_and_serials_that_cannot_be_used(phones, phone, program):
    def complaint(address, **told):
        phones.tell({serial: {"state": state, "root": str(phone.root)} for serial, state in told.items()})
        with pytest.raises(UnitError, match=r"^pixel: ") as caught:
            make_unit(phones, program, address).condition()
        return str(caught.value)

    assert "unlock it and confirm its dialog 'Allow USB debugging'" in complaint("A", A="unauthorized")
    assert "it is offline; wake it up, unplug it" in complaint("A", A="offline", B="device")
    assert "udev" in complaint("A", A="no permissions (user in plugdev group; are your udev rules wrong?)")
    assert "it is in state 'rescue'" in complaint("A", A="rescue")
    assert "phone A is not connected to adb (connected: B, C)" in complaint("A", B="device", C="device")
    assert "exactly one phone must be connected to adb, but got B, C" in complaint(None, B="device", C="device")
    assert "but got none; plug the phone in" in complaint(None)
    phones.plug_in(ONLY=phone)
    assert make_unit(phones, program, "").condition().model == "Fake Phone 8"


def test_programs_that_do_not_run(phones, phone, tmp_path):
    def complaint(binary):
        with pytest.raises(
            ValueError, match=r"^pixel: benchmark_model must .*docs/guides/phone\.md explains"
        ) as caught:
            make_unit(phones, binary).fingerprint(Setup())
        return str(caught.value)

    assert "No such file" in complaint(tmp_path / "none")
    assert "Is a directory" in complaint(tmp_path)
    assert "must be a file on the phone, but /data/local/tmp/benchmark_model does not exist" in complaint(
        "device:/data/local/tmp/benchmark_model"
    )
    (tmp_path / "x86").write_bytes(b"\x7fELF" + bytes(100))  # a program for another processor
    assert "must be the program for arm64-v8a" in complaint(tmp_path / "x86")
    assert not any(name.endswith("tflite") for name in phone.files())


def test_no_server_and_no_adb(phones, program, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"127.0.0.1:{taken.getsockname()[1]}"
    unit = adb_unit("pixel", "FAKE0001", benchmark_model=str(program), adb_server=free)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UnitError, match=rf"^pixel: no adb server answers at {free}; install adb .*apt"):
        unit.condition()
    unit.close()
    with pytest.raises(ValueError, match="adb_server must be host:port, but got 'here'"):
        adb_unit("pixel", "FAKE0001", benchmark_model=str(program), adb_server="here")


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
            for address, said in (("28291FDH2", "phone 28291FDH2 is not connected to adb"), ("", "but got none; plug")):
                unit = adb_unit("pixel", address, benchmark_model=str(program), adb_server=f"127.0.0.1:{port}")
                with pytest.raises(UnitError, match=said):
                    unit.condition()
        finally:
            server.kill()


def test_the_table_of_latencies_names_the_phone(phones, program, phone, tmp_path, monkeypatch, capsys):
    for kind in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    entry = {
        "kind": "adb",
        "address": "FAKE0001",
        "benchmark_model": str(program),
        "adb_server": phones.address,
    }
    lines = "\n".join(f'{key} = "{value}"' for key, value in entry.items())
    (tmp_path / "devices.toml").write_text(f"[pixel]\n{lines}\n")
    command = ["latency", "mnasnet-small@0.25", "--input-size", "32", "--budget-s", "0.1", "--device", "pixel"]
    assert run([*command, "--devices", str(tmp_path / "devices.toml")]) == 0
    assert "pixel: Fake Phone 8 (Tensor G0)" in capsys.readouterr().out
