"""A Gaussian process over categorical decisions, made for dozens to hundreds of samples.

The covariance of two members is a sum over their similarities, each part with its own variance:
- `main`: effects of single choices; `family`: effects that a family shares (`coding.py`); `trend`: their growth from
  the first decision of the family to the last;
- `beside`: another model's prediction as an extra input feature (`Coded.beside`), in proportion;
- `group`: interactions of decisions of a group; `pairs`: of any two decisions; `rest`: of all decisions, by the
  weighted share of equal choices.
Every decision has a weight, its relevance in all of these (automatic relevance determination), which it shares in part
with its family. Variances, weights and noise are the most probable ones (maximum a posteriori, L-BFGS), on torch in
double precision and one thread: the same data give the same bits.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mnas.controller.one_thread import one_thread
from mnas.controller.surrogate.coding import Coded, Coding

Array = npt.NDArray[np.float64]

PRIOR = {
    "noise": 0.3,
    "main": 0.5,
    "family": 0.3,
    "trend": 0.2,
    "group": 0.3,
    "pairs": 0.3,
    "rest": 0.15,
    "beside": 0.3,
}
"""Medians of the standard deviations of each part, relative to the data's.

Few data cannot separate `rest` from noise. Noise is more likely, and believing in a rest makes search random.
"""
PRIOR_SPREAD = 1.5
"""Prior standard deviation of their logarithms."""
WEIGHT_SPREAD = 1.0
"""Prior standard deviation of the logarithms of weights, of families and within them."""
LENGTH_SPREAD = 1.0
LEVEL = 1.0
"""Variance that all members share."""
JITTER = 1e-6
STEPS = 60
"""Maximum number of L-BFGS steps."""


class HyperparameterLayout:
    """Position of each hyper-parameter in the vector of logarithms, and the priors."""

    def __init__(self, coding: Coding, beside: int) -> None:
        self.coding = coding
        absent = set() if coding.families else {"family", "trend"}
        absent |= set() if coding.groups else {"group"}
        absent |= set() if beside else {"beside"}
        self.parts = [name for name in PRIOR if name not in absent]
        free, families = len(coding.free), len(coding.families)
        self.medians = np.log([*(PRIOR[name] for name in self.parts), 1.0, *[1.0] * (free + families)])
        weights = [WEIGHT_SPREAD] * (free + families)
        self.spreads = np.array([*[PRIOR_SPREAD] * len(self.parts), LENGTH_SPREAD, *weights])
        self._free = torch.tensor(coding.free, dtype=torch.int64)
        self._family_of = torch.tensor([coding.family_of[d] for d in coding.free], dtype=torch.int64)
        self.groups = [torch.isin(coding.main_owner, torch.tensor(g)).nonzero()[:, 0] for g in coding.groups]

    def weights(self, logs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of all decisions (0 for those without a choice) and of families, each 1 on average."""
        logs = logs[len(self.parts) + 1 :]
        own, shared = logs[: len(self._free)], logs[len(self._free) :]
        every = torch.zeros(self.coding.decisions, dtype=torch.float64)
        if not len(own):
            return every, shared
        padded = torch.cat([shared, torch.zeros(1, dtype=torch.float64)])  # family -1, none, is the last entry
        weights = (own + padded[self._family_of]).exp()
        of_families = shared.exp()
        if len(shared):
            of_families = of_families / of_families.mean()
        return every.index_put((self._free,), weights / weights.mean()), of_families


