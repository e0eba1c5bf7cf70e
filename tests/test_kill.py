"""kill -9 at random moments: the resumed search ends with exactly the trials of one never killed."""

import json
from pathlib import Path

import killing
import pytest
from started import Started

TRIALS = 22  # no multiple of the six of a batch: the last is cut short
PAST_START_UP = {"ppo": 60, "evolution": 124, "random": 22, "nsga2": 76, "tpe": 40, "surrogate": 28}
"""Trials until a controller has long done more than draw at random."""


def scenario(
    tmp_path: Path, controller: str, workers: int, kills: int, seed: int, trials: int = TRIALS, before: int = 0
) -> dict:
    process = Started(killing.scenario, tmp_path, controller, workers, kills, seed, trials, before)
    printed, errors = process.communicate()
    assert process.returncode == 0, printed[-3000:] + errors[-3000:]
    return json.loads(printed)


def check(told: dict, kills: int, trials: int = TRIALS) -> None:
    assert told["kills"] >= kills
    taken = sum(trial["origin"] is not None for trial in told["trials"])
    assert [trial["number"] for trial in told["trials"]] == list(range(taken + trials))
    states = [trial["state"] for trial in told["trials"]]
    assert "running" not in states
    # the scenario has every kind of trial, or it would show little
    assert {"complete", "failed", "skipped"} <= set(states)
    assert any(trial["same_as"] is not None for trial in told["trials"])
    of_trials = [name for name in told["weights"] if name != "mobilenetv2.safetensors"]  # the reference's
    assert of_trials == sorted(f"{number}.safetensors" for number in told["front"])


@pytest.mark.parametrize("controller", ["surrogate"])  # all are killed 20 times below
def test_a_search_killed_4_times(tmp_path, controller):
    check(scenario(tmp_path, controller, 2, 4, seed=3), 4)


def check_start(tmp_path: Path, controller: str, kills: int) -> None:
    told = scenario(tmp_path, controller, 2, kills, seed=5, before=16)
    check(told, kills)
    origins = [trial["origin"] for trial in told["trials"]]
    taken = sum(origin is not None for origin in origins)
    assert 6 < taken < 16  # a whole batch and a part of one; the failed ones are left out
    assert all(origins[:taken])
    assert told["trials"][taken]["name"] == str(tmp_path / "named.json")


def test_a_search_that_starts_from_another_killed_4_times(tmp_path):
    check_start(tmp_path, "evolution", 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on a quiet machine
@pytest.mark.parametrize("controller", ["ppo", "surrogate"])
def test_a_search_that_starts_from_another_killed_20_times(tmp_path, controller):
    check_start(tmp_path, controller, 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes on a quiet machine
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("controller", PAST_START_UP)
def test_every_controller_killed_20_times(tmp_path, controller, workers):
    trials = PAST_START_UP[controller]
    check(scenario(tmp_path, controller, workers, 20, workers, trials), 20, trials)
