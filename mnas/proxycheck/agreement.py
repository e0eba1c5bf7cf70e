"""Agreement of short trainings with long ones in ranking architectures: Kendall's tau with intervals.

Intervals come from resampling architectures (bootstrap, percentiles) with the same draws for everything, so that two
proxies are compared on the same architectures. The mean over the reference's seeds stands for an architecture's true
accuracy. A proxy's accuracy is one training, as in a search, so tau is the mean over the proxy's seeds.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLED = 4000
"""Number of times that architectures are resampled."""


@dataclass(frozen=True)
class ScoreInterval:
    """A number with its 95 % interval; NaN where it is undefined, such as tau of fewer than three architectures."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ProxyAgreement:
    """Agreement of one way of training with the reference."""

    architectures: int
    """Number of architectures trained to the end with every seed, here and by the reference."""
    tau: ScoreInterval
    """Kendall's tau-b against the reference: 1 where all pairs are in the right order, 0 for chance."""
    tau_between_seeds: ScoreInterval
    """Kendall's tau-b of two seeds of this setting, mean over pairs of seeds; NaN for one seed."""
    accuracy_std: float
    """Standard deviation of accuracy between seeds, over all architectures; NaN for one seed."""
    mean_accuracy: float
    worse_by: ScoreInterval
    """Tau of the best setting less this one's, on the same architectures; 0 for the best."""


def weights_of(architectures: int) -> Array:
    """Return (RESAMPLED, architectures) counts of architectures in each draw; in the first row, each counts once."""
    draws = np.random.default_rng(0).integers(architectures, size=(RESAMPLED, architectures))
    counts = np.stack([np.bincount(draw, minlength=architectures) for draw in draws])
    return np.concatenate([np.ones((1, architectures)), counts]).astype(np.float64)


def taus(first: Array, second: Array, weights: Array) -> Array:
    """Return tau-b of two lists for each row of weights, as repeat counts of the entries; NaN where one is constant."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    both, one, other = signs[0] * signs[1], np.abs(signs[0]), np.abs(signs[1])
    agree, untied, untied_too = (((weights @ pairs) * weights).sum(axis=1) for pairs in (both, one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        values: Array = agree / np.sqrt(untied * untied_too)
    return values


def score_of(values: Array) -> ScoreInterval:
    """Return a score from the value itself and the values of all draws."""
    if len(values) < 2 or math.isnan(values[0]):
        return ScoreInterval(math.nan, math.nan, math.nan)
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return ScoreInterval(float(values[0]), min(float(values[0]), float(low)), max(float(values[0]), float(high)))


def agreements(settings: Sequence[Array], reference: Array) -> list[ProxyAgreement]:
    """Return the agreement of each setting with the reference.

    Args:
        settings: (architectures, seeds) accuracies of each setting; NaN where a training failed.
        reference: the same for the long training, (architectures, seeds).

    Raises:
        ValueError: there are fewer than three architectures.
    """
    if len(reference) < 3:
        raise ValueError(f"a ranking needs three architectures or more, but got {len(reference)}")
    weights = weights_of(len(reference))
    against = [_against(accuracies, reference, weights) for accuracies in settings]
    values = [taus_of[0] for taus_of in against]
    best = int(np.nanargmax(values)) if not np.isnan(values).all() else 0
    return [
        ProxyAgreement(
            architectures=int(_complete(accuracies, reference).sum()),
            tau=score_of(taus_of),
            tau_between_seeds=score_of(_between_seeds(accuracies, weights)),
            accuracy_std=_std(accuracies),
            mean_accuracy=float(np.nanmean(accuracies)) if not np.isnan(accuracies).all() else math.nan,
            worse_by=score_of(against[best] - taus_of),
        )
        for accuracies, taus_of in zip(settings, against, strict=True)
    ]


def _complete(accuracies: Array, reference: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(~(np.isnan(accuracies).any(axis=1) | np.isnan(reference).any(axis=1)))


def _against(accuracies: Array, reference: Array, weights: Array) -> Array:
    """Return tau for each draw, the mean over seeds, without architectures that failed."""
    complete = _complete(accuracies, reference)
    if complete.sum() < 3:
        return np.full(len(weights), math.nan)
    truth = reference[complete].mean(axis=1)
    return np.mean([taus(column, truth, weights[:, complete]) for column in accuracies[complete].T], axis=0)  # type: ignore[no-any-return]


def _between_seeds(accuracies: Array, weights: Array) -> Array:
    complete = ~np.isnan(accuracies).any(axis=1)
    pairs = list(itertools.combinations(accuracies[complete].T, 2))
    if not pairs or complete.sum() < 3:
        return np.full(len(weights), math.nan)
    return np.mean([taus(one, other, weights[:, complete]) for one, other in pairs], axis=0)  # type: ignore[no-any-return]


def _std(accuracies: Array) -> float:
    complete = accuracies[~np.isnan(accuracies).any(axis=1)]
    if complete.shape[1] < 2 or not len(complete):
        return math.nan
    return float(np.sqrt(complete.var(axis=1, ddof=1).mean()))


RELEVANT_LOSS = 0.1
"""Smallest loss of tau that matters: five more of a hundred pairs in the wrong order."""


def choose(settings: Sequence[ProxyAgreement], seconds: Sequence[float]) -> int | None:
    """Return the cheapest setting that is not certainly worse than the best; None where none ranks better than chance.

    A setting is certainly worse if the interval of the difference of the taus, on the same architectures, is above 0.
    """
    able = [i for i, a in enumerate(settings) if a.tau.low > 0 and not a.worse_by.low > 0]
    return min(able, key=lambda i: (seconds[i], i)) if able else None


def needed(agreement: ProxyAgreement) -> int:
    """Return roughly how many architectures would reveal a loss of `RELEVANT_LOSS`.

    Intervals narrow with the square root of the number of architectures.
    """
    width = agreement.worse_by.high - agreement.worse_by.low
    return math.ceil(agreement.architectures * max(1.0, (width / 2 / RELEVANT_LOSS) ** 2))
