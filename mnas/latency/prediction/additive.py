"""Latencies of networks as sums over their parts, learnt from measured networks; pure, and the same for every device.

Each amount of each kind of part has a rate, 0 or more (time = rate x multiply-accumulates + ...), fitted by least
squares of relative errors. A Gaussian process models what the rates miss: every part deviates from its share of the
time by a function of its place (sizes, stride), the same for all parts of its kind. One such function is smooth;
another is nearly independent between places. The whole network deviates by a smooth function of its size. Only sums can
be measured, so the covariance of two networks is the sum over the pairs of their parts. The process also gives the
error of a prediction, which is larger for networks with parts that no measured network had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize, nnls

from mnas.latency.prediction.parts import Part, Place

Array = npt.NDArray[np.float64]
Network = Sequence[Part]

SHRINKAGE = 0.05
"""Strength of the pull of the rates towards 0: each amount counts as seen once, with this share of an average time."""
LEAST_SHARE = 0.002
"""Share of an average time that is added to what a part takes by its rates, so that parts of rate 0 may deviate too."""
LEAST_TIME = 0.2
"""Lower limit of what the rates predict, as a share of the shortest time seen."""
REACH = {"alike": 1.5, "own": 0.2, "network": 1.5}
"""Correlation lengths of deviations, in octaves: of near parts, of nearly equal parts, and of whole networks."""
FEWEST = 10
SEARCHED = 400
"""Maximum number of networks that the spreads are chosen on; the cost grows with its cube."""
TYPICAL_SPREAD, SPREAD_OF_SPREADS = 0.05, 2.5
"""Prior of the spreads: their median, and the standard deviation of their logarithm."""
COMPONENTS = ("rates", *REACH)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The parameters chosen for a device."""

    rates: Mapping[str, Mapping[str, float]]
    """Kind of part -> amount -> time of one unit of it."""
    typical: Mapping[str, Mapping[str, float]]
    """Kind of part -> amount -> how much of it an average network has."""
    average: float
    """Time of an average network."""
    least: float
    """Lower limit of a time that the rates predict."""
    spreads: Mapping[str, float]
    """Relative standard deviations: of the `rates`; of parts from what the rates predict, `alike` for near parts and
    `own` for each part; of the `network`; and `noise`, which no description explains."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able; `Parameters(**values)` reads them back equal."""
        return asdict(self)


@dataclass(frozen=True)
class _Bag:
    """All parts of one kind in a list of networks."""

    owners: npt.NDArray[np.int64]
    """Index of the network that has each part; (parts,)."""
    names: tuple[str, ...]
    amounts: Array
    """Amounts of the parts; (parts, names)."""
    places: tuple[Place, ...]

    def of(self, names: Sequence[str]) -> Array:
        """Return the amounts with these names, 0 for those that no part has."""
        columns = {name: self.amounts[:, i] for i, name in enumerate(self.names)}
        none = np.zeros(len(self.owners))
        return np.stack([columns.get(name, none) for name in names], axis=1) if names else np.empty((len(none), 0))


@dataclass(frozen=True)
class _Bags:
    count: int
    """Number of networks."""
    kinds: Mapping[str, _Bag]


@dataclass(frozen=True)
class Additive:
    """A predictor of the times of networks, given the times of some; `fit` and `condition` make it."""

    parameters: Parameters
    seen: _Bags
    means: Array
    """Times of the networks seen, by the rates alone."""
    factor: Array
    """Lower triangular factor of the covariance of the networks seen, noise included."""
    weights: Array
    """Inverse of that covariance, times what the rates miss."""

    def predict(self, networks: Sequence[Network]) -> tuple[Array, Array]:
        """Return the networks' times, and the relative standard deviation of measurements from them."""
        bags = _bags(networks)
        means = _means(bags, self.parameters)
        shared = _total(_covariances((bags, means), (self.seen, self.means), self.parameters), self.parameters)
        own = _total(_variances(bags, means, self.parameters), self.parameters)
        explained = solve_triangular(self.factor, shared.T, lower=True)
        variance = np.maximum(own - (explained**2).sum(axis=0), 0) + self.parameters.spreads["noise"] ** 2
        values = np.maximum(means * (1 + shared @ self.weights), self.parameters.least)
        return values, np.sqrt(variance) * means / values


def fit(networks: Sequence[Network], times: Sequence[float], errors: Sequence[float]) -> Additive:
    """Learn from measured times and their relative standard errors.

    Raises:
        ValueError: there are fewer than 10 networks, or a time is not positive, or an error negative.
    """
    values, deviations = _checked(networks, times, errors)
    bags = _bags(networks)
    rated = _rated(bags, values)
    if len(values) <= SEARCHED:
        return _conditioned(bags, values, deviations, _chosen(bags, values, deviations, rated))
    some = np.random.default_rng(0).permutation(len(values))[:SEARCHED]
    chosen = _chosen(_bags([networks[i] for i in some]), values[some], deviations[some], rated)
    return _conditioned(bags, values, deviations, chosen)