class Covariance:
    """Covariance of members under given hyper-parameters, without noise."""

    def __init__(self, layout: HyperparameterLayout, logs: Tensor) -> None:
        coding = layout.coding
        self._layout = layout
        variance = dict(zip(layout.parts, (2 * logs[: len(layout.parts)]).exp(), strict=True))
        weights, of_families = layout.weights(logs)
        count = max(1, len(coding.free))
        self.decision_weights = weights
        main = weights[coding.main_owner]
        linear, scale = [main * (variance["main"] / count)], variance["main"]
        if coding.families:
            owner = of_families[coding.family_owner] / len(coding.families)
            linear += [owner * variance["family"], owner * variance["trend"]]
            scale = scale + variance["family"] + variance["trend"]
        if "beside" in variance:
            linear.append(variance["beside"][None])
            scale = scale + variance["beside"]
        self._linear = torch.cat(linear)
        self._pairs = variance["pairs"] / scale**2
        self._groups = []
        """Columns of each group, and their factor on `main`."""
        for columns in layout.groups:
            deviation = (variance["group"] / len(layout.groups)).sqrt() / len(columns)
            self._groups.append((columns, main[columns] * deviation))
        reach = count**0.5 / logs[len(layout.parts)].exp()
        self._share = (weights / weights.sum().clamp_min(1e-300))[coding.alike_owner] * reach
        self._rest = variance["rest"]
        self._furthest = self._rest.log() - reach

    def __call__(self, first: Coded, second: Coded) -> Tensor:
        """Return the covariances (first, second), computed in place where possible, as they are large."""
        linear = (self._together(first) * self._linear) @ self._together(second).T
        total = self._acting_together(linear)
        for columns, scale in self._groups:
            part = (first.main[:, columns] * scale) @ second.main[:, columns].T
            total.addcmul_(part, part)
        rest: Tensor = torch.addmm(self._furthest, first.alike * self._share, second.alike.T).exp()
        return total.add_(rest)

    def diagonal(self, coded: Coded) -> Tensor:
        """Return (N,) the variance of each member."""
        total = self._acting_together(self._together(coded) ** 2 @ self._linear)
        squares = coded.main**2
        for columns, scale in self._groups:
            part = squares[:, columns] @ scale
            total.addcmul_(part, part)
        return total.add_(self._rest)

    def _together(self, coded: Coded) -> Tensor:
        """Return the features that count in proportion."""
        return torch.cat([coded.main, coded.family, coded.trend, coded.beside], 1)

    def _acting_together(self, linear: Tensor) -> Tensor:
        """Return LEVEL + linear + pairs * linear ** 2."""
        total: Tensor = (linear * self._pairs).add_(1).mul(linear).add_(LEVEL)
        return total


