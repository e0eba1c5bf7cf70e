"""Full training of a shortlist on real images: trained, skipped, interrupted, resumed, rejected.

The trainings run in this process, as every child takes seconds to start. test_pool.py tests the processes, and
cli/test_train_top.py both together.
"""

import csv
import dataclasses
import functools
from pathlib import Path

import pytest
from toy import latency_of, toy_evaluation, toy_space

from mnas.data.arrays import ArrayBatches
from mnas.data.augmentation import Augmentation
from mnas.data.load import load_dataset
from mnas.names import resolve_weights
from mnas.nn.cost import cost
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import read_weights_info
from mnas.objective import Objective
from mnas.shortlist.train import train_shortlist
from mnas.study import Draft, RunError, TrialRecord, open_run
from mnas.train.presets import PRESETS
from mnas.zoo.architectures import reference_arch

CONFIG = dataclasses.replace(
    PRESETS["small"], epochs=1, batch_size=64, fewest_steps=1, warmup_epochs=0, estimate_statistics=256, threads=1
)
ACCURACIES = (0.5, 0.6, 0.7, 0.65)


def open_digits(cache: Path, input_size: int = 8, *, per_class: int = 40, size: int = 0):
    """Open the images; at module level, as every training's process calls this."""
    dataset = load_dataset(
        "digits", input_size=size or input_size, seed=0, cache_dir=cache, max_images_per_class=per_class
    )
    return ArrayBatches(dataset, Augmentation(), seed=0)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    def train_jobs(jobs, train_one, workers, say):
        failed = {}
        for job in jobs:
            try:
                train_one(job, lambda text, number=job.number: say(f"trial {number}: {text}"))
            except ValueError as error:
                failed[job.number] = str(error)
        return failed

    monkeypatch.setattr("mnas.shortlist.train.train_jobs", train_jobs)


@pytest.fixture
def digits(tmp_path):
    return functools.partial(open_digits, tmp_path / "cache")


@pytest.fixture
def path(tmp_path, digits):
    """Make a run of four networks, the last of which is drawn twice."""
    space, path = toy_space(), tmp_path / "run"
    objective = Objective(form="soft", target_latency_ms=1.5, alpha=-0.07, beta=-0.07)
    with open_run(path, {"input_size": 8}) as run:
        run.set("objective", dataclasses.asdict(objective))
        run.set("provenance", {"data": {"classes": list(digits().classes)}})
        for number, last in enumerate((0, 1, 2, 3, 3)):
            indices = [0] * len(space.decisions)
            indices[:2] = [last // 2, last % 2]
            arch = space.decode(indices)
            costs = cost(arch, 8, 10)
            latency = latency_of(arch)
            accuracy = ACCURACIES[min(number, 3)]
            record = TrialRecord(
                number=number, state="complete", arch=arch, fingerprint=arch.fingerprint, params=costs.params,
                macs=costs.macs, size_bytes=1, seed=number, input_size=8,
                choices=space.params(indices), accuracy=accuracy, latency=latency, latencies={"host": latency},
                evaluation=toy_evaluation(accuracy),
                reward=objective.reward(accuracy, latency.latency_ms),
            )  # fmt: skip
            run.add(Draft(record=record, distributions=space.distributions))
    return path


def best_of(path: Path, digits, said: list, **changes):
    options = {"top": 2, "config": CONFIG, "open_batches": digits, "workers": 1, "say": said.append, **changes}
    return train_shortlist(path, **options)


def test_trained_skipped_and_added_to(path, digits):
    said = []
    outcome = best_of(path, digits, said)
    assert outcome.failed == {}
    assert sorted(row.trial for row in outcome.rows) == sorted(outcome.chosen)
    assert len(outcome.chosen) == 2
    for row in outcome.rows:
        weights = resolve_weights(f"{path}#{row.trial}")
        assert weights == path / "trained" / str(row.trial) / "model.safetensors"
        assert read_weights_info(weights).accuracy == row.accuracy
        assert sum(p.numel() for p in load_weights(weights).parameters()) == row.params
        assert row.test_accuracy is None or 0 <= row.test_accuracy <= 1
    table = list(csv.DictReader((path / "trained" / "table.csv").open()))
    assert [int(r["trial"]) for r in table] == [row.trial for row in outcome.rows]
    assert [float(r["accuracy"]) for r in table] == [row.accuracy for row in outcome.rows]

    before = {p: p.stat().st_mtime_ns for p in path.glob("trained/*/model.safetensors")}
    said.clear()
    again = best_of(path, digits, said, top=9)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again.chosen[:2] == outcome.chosen
    assert len(again.chosen) == len(again.rows) == 4
    assert "(fewer than --top 9, because the run has no more); 2 of them already trained" in said[0]
    assert not any(line.startswith(f"trial {outcome.chosen[0]}:") for line in said)
    said.clear()
    assert best_of(path, digits, said, top=9) == again
    assert len(said) == 1  # nothing remained to do


def test_a_reference_is_chosen_and_trained_as_any_other(path, digits):
    """The run's second best by reward is its reference network, whose weights were not stored."""
    arch = reference_arch(toy_space().skeleton)
    latency = dataclasses.replace(latency_of(arch), latency_ms=1.5, low_ms=1.4, high_ms=1.6).to_dict()
    costs = cost(arch, 8, 10)
    record = {
        "name": "mobilenetv2", "arch": arch.to_dict(), "accuracy": 0.99, "latency": latency,
        "latencies": {"host": latency}, "params": costs.params, "macs": costs.macs,
    }  # fmt: skip
    with open_run(path, {"input_size": 8}) as run:
        run.set("references", [record])
    with pytest.raises(
        ValueError, match=r"no weights of mobilenetv2 .* train it with `mnas train .*#mobilenetv2 --data DIR`"
    ):
        resolve_weights(f"{path}#mobilenetv2")
    said = []
    outcome = best_of(path, digits, said, top=1)
    assert outcome.chosen == ("mobilenetv2",)
    assert said[0] == "trials to train in full, best reward first: mobilenetv2"
    weights = resolve_weights(f"{path}#mobilenetv2")
    assert weights == path / "trained" / "mobilenetv2" / "model.safetensors"
    assert read_weights_info(weights).arch == arch
    [row] = outcome.rows
    assert (row.trial, row.params, row.latency_ms) == ("mobilenetv2", costs.params, 1.5)
    assert (path / "trained" / "table.csv").read_text().splitlines()[1].startswith("mobilenetv2,0.99,")
    assert best_of(path, digits, [], top=2).chosen[0] == "mobilenetv2"


def test_interrupted_and_resumed_is_as_never_interrupted(path, digits, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=3)
    whole = best_of(path, digits, [], top=1, config=config)
    [number] = whole.chosen
    folder = path / "trained" / str(number)
    weights = (folder / "model.safetensors").read_bytes()
    folder.rename(tmp_path / "whole")
    said = []

    def interrupting(text):
        said.append(text)
        if "[1/3]" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        best_of(path, digits, [], top=1, config=config, say=interrupting)
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "result.json").exists()
    resumed = best_of(path, digits, said, top=1, config=config)
    assert not any("[1/3]" in line for line in said[2:])  # it resumed from the checkpoint
    assert resumed.rows == whole.rows
    assert (folder / "model.safetensors").read_bytes() == weights


