"""The search loop on a problem that costs nothing: stored values, ends of the search, and failures."""

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from toy import evaluate_on_full_disk, evaluate_or_die, latency_of, measure, toy_plan, toy_problem

from mnas.latency.latency import MeasurementError
from mnas.names import resolve_arch
from mnas.objective import hypervolume
from mnas.search.candidate import trial_seed
from mnas.search.loop import search
from mnas.search.problem import Plan
from mnas.search.progress import Watcher
from mnas.study import Beginning, RunError, Standing, StudyWriter, begin_study, front_of, open_run, read_run


class Listener(Watcher):
    def __init__(self):
        self.said, self.seen, self.updates = [], [], 0

    def say(self, text):
        self.said.append(text)

    def progress(self, progress):
        self.seen.append(progress)

    def updated(self, run):
        self.updates += 1


def run_search(path, problem=None, **plan):
    watcher = Listener()
    with open_run(path, {"seed": 1}) as run:
        reason = search(run, problem or toy_problem(), toy_plan(**plan), watcher)
        return run, reason, watcher


def facts(run):
    return run.trials  # their times are not compared


def test_a_trial_is_stored_completely(tmp_path):
    run, reason, watcher = run_search(tmp_path / "run")
    assert reason == "trials"
    stored = read_run(tmp_path / "run")
    assert facts(stored) == facts(run)
    assert stored.state.status == "finished"
    for t in stored.trials:
        arch = t.arch
        assert t.fingerprint == arch.fingerprint
        assert t.seed == trial_seed(1, t.number)
        assert t.latency == latency_of(arch)
        assert resolve_arch(f"{tmp_path}/run#{t.number}") == arch
        slow = t.latency.latency_ms > 1.2 * 1.5
        assert (t.state == "skipped") == slow
        if t.state == "complete":
            accuracy, latency_ms = t.point
            assert t.reward == accuracy * (latency_ms / 1.5) ** -0.07
        if t.state == "failed":
            assert t.error == "diverged: on purpose"
    # a network is trained once, however often it is drawn
    complete = [t for t in stored.trials if t.state == "complete"]
    trained = [t for t in complete if t.same_as is None]
    assert len({t.fingerprint for t in trained}) == len(trained) < len(complete)
    for t in complete:
        if t.same_as is not None:
            assert stored.trials[t.same_as].point == t.point
    # only the weights of the front are stored
    assert {p.name for p in (tmp_path / "run/models").iterdir()} == {
        f"{t.number}.safetensors" for t in front_of(trained)
    }
    update = stored.attributes["update:3"]
    assert update["trials"] == 22
    assert update["hypervolume"] == hypervolume([t.point for t in complete], (0.1, 3.0))
    assert watcher.updates == 5  # four batches and the end
    assert watcher.seen[-1].total == 22
    first = [t for t in trained if t.number < stored.attributes["update:0"]["trials"]]
    estimates = [line.partition(" take about ")[0] for line in watcher.said if line.startswith("estimate")]
    left = 22 - stored.attributes["update:0"]["trials"]
    assert estimates == [
        "estimate from the reference network: 22 more candidates",
        f"estimate from {len(first)} candidates: {left} more candidates",
    ]


def test_running_statistics_equal_those_of_all_trials(tmp_path):
    run, _, _ = run_search(tmp_path / "run", workers=3)
    complete = [t for t in run.trials if t.state == "complete"]
    for standing in (run.standing, Standing(read_run(tmp_path / "run").trials)):
        assert standing.imported == 0
        assert +standing.states == Counter(t.state for t in run.trials)
        assert [t.number for t in standing.front] == [t.number for t in front_of(run.trials)]
        assert standing.best_reward == max(t.reward for t in complete)
        for name, numbers in standing.first.items():
            having = [t for t in reversed(run.trials) if getattr(t, name) is not None]
            assert numbers == {t.graph if name == "latency" else t.identity: t.number for t in having}


