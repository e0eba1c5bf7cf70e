from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnas.controller.view import StudyView, view_of

SPACE = {"a": CategoricalDistribution([0, 1, 2]), "b": CategoricalDistribution(["x", "y"])}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def trial(number: int, state: TrialState = TrialState.COMPLETE, values: list[float] | None = None) -> FrozenTrial:
    made = create_trial(
        state=state,
        values=values if state != TrialState.COMPLETE or values else [number / 10, 1.0],
        params={"a": number % 3, "b": "x"},
        distributions=dict(SPACE),
        system_attrs={"note": number},
        user_attrs={"latency": {"samples": [1.0] * 3}},
    )
    made.number = number
    return made


def shown(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.params, t.values, t.system_attrs, t.user_attrs) for t in study.trials]


def expected(trials: list[FrozenTrial], closed: int) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state.name, t.params, t.values, t.system_attrs, {})
        if t.number < closed
        else (t.number, "RUNNING", t.params, None, t.system_attrs, {})
        for t in trials
    ]


def test_a_view_follows_its_study() -> None:
    trials = [trial(0), trial(1, TrialState.FAIL), trial(2, TrialState.PRUNED), trial(3), trial(4)]
    view = StudyView(["maximize", "minimize"])
    for stored, closed in ((2, 0), (3, 0), (3, 3), (4, 3), (5, 3), (5, 5)):
        study = view.show(trials[:stored], closed=closed)
        assert shown(study) == expected(trials[:stored], closed)
    assert study is view.show(trials, closed=5)  # the study was not rebuilt
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]


@pytest.mark.parametrize(
    "changed",
    [
        [trial(0), trial(4)],
        [trial(0), trial(1, values=[0.9, 0.9])],
        [trial(0), trial(1, TrialState.FAIL)],
        [trial(0)],
    ],
    ids=["other params", "other values", "other state", "shorter"],
)
def test_a_changed_study_is_shown_in_its_current_state(changed: list[FrozenTrial]) -> None:
    for number, one in enumerate(changed):
        one.number = number
    view = StudyView(["maximize", "minimize"])
    view.show([trial(0), trial(1)], closed=2)
    assert shown(view.show(changed, closed=len(changed))) == expected(changed, len(changed))
    view.show([trial(0), trial(1)], closed=2)
    assert shown(view.show(changed, closed=1)) == expected(changed, 1)


def test_a_drawn_trial_is_running_in_the_view_until_its_batch_closes() -> None:
    view = StudyView(["maximize", "minimize"])
    view.show([trial(0)], closed=1)
    draw = view.ask(RandomSampler(seed=0), SPACE)
    stored = trial(1)
    stored.params, stored.system_attrs = draw.params, draw.system_attrs
    study = view.show([trial(0), stored], closed=1)
    assert shown(study)[1] == (1, "RUNNING", draw.params, None, {}, {})
    assert view.show([trial(0), stored], closed=2) is study
    assert shown(study) == expected([trial(0), stored], 2)
    other = trial(1)
    other.params = {
        "a": (draw.params["a"] + 1) % 3,
        "b": "x",
    }  # another process stored this trial, and its version counts
    assert shown(view.show([trial(0), other], closed=2)) == expected([trial(0), other], 2)


def test_a_sampler_that_raised_leaves_no_trial_behind() -> None:
    class Broken(RandomSampler):
        def sample_independent(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("broken")

    view = StudyView(["maximize", "minimize"])
    view.show([trial(0)], closed=1)
    with pytest.raises(ValueError, match="broken"):
        view.ask(Broken(seed=0), SPACE)
    assert shown(view.show([trial(0)], closed=1)) == expected([trial(0)], 1)
    draw = view.ask(RandomSampler(seed=0), SPACE)
    assert view.study.trials[1].params == draw.params


def test_view_of_takes_any_order() -> None:
    trials = [trial(2), trial(0), trial(1, TrialState.FAIL)]
    assert shown(view_of(trials, ["maximize", "minimize"])) == expected(sorted(trials, key=lambda t: t.number), 3)
