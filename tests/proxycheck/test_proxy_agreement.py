"""Statistics of a proxy check on synthetic accuracies: tau against scipy's, intervals, and the choice."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from mnas.proxycheck.agreement import agreements, choose, needed, taus, weights_of


def noisy(truth, noise, seeds=2, seed=0):
    rng = np.random.default_rng(seed)
    return truth[:, None] + noise * rng.standard_normal((len(truth), seeds))


TRUTH = np.linspace(0.6, 0.9, 12)
REFERENCE = noisy(TRUTH, 0.002, seed=9)


def test_tau_is_scipys_for_every_draw():
    rng = np.random.default_rng(3)
    left, right = rng.integers(6, size=(2, 10)).astype(float)  # with ties
    weights = weights_of(10)[:60]
    found = taus(left, right, weights)
    assert found[0] == pytest.approx(kendalltau(left, right).statistic, abs=1e-12)
    for row, value in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(10), row.astype(int))
        assert value == pytest.approx(kendalltau(left[drawn], right[drawn]).statistic, abs=1e-12)


def test_draws_are_of_as_many_architectures_with_replacement():
    weights = weights_of(7)
    assert weights.shape == (4001, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights[0] == 1).all()
    assert weights[1:].mean() == pytest.approx(1.0)


def test_a_constant_has_no_tau():
    assert math.isnan(taus(np.ones(5), np.arange(5.0), weights_of(5))[0])
    [found] = agreements([np.ones((12, 2))], REFERENCE)
    assert math.isnan(found.tau.value)
    assert choose([found], [1.0]) is None


def test_the_better_proxy_has_the_higher_tau_and_the_interval_contains_it():
    good, bad = agreements([noisy(TRUTH, 0.01), noisy(TRUTH, 0.2)], REFERENCE)
    assert good.tau.value > 0.8 > bad.tau.value
    assert good.tau.low <= good.tau.value <= good.tau.high <= 1
    assert good.worse_by.value == good.worse_by.low == good.worse_by.high == 0
    assert bad.worse_by.value == pytest.approx(good.tau.value - bad.tau.value)
    assert bad.worse_by.low > 0  # significantly worse
    assert good.accuracy_std == pytest.approx(0.01, rel=0.5)
    assert bad.accuracy_std == pytest.approx(0.2, rel=0.5)
    assert good.mean_accuracy == pytest.approx(0.75, abs=0.01)
    assert good.tau_between_seeds.value > 0.8 > bad.tau_between_seeds.value
    assert choose([bad, good], [1.0, 5.0]) == 1  # although it costs more
    assert choose([bad, good], [5.0, 1.0]) == 1


def test_the_cheapest_without_a_significant_difference_is_recommended():
    settings = [noisy(TRUTH, 0.02, seed=1), noisy(TRUTH, 0.021, seed=2), noisy(TRUTH, 0.2)]
    found = agreements(settings, REFERENCE)
    assert choose(found, [3.0, 2.0, 1.0]) == 1
    assert choose(found, [2.0, 3.0, 1.0]) == 0
    # an interval of the difference of 0.3 must be 3 times as narrow to show 0.1
    wide = max(found[:2], key=lambda a: a.worse_by.high - a.worse_by.low)
    half = (wide.worse_by.high - wide.worse_by.low) / 2
    assert needed(wide) == math.ceil(12 * max(1, (half / 0.1) ** 2))


def test_chance_is_never_recommended():
    rng = np.random.default_rng(1)
    found = agreements([rng.random((12, 2)), rng.random((12, 2))], REFERENCE)
    assert choose(found, [1.0, 1.0]) is None


def test_one_seed_gives_no_noise():
    [found] = agreements([noisy(TRUTH, 0.01, seeds=1)], REFERENCE)
    assert math.isnan(found.accuracy_std)
    assert math.isnan(found.tau_between_seeds.value)
    assert found.tau.value > 0.8


def test_an_architecture_that_failed_does_not_count():
    settings = noisy(TRUTH, 0.01)
    whole = agreements([settings[1:]], REFERENCE[1:])[0]
    settings[0, 1] = math.nan
    [found] = agreements([settings], REFERENCE)
    assert found.architectures == 11
    assert found.tau.value == whole.tau.value
    settings[:10, 0] = math.nan
    [found] = agreements([settings], REFERENCE)
    assert found.architectures == 2
    assert math.isnan(found.tau.value)


def test_two_architectures_cannot_be_ranked():
    with pytest.raises(ValueError, match="three architectures or more, but got 2"):
        agreements([REFERENCE[:2]], REFERENCE[:2])


def test_the_interval_covers_the_tau_of_many_architectures():
    """In 54 or more of 60 samples of 20 architectures, the interval contains the value of 2,000 architectures.

    Nominal 57; a percentile interval of so few is a little narrow. With a true coverage of 0.9 fewer than 46 come with
    a probability below 0.001.
    """
    rng = np.random.default_rng(5)
    many = rng.random(2000)
    proxy = many + 0.15 * rng.standard_normal(2000)
    true = kendalltau(many, proxy).statistic
    hits = 0
    for start in range(0, 1200, 20):
        part = slice(start, start + 20)
        [found] = agreements([proxy[part, None]], many[part, None])
        hits += found.tau.low <= true <= found.tau.high
    assert hits >= 46
