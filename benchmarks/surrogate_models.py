"""Compare the surrogate's Gaussian processes with models of other libraries.

    python benchmarks/surrogate_models.py --anb anb_dataset_jsons.tar.gz   (all models, 2 seeds, 200 trials)
    python benchmarks/surrogate_models.py --anb FILE --models ours,forest --seeds 3 --trials 100

The first table compares predictions from few members. Each model learns from 50, 100 and 200 random members and
predicts 2,000 others. The table lists R2 and the mean log-density of the true values, in nats, with values in units of
their spread. Higher is better, and overconfidence lowers it. The second table compares searches with the same sampler
(design, evolution, expected improvements, believed picks) and different models. It lists hypervolumes as in `mnas
bench`, and CPU milliseconds per trial. The problems are Accel-NASBench (top-1 and latency of the ZCU102) and mnasnet
with an additive latency (`surrogate_elsewhere.py`).

The models of scikit-learn see one column for each choice, and one in all for two choices. Gaussian processes with white
noise have one length scale per column (`rbf-ard`, `matern-ard`), a single one (`matern`), or terms for single choices,
pairs and the rest (`additive`: dot products, their squares, RBF). `forest` has 200 trees, whose spread is the
deviation. `ridge` is a Bayesian ridge on single choices. `botorch` is BoTorch's model for categorical decisions
(MixedSingleTaskGP), if it is installed.
"""

import argparse
import functools
import importlib.util
import math
import multiprocessing
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution
from surrogate_elsewhere import Indices, Problem, Space, Values, accuracy_and_cost, networks, soft_reward
from torch import Tensor

from mnas.controller.surrogate.coding import Coding
from mnas.controller.surrogate.gaussian import fit
from mnas.controller.surrogate.goals import GoalModel
from mnas.controller.surrogate.surrogate import LOG_RANGE, SurrogateSampler

SIZES = (50, 100, 200)
OTHERS = 2000
JITTER = 1e-6
MODELS = ["ours", "rbf-ard", "matern-ard", "matern", "additive", "ridge", "forest"]
MODELS += ["botorch"] if importlib.util.find_spec("botorch") else []


class OneHot:
    """Encodes index vectors as columns of 0 and 1: one for a decision of two choices, none for a single choice."""

    def __init__(self, space: Mapping[str, CategoricalDistribution]) -> None:
        self._sizes = [len(d.choices) for d in space.values()]

    def __call__(self, indices: Indices) -> Values:
        columns = [np.eye(size)[indices[:, d]][:, 1 if size == 2 else 0 :] for d, size in enumerate(self._sizes)]
        return np.concatenate([c for c, size in zip(columns, self._sizes, strict=True) if size > 1], axis=1)


class Integers:
    """Encodes index vectors as BoTorch's categories."""

    def __init__(self, space: Mapping[str, CategoricalDistribution]) -> None:
        self._free = [d for d, distribution in enumerate(space.values()) if len(distribution.choices) > 1]

    def __call__(self, indices: Indices) -> Values:
        return indices[:, self._free].astype(np.float64)


@dataclass(frozen=True)
class Library:
    """A library's model, fitted to standardised values; it replaces a `Process`."""

    kind: str
    regressor: Any
    x: Values
    y: Values
    mean: float
    scale: float

    def predict(self, x: Values) -> tuple[Tensor, Tensor]:
        """Return means (N,) and standard deviations (N,), without noise."""
        if self.kind == "forest":
            trees = np.stack([tree.predict(x) for tree in self.regressor.estimators_])
            means, variances = trees.mean(axis=0), trees.var(axis=0)
        elif self.kind == "botorch":
            found = self.regressor.posterior(torch.from_numpy(x))
            means, variances = found.mean[:, 0].numpy(), found.variance[:, 0].numpy()
        else:
            means, deviations = self.regressor.predict(x, return_std=True)
            variances = deviations**2 - self._noise
        deviations = np.sqrt(np.maximum(variances, JITTER))
        return torch.from_numpy(means * self.scale + self.mean), torch.from_numpy(deviations * self.scale)

    @property
    def _noise(self) -> float:
        """Variance of a standardised observation."""
        if self.kind == "forest":
            return 0.0
        if self.kind == "ridge":
            return float(1 / self.regressor.alpha_)
        if self.kind == "botorch":
            return float(self.regressor.likelihood.noise)
        return float(self.regressor.kernel_.k2.noise_level)

    @property
    def noise(self) -> float:
        """Standard deviation of an observation."""
        return math.sqrt(self._noise) * self.scale

    def believing(self, x: Values) -> "Library":
        value = (float(self.predict(x)[0][0]) - self.mean) / self.scale
        x, y = np.concatenate([self.x, x]), np.append(self.y, value)
        return replace(self, regressor=conditioned(self.kind, self.regressor, x, y), x=x, y=y)

    @property
    def improbability(self) -> float:
        """Negative log-density of the data, in the user's units; for models without one, that of their predictions."""
        if self.kind in ("rbf-ard", "matern-ard", "matern", "additive"):
            density = float(self.regressor.log_marginal_likelihood_value_)
        elif self.kind == "ridge":
            density = float(self.regressor.scores_[-1])
        elif self.kind == "forest":
            missed = self.regressor.oob_prediction_ - self.y
            density = -len(missed) / 2 * math.log(2 * math.pi * math.e * float((missed**2).mean()))
        else:
            density = len(self.y) * float(_botorch_density(self.regressor))
        return -density + len(self.y) * math.log(self.scale)


