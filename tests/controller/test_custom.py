"""Custom controllers in a search: `module:factory` is replayed exactly, like a controller by name."""

import random
import re
from pathlib import Path

import optuna
import pytest
from test_closed import SMALL, controller, new_study, search

OWN = """
import optuna
from mnas.controller.ppo import PPOSampler
from mnas.controller.sampler import ClosedBatchSampler

def rewarded(seed, reward):
    assert reward(optuna.trial.create_trial(values=[0.5, 1.0])) == 0.5
    return optuna.samplers.RandomSampler(seed=seed)

def ours(space, seed, batch_size, reward):
    return PPOSampler(space, seed=seed, batch_size=batch_size, reward=reward)

def nothing(seed):
    return None

class Boom(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        return {}["temperature"] if trial.number == 3 else super().sample_independent(study, trial, name, distribution)

class Strange(optuna.samplers.RandomSampler):
    def sample_relative(self, study, trial, search_space):
        return {"d3": 7 if trial.number == 2 else 0}

class Fixed(ClosedBatchSampler):
    indices = [0] * 9
    def _learn(self, batches):
        if batches:
            raise KeyError("late")
    def _choose(self, number):
        return self.indices
    def diagnostics(self):
        return {"best": object()}

class Far(Fixed):
    indices = [0, 3, *[0] * 7]

class Negative(Fixed):
    indices = [-1, *[0] * 8]

class Short(Fixed):
    indices = [0]
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
    with pytest.raises(
        ValueError, match=r"^--controller own_controllers:nothing must return an optuna.samplers.BaseSampler"
    ):
        controller("own_controllers:nothing", SMALL)
    with pytest.raises(ValueError, match=r"must be one of surrogate, .*, or module:factory .*, but got 'sa'"):
        controller("sa", SMALL)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Boom", "own_controllers:Boom failed at trial 3: KeyError: 'temperature'"),
        ("Strange", "own_controllers:Strange failed at trial 2: d3 must be one of 0, 1, 2, but got 7"),
        (
            "Far",
            "own_controllers:Far failed at trial 0: d3 must be an index from 0 to 2 of the choices 0, 1, 2, but got 3",
        ),
        (
            "Negative",
            "own_controllers:Negative failed at trial 0: d2 must be an index from 0 to 1 of the choices 0, 1, but got "
            "-1",
        ),
        (
            "Short",
            "own_controllers:Short failed at trial 0: _choose must return 9 indices, one for each decision, but got 1",
        ),
        ("Fixed", "own_controllers:Fixed failed at trial 20: KeyError: 'late'"),
    ],
)
def test_an_error_of_a_users_sampler_names_controller_and_trial(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        search(new_study(), f"own_controllers:{name}", SMALL, 30)


def test_diagnostics_must_be_plain_values() -> None:
    batches = controller("own_controllers:Fixed", SMALL)
    with pytest.raises(ValueError, match=r"own_controllers:Fixed failed at trial 0: TypeError: .* not JSON"):
        batches.close([])


def test_closed_batches_take_a_name_and_no_function() -> None:
    with pytest.raises(ValueError, match=r"controller must be a name, such as 'tpe' or 'annealer:make', but got <func"):
        controller(new_study, SMALL)  # type: ignore[arg-type]


def test_a_misspelt_module_says_where_modules_are_looked_for(tmp_path: Path) -> None:
    missing = (
        "--controller own_controlers:ours: module own_controlers cannot be imported: ModuleNotFoundError: "
        "No module named 'own_controlers'; modules are looked for in the current folder and on the Python path"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(missing)}$"):
        controller("own_controlers:ours", SMALL)
    (tmp_path / "needs_more.py").write_text("import no_such_library")
    with pytest.raises(ValueError, match=r"needs_more cannot be imported: .* No module named 'no_such_library'$"):
        controller("needs_more:make", SMALL)