def condition(
    networks: Sequence[Network], times: Sequence[float], errors: Sequence[float], parameters: Parameters
) -> Additive:
    """Learn as `fit` does, with parameters that it chose before. Raises ValueError as `fit` does."""
    values, deviations = _checked(networks, times, errors)
    return _conditioned(_bags(networks), values, deviations, parameters)


def _conditioned(bags: _Bags, values: Array, deviations: Array, parameters: Parameters) -> Additive:
    means = _means(bags, parameters)
    covariances = _covariances((bags, means), (bags, means), parameters)
    factor = cholesky(_total(covariances, parameters) + _noise(deviations, parameters.spreads), lower=True)
    weights = cho_solve((factor, True), values / means - 1)
    return Additive(parameters, bags, means, factor, weights)


def _checked(networks: Sequence[Network], times: Sequence[float], errors: Sequence[float]) -> tuple[Array, Array]:
    values, deviations = np.asarray(times, float), np.asarray(errors, float)
    if not len(networks) == len(values) == len(deviations):
        raise ValueError(f"each network must have a time and an error, but got {len(networks)} networks")
    if len(values) < FEWEST:
        raise ValueError(f"a predictor needs at least {FEWEST} measured networks, but got {len(values)}")
    if not (np.all(np.isfinite(values)) and np.all(values > 0)):
        raise ValueError(f"times must be positive, but got {values[~(np.isfinite(values) & (values > 0))][0]}")
    if not (np.all(np.isfinite(deviations)) and np.all(deviations >= 0)):
        raise ValueError("errors must be 0 or more")
    return values, deviations


# Networks as arrays


def _bags(networks: Sequence[Network]) -> _Bags:
    parts: dict[str, list[tuple[int, Part]]] = {}
    for number, network in enumerate(networks):
        for part in network:
            parts.setdefault(part.kind, []).append((number, part))
    kinds = {}
    for kind, pairs in parts.items():
        names = tuple(sorted({name for _, part in pairs for name in part.amounts}))
        amounts = np.array([[part.amounts.get(name, 0.0) for name in names] for _, part in pairs])
        owners = np.array([number for number, _ in pairs])
        kinds[kind] = _Bag(owners, names, amounts.reshape(len(pairs), -1), tuple(part.place for _, part in pairs))
    return _Bags(len(networks), kinds)


def _summed(bags: _Bags, columns: Sequence[tuple[str, str]]) -> Array:
    """Return each network's total of each amount, (networks, columns); a column is (kind, amount)."""
    summed = np.zeros((bags.count, len(columns)))
    for number, (kind, name) in enumerate(columns):
        if kind in bags.kinds:
            bag = bags.kinds[kind]
            np.add.at(summed[:, number], bag.owners, bag.of([name])[:, 0])
    return summed


# The rates


def _rated(bags: _Bags, values: Array) -> Parameters:
    """Return rates by least squares of relative errors, each 0 or more; the other parameters are not chosen yet."""
    columns = [(kind, name) for kind, bag in bags.kinds.items() for name in bag.names]
    amounts = _summed(bags, columns)
    typical = np.maximum(amounts.mean(axis=0), 1e-12)
    shrinking = SHRINKAGE * np.eye(len(columns))
    relative = amounts / typical / values[:, None] * values.mean()
    solved, _ = nnls(np.vstack([relative, shrinking]), np.concatenate([np.ones(len(values)), np.zeros(len(columns))]))
    rates: dict[str, dict[str, float]] = {}
    scales: dict[str, dict[str, float]] = {}
    for (kind, name), share, scale in zip(columns, solved, typical, strict=True):
        rates.setdefault(kind, {})[name] = float(share * values.mean() / scale)
        scales.setdefault(kind, {})[name] = float(scale)
    return Parameters(
        rates=rates,
        typical=scales,
        average=float(values.mean()),
        least=float(LEAST_TIME * values.min()),
        spreads=dict.fromkeys((*COMPONENTS, "noise"), TYPICAL_SPREAD),
    )


def _means(bags: _Bags, parameters: Parameters) -> Array:
    """Return the times that the rates predict."""
    columns = [(kind, name) for kind, rates in parameters.rates.items() for name in rates]
    rates = np.array([parameters.rates[kind][name] for kind, name in columns])
    means: Array = np.maximum(_summed(bags, columns) @ rates, parameters.least)
    return means


# Covariances of what the rates miss, relative to what they predict, of spread 1