def test_a_run_in_memory_has_the_same_trials(tmp_path):
    stored, _, _ = run_search(tmp_path / "run")
    storage = InMemoryStorage()
    begin_study(storage, {"seed": 1}, Beginning())
    (tmp_path / "memory/models").mkdir(parents=True)
    run = StudyWriter(tmp_path / "memory", storage)
    assert search(run, toy_problem(), toy_plan(), Listener()) == "trials"
    assert facts(run) == facts(stored)
    frozen = [[(t.state, t.values, t.params, t.user_attrs, t.system_attrs) for t in trials]
              for trials in (run.frozen, stored.frozen, storage.get_all_trials(0))]  # fmt: skip
    assert frozen[0] == frozen[1] == frozen[2]


def test_the_same_trials_for_any_number_of_workers(tmp_path):
    one, _, _ = run_search(tmp_path / "one", workers=1)
    three, _, _ = run_search(tmp_path / "three", workers=3)
    assert facts(one) == facts(three)


def test_more_trials_continue_a_finished_run(tmp_path):
    whole, _, _ = run_search(tmp_path / "whole", trials=22)
    run_search(tmp_path / "parts", trials=8)
    parts, _, _ = run_search(tmp_path / "parts", trials=22)
    assert facts(parts) == facts(whole)
    assert {k: v for k, v in parts.attributes.items() if k.startswith("update:")} == {
        k: v for k, v in whole.attributes.items() if k.startswith("update:")
    }


def test_a_search_without_hours_draws_nothing_and_resumes(tmp_path):
    run, reason, _ = run_search(tmp_path / "run", hours=1e-9)
    assert reason == "hours"
    assert run.attributes["state"] == {"status": "stopped", "reason": "hours"}
    whole, _, _ = run_search(tmp_path / "whole")
    run, reason, _ = run_search(tmp_path / "run", hours=1.0)
    assert reason == "trials"
    assert facts(run) == facts(whole)


def test_converged_when_updates_draw_nothing_new(tmp_path):
    space = toy_problem().space.space
    import dataclasses

    from mnas.space.candidates import CandidateSpace
    from mnas.space.factorized import BlockChoices

    few = BlockChoices(op=("sepconv",), kernel=(3, 5), se_ratio=(0.0,), skip=("none",), filters=(1.0,), layers=(0,))
    space = dataclasses.replace(space, block_choices=(few, few))
    assert space.distinct == 4
    problem = toy_problem(space=CandidateSpace(space=space, input_sizes=(8,)))
    run, reason, _ = run_search(
        tmp_path / "run",
        problem,
        trials=500,
        latency_limit=math.inf,
    )
    assert reason == "converged"
    assert len(run.trials) < 100


def test_a_candidate_that_kills_its_process_fails_alone(tmp_path):
    run, reason, _ = run_search(tmp_path / "run", toy_problem(evaluate_or_die), workers=2)
    whole, _, _ = run_search(tmp_path / "whole")
    assert reason == "trials"
    assert [t.state for t in run.trials] == [t.state for t in whole.trials]
    errors = {t.error for t in run.trials if t.state == "failed"}
    assert errors == {"its process died 2 times, perhaps because it ran out of memory"}


def test_a_candidate_that_cannot_be_measured_fails_alone(tmp_path):
    def fussy(archs):
        for number, measured in measure(archs):
            odd = number >= 0 and int(archs[number].arch.fingerprint, 16) % 5 == 0
            yield number, MeasurementError("the runtime cannot load it") if odd else measured

    run, _, _ = run_search(tmp_path / "run", toy_problem(measure=fussy))
    errors = [t.error for t in run.trials if int(t.fingerprint, 16) % 5 == 0]
    assert errors
    assert set(errors) == {"the runtime cannot load it"}


