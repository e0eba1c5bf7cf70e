"""One suite over all controllers: valid draws, closed batches, failures, replay."""

import functools
import multiprocessing
import random
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnas.controller.closed import ClosedBatches
from mnas.controller.named import CONTROLLERS, make_sampler
from mnas.controller.sampler import ClosedBatchSampler
from mnas.space.named import SPACES as NAMED_SPACES

Space = Mapping[str, CategoricalDistribution]

BATCH = 20
DIRECTIONS = ["maximize", "minimize"]
SPACES: dict[str, Space] = {
    "one decision": {"a": CategoricalDistribution(["x", "y", "z"])},
    "no choice at all": {"a": CategoricalDistribution([7])},
    "some without choice": {
        "a": CategoricalDistribution([3]),
        "b": CategoricalDistribution([0.25, 0.5]),
        "c": CategoricalDistribution(["only"]),
    },
    "2 to 10 choices": {f"d{n}": CategoricalDistribution(list(range(n))) for n in range(2, 11)},
    "mixed types": {
        "op": CategoricalDistribution(["conv", "mbconv", 3, 0.5]),
        "kernel": CategoricalDistribution([3, 5]),
        "se": CategoricalDistribution([0.0, 0.25]),
        "act": CategoricalDistribution([False, True]),
    },
    "MobileNetV4's": NAMED_SPACES["mobilenetv4"].distributions,
    "the factorized one": {
        f"block{block}.{name}": CategoricalDistribution(list(range(choices)))
        for block in range(1, 8)
        for name, choices in zip("okeswl", (4, 2, 2, 3, 3, 3), strict=True)
    },
}
SMALL = SPACES["2 to 10 choices"]
# beyond NSGA-II's second generation and evolution's population of 100; TPE and surrogate have models after 10 and 20
LONG = {"surrogate": 30, "ppo": 80, "evolution": 160, "random": 80, "nsga2": 160, "tpe": 80}
KILLED_AT = {"surrogate": 20, "ppo": 40, "evolution": 100, "random": 40, "nsga2": 100, "tpe": 40}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def reward(trial: FrozenTrial) -> float:
    return float(trial.values[0] * trial.values[1] ** -0.07)


def result(number: int, params: Mapping[str, Any]) -> tuple[TrialState, list[float] | None]:
    """A stand-in for measuring and training: a function of the trial only, with some that fail and some skipped."""
    if number // BATCH == 2 or number % 11 == 5:  # all of batch 2 fails
        return TrialState.FAIL, None
    if number % 7 == 3:
        return TrialState.PRUNED, None
    noise = zlib.crc32(repr(sorted(params.items())).encode()) / 2**32
    return TrialState.COMPLETE, [noise, 0.5 + (noise * 997) % 1]


def controller(name: str, space: Space, seed: int = 0) -> ClosedBatches:
    return ClosedBatches(name, space, directions=DIRECTIONS, seed=seed, batch_size=BATCH, reward=reward)


def new_study(storage: str | None = None) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=storage, directions=DIRECTIONS)


def store_next(study: optuna.Study, batches: ClosedBatches, space: Space) -> None:
    """Draw a trial and store it, as the search does."""
    trials = study.get_trials(deepcopy=False)
    draw = batches.draw(trials, len(trials))
    trial = create_trial(
        state=TrialState.RUNNING, params=draw.params, distributions=dict(space), system_attrs=draw.system_attrs
    )
    study.add_trial(trial)


def tell(study: optuna.Study, number: int) -> None:
    state, values = result(number, study.get_trials(deepcopy=False)[number].params)
    study.tell(number, values, state)


