"""Compare the surrogate with TPE and random draws on spaces and tables that it was not developed on.

    python benchmarks/surrogate_elsewhere.py                                   (synthetic ones, 2 seeds, 200 trials)
    python benchmarks/surrogate_elsewhere.py --anb anb_dataset_jsons.tar.gz    (and other devices of Accel-NASBench)
    python benchmarks/surrogate_elsewhere.py --only "cell;noise" --seeds 4 --workers 1

The cost of a network is its MACs, or a latency that adds up over layers. Accuracies grow with MACs and parameters,
level off, and contain random effects of single choices, pairs and larger groups. Each number is, as in `mnas bench`,
the hypervolume relative to that of a random pool; for one objective it is the best value, where 0 is the pool's median
and 1 its best. Samplers see values with noise, and the scores use those without. `tpe` is that of mnas (multivariate,
batches of 20), and `tpe-1` is Optuna's default, trial after trial. A row ends with the smallest lead of the surrogate
over the better of the two, and marks a significant deficit (two standard errors over the seeds, paired).
"""

import argparse
import functools
import math
import multiprocessing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import torch
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnas.bench.pool import Pool
from mnas.controller.closed import ClosedBatches
from mnas.controller.named import candidates_per_update
from mnas.controller.view import KNOWN_VALUES
from mnas.evaluate.accel_nasbench import accel_nasbench
from mnas.nn.cost import cost
from mnas.objective import Objective
from mnas.space.named import load_space

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Space = Mapping[str, CategoricalDistribution]

MARKS = (50, 100, 200)
POOL = 4000
"""Number of random members of a synthetic problem; counting the costs of a network takes a millisecond."""
CONTROLLERS = ("surrogate", "tpe", "tpe-1", "random")


@dataclass(frozen=True)
class Problem:
    space: Space
    values: Callable[[Indices], Values]
    """Function (N, D) -> (N, 2) accuracy and cost, or (N, 1)."""
    directions: tuple[str, ...] = ("maximize", "minimize")
    noise: float = 0.0
    """Noise of the accuracy, as a multiple of its standard deviation over the pool."""
    diverged: float = 0.0
    """Share of trials whose accuracy is that of chance, independently of their choices."""
    failing: float = 0.0
    """Share of trials that fail."""
    limit: float = 1.0
    """Quantile of cost above which trials are pruned, with their cost."""
    judged: int | None = None
    """Index of the value that counts; None: both."""
    pool_size: int = POOL

    @functools.cached_property
    def pool(self) -> Values:
        draw = np.random.default_rng(0)
        rows = np.stack([draw.integers(len(d.choices), size=self.pool_size) for d in self.space.values()], axis=1)
        return self.values(rows)

    def score(self, values: Values) -> float:
        """Return the score of the values (N, M) of completed trials."""
        if len(self.directions) == 2 and self.judged is None:
            pool = self.pool[self.pool[:, 1] <= self.highest_cost]
            return Pool(pool[:, 0], pool[:, 1]).ratio(values[:, 0], values[:, 1])
        sign = 1 if self.directions[self.judged or 0] == "maximize" else -1
        pool, found = self.pool[:, self.judged or 0] * sign, values[:, self.judged or 0] * sign
        low = np.median(pool)
        return float((found.max() - low) / (pool.max() - low)) if len(found) else 0.0

    @functools.cached_property
    def highest_cost(self) -> float:
        return float(np.quantile(self.pool[:, 1], self.limit))


# Accuracies and costs


@dataclass(frozen=True)
class Landscape:
    """A random function of index vectors, mean 0 and deviation 1: single choices, pairs, runs of four decisions."""

    sizes: tuple[int, ...]
    seed: int
    parts: tuple[float, float, float] = (0.7, 0.5, 0.2)
    """Standard deviations of these effects."""

    def __call__(self, rows: Indices) -> Values:
        draw = np.random.default_rng(self.seed)
        count, found = len(self.sizes), np.zeros(len(rows))
        importance = draw.lognormal(0, 1, count)
        importance /= np.sqrt((importance**2).sum())
        for decision, size in enumerate(self.sizes):
            effects = draw.standard_normal(size)
            found += self.parts[0] * importance[decision] * (effects - effects.mean())[rows[:, decision]]
        for _ in range(2 * count):
            one, other = draw.choice(count, 2, replace=False)
            effects = draw.standard_normal((self.sizes[one], self.sizes[other]))
            found += self.parts[1] / math.sqrt(2 * count) * effects[rows[:, one], rows[:, other]]
        for first in range(count):
            places = [(first + i) % count for i in range(min(4, count))]
            effects = draw.standard_normal([self.sizes[p] for p in places])
            found += self.parts[2] / math.sqrt(count) * effects[tuple(rows[:, p] for p in places)]
        return found


