"""Run one search on a benchmark, and record it."""

import io
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnas.bench.contender import Contender
from mnas.controller.closed import ClosedBatches
from mnas.controller.custom import errors_named
from mnas.controller.view import Draw
from mnas.evaluate.benchmark import Benchmark, Indices, Values
from mnas.study import DIRECTIONS


@dataclass(frozen=True, eq=False)
class Searched:
    """All trials of one search, in order of number."""

    indices: Indices
    """Indices of the trials, (N, D)."""
    accuracies: Values
    """Accuracies of the trials, (N,)."""
    costs: Values
    """Costs of the trials, (N,)."""
    ms: Values
    """CPU milliseconds of drawing and learning for each trial, (N,); other work does not change them. The trials of a
    batch share its time evenly."""
    entropies: Values
    """Entropy after each update in nats, (updates,), summed over decisions; empty where the controller has none."""

    def first(self, trials: int) -> "Searched":
        """Return the search as if it had ended after `trials` trials (except for `entropies`)."""
        return Searched(
            self.indices[:trials], self.accuracies[:trials], self.costs[:trials], self.ms[:trials], self.entropies
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of a file; `from_bytes` reads them back equal."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(self, name) for name in _FIELDS})
        return buffer.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "Searched":
        """Return the inverse of `to_bytes`. Raises ValueError on anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                searched = Searched(*(arrays[name] for name in _FIELDS))
        except Exception as error:  # numpy's reader raises many kinds of errors on damaged files
            raise ValueError(f"not a stored search: {error}") from None
        if not searched._is_possible():
            raise ValueError("not a stored search: its arrays are inconsistent or have impossible values")
        return searched

    def _is_possible(self) -> bool:
        floats = (self.accuracies, self.costs, self.ms, self.entropies)
        return (
            self.indices.dtype.kind == "i"
            and self.indices.ndim == 2
            and bool((self.indices >= 0).all())
            and all(values.dtype == np.float64 and values.ndim == 1 for values in floats)
            and all(len(values) == len(self.indices) for values in floats[:3])
            and all(bool(np.isfinite(values).all()) for values in floats)
        )


_FIELDS = ("indices", "accuracies", "costs", "ms", "entropies")


def run_search(benchmark: Benchmark, contender: Contender, trials: int) -> Searched:
    """Search `benchmark` for `trials` trials. More trials begin with the same ones.

    Raises:
        ValueError: the controller or a user's sampler raised an error; the message is one line.
    """
    if contender.ours:
        return _closed_batches(benchmark, contender, trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _ask_and_tell(benchmark, contender, trials)


def _closed_batches(benchmark: Benchmark, contender: Contender, trials: int) -> Searched:
    size = contender.candidates_per_update
    batches = ClosedBatches(
        contender.controller,
        benchmark.space,
        directions=DIRECTIONS,
        seed=contender.seed,
        batch_size=size,
        reward=contender.reward if contender.objective else None,
    )
    study: list[FrozenTrial] = []
    indices, ms, entropies = [], np.zeros(trials), []
    for start in range(0, trials, size):
        numbers = range(start, min(start + size, trials))
        begun = time.process_time()
        for number in numbers:
            study.append(_trial(number, batches.draw(study, number), benchmark.space, None))
        spent = time.process_time() - begun
        rows = np.array([benchmark.indices(study[number].params) for number in numbers])
        accuracies, costs = benchmark.score(rows)
        indices.append(rows)
        begun = time.process_time()
        for number, accuracy, cost in zip(numbers, accuracies.tolist(), costs.tolist(), strict=True):
            draw = Draw(params=study[number].params, system_attrs=study[number].system_attrs)
            study[number] = _trial(number, draw, benchmark.space, (accuracy, cost))
        diagnostics = batches.close(study)
        ms[numbers] = 1e3 * (spent + time.process_time() - begun) / len(numbers)
        if "entropy_per_decision" in diagnostics:
            entropies.append(sum(diagnostics["entropy_per_decision"].values()))
    values = np.array([trial.values for trial in study])
    return Searched(np.concatenate(indices), values[:, 0], values[:, 1], ms, np.array(entropies, np.float64))


def _trial(
    number: int,
    draw: Draw,
    space: Mapping[str, CategoricalDistribution],
    values: Sequence[float] | None,
) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
        values=values,
        params=draw.params,
        distributions=dict(space),
        system_attrs=draw.system_attrs,
    )
    trial.number = number
    return trial


def _ask_and_tell(benchmark: Benchmark, contender: Contender, trials: int) -> Searched:
    """Run an ordinary Optuna study in memory, trial after trial."""
    study = optuna.create_study(
        directions=DIRECTIONS, sampler=contender.sampler(benchmark.space), pruner=optuna.pruners.NopPruner()
    )
    space: dict[str, Any] = dict(benchmark.space)
    indices: list[tuple[int, ...]] = []
    accuracies, costs, ms = np.zeros(trials), np.zeros(trials), np.zeros(trials)
    for number in range(trials):
        with errors_named(contender.controller, number):
            begun = time.process_time()
            trial = study.ask(space)
            spent = time.process_time() - begun
            indices.append(benchmark.indices(trial.params))
            (accuracies[number],), (costs[number],) = benchmark.score(np.array(indices[-1:]))
            begun = time.process_time()
            study.tell(trial, [float(accuracies[number]), float(costs[number])])
        ms[number] = 1e3 * (spent + time.process_time() - begun)
    nothing: NDArray[np.float64] = np.zeros(0)
    return Searched(np.array(indices), accuracies, costs, ms, nothing)