def search(
    study: optuna.Study,
    name: str,
    space: Space,
    trials: int,
    *,
    seed: int = 0,
    shuffle: random.Random | None = None,
    restarts: float = 0.0,
) -> list[dict[str, Any]]:
    """Draw until the study has `trials` finished trials; returns their params.

    With `shuffle`, trials end in any order, also while the batch is still being drawn, as with parallel workers.
    `restarts` is the probability that before a draw the process is killed and a new one continues.
    """
    batches = controller(name, space, seed)
    while True:
        stored = study.get_trials(deepcopy=False)
        running = [trial.number for trial in stored if trial.state == TrialState.RUNNING]
        wait = len(stored) % BATCH == 0 or len(stored) == trials
        if running and (wait or (shuffle is not None and shuffle.random() < 0.4)):
            tell(study, shuffle.choice(running) if shuffle is not None else running[0])
        elif len(stored) == trials:
            return [trial.params for trial in stored]
        else:
            if shuffle is not None and shuffle.random() < restarts:
                batches = controller(name, space, seed)
            store_next(study, batches, space)


@functools.cache
def undisturbed_study(name: str) -> optuna.Study:
    """A search without interruption, one trial after the other."""
    study = new_study()
    search(study, name, SMALL, LONG[name])
    return study


def undisturbed(name: str) -> list[dict[str, Any]]:
    """The params of its trials."""
    return [trial.params for trial in undisturbed_study(name).get_trials(deepcopy=False)]


def beginning(name: str, trials: int) -> optuna.Study:
    """A study of its first `trials` trials, all finished."""
    study = new_study()
    study.add_trials(undisturbed_study(name).get_trials(deepcopy=False)[:trials])
    return study


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_draw_is_a_member_of_the_space(name: str, space: str) -> None:
    for params in search(new_study(), name, SPACES[space], min(2 * BATCH + 3, LONG[name])):
        assert params.keys() == SPACES[space].keys()
        for decision, distribution in SPACES[space].items():
            value = params[decision]
            assert any(type(value) is type(c) and value == c for c in distribution.choices)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_parallel_and_killed_searches_have_the_trials_of_an_uninterrupted_one(name: str) -> None:
    shuffle = random.Random(1)
    assert search(new_study(), name, SMALL, LONG[name], shuffle=shuffle) == undisturbed(name)
    assert search(new_study(), name, SMALL, LONG[name], shuffle=shuffle, restarts=0.15) == undisturbed(name)


@pytest.mark.parametrize("name", [name for name in CONTROLLERS if name != "random"])
def test_results_of_earlier_batches_matter(name: str) -> None:
    start = LONG[name] - 20
    study, other = beginning(name, start), new_study()
    for trial in study.get_trials(deepcopy=False):  # the same study with all accuracies reversed
        values = [1 - trial.values[0], trial.values[1]] if trial.state == TrialState.COMPLETE else None
        other.add_trial(
            create_trial(
                state=trial.state,
                values=values,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
            )
        )
    assert search(other, name, SMALL, LONG[name])[start:] != undisturbed(name)[start:]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_seeds_and_trials_differ(name: str) -> None:
    space = SPACES["the factorized one"]
    a, b = (search(new_study(), name, space, BATCH, seed=seed) for seed in (0, 1))
    assert len({tuple(params.values()) for params in a + b}) == 2 * BATCH


@pytest.mark.parametrize("name", CONTROLLERS)
def test_no_global_random_state_is_read_or_touched(name: str) -> None:
    def states() -> tuple[Any, ...]:
        numpy_state = np.random.get_state(legacy=False)
        return random.getstate(), numpy_state["state"]["key"].tolist(), torch.get_rng_state().tolist()

    expected = undisturbed(name)[: min(70, LONG[name])]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = states()
    assert search(new_study(), name, SMALL, len(expected)) == expected
    assert states() == before


