"""Custom controllers in a search: `module:factory` is replayed exactly, like a controller by name."""

import random
from pathlib import Path

import optuna
import pytest
from test_closed import SMALL, controller, new_study, search

OWN = """
import optuna
from mnas.controller.ppo import PPOSampler

def rewarded(seed, reward):
    assert reward(optuna.trial.create_trial(values=[0.5, 1.0])) == 0.5
    return optuna.samplers.RandomSampler(seed=seed)

def ours(space, seed, batch_size, reward):
    return PPOSampler(space, seed=seed, batch_size=batch_size, reward=reward)

def nothing(seed):
    return None
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (tmp_path / "own_controllers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["optuna.samplers:TPESampler", "own_controllers:rewarded", "own_controllers:ours"])
def test_killed_searches_have_the_trials_of_an_uninterrupted_one(name: str) -> None:
    undisturbed = search(new_study(), name, SMALL, 50)
    shuffle = random.Random(1)
    assert search(new_study(), name, SMALL, 50, shuffle=shuffle, restarts=0.2) == undisturbed
    assert search(new_study(), name, SMALL, 50, seed=1) != undisturbed


def test_a_sampler_of_ours_keeps_what_it_has_learned() -> None:
    batches = controller("own_controllers:ours", SMALL)
    study = new_study()
    search(study, "own_controllers:ours", SMALL, 40)
    assert "entropy" in str(batches.close(study.get_trials(deepcopy=False)))


def test_a_factory_without_a_sampler_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"own_controllers:nothing must return an optuna.samplers.BaseSampler"):
        controller("own_controllers:nothing", SMALL)
    with pytest.raises(ValueError, match=r"must be one of surrogate, .*, or module:factory .*, but got 'sa'"):
        controller("sa", SMALL)