def chosen(kind: str, x: Values, y: Values) -> Any:
    """Return the regressor with fitted hyper-parameters."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern, WhiteKernel
    from sklearn.linear_model import BayesianRidge

    if kind == "forest":
        return RandomForestRegressor(200, max_features=0.5, oob_score=True, random_state=0).fit(x, y)
    if kind == "ridge":
        return BayesianRidge(compute_score=True).fit(x, y)
    if kind == "botorch":
        return _botorch(x, y)
    lengths = np.full(x.shape[1], math.sqrt(x.shape[1]))
    bounds = (0.1, 1e3)
    kernel = {
        "rbf-ard": lambda: ConstantKernel() * RBF(lengths, bounds),
        "matern-ard": lambda: ConstantKernel() * Matern(lengths, bounds, nu=2.5),
        "matern": lambda: ConstantKernel() * Matern(float(lengths[0]), bounds, nu=2.5),
        "additive": lambda: (
            ConstantKernel() * DotProduct()
            + ConstantKernel(0.1) * DotProduct() ** 2
            + ConstantKernel(0.1) * RBF(float(lengths[0]), bounds)
        ),
    }[kind]()
    return GaussianProcessRegressor(kernel + WhiteKernel(0.01, (1e-4, 1.0)), alpha=JITTER, random_state=0).fit(x, y)


def conditioned(kind: str, regressor: Any, x: Values, y: Values) -> Any:
    """Return the regressor with the same hyper-parameters on other data; models that fit quickly are fitted again."""
    if kind in ("forest", "ridge"):
        return chosen(kind, x, y)
    if kind == "botorch":
        return _botorch(x, y, regressor)
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(regressor.kernel_, alpha=JITTER, optimizer=None).fit(x, y)


def _botorch(x: Values, y: Values, like: Any = None) -> Any:
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MixedSingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    with torch.enable_grad():
        columns = list(range(x.shape[1]))
        model = MixedSingleTaskGP(torch.from_numpy(x), torch.from_numpy(y)[:, None], columns, outcome_transform=None)
        if like is None:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        else:
            model.load_state_dict(like.state_dict())
    return model.eval()


def _botorch_density(model: Any) -> float:
    """Return the log-density per value of the data that the model learnt from."""
    from gpytorch.mlls import ExactMarginalLogLikelihood

    model.train()
    found = ExactMarginalLogLikelihood(model.likelihood, model)(model(*model.train_inputs), model.train_targets)
    model.eval()
    return float(found)


def learned(kind: str, x: Values, values: Values) -> Library:
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    y = (values - mean) / scale
    return Library(kind, chosen(kind, x, y), x, y, mean, scale)


class LibrarySampler(SurrogateSampler):
    """The surrogate with other models; it fits hyper-parameters as often, and takes the same logarithms."""

    def __init__(self, space: Space, *, seed: int, reward: Any, kind: str) -> None:
        super().__init__(space, seed=seed, reward=reward)
        self._kind = kind
        self._coding = (Integers if kind == "botorch" else OneHot)(space)  # type: ignore[assignment]
        self._chosen: dict[str, tuple[int, bool, Library]] = {}

    def _model(
        self, name: str, early: Any, indices: Indices, values: Values, sign: int, beside: GoalModel | None = None
    ) -> tuple[GoalModel, Indices]:
        known = np.isfinite(values)
        x, values = self._coding(indices[known]), values[known]
        if name not in self._chosen or self._chosen[name][0] != len(early):
            self._chosen[name] = len(early), *self._best_form(x, values)
        _, is_log, model = self._chosen[name]
        shown = np.log(values) if is_log else values
        mean, scale = float(shown.mean()), float(shown.std()) or 1.0
        y = (shown - mean) / scale
        process = Library(self._kind, conditioned(self._kind, model.regressor, x, y), x, y, mean, scale)
        return GoalModel(process, is_log, sign), np.zeros(0, np.int64)  # type: ignore[arg-type]

    def _best_form(self, x: Values, values: Values) -> tuple[bool, Library]:
        plain = learned(self._kind, x, values)
        if values.min() <= 0 or values.max() < LOG_RANGE * values.min():
            return False, plain
        logarithm = learned(self._kind, x, np.log(values))
        better = logarithm.improbability + float(np.log(values).sum()) < plain.improbability
        return (True, logarithm) if better else (False, plain)


def sampler_of(kind: str, problem: Problem, seed: int) -> SurrogateSampler:
    reward = soft_reward(problem)
    if kind == "ours":
        return SurrogateSampler(problem.space, seed=seed, reward=reward)
    return LibrarySampler(problem.space, seed=seed, reward=reward, kind=kind)


# Measuring


def _problem(name: str, anb: Path | None) -> Problem:
    if name == PROBLEMS[1]:
        return networks("mnasnet", "ms")
    assert anb is not None
    return accuracy_and_cost(anb, "latency_zcu102")


PROBLEMS = ("Accel-NASBench", "mnasnet, additive latency")
"""Names of the problems; the first requires its file."""


def predicted(kind: str, problem: Problem, size: int, seed: int) -> list[float]:
    """Return R2 and log-density of accuracy and of the cost's logarithm, and CPU seconds to fit both."""
    draw = np.random.default_rng([seed, size])
    rows = np.stack([draw.integers(len(d.choices), size=size + OTHERS) for d in problem.space.values()], axis=1)
    values = problem.values(rows)
    values[:, 1] = np.log(values[:, 1])
    coding = (Coding if kind == "ours" else Integers if kind == "botorch" else OneHot)(problem.space)
    found, seen = [], coding(rows[:size])
    begun = time.process_time()
    models: list[Any] = [
        fit(coding, seen, column) if kind == "ours" else learned(kind, seen, column) for column in values[:size].T
    ]
    spent = time.process_time() - begun
    with torch.no_grad():
        for model, column in zip(models, values.T, strict=True):
            mean, deviation = (part.numpy() for part in model.predict(coding(rows[size:])))
            spread, missed = column.std(), column[size:] - mean
            deviation = np.sqrt(deviation**2 + model.noise**2)
            density = -((missed / deviation) ** 2) / 2 - np.log(deviation / spread) - math.log(2 * math.pi) / 2
            found += [1 - float((missed**2).mean()) / spread**2, float(density.mean())]
    return [*found, spent]