@dataclass(frozen=True)
class Process:
    """Process of values of members, given some of them up to noise; `fit` and `condition` make it."""

    layout: HyperparameterLayout
    logs: Array
    """Logarithms of the hyper-parameters."""
    improbability: float
    """Minus the logarithm of the density of data and hyper-parameters, with data in the user's units."""
    seen: Coded
    factor: Tensor
    """Lower triangular factor of the covariance of the members seen, noise included."""
    weights: Tensor
    """Inverse of that covariance, times the values."""
    mean: float
    scale: float
    """Scale of the values, which are `mean` + `scale` x those of the process."""

    @cached_property
    def covariance(self) -> Covariance:
        """Return the covariance under the chosen hyper-parameters."""
        return Covariance(self.layout, torch.from_numpy(self.logs))

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a value seen."""
        return float(np.exp(self.logs[0])) * self.scale

    def expect(self, coded: Coded) -> Tensor:
        """Return (N,) means in units of the process: 0 on average over the members seen, of deviation 1."""
        return self.covariance(coded, self.seen)[:, : len(self.weights)] @ self.weights

    def predict(self, coded: Coded) -> tuple[Tensor, Tensor]:
        """Return (N,) means and standard deviations, without noise."""
        shared = self.covariance(coded, self.seen)
        explained = torch.linalg.solve_triangular(self.factor, shared.T, upper=False)
        variance = self.covariance.diagonal(coded) - (explained**2).sum(0)
        # believed members (`believing`) have the predicted value, and so change no mean
        means = shared[:, : len(self.weights)] @ self.weights
        return means * self.scale + self.mean, variance.clamp_min(1e-12).sqrt() * self.scale

    def believing(self, coded: Coded) -> "Process":
        """Return the process after the one member `coded` has been seen, if its value is the predicted one."""
        shared = self.covariance(coded, self.seen)
        row = torch.linalg.solve_triangular(self.factor, shared.T, upper=False)[:, 0]
        own = self.covariance.diagonal(coded)[0] + np.exp(2 * self.logs[0]) + JITTER
        factor = torch.zeros((len(row) + 1, len(row) + 1), dtype=torch.float64)
        factor[:-1, :-1], factor[-1, :-1] = self.factor, row
        factor[-1, -1] = (own - row @ row).clamp_min(JITTER).sqrt()
        seen = Coded(*(torch.cat([getattr(self.seen, n), getattr(coded, n)]) for n in vars(coded)))
        return replace(self, seen=seen, factor=factor)

    def decision_weights(self) -> Array:
        """Return (D,) the relevance of each decision, 1 on average over those with a choice."""
        weights: Array = self.covariance.decision_weights.numpy()
        return weights

    @property
    def values(self) -> Array:
        """Return (N,) the values that the process was conditioned on."""
        values: Array = (self.factor @ (self.factor.T @ self.weights)).numpy() * self.scale + self.mean
        return values

    def left_out(self) -> tuple[Array, Array]:
        """Return the prediction of each value seen from all others, and its standard deviation, noise included."""
        inverse = torch.cholesky_inverse(self.factor)
        missed = (self.weights / inverse.diagonal()).numpy() * self.scale
        return self.values - missed, (inverse.diagonal().rsqrt() * self.scale).numpy()


def fit(coding: Coding, coded: Coded, values: Array) -> Process:
    """Choose the hyper-parameters on N >= 1 members and their values."""
    from scipy.optimize import minimize

    layout = HyperparameterLayout(coding, coded.beside.shape[1])
    mean, scale = _standard(values)
    standard = torch.from_numpy((values - mean) / scale)
    with one_thread(), torch.enable_grad():
        optimum = minimize(
            _improbability,
            layout.medians,
            args=(layout, coded, standard),
            jac=True,
            method="L-BFGS-B",
            bounds=[(m - 5, m + 4) for m in layout.medians],
            options={"maxiter": STEPS},
        )
    return _conditioned(
        layout, coded, standard, (mean, scale), optimum.x, float(optimum.fun) + len(values) * np.log(scale)
    )


def condition(coding: Coding, coded: Coded, values: Array, logs: Array) -> Process:
    """Return the process as `fit` does, with hyper-parameters that it chose before."""
    mean, scale = _standard(values)
    standard = torch.from_numpy((values - mean) / scale)
    return _conditioned(
        HyperparameterLayout(coding, coded.beside.shape[1]), coded, standard, (mean, scale), logs, np.nan
    )


def _conditioned(
    layout: HyperparameterLayout,
    coded: Coded,
    standard: Tensor,
    units: tuple[float, float],
    logs: Array,
    improbability: float,
) -> Process:
    with one_thread(), torch.no_grad():
        factor = _cholesky(Covariance(layout, torch.from_numpy(logs))(coded, coded), np.exp(2 * logs[0]))
        weights = torch.cholesky_solve(standard[:, None], factor)[:, 0]
    return Process(layout, logs, improbability, coded, factor, weights, *units)


def _standard(values: Array) -> tuple[float, float]:
    scale, rounding = float(values.std()), 1e-9 * max(1e-300, float(np.abs(values).max()))
    return float(values.mean()), scale if scale > rounding else max(1.0, rounding)


def _cholesky(covariances: Tensor, noise: float | Tensor) -> Tensor:
    """Return the factor of the covariances and noise, with more noise where rounding makes them not positive."""
    unit = torch.eye(len(covariances), dtype=torch.float64)
    for power in range(6):
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(covariances + (noise + JITTER * 10.0**power) * unit)
        if not failed:
            return factor
    raise AssertionError("a covariance with noise of the data's own size is positive")


def _improbability(logs: Array, layout: HyperparameterLayout, coded: Coded, values: Tensor) -> tuple[float, Array]:
    """Return minus the log density of values and hyper-parameters, and its gradient."""
    tensor = torch.from_numpy(logs.copy()).requires_grad_()
    covariances = Covariance(layout, tensor)(coded, coded)
    noise = (2 * tensor[0]).exp()
    with torch.no_grad():
        factor = _cholesky(covariances, noise)
        inverse = torch.cholesky_inverse(factor)
        weights = inverse @ values
        value = values @ weights / 2 + factor.diagonal().log().sum() + len(values) * np.log(2 * np.pi) / 2
        slopes = (inverse - weights[:, None] * weights) / 2
    torch.autograd.backward([covariances, noise], [slopes, slopes.diagonal().sum()])
    away = (logs - layout.medians) / layout.spreads
    assert tensor.grad is not None
    return float(value) + float((away**2).sum()) / 2, tensor.grad.numpy() + away / layout.spreads
