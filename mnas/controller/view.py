"""A study as of the close of a batch, in memory, so that any Optuna sampler draws from that and nothing later."""

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
"""User attribute of a PRUNED trial: its values, None where they are not known ([None, 3.2]: a measured latency)."""

Direction = StudyDirection | Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What to store of a drawn trial, both unchanged: the next draws may depend on them."""

    params: dict[str, Any]
    """Name -> choice."""
    system_attrs: dict[str, Any]
    """A sampler's own notes (NSGA-II: the generation), JSON."""


class StudyView:
    """An in-memory study that follows a stored one, batch by batch.

    Its trials carry number, params, distributions, system attributes, and once their batch is closed state and values,
    and of a pruned one what is known of its values (`KNOWN_VALUES`); no other user attributes and no intermediate
    values. It adds and finishes trials instead of being built anew, so that
    following a study of a thousand trials costs no more than one of ten.
    """

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._directions = list(directions)
        self._restart()

    def _restart(self) -> None:
        self._storage = InMemoryStorage()  # of its own, so that a trial's id is its number
        # a random sampler and no pruner: the cheapest, until `ask` is given another
        self.study = optuna.create_study(
            storage=self._storage,
            directions=self._directions,
            sampler=optuna.samplers.RandomSampler(),
            pruner=optuna.pruners.NopPruner(),
        )
        self._study_id = self._storage.get_study_id_from_name(self.study.study_name)
        self._copied: list[FrozenTrial | None] = []
        """The stored trials as they were when shown, None where shown as running: from `_closed` on."""
        self._closed = 0

    def show(self, trials: Sequence[FrozenTrial], *, closed: int) -> Study:
        """The study of `trials` (by number, no gaps); those from `closed` on as RUNNING, whatever they are.

        Raises:
            ValueError: one before `closed` has not finished.
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
        """Draw the next trial, which is RUNNING in the view from then on."""
        self.study.sampler = sampler
        self.study.ask(dict(space))
        trial = self._storage.get_trial(len(self._copied))
        self._copied.append(None)
        return Draw(params=dict(trial.params), system_attrs=dict(trial.system_attrs))

    def _is_extended_by(self, trials: Sequence[FrozenTrial], closed: int) -> bool:
        """Whether what is shown of `trials` is still so; what was running there may have finished."""
        mine = self._storage.get_all_trials(self._study_id, deepcopy=False)
        if len(mine) != len(self._copied) or len(mine) > len(trials) or self._closed > closed:
            return False  # unequal where a sampler raised in the middle of `ask`
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
    """Raise ValueError where one of `trials`, which are before number `closed`, runs."""
    for trial in trials:
        if not trial.state.is_finished():
            raise ValueError(f"trials 0 to {closed - 1} must have finished, but got {trial.number} {trial.state.name}")


def _known(trial: FrozenTrial) -> dict[str, Any]:
    """The user attributes of a finished trial that a sampler may learn from."""
    is_known = trial.state == TrialState.PRUNED and KNOWN_VALUES in trial.user_attrs
    return {KNOWN_VALUES: trial.user_attrs[KNOWN_VALUES]} if is_known else {}


def _result(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, _known(trial)


def view_of(trials: Sequence[FrozenTrial], directions: Sequence[Direction]) -> Study:
    """An in-memory study of `trials` in order of number, with what `StudyView` says they carry."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    return StudyView(directions).show(ordered, closed=len(ordered))