def _go_on(path: str) -> dict[str, list[dict[str, Any]]]:
    """Read the study of each controller from SQLite in a separate process, and continue it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params = {}
    for name in CONTROLLERS:
        study = new_study()
        study.add_trials(optuna.load_study(study_name=name, storage=path).trials)
        params[name] = search(study, name, SMALL, LONG[name], shuffle=random.Random(3))
    return params


def test_a_fresh_process_continues_from_sqlite_without_a_difference(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path}/study.db"
    for name in CONTROLLERS:
        study = beginning(name, KILLED_AT[name])
        batches = controller(name, SMALL)
        for _ in range(7):  # killed in the middle of a batch, with 4 of 7 trials finished
            store_next(study, batches, SMALL)
        for place in (6, 1, 0, 3):
            tell(study, KILLED_AT[name] + place)
        optuna.create_study(study_name=name, storage=path, directions=DIRECTIONS).add_trials(study.trials)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        resumed = pool.submit(_go_on, path).result()
    for name in CONTROLLERS:
        assert resumed[name] == undisturbed(name), name


def test_a_running_trial_is_stored_whole_in_sqlite(tmp_path: Path) -> None:
    memory = beginning("nsga2", 100)
    draw = controller("nsga2", SMALL).draw(memory.get_trials(deepcopy=False), 100)
    assert draw.system_attrs == {"NSGAIISampler:generation": 1}
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    trial = create_trial(
        state=TrialState.RUNNING, params=draw.params, distributions=dict(SMALL), system_attrs=draw.system_attrs
    )
    study.add_trial(trial)
    stored = study.trials[0]
    assert (stored.state, stored.params, stored.system_attrs) == (TrialState.RUNNING, draw.params, draw.system_attrs)
    study.tell(0, [0.5, 2.0])
    assert (study.trials[0].values, study.trials[0].system_attrs) == ([0.5, 2.0], draw.system_attrs)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_asking_again_for_a_trial_that_was_not_stored_gives_the_same(name: str) -> None:
    last = max(30, LONG[name] - 70)
    study = beginning(name, last)
    trials = study.get_trials(deepcopy=False)
    batches = controller(name, SMALL)
    numbers = (last - 5, last - 4, last - 5, last - 25, last - 5)
    draws = [batches.draw(trials[:number], number) for number in numbers]
    assert draws[0] == draws[2] == draws[4]
    assert [draw.params for draw in draws] == [trials[number].params for number in numbers]


@pytest.mark.parametrize("name", ["ppo", "evolution"])
def test_close_learns_what_the_next_draw_would(name: str) -> None:
    study, batches = new_study(), controller(name, SMALL)
    assert batches.close([]) == {}
    search(study, name, SMALL, 45)
    closed = batches.close(study.get_trials(deepcopy=False))
    assert closed["entropy_per_decision"].keys() == SMALL.keys()
    draw = batches.draw(study.get_trials(deepcopy=False)[:40], 40)
    assert draw.params == study.trials[40].params
    assert batches.close(study.get_trials(deepcopy=False)[:40]) == closed


def test_a_trial_is_drawn_after_all_before_it_and_from_finished_batches() -> None:
    study, batches = new_study(), controller("random", SMALL)
    for _ in range(BATCH):
        store_next(study, batches, SMALL)
    with pytest.raises(ValueError, match="trial 21 needs all 21 trials before it, but got 20 trials"):
        batches.draw(study.get_trials(deepcopy=False), 21)
    for number in range(BATCH - 2):
        tell(study, number)
    with pytest.raises(ValueError, match="trials 0 to 19 must have finished, but trial 18 is RUNNING"):
        batches.draw(study.get_trials(deepcopy=False), 20)


def test_an_unknown_controller_lists_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"nsga2, tpe, or module:factory .*, but got 'grid'"):
        controller("grid", SMALL)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_bad_seed_and_batch_size(name: str) -> None:
    with pytest.raises(ValueError, match="seed must be an integer of 0 or more, but got -1"):
        controller(name, SMALL, seed=-1)
    with pytest.raises(ValueError, match="batch_size must be an integer of 1 or more, but got 0"):
        ClosedBatches(name, SMALL, directions=DIRECTIONS, seed=0, batch_size=0, reward=reward)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_as_a_plain_optuna_sampler(name: str) -> None:
    sampler = make_sampler(name, SMALL, seed=0, number=0, batch_size=BATCH, reward=reward)
    assert isinstance(sampler, ClosedBatchSampler) == (name in ("surrogate", "ppo", "evolution"))
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        total = sum(trial.suggest_categorical(key, d.choices) for key, d in SMALL.items())
        return float(total), 1.0

    study.optimize(objective, n_trials=25, n_jobs=2)
    assert len(study.trials) == 25
    assert all(trial.params.keys() == SMALL.keys() for trial in study.trials)
