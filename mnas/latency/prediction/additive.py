"""Times of networks as sums over their parts, learnt from the times of some; pure, and the same for every device.

First a rate for each amount of each kind of part, none negative (time = rate x multiply-accumulates + ...), by least
squares of relative errors. Then what the rates miss: a Gaussian process in which every part deviates from its share of
the time by a function of its place (sizes, stride), the same for all parts of its kind: one that is smooth, and one in
which hardly two places agree. The whole network deviates by a smooth function of its size. Only sums are ever measured,
so the covariance of two networks is the sum over the pairs of their parts. It says by itself how far off a prediction
may be: further where no measured network had such parts.
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
"""Of the rates towards 0; as if each amount were seen once, with so small a share of an average time."""
LEAST_SHARE = 0.002
"""Of an average time, added to what a part takes by its rates, so that parts of rate 0 may deviate as well."""
LEAST_TIME = 0.2
"""Of the shortest time seen: what the rates give at least."""
REACH = {"alike": 1.5, "own": 0.2, "network": 1.5}
"""Over so many octaves a deviation tells of another: of parts that are near, of those that are all but equal, and of
whole networks."""
FEWEST = 10
SEARCHED = 400
"""Networks that spreads are chosen on, at most: their cost grows with the cube."""
TYPICAL_SPREAD, SPREAD_OF_SPREADS = 0.05, 2.5
"""Spreads are thought to be about so large, give or take a factor of e^2.5."""
COMPONENTS = ("rates", *REACH)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What was chosen for a device."""

    rates: Mapping[str, Mapping[str, float]]
    """Kind of part -> amount -> time of one of it."""
    typical: Mapping[str, Mapping[str, float]]
    """Kind of part -> amount -> how much an average network has of it."""
    average: float
    """Time of an average network."""
    least: float
    """The rates give no network less."""
    spreads: Mapping[str, float]
    """Relative standard deviations: of the `rates`; of parts from what the rates say, as far as near ones do so `alike`
    and as far as each does on its `own`; of the `network`; and `noise`, what no description explains."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-able; `Parameters(**values)` reads them back equal."""
        return asdict(self)


@dataclass(frozen=True)
class _Bag:
    """All parts of one kind in a list of networks."""

    owners: npt.NDArray[np.int64]
    """Of each part: which network has it."""
    names: tuple[str, ...]
    amounts: Array
    """(parts, names)"""
    places: tuple[Place, ...]

    def of(self, names: Sequence[str]) -> Array:
        """The amounts by these names, 0 for those that no part has."""
        columns = {name: self.amounts[:, i] for i, name in enumerate(self.names)}
        none = np.zeros(len(self.owners))
        return np.stack([columns.get(name, none) for name in names], axis=1) if names else np.empty((len(none), 0))


@dataclass(frozen=True)
class _Bags:
    count: int
    """Of networks."""
    kinds: Mapping[str, _Bag]


@dataclass(frozen=True)
class Additive:
    """Times of networks, known for some of them; `fit` and `condition` make it."""

    parameters: Parameters
    seen: _Bags
    means: Array
    """What the rates alone say of those seen."""
    factor: Array
    """Lower triangular: of the covariance of those seen, noise included."""
    weights: Array
    """That covariance's inverse, times what the rates miss."""

    def predict(self, networks: Sequence[Network]) -> tuple[Array, Array]:
        """Their times, and the relative standard deviation of what would be measured from them."""
        bags = _bags(networks)
        means = _means(bags, self.parameters)
        shared = _total(_covariances((bags, means), (self.seen, self.means), self.parameters), self.parameters)
        own = _total(_variances(bags, means, self.parameters), self.parameters)
        explained = solve_triangular(self.factor, shared.T, lower=True)
        variance = np.maximum(own - (explained**2).sum(axis=0), 0) + self.parameters.spreads["noise"] ** 2
        values = np.maximum(means * (1 + shared @ self.weights), self.parameters.least)
        return values, np.sqrt(variance) * means / values


def fit(networks: Sequence[Network], times: Sequence[float], errors: Sequence[float]) -> Additive:
    """From measured times and their relative standard errors.

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
    """As `fit`, with parameters that it chose before. Raises ValueError as it does."""
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
        raise ValueError(f"a predictor must learn from {FEWEST} networks or more, but got {len(values)}")
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
    """(networks, columns): what each network has in all of each amount, a column being (kind, amount)."""
    summed = np.zeros((bags.count, len(columns)))
    for number, (kind, name) in enumerate(columns):
        if kind in bags.kinds:
            bag = bags.kinds[kind]
            np.add.at(summed[:, number], bag.owners, bag.of([name])[:, 0])
    return summed


# The rates


def _rated(bags: _Bags, values: Array) -> Parameters:
    """Rates by least squares of relative errors, none of them negative; nothing chosen yet beyond them."""
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
    """What the rates say."""
    columns = [(kind, name) for kind, rates in parameters.rates.items() for name in rates]
    rates = np.array([parameters.rates[kind][name] for kind, name in columns])
    means: Array = np.maximum(_summed(bags, columns) @ rates, parameters.least)
    return means


# What the rates miss: covariances relative to what they say, of spread 1


def _covariances(rows: tuple[_Bags, Array], columns: tuple[_Bags, Array], parameters: Parameters) -> dict[str, Array]:
    """(networks of rows, networks of columns) for each component."""
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
    """Of each network by itself: the diagonal of `_covariances`."""
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
    """Amounts as multiples of the typical ones, shares of a network that takes an average time."""
    columns = [(kind, name) for kind, typical in parameters.typical.items() for name in typical]
    typical = np.array([parameters.typical[kind][name] for kind, name in columns])
    relative: Array = _summed(bags, columns) / typical * (parameters.average / means)[:, None]
    return relative


def _loads(bags: _Bags, means: Array, kind: str, parameters: Parameters) -> tuple[list[Place], Array]:
    """The different places of a kind, and (networks, places): which share of a network's time its parts there take.

    Of kind `network` that is all of it; of a kind that was never seen nothing is known.
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
    """Squared distances."""
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
    """The spreads under which the times are the most probable."""
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
    """Minus the logarithm of the density of `missed` and of the spreads' prior, and its gradient.

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