def search(kind: str, problem: Problem, seed: int, trials: int, marks: Sequence[int]) -> list[float]:
    """Return the score after each mark, and CPU milliseconds per trial."""
    study = optuna.create_study(
        directions=problem.directions,
        sampler=sampler_of(kind, problem, seed),
        pruner=optuna.pruners.NopPruner(),
    )
    values, spent = [], 0.0
    for _ in range(trials):
        begun = time.process_time()
        trial = study.ask(dict(problem.space))
        spent += time.process_time() - begun
        row = np.array([[d.to_internal_repr(trial.params[name]) for name, d in problem.space.items()]], np.int64)
        values.append(problem.values(row)[0])
        study.tell(trial, values[-1].tolist())
    return [*(problem.score(np.array(values[:mark])) for mark in marks), 1000 * spent / trials]


def measured(job: tuple[str, str], anb: Path | None, seeds: int, trials: int) -> str:
    """Return two lines on one problem and model."""
    name, kind = job
    problem = _problem(name, anb)
    marks = [mark for mark in (50, 100, 200) if mark <= trials]
    cells = []
    for size in SIZES:
        r2, density, cost_r2, cost_density, _ = np.mean(
            [predicted(kind, problem, size, seed) for seed in range(3)], axis=0
        )
        cells.append(f"{r2:.2f} {density:+.2f}, {cost_r2:.2f} {cost_density:+.2f}")
    lines = [f"predicts | {name} | {kind} | {' | '.join(cells)} |"]
    found = np.array([search(kind, problem, seed, trials, marks) for seed in range(seeds)])
    shown = [f"{column.mean():.3f} ({column.min():.3f})" for column in found.T[:-1]]
    lines.append(f"searches | {name} | {kind} | {' | '.join(shown)} | {found[:, -1].mean():.0f} |")
    return "\n".join(lines)


def _begin() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anb", type=Path, help="anb_dataset_jsons.tar.gz of github.com/afzalxo/Accel-NASBench")
    parser.add_argument("--models", default=",".join(MODELS), help=f"(default: {','.join(MODELS)})")
    parser.add_argument("--problems", type=int, default=2, help="number of problems, from the first (default: 2)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the searches (default: 2)")
    parser.add_argument("--trials", type=int, default=200, help="trials of each search (default: 200)")
    parser.add_argument("--workers", type=int, default=2, help="models side by side (default: 2)")
    options = parser.parse_args()
    print("predicts: R2 and log-density of accuracy, then of the cost's logarithm, from 50, 100, 200 members")
    print("searches: hypervolume after 50, 100, 200 trials, mean (worst seed), then CPU ms per trial", flush=True)
    names = PROBLEMS if options.anb else PROBLEMS[1:]
    jobs = [(name, kind) for name in names[: options.problems] for kind in options.models.split(",")]
    call = functools.partial(measured, anb=options.anb, seeds=options.seeds, trials=options.trials)
    with multiprocessing.get_context("spawn").Pool(options.workers, initializer=_begin) as pool:
        for lines in pool.imap(call, jobs, chunksize=1):
            print(lines, flush=True)


if __name__ == "__main__":
    main()
