"""A model learnt from measured networks, with its scores on held-out ones."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mnas.latency.prediction.additive import Additive, Array, Network, Parameters, condition, fit
from mnas.latency.statistics import Estimate

FOLDS = 10
RESAMPLED = 2000
"""Number of times that networks are resampled for the interval of a score."""


@dataclass(frozen=True)
class HeldOutScore:
    """A score with its 95 % interval, by resampling the networks (bootstrap)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Scores of predictions for held-out networks: a model learnt without a network's fold predicts it."""

    networks: int
    mape: HeldOutScore
    """Mean of |predicted / measured - 1|."""
    worst: HeldOutScore
    """Largest |predicted / measured - 1|."""
    kendall_tau: HeldOutScore
    """Kendall's tau of predicted and measured times: 1 where all pairs are in the right order, 0 for chance."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `from_dict` reads them back equal."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "HeldOut":
        """Return the inverse of `to_dict`. Raises TypeError, KeyError on anything else."""
        scores = {name: HeldOutScore(**values[name]) for name in ("mape", "worst", "kendall_tau")}
        return HeldOut(networks=values["networks"], **scores)


@dataclass(frozen=True)
class Learned:
    """Predicts times of networks, each given by its parts."""

    additive: Additive
    width: float
    """Half-width of a 95 % interval, in predicted standard deviations; from the held-out networks."""
    held_out: HeldOut

    def predict(self, networks: Sequence[Network]) -> list[Estimate]:
        """Return the time of each network, with a 95 % interval of a measurement."""
        return [
            Estimate(value, value * math.exp(-self.width * deviation), value * math.exp(self.width * deviation))
            for value, deviation in zip(*map(np.ndarray.tolist, self.additive.predict(networks)), strict=True)
        ]


def learn(
    networks: Sequence[Network],
    times: Sequence[float],
    errors: Sequence[float],
    *,
    anchors: Sequence[tuple[Network, float, float]] = (),
    folds: int = FOLDS,
) -> Learned:
    """Learn from times (in any unit) and their relative standard errors.

    Args:
        anchors: networks with time and error that are never held out, such as the reference, whose time is 1.

    Raises:
        ValueError: there are fewer than 20 networks, or a time is not positive, or an error negative.
    """
    if len(networks) < 2 * folds:
        raise ValueError(f"a predictor needs at least {2 * folds} measured networks, but got {len(networks)}")
    values = np.asarray(times, float)
    predicted, deviations = _predicted_by_others(networks, values, errors, anchors, folds)
    distances = np.sort(np.abs(np.log(predicted / values)) / deviations)
    # the share of networks within the k-th of n distances is k / (n + 1) on average, whatever the distribution
    width = distances[min(len(values), math.ceil(0.95 * (len(values) + 1))) - 1]
    additive = fit(*_with([*zip(networks, times, errors, strict=True)], anchors))
    return Learned(additive, float(width), held_out_scores(predicted, values))


def relearn(
    networks: Sequence[Network],
    times: Sequence[float],
    errors: Sequence[float],
    anchors: Sequence[tuple[Network, float, float]],
    parameters: Parameters,
    width: float,
    held_out: HeldOut,
) -> Learned:
    """Return what `learn` returned, from the same data and its parameters. Raises ValueError as `learn` does."""
    if not isinstance(width, float) or not 0 < width < math.inf:
        raise ValueError(f"width must be greater than 0, but got {width!r}")
    return Learned(
        condition(*_with([*zip(networks, times, errors, strict=True)], anchors), parameters), width, held_out
    )


def held_out_scores(predicted: Sequence[float] | Array, measured: Sequence[float] | Array) -> HeldOut:
    """Return the scores of predictions, with intervals."""
    predictions, times = np.asarray(predicted, float), np.asarray(measured, float)
    missed = np.abs(predictions / times - 1)
    draws = np.random.default_rng(0).integers(len(times), size=(RESAMPLED, len(times)))
    worst = missed[draws].max(axis=1)
    return HeldOut(
        networks=len(times),
        mape=_score(float(missed.mean()), missed[draws].mean(axis=1)),
        worst=_score(float(missed.max()), worst),
        kendall_tau=kendall_tau(predictions, times),
    )


def kendall_tau(first: Sequence[float] | Array, second: Sequence[float] | Array) -> HeldOutScore:
    """Return Kendall's tau-b with a 95 % interval."""
    from scipy.stats import kendalltau

    one, other = np.asarray(first, float), np.asarray(second, float)
    draws = np.random.default_rng(0).integers(len(one), size=(RESAMPLED // 10, len(one)))
    return _score(float(kendalltau(one, other).statistic), [kendalltau(one[d], other[d]).statistic for d in draws])


def _score(value: float, resampled: Sequence[float] | Array) -> HeldOutScore:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return HeldOutScore(value, min(value, float(low)), max(value, float(high)))


def _with(
    samples: Sequence[tuple[Network, float, float]], anchors: Sequence[tuple[Network, float, float]]
) -> tuple[list[Network], list[float], list[float]]:
    every = [*samples, *anchors]
    return [n for n, _, _ in every], [t for _, t, _ in every], [e for _, _, e in every]


def _predicted_by_others(
    networks: Sequence[Network],
    times: Array,
    errors: Sequence[float],
    anchors: Sequence[tuple[Network, float, float]],
    folds: int,
) -> tuple[Array, Array]:
    """Return the time and relative deviation of each network, learnt without its fold."""
    predicted, deviations = np.zeros(len(times)), np.zeros(len(times))
    order = np.random.default_rng(0).permutation(len(times))
    for fold in range(folds):
        held = order[fold::folds]
        others = sorted(set(order.tolist()) - set(held.tolist()))
        additive = fit(*_with([(networks[i], float(times[i]), errors[i]) for i in others], anchors))
        predicted[held], deviations[held] = additive.predict([networks[i] for i in held])
    return predicted, deviations