def test_other_settings_are_refused_by_name(path, digits, tmp_path):
    best_of(path, digits, [], top=1)
    with pytest.raises(
        RunError, match=r"must be trained with the same settings, but these differ \(epochs: 1 before, 2 now\); use"
    ):
        best_of(path, digits, [], config=dataclasses.replace(CONFIG, epochs=2))
    with pytest.raises(RunError, match=r"these differ \(data_content: \"\w+\" before, \"\w+\" now\)"):
        best_of(path, functools.partial(digits, per_class=30), [])
    best_of(path, digits, [], config=dataclasses.replace(CONFIG, threads=2))  # results differ only in speed


@pytest.mark.parametrize("content", ["", "{", "[1]", "7"])
def test_damaged_settings_are_one_line_that_names_them(path, digits, content):
    best_of(path, digits, [], top=1)
    settings = path / "trained" / "settings.json"
    before = settings.read_text()
    settings.write_text(content)
    with pytest.raises(RunError, match=f"the settings {settings} are damaged") as caught:
        best_of(path, digits, [], top=1)
    assert "\n" not in str(caught.value)
    settings.unlink()  # the remedy in the message
    best_of(path, digits, [], top=1)
    assert settings.read_text() == before


def test_other_images_and_nothing_to_train_are_refused(path, digits, tmp_path):
    with pytest.raises(ValueError, match="the input size must be the search's 8 pixels, but got 16"):
        best_of(path, functools.partial(digits, size=16), [])
    with open_run(path, {"input_size": 8}) as run:
        run.set("provenance", {"data": {"classes": ["cat", "dog"]}})
    with pytest.raises(
        ValueError, match=r"of the search \(2: cat, dog\), but got 10: 0, 1, 2, 3, 4, \.\.\.; use the --da"
    ):
        best_of(path, digits, [])
    assert not (path / "trained").exists()
    with open_run(tmp_path / "empty", {}):
        pass
    with pytest.raises(RunError, match="has no complete trial to train"):
        best_of(tmp_path / "empty", digits, [])
    with pytest.raises(ValueError, match=r"--workers must be from 1 to \d+, but got 0"):
        best_of(path, digits, [], workers=0)


def test_one_failure_leaves_the_others(path, digits):
    first = best_of(path, digits, [], top=1).chosen[0]
    (path / "trained" / str(first) / "result.json").unlink()
    (path / "trained" / str(first) / "checkpoint.pt").write_bytes(b"cut off")
    said = []
    outcome = best_of(path, digits, said)
    assert list(outcome.failed) == [first]
    assert "is not a checkpoint of mnas" in outcome.failed[first]
    assert [row.trial for row in outcome.rows] == [outcome.chosen[1]]


def test_a_second_process_is_refused(path, digits):
    import filelock

    (path / "trained").mkdir()
    with filelock.FileLock(path / "trained" / "lock"), pytest.raises(RunError, match="in use by another process"):
        best_of(path, digits, [])