def sizes_of(space: Space) -> tuple[int, ...]:
    return tuple(len(d.choices) for d in space.values())


def networks(name: str, cost_kind: str) -> Problem:
    """Return a space of mnas, where accuracy levels off with MACs and parameters; a third of it depends on choices."""
    space = load_space(name)
    landscape = Landscape(sizes_of(space.distributions), 1)

    @functools.cache
    def counted(row: tuple[int, ...]) -> tuple[float, float, float]:
        rows = cost(space.decode(row), 224).rows
        ms = sum(0.02 + r.macs / (2e6 if r.op == "depthwise" else 1e7) + r.params / 4e6 for r in rows)
        return sum(r.macs for r in rows), sum(r.params for r in rows), ms

    def values(rows: Indices) -> Values:
        macs, params, ms = np.array([counted(tuple(row)) for row in rows.tolist()]).reshape(-1, 3).T
        accuracy = 0.82 - 0.06 * (macs / 3e8) ** -0.4 - 0.04 * (params / 4e6) ** -0.5 + 0.004 * landscape(rows)
        return np.stack([accuracy, macs if cost_kind == "MACs" else ms], axis=1)

    return Problem(space.distributions, values)


def synthetic(space: Space, parts: tuple[float, float, float] = (0.7, 0.5, 0.2), spread: float = 0.4) -> Problem:
    """Return a problem with a landscape as accuracy; the cost's logarithm is additive and partly correlated with it."""
    sizes = sizes_of(space)
    own, common, odd = Landscape(sizes, 1, parts), Landscape(sizes, 2, (1.0, 0.0, 0.0)), Landscape(sizes, 3)

    def values(rows: Indices) -> Values:
        accuracy = 0.95 - 0.25 / (1 + np.exp(own(rows) + common(rows)))
        return np.stack([accuracy, 10 * np.exp(spread * (common(rows) + 0.3 * odd(rows)))], axis=1)

    return Problem(space, values)


def plain_space(sizes: Sequence[int]) -> Space:
    """Return a problem whose names and choices carry no information."""
    return {f"decision {chr(97 + i // 26)}{chr(97 + i % 26)}": _letters(size) for i, size in enumerate(sizes)}


def _letters(size: int) -> CategoricalDistribution:
    return CategoricalDistribution([chr(97 + i) for i in range(size)])


def cell_of_six() -> Problem:
    """Return a problem of NAS-Bench-201's size, six edges of five operations; without any path, accuracy is chance."""
    space = {f"edge{i}": CategoricalDistribution(["none", "skip", "conv1", "conv3", "pool"]) for i in range(6)}
    whole = synthetic(space, (0.5, 0.6, 0.4))

    def values(rows: Indices) -> Values:
        found = whole.values(rows)
        gone = rows == 0  # edges 0: 0-1, 1: 0-2, 2: 1-2, 3: 0-3, 4: 1-3, 5: 2-3
        node2 = ~gone[:, 1] | (~gone[:, 0] & ~gone[:, 2])
        reached = ~gone[:, 3] | (~gone[:, 0] & ~gone[:, 4]) | (node2 & ~gone[:, 5])
        found[:, 0] = np.where(reached, found[:, 0], 0.1)
        found[:, 1] *= np.array([0.5, 0.6, 1.0, 2.0, 0.7])[rows].mean(axis=1)
        return found

    return replace(whole, values=values)


def changed(problem: Problem, change: Callable[[Indices, Values], Values], **more: Any) -> Problem:
    return replace(problem, values=lambda rows: change(rows, problem.values(rows).copy()), **more)


def _cliff(rows: Indices, values: Values) -> Values:
    values[(rows[:, 0] == 0) & (rows[:, 5] != 1), 0] = 0.1
    return values


def _rounded(rows: Indices, values: Values) -> Values:
    values[:, 0] = np.round(values[:, 0] / 0.02) * 0.02
    return values


