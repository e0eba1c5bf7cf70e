"""The reference networks of a search as results like any other."""

import dataclasses

import pytest
from test_search import Listener, facts
from toy import latency_of, toy_config, toy_evaluation, toy_plan, toy_problem, toy_run, toy_space, toy_trial

from mnas.cli.main import run as mnas
from mnas.names import resolve_arch, resolve_weights
from mnas.objective import Objective
from mnas.search.loop import search
from mnas.study import RunError, Snapshot, front_of, open_run, read_run
from mnas.study.limits import Skip
from mnas.study.results import recommend, references_of, results_of, table_results
from mnas.zoo.architectures import reference_arch

TARGET = Objective(form="target", target_latency_ms=2.0, alpha=-0.1, beta=-1.0)


def result(accuracy, latency_ms, number=0, name=""):
    """A COMPLETE trial, or a reference."""
    arch = toy_space().decode([0] * 12)
    latency = dataclasses.replace(
        latency_of(arch), latency_ms=latency_ms, low_ms=0.99 * latency_ms, high_ms=1.01 * latency_ms
    )
    return toy_trial(
        arch, number, state="complete", accuracy=accuracy, latency=latency, latencies={"host": latency},
        evaluation=toy_evaluation(accuracy, 1000), reward=0.0, reference=name or None,
    )  # fmt: skip


def reference(accuracy, latency_ms):
    return result(accuracy, latency_ms, -1, "mobilenetv2")


@pytest.mark.parametrize(
    ("trials", "other", "best", "alike"),
    [
        ([(0.378, 1.9), (0.437, 3.9)], (0.566, 2.0), "mobilenetv2", 0),  # the case of the issue
        ([(0.7, 2.0)], (0.6, 2.0), "0", 0),
        ([(0.7, 2.0)], (0.6, 1.0), "0", 0),  # faster, but far less accurate
        ([(0.7, 2.0)], (0.69, 1.9), "0", 1),  # within the noise of 1,000 images
        ([(0.7, 2.0)], (0.71, 2.1), "0", 0),  # a little more accurate, but beyond the target
        ([(0.7, 2.0)], (0.701, 1.0), "mobilenetv2", 0),  # a lower reward, but better in both
        ([], (0.2, 9.0), "mobilenetv2", 0),
    ],
)
def test_a_reference_is_recommended_where_it_is_better(trials, other, best, alike):
    found = recommend([result(*t, n) for n, t in enumerate(trials)], [reference(*other)], TARGET, 1000)
    assert found.best.label == best
    assert found.is_reference == (best == "mobilenetv2")
    assert len(found.alike) == alike
    assert (found.trial is None) == (not trials)


def test_a_reference_over_a_limit_or_without_training_is_not_recommended():
    over = dataclasses.replace(reference(0.9, 2.0), state="skipped")
    found = recommend([result(0.3, 2.0)], [over], TARGET, 1000)
    assert found.best.label == "0"
    assert recommend([], [over], TARGET, 1000) is None


def record(accuracy, latency_ms, **changes):
    """The stored form of a reference, without the fields that earlier versions did not store."""
    latency = dataclasses.replace(
        latency_of(toy_space().decode([0] * 12)), latency_ms=latency_ms, low_ms=latency_ms, high_ms=latency_ms
    ).to_dict()
    told = {"name": "mobilenetv2", "accuracy": accuracy, "params": 1000, "macs": 2000, "measure_s": 1.0}
    return {**told, "train_s": 1.0, "latency": latency, "latencies": {"host": latency}, **changes}


def attributes(**changes):
    values = {"references": [record(0.566, 2.0)], "objective": dataclasses.asdict(TARGET), "config": toy_config()}
    return {**values, "provenance": {"data": {"classes": ["a"], "val_images": 1000}}, **changes}


def test_records_of_earlier_versions_are_results(tmp_path):
    [found] = references_of(Snapshot(tmp_path, attributes(), []))
    assert (found.state, found.point, found.number) == ("complete", (0.566, 2.0), -1)
    assert found.arch == reference_arch(toy_space().skeleton)
    assert found.evaluation.val_images == 1000
    assert found.reward == pytest.approx(0.566)


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({}, {"latency_limit": 0.9}, Skip(limit="latency", value=2.0, bound=1.8)),
        ({"size_bytes": 3_200_000}, {"max_size_mb": 2.5}, Skip(limit="size", value=3.2, bound=2.5)),
        ({}, {"max_memory_mb": "inf", "max_size_mb": "inf"}, None),
    ],
)
def test_limits(tmp_path, changes, config, reason):
    told = attributes(references=[record(0.566, 2.0, **changes)], config=toy_config(**config))
    [found] = references_of(Snapshot(tmp_path, told, []))
    assert found.skipped == reason
    assert found.state == ("skipped" if reason else "complete")


def test_the_front_is_that_of_trials_and_references(tmp_path):
    trials = [result(0.3, 1.0, 0), result(0.378, 2.1, 1), result(0.6, 4.0, 2)]
    run = Snapshot(tmp_path, attributes(), trials)
    assert [t.label for t in front_of(results_of(run))] == ["0", "mobilenetv2", "2"]
    assert [t.label for t in table_results(run, [TARGET])] == ["0", "mobilenetv2", "1", "2"]  # 1: the best trial


def test_a_search_stores_a_reference_like_a_trial(tmp_path, capsys):
    path = tmp_path / "run"
    toy_run(path)
    run = read_run(path)
    [found] = references_of(run)
    arch = reference_arch(toy_space().skeleton)
    assert resolve_arch(f"{path}#mobilenetv2") == arch
    on_front = found in front_of(results_of(run)) or -1 in [t.number for t in front_of(results_of(run))]
    kept = path / "models" / "mobilenetv2.safetensors"
    assert kept.exists() == on_front
    if on_front:
        assert kept.read_bytes() == arch.fingerprint.encode()
        assert resolve_weights(f"{path}#mobilenetv2") == kept
    assert mnas(["show", f"{path}#mobilenetv2"]) == 0
    assert arch.fingerprint in capsys.readouterr().out
    with pytest.raises(
        RunError, match="has trials 0 to 7 and the reference network mobilenetv2, but got 'mobilenetv3'"
    ):
        resolve_arch(f"{path}#mobilenetv3")


def test_trials_are_the_same_with_any_references(tmp_path):
    runs = []
    for name, references in (("with", toy_problem().references), ("without", {})):
        with open_run(tmp_path / name, toy_config()) as run:
            search(run, toy_problem(references=references), toy_plan(trials=14), Listener())
        runs.append(facts(read_run(tmp_path / name)))
    assert runs[0] == runs[1]
