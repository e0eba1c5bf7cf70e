"""The record of a trial reads back equal, and no other code reads Optuna's attributes."""

import ast
import dataclasses
import json
import math
from pathlib import Path

import pytest
from optuna import load_study
from optuna.storages import InMemoryStorage
from toy import latency_of, toy_config, toy_evaluation, toy_run, toy_space, toy_trial

import mnas
from mnas.study import Beginning, Draft, Origin, StudyWriter, TrialRecord, begin_study, read_run
from mnas.study.limits import LIMITS, Skip, over_limits, over_size
from mnas.study.record import VERSION, record_of

OWN = {"study/record.py", "study/storage.py"}
"""Files that may read Optuna's user attributes, besides all of controller/, which has Optuna samplers."""


def test_only_the_record_reads_the_attributes():
    root = Path(mnas.__file__).parent
    looking = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "user_attrs"
    }
    assert {name for name in looking if not name.startswith("controller/")} == OWN


ARCH = toy_space().decode([0] * 12)
CHOICES = toy_space().params([0] * 12)
LATENCY = latency_of(ARCH)
MEASURED = {"latency": LATENCY, "latencies": {"host": LATENCY}}
TRAINED = {"accuracy": 0.5, "evaluation": toy_evaluation(0.5), "reward": 0.25}
RECORDS = {
    "running": {},
    "named": {"name": "mobilenetv2"},
    "measured": MEASURED,
    "complete": {"state": "complete", **MEASURED, **TRAINED, "rewards": (0.25, 0.5), "same_as": 0},
    "imported": {"state": "complete", **MEASURED, **TRAINED, "origin": Origin(run="runs/a b", trial=3)},
    "too large": {"state": "skipped", "skipped": Skip(limit="size", value=3.25, bound=2.5)},
    "too slow": {"state": "skipped", **MEASURED, "skipped": Skip(limit="latency", value=9.0, bound=2.0)},
    "failed": {"state": "failed", **MEASURED, "error": "diverged"},
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_reads_back_equal(tmp_path, kind):
    record = toy_trial(ARCH, choices=CHOICES, **RECORDS[kind])
    storage = InMemoryStorage()
    begin_study(storage, {"space": toy_space().to_dict(), "input_size": 8}, Beginning())
    run = StudyWriter(tmp_path, storage)
    added = run.add(Draft(record=record, distributions=toy_space().distributions, notes={"generation": 1}))
    [stored] = storage.get_all_trials(0)
    assert run.trials == [added] == [record_of(stored, input_size=8)] == [record]
    assert (stored.user_attrs, stored.system_attrs) == (run.frozen[0].user_attrs, {"generation": 1})
    assert stored.user_attrs["version"] == VERSION
    assert json.loads(json.dumps(stored.user_attrs)) == stored.user_attrs
    plain = record.to_dict()
    assert list(plain)[:2] == ["number", "state"]
    assert json.loads(json.dumps(plain)) == plain
    assert plain["latency_ms"] == record.latency_ms


def test_fields_stored_one_by_one_equal_fields_stored_together(tmp_path):
    record = toy_trial(ARCH, choices=CHOICES)
    storage = InMemoryStorage()
    begin_study(storage, {"space": toy_space().to_dict(), "input_size": 8}, Beginning())
    run = StudyWriter(tmp_path, storage)
    for _ in range(3):
        run.add(Draft(record=record, distributions=toy_space().distributions))
    for number in range(3):
        run.note(number, **MEASURED)
    run.note(0, evaluation=toy_evaluation(0.5))
    run.finish(0, "complete", accuracy=0.5, reward=0.25)
    run.finish(1, "skipped", skipped=Skip(limit="memory", value=9.0, bound=8.0))
    run.finish(2, "failed", error="diverged")
    changes = [
        {"state": "complete", **MEASURED, **TRAINED},
        {"state": "skipped", **MEASURED, "skipped": Skip(limit="memory", value=9.0, bound=8.0)},
        {"state": "failed", **MEASURED, "error": "diverged"},
    ]
    expected = [dataclasses.replace(record, number=n, **change) for n, change in enumerate(changes)]
    stored = storage.get_all_trials(0)
    assert run.trials == [record_of(trial, input_size=8) for trial in stored] == expected
    assert [t.user_attrs for t in stored] == [t.user_attrs for t in run.frozen]
    assert stored[1].user_attrs["known_values"] == [None, LATENCY.latency_ms]  # a sampler still learns from it
    assert [t.finished is not None for t in run.trials] == [True] * 3


def test_a_record_has_a_valid_state_and_a_complete_one_both_values():
    with pytest.raises(ValueError, match="state must be one of running, complete, skipped, failed, but got 'won'"):
        toy_trial(ARCH, state="won")
    with pytest.raises(ValueError, match=r"accuracy: must be from 0 to 1, but got 2\.0"):
        toy_trial(ARCH, state="complete", **MEASURED, accuracy=2.0)
    with pytest.raises(ValueError, match="must have an accuracy and a latency, but trial 3 lacks one"):
        toy_trial(ARCH, 3, state="complete", accuracy=0.5)


def test_a_later_version_is_rejected(tmp_path):
    toy_run(tmp_path / "run", trials=2)
    study = load_study(study_name="mnas", storage=f"sqlite:///{tmp_path}/run/study.db")
    trial = study.get_trials()[0]
    trial.user_attrs["version"] = VERSION + 1
    with pytest.raises(ValueError, match=r"its attribute 'version': was written by a later version of mnas"):
        record_of(trial, input_size=8)
    del trial.user_attrs["version"]  # as in records from before versions
    assert record_of(trial, input_size=8) == dataclasses.replace(read_run(tmp_path / "run").trials[0], version=0)


# Skips


SENTENCES = {
    "slower than --latency-limit": Skip(limit="latency"),
    "its file of 3.2 MB is over --max-size-mb": Skip(limit="size", value=3.2),
    "its 1.2e+03 MB of memory are over --max-memory-mb": Skip(limit="memory", value=1200.0),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_of_earlier_versions_are_read(sentence):
    skip = Skip.from_stored(sentence)
    assert skip == SENTENCES[sentence]
    assert Skip.from_stored(skip.to_dict()) == skip
    assert LIMITS[skip.limit].option in str(skip)


@pytest.mark.parametrize(
    "stored",
    ["too ugly", {"limit": "colour", "value": 1.0, "bound": 1.0}, {"limit": "size"}, {}, [], None, 3,
     {"limit": "size", "value": -1.0, "bound": 1.0}, {"limit": "size", "value": "x", "bound": 1.0}],
)  # fmt: skip
def test_other_reasons_are_rejected(stored):
    with pytest.raises(ValueError, match="must"):
        Skip.from_stored(stored)


def test_a_skip_names_the_value_and_the_limit():
    @dataclasses.dataclass
    class Limits:
        latency_limit: float = math.inf
        max_size_mb: float = math.inf
        max_memory_mb: float = math.inf

    hungry = dataclasses.replace(LATENCY, peak_memory_bytes=9_000_000)
    assert over_size(Limits(max_size_mb=2.5), 2_500_000) is None
    assert (
        str(over_size(Limits(max_size_mb=2.5), 3_200_000)) == "its file size of 3.2 MB is over --max-size-mb (2.5 MB)"
    )
    ms = LATENCY.latency_ms
    slow = over_limits(Limits(latency_limit=0.5), ms, LATENCY, {"host": LATENCY})
    assert slow == Skip(limit="latency", value=ms, bound=0.5 * ms)
    assert str(slow) == f"its latency of {ms:.3g} ms is over --latency-limit ({0.5 * ms:.3g} ms)"
    memory = over_limits(Limits(max_memory_mb=8.0), ms, LATENCY, {"a": LATENCY, "b": hungry})
    assert memory == Skip(limit="memory", value=9.0, bound=8.0)
    assert over_limits(Limits(), ms, LATENCY, {"a": hungry}) is None


def test_trials_of_a_search_are_records(tmp_path):
    toy_run(tmp_path / "run", trials=8)
    run = read_run(tmp_path / "run")
    assert all(isinstance(trial, TrialRecord) for trial in run.trials)
    assert [trial.label for trial in run.trials] == [str(n) for n in range(8)]
    assert run.attributes["config"] == toy_config()
    study = load_study(study_name="mnas", storage=f"sqlite:///{tmp_path}/run/study.db")  # as optuna-dashboard does
    assert [t.user_attrs["fingerprint"] for t in study.trials] == [t.fingerprint for t in run.trials]
    assert [(t.number, t.params) for t in study.trials] == [(t.number, dict(t.choices)) for t in run.trials]