def _fixed(column: int, value: float) -> Callable[[Indices, Values], Values]:
    def change(rows: Indices, values: Values) -> Values:
        values[:, column] = value
        return values

    return change


def _one(rows: Indices, values: Values) -> Values:
    return (values[:, 0] * (values[:, 1] / 3e8) ** -0.07)[:, None]


def _problems(anb: Path | None) -> dict[str, Callable[[], Problem]]:
    """Name -> function that makes the problem."""
    sixty = plain_space([2 + i % 3 for i in range(60)])
    found: dict[str, Callable[[], Problem]] = {
        "mnasnet, MACs": lambda: networks("mnasnet", "MACs"),
        "mnasnet, additive latency": lambda: networks("mnasnet", "ms"),
        "per-layer, additive latency": lambda: networks("per-layer", "ms"),
        "cell, MACs": lambda: replace(networks("cell", "MACs"), pool_size=1500),
        "3 decisions of 4, complete": lambda: synthetic(plain_space([4] * 3)),
        "5 decisions of 4, complete": lambda: synthetic(plain_space([4] * 5)),
        "6 edges of 5, with broken cells": cell_of_six,
        "60 decisions, names tell nothing": lambda: synthetic(sixty),
        "20 of 2, rugged": lambda: synthetic(plain_space([2] * 20), (0.2, 0.3, 0.9)),
        "10 of 12 choices": lambda: synthetic(plain_space([12] * 10)),
        "costs from 1 to 1000": lambda: synthetic(sixty, spread=1.5),
        "noise, half": lambda: replace(networks("mnasnet", "MACs"), noise=0.5),
        "noise, as large as the spread": lambda: replace(synthetic(sixty), noise=1.0),
        "1 in 20 diverges": lambda: replace(networks("mnasnet", "MACs"), diverged=0.05),
        "cliff for 2 in 9": lambda: changed(networks("mnasnet", "MACs"), _cliff),
        "accuracy in steps": lambda: changed(networks("mnasnet", "MACs"), _rounded),
        "7 in 10 pruned": lambda: replace(networks("mnasnet", "ms"), limit=0.3),
        "3 in 10 fail": lambda: replace(networks("mnasnet", "MACs"), failing=0.3),
        "one objective": lambda: changed(networks("mnasnet", "MACs"), _one, directions=("maximize",)),
        "one objective, minimised": lambda: changed(
            synthetic(sixty), lambda rows, values: 1 - values[:, :1], directions=("minimize",)
        ),
        "accuracy constant": lambda: changed(networks("mnasnet", "MACs"), _fixed(0, 0.7), judged=1),
        "cost constant": lambda: changed(networks("mnasnet", "MACs"), _fixed(1, 5.0), judged=0),
    }
    if anb:
        for device in ("latency_vck190", "throughput_a100", "throughput_tpuv3", "throughput_zcu102"):
            found[f"Accel-NASBench, {device}"] = functools.partial(accuracy_and_cost, anb, device)
    return found


def accuracy_and_cost(path: Path, device: str) -> Problem:
    """Return the problem of one device of Accel-NASBench."""
    benchmark = accel_nasbench(path, device)
    return Problem(benchmark.space, lambda rows: np.stack(benchmark.score(rows), axis=1), pool_size=60_000)


# Searching


def soft_reward(problem: Problem) -> Callable[[FrozenTrial], float]:
    """Return the reward as in `mnas bench`, where the target is the 40 % quantile of costs."""
    target = float(np.quantile(problem.pool[:, 1], 0.4 * problem.limit))
    aim = Objective(form="soft", target_latency_ms=target, alpha=-0.07, beta=-0.07)
    return lambda trial: aim.reward(trial.values[0], trial.values[1])


def search(problem: Problem, controller: str, seed: int, marks: Sequence[int]) -> list[float]:
    """Return the score after each mark."""
    name, size = controller.removesuffix("-1"), 1 if controller == "tpe-1" else candidates_per_update(controller)
    batches = ClosedBatches(
        name,
        problem.space,
        directions=problem.directions,
        seed=seed,
        batch_size=size,
        reward=soft_reward(problem) if len(problem.directions) == 2 else None,
    )
    if controller == "tpe-1":
        batches._make_sampler = lambda number, reward: TPESampler(seed=1000 * seed + number)  # type: ignore[method-assign]
    unlucky = np.random.default_rng([seed, 7])
    study: list[Any] = []
    trues: list[Values | None] = []
    while len(study) < marks[-1]:
        numbers = range(len(study), min(len(study) + size, marks[-1]))
        for number in numbers:
            draw = batches.draw(study, number)
            study.append(_trial(problem, number, draw.params, TrialState.RUNNING, None, draw.system_attrs))
        for number in numbers:
            study[number], true = _evaluated(problem, study[number], unlucky)
            trues.append(true)
    found = []
    for mark in marks:
        done = [true for true in trues[:mark] if true is not None]
        found.append(problem.score(np.array(done).reshape(-1, len(problem.directions))))
    return found


