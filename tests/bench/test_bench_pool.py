"""The pool of random networks, which is the scale for searches."""

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution

from mnas.bench.comparison import ControllerSearches, curve_points, hits, shares
from mnas.bench.pool import Pool, draw_pool, interval, marks, pool_indices, rewards
from mnas.bench.searched import Searched
from mnas.evaluate.benchmark import Benchmark
from mnas.objective import Objective
from tests.bench.bench_toy import rows, toy_benchmark


def searched(points) -> Searched:
    accuracies, costs = np.array(points).T
    nothing = np.zeros(0)
    return Searched(np.zeros((len(costs), 1), np.int64), accuracies, costs, np.ones(len(costs)), nothing)


def test_the_pool_of_a_small_space_is_all_of_it(tmp_path):
    benchmark = toy_benchmark(tmp_path)
    pool = draw_pool(benchmark)
    assert len({tuple(row) for row in pool_indices(benchmark).tolist()}) == 72
    assert sorted(pool.accuracies.tolist()) == sorted(row[5] for row in rows())
    assert pool.ratio(pool.accuracies, pool.costs) == 1.0


def test_reference_point_target_and_ratio():
    pool = Pool(np.linspace(0.5, 0.6, 101), np.linspace(1.0, 11.0, 101))
    assert pool.reference == pytest.approx((0.51, 10.5))
    assert pool.target(0.4) == pytest.approx(5.0)
    # all are on the front: strips 0.1 wide, from the first one above the reference point (0.001 high) to one of 0.084
    assert pool.volume == pytest.approx(sum(0.1 * 0.001 * i for i in range(1, 85)))
    assert pool.ratio([0.55, 0.505], [5.0, 1.0]) == pytest.approx(0.04 * 5.5 / pool.volume)
    assert pool.ratio([], []) == 0
    assert pool.front[0] == pytest.approx((0.5, 1.0))


def test_the_pool_is_the_same_every_time_and_uniform():
    def made(counts) -> Benchmark:
        space = {f"d{i}": CategoricalDistribution(range(n)) for i, n in enumerate(counts)}
        return Benchmark(name="", space=space, cost_unit="", accuracy_of=len, cost_of=len, content="")

    assert pool_indices(made(range(1, 9))).shape == (40_320, 8)  # 8!: all of them
    indices = pool_indices(made([*range(1, 9), 8]))
    assert indices.shape == (60_000, 9)
    assert np.array_equal(indices, pool_indices(made([*range(1, 9), 8])))
    counts = np.bincount(indices[:, 8])
    assert len(counts) == 8
    # 60,000 draws of probability 1/8: 7,500 +- 81; beyond 5 deviations once in 200,000 pools of such a column
    assert np.abs(counts - 7500).max() < 5 * 81


def test_a_benchmark_without_a_trade_off_is_rejected():
    with pytest.raises(
        ValueError, match=r"none of its 10 networks is both; accuracies range from 0\.5 to 0\.5 and costs from 1 to 10"
    ):
        Pool(np.full(10, 0.5), np.arange(1.0, 11.0))


def test_marks_and_curves():
    assert marks(500) == (50, 100, 200, 500)
    assert marks(30) == (30,)
    assert marks(8000) == (50, 100, 200, 500, 1000, 2000, 8000)
    assert curve_points(5) == [5]
    points = curve_points(500)
    assert (points[0], points[-1]) == (10, 500)
    assert points == sorted(set(points))


def test_intervals_are_students():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2) from a table
    assert str(found) == "2.000 ±2.484"
    assert str(interval([0.5])) == "0.500"


def test_rows_take_the_first_trials_only():
    objective = Objective(form="soft", target_latency_ms=2.0, alpha=-1.0, beta=-1.0)
    row = ControllerSearches(
        "x", objective, (searched([(0.5, 2), (0.6, 4), (0.8, 2)]), searched([(0.5, 4), (0.5, 1), (0.9, 9)]))
    )
    assert row.best_reward(1).mean == pytest.approx((0.5 + 0.25) / 2)
    assert row.best_reward(2).mean == pytest.approx((0.5 + 1.0) / 2)
    assert row.distances(2.0).tolist() == [0.0, -0.5]
    found = hits(row, 0.4, 2.0)
    assert (found.share, found.median, found.worst) == (0.5, -0.25, -0.5)
    assert (found.share_on_front, found.worst_on_front) == (0.5, -0.5)
    steep = ControllerSearches(
        "x", Objective(form="target", target_latency_ms=2.0, alpha=-1.0, beta=-1.0), (row.searches[1],)
    )
    assert (steep.distances(2.0).tolist(), steep.distances_on_front(2.0).tolist()) == ([-0.5], [-0.5])
    dominated = ControllerSearches("x", steep.objective, (searched([(0.5, 2), (0.6, 1)]),))
    assert (dominated.distances(2.0).tolist(), dominated.distances_on_front(2.0).tolist()) == ([0.0], [-0.5])
    assert row.sampled() == pytest.approx((1 / 6, 2 / 6, 3 / 6))
    pool = Pool(np.linspace(0.4, 0.8, 101), np.linspace(1.0, 11.0, 101))
    assert row.hypervolume(pool, 2).mean == pytest.approx(
        np.mean([pool.ratio([0.5, 0.6], [2, 4]), pool.ratio([0.5, 0.5], [4, 1])])
    )
    assert row.median_search(pool) in row.searches


def test_rewards_are_the_objectives():
    objective = Objective(form="hard", target_latency_ms=5.0, alpha=0.0, beta=-1.0)
    assert rewards(objective, [0.8, 0.8], [4.0, 10.0]).tolist() == [0.8, 0.4]


def test_shares_add_up_and_include_values_beyond_the_edges():
    assert shares([0.1, 0.6, 0.6, 9.0], [0.5, 1.0, 2.0]) == [0.75, 0.25]