def _covariances(rows: tuple[_Bags, Array], columns: tuple[_Bags, Array], parameters: Parameters) -> dict[str, Array]:
    """Return the covariances of each component, (networks of rows, networks of columns)."""
    (bags, means), (others, other_means) = rows, columns
    components = {name: np.zeros((bags.count, others.count)) for name in COMPONENTS}
    components["rates"] = _relative(bags, means, parameters) @ _relative(others, other_means, parameters).T
    for kind in set(bags.kinds) & set(others.kinds):
        places, loads = _loads(bags, means, kind, parameters)
        other_places, other_loads = _loads(others, other_means, kind, parameters)
        squares = _squares(places, other_places)
        for name in _components(kind):
            components[name] += loads @ np.exp(-squares / (2 * REACH[name] ** 2)) @ other_loads.T
    return components


def _variances(bags: _Bags, means: Array, parameters: Parameters) -> dict[str, Array]:
    """Return the variance of each network: the diagonal of `_covariances`."""
    components = {name: np.zeros(bags.count) for name in COMPONENTS}
    components["rates"] = (_relative(bags, means, parameters) ** 2).sum(axis=1)
    for kind in bags.kinds:
        places, loads = _loads(bags, means, kind, parameters)
        squares = _squares(places, places)
        for name in _components(kind):
            components[name] += ((loads @ np.exp(-squares / (2 * REACH[name] ** 2))) * loads).sum(axis=1)
    return components


def _components(kind: str) -> tuple[str, ...]:
    return ("network",) if kind == "network" else ("alike", "own")


def _relative(bags: _Bags, means: Array, parameters: Parameters) -> Array:
    """Return the amounts as multiples of the typical ones, in shares of a network that takes an average time."""
    columns = [(kind, name) for kind, typical in parameters.typical.items() for name in typical]
    typical = np.array([parameters.typical[kind][name] for kind, name in columns])
    relative: Array = _summed(bags, columns) / typical * (parameters.average / means)[:, None]
    return relative


def _loads(bags: _Bags, means: Array, kind: str, parameters: Parameters) -> tuple[list[Place], Array]:
    """Return the different places of a kind, and each network's share of time in them, (networks, places).

    For kind `network` the share is 1; a part of a kind without rates takes `LEAST_SHARE` of an average time.
    """
    bag, rates = bags.kinds[kind], parameters.rates.get(kind, {})
    shares = bag.of(list(rates)) @ np.array(list(rates.values())) + LEAST_SHARE * parameters.average
    shares = means[bag.owners] if kind == "network" else shares
    places = list(dict.fromkeys(bag.places))
    number = {place: i for i, place in enumerate(places)}
    loads = np.zeros((bags.count, len(places)))
    np.add.at(loads, (bag.owners, np.array([number[place] for place in bag.places])), shares / means[bag.owners])
    return places, loads


def _squares(places: Sequence[Place], others: Sequence[Place]) -> Array:
    """Return the squared distances between places."""
    squares = np.zeros((len(places), len(others)))
    for row, column in zip(zip(*places, strict=True), zip(*others, strict=True), strict=True):
        if isinstance(row[0], str):
            squares += np.array(row)[:, None] != np.array(column)[None]
        else:
            squares += (np.array(row)[:, None] - np.array(column)[None]) ** 2
    return squares


def _total(components: Mapping[str, Array], parameters: Parameters) -> Array:
    return sum((parameters.spreads[name] ** 2 * components[name] for name in COMPONENTS), np.zeros(()))


def _noise(deviations: Array, spreads: Mapping[str, float]) -> Array:
    return np.diag(spreads["noise"] ** 2 + deviations**2)


def _chosen(bags: _Bags, values: Array, deviations: Array, rated: Parameters) -> Parameters:
    """Return the parameters with the most probable spreads, given the times."""
    means = _means(bags, rated)
    covariances = _covariances((bags, means), (bags, means), rated)
    every = [*(covariances[name] for name in COMPONENTS), np.eye(len(values))]
    optimum = minimize(
        _improbability,
        np.full(len(every), np.log(TYPICAL_SPREAD)),
        args=(every, np.diag(deviations**2), values / means - 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-9, 2)] * len(COMPONENTS) + [(-6, 0)],
    )
    return replace(rated, spreads=dict(zip((*COMPONENTS, "noise"), np.exp(optimum.x).tolist(), strict=True)))


def _improbability(logs: Array, covariances: Sequence[Array], fixed: Array, missed: Array) -> tuple[float, Array]:
    """Return minus the log density of `missed` and of the spreads' prior, and its gradient.

    The covariance is `fixed` + the sum of exp(2 log) x covariance.
    """
    scaled = [np.exp(2 * log) * covariance for log, covariance in zip(logs, covariances, strict=True)]
    factor = cholesky(fixed + sum(scaled), lower=True)
    inverse = cho_solve((factor, True), np.eye(len(missed)))
    weights = inverse @ missed
    away = (logs - np.log(TYPICAL_SPREAD)) / SPREAD_OF_SPREADS
    value = weights @ missed / 2 + np.log(np.diag(factor)).sum() + (away**2).sum() / 2
    slopes = [float((inverse * part).sum() - weights @ part @ weights) for part in scaled]
    return float(value), np.array(slopes) + away / SPREAD_OF_SPREADS