def _evaluated(problem: Problem, trial: Any, unlucky: np.random.Generator) -> tuple[Any, Values | None]:
    """Return the finished trial, and its values without noise if it is complete."""
    row = np.array([[d.to_internal_repr(trial.params[n]) for n, d in problem.space.items()]], np.int64)
    true = problem.values(row)[0]
    chance, error = unlucky.random(2), unlucky.standard_normal()
    system, params = trial.system_attrs, trial.params
    if chance[0] < problem.failing:
        return _trial(problem, trial.number, params, TrialState.FAIL, None, system), None
    if len(true) > 1 and true[1] > problem.highest_cost:
        known = {KNOWN_VALUES: [None, float(true[1])]}
        return _trial(problem, trial.number, params, TrialState.PRUNED, None, system, known), None
    seen = true.copy()
    seen[0] += error * problem.noise * problem.pool[:, 0].std()
    if chance[1] < problem.diverged:
        true[0] = seen[0] = 0.001
    return _trial(problem, trial.number, params, TrialState.COMPLETE, seen.tolist(), system), true


def _trial(
    problem: Problem,
    number: int,
    params: Mapping[str, Any],
    state: TrialState,
    values: list[float] | None,
    system_attrs: Mapping[str, Any],
    user_attrs: Mapping[str, Any] | None = None,
) -> Any:
    trial = create_trial(
        state=state,
        values=values,
        params=dict(params),
        distributions=dict(problem.space),
        system_attrs=dict(system_attrs),
        user_attrs=dict(user_attrs or {}),
    )
    trial.number = number
    return trial


def _begin() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def compared(name: str, anb: Path | None, seeds: int, marks: Sequence[int]) -> str:
    """Return the table's row of one problem."""
    problem = _problems(anb)[name]()
    scores = {c: np.array([search(problem, c, seed, marks) for seed in range(seeds)]) for c in CONTROLLERS}
    cells = []
    leads = []
    for mark in range(len(marks)):
        cells.append(" / ".join(f"{scores[c][:, mark].mean():.3f}" for c in CONTROLLERS))
        tpe = max(("tpe", "tpe-1"), key=lambda c: scores[c][:, mark].mean())
        lead = scores["surrogate"][:, mark] - scores[tpe][:, mark]
        error = lead.std(ddof=1) / math.sqrt(seeds) if seeds > 1 else 0.0
        leads.append((lead.mean(), lead.mean() < -max(2 * error, 0.001)))
    worst = min(leads)
    shown = f"{worst[0]:+.3f}{' **worse**' if any(beyond for _, beyond in leads) else ''}"
    return f"| {name} | {len(problem.space)} | {' | '.join(cells)} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anb", type=Path, help="anb_dataset_jsons.tar.gz of github.com/afzalxo/Accel-NASBench")
    parser.add_argument("--only", default="", help="beginnings of problem names, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each search (default: 2)")
    parser.add_argument("--trials", type=int, default=200, help="trials of each search: 50, 100 or 200 (default: 200)")
    parser.add_argument("--workers", type=int, default=2, help="problems side by side (default: 2)")
    options = parser.parse_args()
    begins = tuple(options.only.split(";"))
    names = [name for name in _problems(options.anb) if name.startswith(begins)]
    marks = [mark for mark in MARKS if mark <= options.trials]
    print(f"| problem | decisions | {' | '.join(f'{mark} trials' for mark in marks)} | least lead |")
    print(f"|---|---|{'---|' * len(marks)}---|\nEach cell: {' / '.join(CONTROLLERS)}", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, initializer=_begin) as pool:
        call = functools.partial(compared, anb=options.anb, seeds=options.seeds, marks=marks)
        for row in pool.imap(call, names, chunksize=1):
            print(row, flush=True)


if __name__ == "__main__":
    main()
