"""A search among parents on a problem that costs nothing: what is measured, scored, fine-tuned and left out."""

import dataclasses
import math

import pytest
from test_search import Listener
from toy import (
    accuracy_of,
    evaluate_sized,
    measure_sized,
    sized_latency_ms,
    toy_plan,
    toy_problem,
    toy_space,
)

from mnas.arch import Arch
from mnas.search.loop import search
from mnas.search.start import initial_trials
from mnas.space.candidates import CandidateSpace, Parent
from mnas.study import Beginning, open_run, read_run
from mnas.study.results import references_of

SIZES = (16, 24, 32, 40, 48, 56, 64)
GOOD = Parent(name="good", arch=Arch.from_block_strings("r1_k3_s22_e1_i8_o64"), digest="1")
SLOW = Parent(name="slow", arch=Arch.from_block_strings("r1_k3_s22_e1_i8_o128"), digest="2")


def parents_problem(*parents, scratch=False, **changes):
    space = CandidateSpace(space=toy_space() if scratch else None, input_sizes=SIZES, parents=parents)
    return toy_problem(
        evaluate_sized, space=space, measure=measure_sized, trains_references=scratch, reference_ms={"host": 1.5},
        **changes,
    )  # fmt: skip


def searched(path, problem, watcher=None, **plan):
    plan = toy_plan(**{"candidates_per_update": 3, "latency_limit": 2.0, "trials": 14, "workers": 2, **plan})
    config = {"seed": 1, **problem.space.to_config()}

    def begin():
        return Beginning(trials=list(initial_trials([], [], problem, plan)))

    with open_run(path, config, begin) as run:
        search(run, problem, plan, watcher or Listener())
        return run.trials


def test_all_are_measured_and_only_what_may_reach_the_front_is_trained(tmp_path):
    trials = searched(tmp_path / "run", parents_problem(GOOD, SLOW))
    assert len(trials) == 14
    assert {(t.parent, t.input_size) for t in trials} == {(p.name, s) for p in (GOOD, SLOW) for s in SIZES}
    assert [t.latency_ms for t in trials] == [sized_latency_ms(t.candidate) for t in trials]
    far = [t for t in trials if t.latency_ms > 2 * 1.5]
    near = [t for t in trials if t.latency_ms <= 2 * 1.5]
    assert {t.skipped.limit for t in far} == {"latency"}
    assert not any(t.features or t.evaluation for t in far)  # never trained, nor even their features scored
    for t in near:
        assert t.features.accuracy == accuracy_of(t.candidate, "features")
        assert t.features.fidelity == "frozen features"
    # the slow parent has, at every latency, a smaller input than the good one, and so lower scores
    dropped = [t for t in near if t.state == "skipped"]
    assert {t.parent for t in dropped} == {"slow"}
    assert {t.skipped.limit for t in dropped} == {"front"}
    assert not any(t.evaluation for t in dropped)
    complete = [t for t in near if t.state == "complete"]
    assert {t.parent for t in complete} >= {"good"}
    assert len([t for t in complete if t.parent == "good"]) == len([t for t in near if t.parent == "good"])
    for t in complete:
        assert t.accuracy == accuracy_of(t.candidate, "training")
        assert t.evaluation.fidelity == "fine-tuned"
    front = {(t.parent, t.input_size) for t in read_run(tmp_path / "run").front}
    assert front == {("good", t.input_size) for t in near if t.parent == "good"}


def test_the_parents_nearest_to_the_target_come_first(tmp_path):
    trials = searched(tmp_path / "run", parents_problem(GOOD, SLOW), trials=4)
    assert len(trials) == 4
    [reference] = references_of(read_run(tmp_path / "run"))
    away = [abs(math.log(t.macs / reference.macs)) for t in trials]
    assert away == sorted(away)
    assert reference.evaluation is None


@pytest.mark.parametrize("scratch", [False, True])
def test_an_interrupted_search_ends_as_one_that_was_not(tmp_path, scratch):
    problem = parents_problem(GOOD, SLOW, scratch=scratch)
    plan = {"trials": 24 if scratch else 14, "controller": "random"}

    class Interrupting(Listener):
        """Ends the process's search at its Nth report of progress."""

        def __init__(self, after):
            super().__init__()
            self.after = after

        def progress(self, progress):
            super().progress(progress)
            if len(self.seen) == self.after:
                raise KeyboardInterrupt

    whole = searched(tmp_path / "whole", problem, **plan)
    starts = 0
    while starts < 40:
        starts += 1
        try:
            resumed = searched(tmp_path / "run", problem, Interrupting(9), **plan)
        except KeyboardInterrupt:
            continue
        break
    assert 2 < starts < 40
    assert resumed == whole
    if scratch:
        assert {bool(t.parent) for t in whole} == {False, True}
        assert len({t.input_size for t in whole if not t.parent}) > 1  # the size is a decision from scratch too


def test_equal_networks_of_two_sizes_or_parents_share_nothing(tmp_path):
    twin = dataclasses.replace(GOOD, name="twin")
    trials = searched(tmp_path / "run", parents_problem(GOOD, twin))
    assert all(t.same_as is None for t in trials)
    pairs = {}
    for t in trials:
        pairs.setdefault(t.input_size, []).append(t.latency_ms)
    assert all(one == other for one, other in pairs.values())