def test_a_full_disk_stops_the_search_and_loses_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        run_search(tmp_path / "run", toy_problem(evaluate_on_full_disk, references={}))
    stored = read_run(tmp_path / "run")
    assert stored.state.status == "interrupted"
    whole, _, _ = run_search(tmp_path / "whole", toy_problem(references={}))
    run, _, _ = run_search(tmp_path / "run", toy_problem(references={}))
    assert facts(run) == facts(whole)


def test_weights_stay_under_the_cap(tmp_path):
    run, _, _ = run_search(tmp_path / "run", keep_models_mb=33e-6)  # two of 16 bytes each
    kept = list((tmp_path / "run/models").glob("*.safetensors"))
    assert len(kept) == 2
    best = sorted(front_of(run.trials), key=lambda t: -t.reward)[:2]
    assert {p.stem for p in kept} == {str(t.number) for t in best}


@pytest.mark.parametrize(
    ("field", "value"), [("trials", 0), ("workers", 0), ("candidates_per_update", 0), ("hours", 0), ("hours", math.nan)]
)
def test_plan_names_the_invalid_option(field, value):
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} must be"):
        toy_plan(**{field: value})
    assert isinstance(toy_plan(), Plan)


# The run directory


def test_a_run_in_use_is_rejected(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from mnas.study import open_run
with open_run(Path({str(tmp_path / "run")!r}), {{"seed": 1}}):
    print("open", flush=True); sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "open\n"
    assert read_run(tmp_path / "run").state.status == "running"
    with pytest.raises(RunError, match="in use by another process"), open_run(tmp_path / "run", {"seed": 1}):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with open_run(tmp_path / "run", {"seed": 1}) as run:  # the lock died with its holder
        assert run.trials == []


def test_another_run_configuration_is_rejected_with_the_fields(tmp_path):
    with open_run(tmp_path / "run", {"seed": 1, "data": "digits", "same": [1, 2]}):
        pass
    with (
        pytest.raises(RunError, match='seed: 1 before, 2 now; data: "digits" before, "photos" now') as refused,
        open_run(tmp_path / "run", {"seed": 2, "data": "photos", "same": (1, 2)}),
    ):
        pass
    assert "same" not in str(refused.value).replace("use the same", "")
    assert json.loads((tmp_path / "run/config.json").read_text())["seed"] == 1


def test_another_version_is_rejected(tmp_path):
    with open_run(tmp_path / "run", {}) as run:
        run.set("format", 99)
    with pytest.raises(RunError, match="written by another version of mnas"), open_run(tmp_path / "run", {}):
        pass
    with pytest.raises(RunError, match="written by another version of mnas"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_file_that_is_not_a_study_is_rejected_and_kept(tmp_path, content):
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(RunError, match="is damaged, or another version of mnas wrote it"), open_run(tmp_path, {}):
        pass
    assert (tmp_path / "study.db").read_bytes() == content


def test_a_folder_of_something_else_is_rejected(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RunError, match=r"is not a run \(it contains holiday.jpg"), open_run(tmp_path, {}):
        pass
    with pytest.raises(RunError, match="is a file"), open_run(tmp_path / "holiday.jpg", {}):
        pass
    with pytest.raises(RunError, match=r"it contains no study\.db"):
        read_run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_missing_trial_is_named(tmp_path):
    run_search(tmp_path / "run", trials=3)
    with pytest.raises(RunError, match="has trials 0 to 2, but got 3"):
        resolve_arch(f"{tmp_path}/run#3")


def test_ctrl_c_waits_for_the_end_of_a_database_statement(tmp_path):
    with open_run(tmp_path / "run", {}) as run:
        original = run._storage.set_study_user_attr

        def interrupted(*args):
            os.kill(os.getpid(), signal.SIGINT)
            original(*args)

        run._storage.set_study_user_attr = interrupted
        with pytest.raises(KeyboardInterrupt):
            run.set("kept", 1)
    assert read_run(tmp_path / "run").attributes["kept"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
