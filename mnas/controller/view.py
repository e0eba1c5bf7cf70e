"""A study at the close of a batch, in memory, so that any Optuna sampler draws from that and nothing later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

KNOWN_VALUES = "known_values"
"""User attribute of a PRUNED trial with its values, None for unknown ones ([None, 3.2]: a measured latency)."""

Direction = StudyDirection | Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A drawn trial; store both fields unchanged, as the next draws may depend on them."""

    params: dict[str, Any]
    """Name of each decision -> choice."""
    system_attrs: dict[str, Any]
    """Notes of the sampler (NSGA-II: the generation), JSON."""


class StudyView:
    """An in-memory study that follows a stored one, batch by batch.

    Its trials have number, params, distributions and system attributes. Once their batch is closed they also have state
    and values, and pruned ones the values that are available (`KNOWN_VALUES`); they have no other user attributes and
    no intermediate values. The view adds and finishes trials instead of being rebuilt, so that following a study of a
    thousand trials costs no more than one of ten.
    """

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._directions = list(directions)
        self._restart()

    def _restart(self) -> None:
        self._storage = InMemoryStorage()  # a storage of its own, so that a trial's id is its number
        # a random sampler and no pruner are the cheapest, until `ask` sets another sampler
        self.study = optuna.create_study(
            storage=self._storage,
            directions=self._directions,
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        )
        self._study_id = self._storage.get_study_id_from_name(self.study.study_name)
        self._copied: list[FrozenTrial | None] = []
        """Stored trials at the last `show`, None for those shown as running: from `_closed` on."""
        self._closed = 0

    def show(self, trials: Sequence[FrozenTrial], *, closed: int) -> Study:
        """Return the study of `trials` (by number, no gaps), where those from `closed` on are RUNNING in any case.

        Raises:
            ValueError: a trial before `closed` has not finished.
        """
        if not self._is_extended_by(trials, closed):
            self._restart()
        new = trials[self._closed :]
        require_finished(new[: max(0, closed - self._closed)], closed)
        for number, trial in enumerate(new, self._closed):
            assert trial.number == number
            if number >= len(self._copied):
                self._add(trial, running=number >= closed)
            elif number < closed:
                self._finish(trial)
        self._closed = closed
        return self.study

    def ask(self, sampler: BaseSampler, space: Mapping[str, CategoricalDistribution]) -> Draw:
        """Draw the next trial, which is then RUNNING in the view."""
        self.study.sampler = sampler
        self.study.ask(dict(space))
        trial = self._storage.get_trial(len(self._copied))
        self._copied.append(None)
        return Draw(params=dict(trial.params), system_attrs=dict(trial.system_attrs))

    def _is_extended_by(self, trials: Sequence[FrozenTrial], closed: int) -> bool:
        """Return whether `trials` extends those in the view; running ones may have finished."""
        mine = self._storage.get_all_trials(self._study_id, deepcopy=False)
        if len(mine) != len(self._copied) or len(mine) > len(trials) or self._closed > closed:
            return False  # unequal if a sampler raised during `ask`
        same = self._closed if self._copied[: self._closed] == trials[: self._closed] else 0  # fast: the same objects
        for number in range(same, len(self._copied)):
            copied, trial = self._copied[number], trials[number]
            if (mine[number].params, mine[number].system_attrs) != (trial.params, trial.system_attrs):
                return False
            if copied is not None and _result(copied) != _result(trial):
                return False
        return True

    def _add(self, trial: FrozenTrial, *, running: bool) -> None:
        template = create_trial(
            state=TrialState.RUNNING if running else trial.state,
            values=None if running else trial.values,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
            user_attrs={} if running else _known(trial),
        )
        self._storage.create_new_trial(self._study_id, template)
        self._copied.append(None if running else trial)

    def _finish(self, trial: FrozenTrial) -> None:
        for name, value in _known(trial).items():
            self._storage.set_trial_user_attr(trial.number, name, value)
        self._storage.set_trial_state_values(trial.number, trial.state, trial.values)
        self._copied[trial.number] = trial


def require_finished(trials: Sequence[FrozenTrial], closed: int) -> None:
    """Raise ValueError where one of `trials`, all before number `closed`, is running."""
    for trial in trials:
        if not trial.state.is_finished():
            raise ValueError(
                f"trials 0 to {closed - 1} must have finished, but trial {trial.number} is {trial.state.name}"
            )


def _known(trial: FrozenTrial) -> dict[str, Any]:
    """Return the user attributes of a finished trial that a sampler may learn from."""
    is_known = trial.state == TrialState.PRUNED and KNOWN_VALUES in trial.user_attrs
    return {KNOWN_VALUES: trial.user_attrs[KNOWN_VALUES]} if is_known else {}


def _result(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, _known(trial)


def view_of(trials: Sequence[FrozenTrial], directions: Sequence[Direction]) -> Study:
    """Return an in-memory study of `trials` in order of number, with the fields that `StudyView` describes."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    return StudyView(directions).show(ordered, closed=len(ordered))
