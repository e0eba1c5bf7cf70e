"""The cache: hits, entries that are re-measured, and damaged files."""

import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest

from mnas.latency.fleet.cache import _check, keep, key_of, look_up, moved
from mnas.latency.latency import Calibration, Latency
from mnas.latency.protocol import Reference
from mnas.latency.statistics import Round, latency_of

REFERENCE = Reference(name="mobilenetv2", input_size=32, file=b"reference" * 9, light_file=b"light")
CALIBRATION = Calibration(
    reference="mobilenetv2",
    reference_ms=4.0,
    low_ms=3.96,
    high_ms=4.04,
    light_ratio=0.5,
    light_ratio_low=0.495,
    light_ratio_high=0.505,
    input_size=32,
    runtime="litert",
    threads=1,
    batch=1,
    unit="host",
    device={"processor": "p", "cores": 2, "runtime": "LiteRT 2.3 XNNPACK"},
    session_error=0.004,
    pinned_core=1,
    realtime=True,
)
LATER = dataclasses.replace(
    CALIBRATION, reference_ms=5.0, low_ms=4.9, high_ms=5.1, light_ratio=0.6, light_ratio_low=0.59, light_ratio_high=0.61
)


def measured(against="light", calibration=CALIBRATION, stopped_by="interval", scale=1.0) -> Latency:
    level = 2.0 if against == "light" else 4.0
    rounds = [Round([0.8 * scale * level * (1 + i / 1e4)], [level * (1 + i / 1e4)]) for i in range(16)]
    return latency_of(
        rounds, calibration, against=against, raw_median_ms=1.7, runs=16, stopped_by=stopped_by, seconds=1.0
    )


KEY = key_of(b"model", REFERENCE, CALIBRATION)


@pytest.mark.parametrize("against", ["light", "reference"])
def test_a_hit_is_as_measured_on_the_scale_of_the_calibration_at_hand(tmp_path, against):
    latency = measured(against)
    assert look_up(tmp_path, KEY) is None
    keep(tmp_path, KEY, latency, CALIBRATION, 3.0)
    entry = look_up(tmp_path, KEY)
    assert entry.latency == latency
    same = entry.on_scale(CALIBRATION)
    assert (same.source, same.seconds) == ("cached", 0.0)
    for name in ("latency_ms", "low_ms", "high_ms", "ratio", "ratio_low", "ratio_high"):
        assert getattr(same, name) == pytest.approx(getattr(latency, name), rel=1e-12)
    now = entry.on_scale(LATER)  # as if it had been measured under the later calibration
    again = measured(against, LATER)
    assert now.ratio == pytest.approx(0.8 * (0.6 if against == "light" else 1.0))
    assert (now.latency_ms, now.low_ms, now.high_ms) == pytest.approx((again.latency_ms, again.low_ms, again.high_ms))


def test_an_entry_serves_if_measuring_again_could_not_do_better(tmp_path):
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    entry = look_up(tmp_path, KEY)
    assert 0.007 < entry.turn.error < 0.01
    assert entry.serves(0.01, 3.0)
    assert not entry.serves(0.005, 3.0)
    keep(tmp_path, KEY, measured(stopped_by="budget"), CALIBRATION, 3.0)
    entry = look_up(tmp_path, KEY)
    assert entry.serves(0.005, 3.0)  # it had as much time and did not reach the interval
    assert not entry.serves(0.005, 6.0)


@pytest.mark.parametrize(
    "change",
    [
        {"device": {**CALIBRATION.device, "runtime": "LiteRT 2.4 XNNPACK"}},
        {"pinned_core": 0},
        {"pinned_core": None},
        {"threads": 2},
        {"batch": 4},
        {"runtime": "litert-builtin"},
    ],
    ids=str,
)
def test_another_device_or_way_of_running_is_another_entry(tmp_path, change):
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    assert look_up(tmp_path, key_of(b"model", REFERENCE, dataclasses.replace(CALIBRATION, **change))) is None
    assert look_up(tmp_path, key_of(b"model", REFERENCE, LATER)) is not None  # only its numbers differ


def test_another_graph_or_reference_is_another_entry(tmp_path):
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    assert look_up(tmp_path, key_of(b"models", REFERENCE, CALIBRATION)) is None
    for field in ("file", "light_file"):
        other = dataclasses.replace(REFERENCE, **{field: b"x"})
        assert look_up(tmp_path, key_of(b"model", other, CALIBRATION)) is None
    assert look_up(tmp_path, key_of(b"model", dataclasses.replace(REFERENCE, input_size=64), CALIBRATION)) is None


def test_damaged_entries_are_ignored(tmp_path):
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    kept = json.loads(whole)
    damaged = [whole[:cut] for cut in (0, 1, len(whole) // 2, -2)]
    damaged += ["[]", "null", "{}", whole.replace("0.8", "0.7"), whole.replace("measured", "cached")]
    damaged += [json.dumps({**kept, "turn": turn}) for turn in ([0.8, 0.9, 1], [float("nan")] * 3, [], "abc", None)]
    damaged += [json.dumps({**kept, "latency": {**kept["latency"], "latency_ms": -1}})]
    damaged += ["[" * 100_000, json.dumps({**kept, "key": []})]
    nan = float("nan")
    changes = [{"budget_s": nan}, {"budget_s": -1}, {"budget_s": "x"}, {"at": 5}, {"turn": [nan, 1, 1]}]
    fields = [{"runs": -1}, {"rounds": 1.5}, {"seconds": nan}, {"disturbed": -1}, {"drift": nan}, {"energy_mj": "x"}]
    changes += [{"latency": kept["latency"] | field} for field in (*fields, {"peak_memory_bytes": "1"}, {"unit": 1})]
    for change in changes:  # as if they had been written so
        other = {name: value for name, value in {**kept, **change}.items() if name != "check"}
        damaged.append(json.dumps({**other, "check": _check(other)}))
    for text in damaged:
        assert text != whole
        path.write_text(text)
        assert look_up(tmp_path, KEY) is None, text
    path.write_bytes(b"\xff" * 100)
    assert look_up(tmp_path, KEY) is None
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    assert look_up(tmp_path, KEY) is not None


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        keep(tmp_path / "file", KEY, measured(), CALIBRATION, 3.0)
    assert look_up(tmp_path / "file", KEY) is None


def test_a_re_measured_latency_is_compared_with_the_cached_one(tmp_path):
    keep(tmp_path, KEY, measured("reference"), CALIBRATION, 3.0)
    entry = look_up(tmp_path, KEY)
    words = moved(entry, measured("reference"), CALIBRATION)
    assert words.startswith("ratio 0.8000 (0.79")
    assert words.endswith("now: +0.0 %, within the intervals")
    assert f"on {entry.at[:10]}, 0.8400" in moved(entry, measured("reference", scale=1.05), CALIBRATION)
    assert moved(entry, measured("reference", scale=1.05), CALIBRATION).endswith("+5.0 %, outside the intervals")


def write_often(folder: Path) -> None:
    for _ in range(50):
        keep(folder, KEY, measured(), CALIBRATION, 3.0)


def test_writers_of_one_key_leave_a_whole_entry_at_any_time(tmp_path):
    keep(tmp_path, KEY, measured(), CALIBRATION, 3.0)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert look_up(tmp_path, KEY) is not None
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
