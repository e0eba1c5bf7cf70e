"""Faults of phones, with real processes: unplugged, hung, garbled, full, lost, throttled, hot and stopped."""

import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mnas.latency.devices import adb, benchmark_model
from mnas.latency.devices.adb import Heat, adb_unit
from mnas.latency.latency import MeasurementError, Setup, UnitError
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch
from tests.latency.phones import make_unit, run_rounds, runs_on, wait_for

pytest.importorskip("adbutils")


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    """Shorten the turns, as these tests compare no times."""
    monkeypatch.setattr(benchmark_model, "WARM_UP_S", 0.005)
    monkeypatch.setattr(benchmark_model, "TURN_S", 0.005)


@pytest.fixture(scope="module")
def models():
    """Return small models."""
    return tuple(graph_bytes(named_arch(name), 32, 10) for name in ("mnasnet-small@0.5", "mnasnet-small@0.25"))


@pytest.fixture
def long_turns(monkeypatch):
    """Make calls long enough to read the clock in their later half."""
    monkeypatch.setattr(benchmark_model, "TURN_S", 0.1)


def test_after_a_killed_process_the_next_one_finds_the_phone_free(phones, phone, program, unit, models, tmp_path):
    phone.fault("hang", 2)
    for name, model in zip("ab", models, strict=True):
        (tmp_path / name).write_bytes(model)
    script = f"""
from pathlib import Path
from mnas.latency.devices.adb import adb_unit
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
    run_rounds(unit, models)
    wait_for(lambda: not runs_on(phone))
    unit.close()
    assert phone.files() == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("truncated", "must print 1 line|unexpected format"),
        ("garbled", "unexpected format"),
        ("silent", "must print"),
        ("milliseconds", "unexpected format|another unit|contradicts itself"),
        ("zero", "contradicts itself"),
        ("negative", "unexpected format"),
        ("nan", "unexpected format"),
        ("killed", "killed on the phone"),
        ("lost", "the model's file is missing or changed"),
    ],
)
def test_a_wrong_answer_in_the_middle_yields_no_number(phone, unit, models, kind, said):
    phone.fault(kind, 2)
    with unit.session(models, Setup()) as session:
        with pytest.raises(UnitError, match=f"^pixel: .*({said})") as caught:
            session.round(True)
        assert "\n" not in str(caught.value)
        with pytest.raises(UnitError, match="the connection was lost in an earlier round"):
            session.round(False)
    assert phone.files() == []
    assert phone.calls() == 2


def test_a_phone_that_vanishes_in_a_round_and_comes_back(phones, phone, unit, models):
    phone.fault("vanish", 2)
    with pytest.raises(UnitError, match=r"^pixel: the connection to the phone was lost"):
        run_rounds(unit, models)
    with pytest.raises(
        UnitError, match=r"^pixel: phone FAKE0001 is not connected to adb \(connected: none\); plug it in"
    ):
        unit.condition()
    assert phone.files() != []
    phones.plug_in(FAKE0001=phone)
    assert len(run_rounds(unit, models)) == 1
    unit.close()
    assert phone.files() == []


def test_a_phone_that_hangs(phone, unit, models, monkeypatch):
    monkeypatch.setattr(adb, "CALL_TIMEOUT_S", 0.7)
    phone.fault("hang", 2)
    with pytest.raises(UnitError, match=r"^pixel: the phone did not answer in time"):
        run_rounds(unit, models)
    assert phone.files() == []
    wait_for(lambda: not runs_on(phone))  # the hung program was ended


def test_a_phone_that_is_full(phones, phone, unit, models):
    phones.tell({"FAKE0001": {"state": "device", "root": str(phone.root), "full": True}})
    with pytest.raises(UnitError, match=r"^pixel: .* cannot be written on the phone: .*No space left on device"):
        run_rounds(unit, models)
    phones.plug_in(FAKE0001=phone)
    assert len(run_rounds(unit, models)) == 1


def test_a_file_that_arrives_damaged(phones, phone, unit, models):
    phones.tell({"FAKE0001": {"state": "device", "root": str(phone.root), "lossy": True}})
    with pytest.raises(UnitError, match=r"^pixel: .* did not arrive complete on the phone: \d+ of \d+ bytes"):
        run_rounds(unit, models)


def test_ctrl_c_ends_what_runs_on_the_phone(phone, unit, models):
    phone.fault("hang", 1)

    def interrupt():
        wait_for(lambda: phone.calls() == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_rounds(unit, models)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    wait_for(lambda: not runs_on(phone))
    assert phone.files() == []


def test_a_program_that_is_lost_in_a_search_is_the_phone_s_failure(phones, phone, program, models):
    shutil.copy(program, phone.tmp / "benchmark_model")
    unit = make_unit(phones, "device:/data/local/tmp/benchmark_model")
    with unit.session(models, Setup()) as session:
        session.round(False)
        (phone.tmp / "benchmark_model").unlink()
        with pytest.raises(UnitError, match=r"^pixel: benchmark_model did not start: .*(not found|No such file)"):
            session.round(True)
    with pytest.raises(
        UnitError,
        match=r"^pixel: benchmark_model must be a file on the phone, but /data/local/tmp/benchmark_model does",
    ):
        run_rounds(unit, models)
    with pytest.raises(
        ValueError,
        match=r"^pixel: benchmark_model must be a file on the phone, but /data/local/tmp/benchmark_model does",
    ):
        unit.fingerprint(Setup())
    with pytest.raises(ValueError, match=r"^pixel: the runtime of a phone must be one of"):
        run_rounds(unit, models, setup=Setup(runtime="torch"))


def test_a_model_that_the_runtime_cannot_run(phone, unit, models):
    with pytest.raises(MeasurementError, match=r"benchmark_model cannot run the model: ERROR: .*exit code 1"):
        run_rounds(unit, (b"no model", models[1]))
    with pytest.raises(MeasurementError, match="cannot run the model"):
        unit.peak_memory_bytes(models[0][:2000], Setup())
    with pytest.raises(MeasurementError, match="a model with one input"):
        run_rounds(unit, (b"no model", models[1]), setup=Setup(batch=2))
    assert len(run_rounds(unit, models)) == 1
    assert not any(name.endswith(".tflite") for name in phone.files())


@pytest.mark.usefixtures("long_turns")
def test_a_throttled_round_is_repeated(phone, unit, models):
    phone.fault("slow", 2)
    run_rounds(unit, models)
    assert phone.calls() == 4
    assert unit.said == ["pixel: repeating a throttled round: its core ran at 1200 of 2850 MHz"]


@pytest.mark.usefixtures("long_turns")
def test_a_phone_that_is_always_throttled_is_given_up(phone, unit, models):
    phone.fault("slow", *range(1, 100))
    with pytest.raises(
        UnitError, match=r"^pixel: the phone was throttled in 3 rounds in a row: its core ran at 1200 of 2850 MHz"
    ):
        run_rounds(unit, models)
    assert phone.calls() == 6
    assert phone.files() == []


@pytest.mark.parametrize(
    "heat",
    [{"status": 2}, *(pytest.param(h, marks=pytest.mark.slow) for h in ({"battery_c": 41.0}, {"cpu_c": 90.0})), None],
)
def test_a_hot_phone_is_waited_for(phone, unit, models, heat):
    phone.fault("none")
    if heat is None:
        phone.clock(cap_mhz=2400)
    else:
        phone.heat(**heat)
    with pytest.raises(UnitError, match=r"^pixel: the phone did not cool down within 0\.3 s: "):
        run_rounds(unit, models)
    assert phone.calls() == 0

    def cool_down(text):
        unit.said.append(text)
        phone.heat()
        phone.clock(cap_mhz=2850)

    unit._heat, unit._say = Heat(wait_s=30.0, poll_s=0.2), cool_down
    with unit.session(models, Setup()) as session:
        assert session.waited_s >= 0.2  # waiting does not count towards the budget
        session.round(False)
    assert phone.calls() == 2
    assert [text.partition(" to cool down: ")[0] for text in unit.said] == [
        "pixel: waiting up to 0.3 s for the phone",
        "pixel: waiting up to 30 s for the phone",
    ]


def test_a_server_that_is_silent_or_answers_rubbish(program, monkeypatch):
    monkeypatch.setattr("mnas.latency.devices.adb_link.STEP_TIMEOUT_S", 0.3)
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
        with pytest.raises(UnitError, match="adb reports: Unknown data"):
            unit.condition()
        thread.join()


def test_a_phone_that_loses_its_permission(phones, phone, unit, models):
    run_rounds(unit, models)
    phones.tell({"FAKE0001": {"state": "unauthorized", "root": str(phone.root)}})
    with pytest.raises(UnitError, match="confirm its dialog"):
        unit.condition()
