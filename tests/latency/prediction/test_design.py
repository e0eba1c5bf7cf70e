"""The designed sample: all choices occur equally often, and no network occurs twice."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mnas.latency.prediction.design import design_sample
from mnas.space.named import SPACES, space_from_dict

SPACE = SPACES["mnasnet"]


@pytest.fixture(scope="module")
def rows():
    return np.array(design_sample(SPACE, 200, seed=0))


def spread(values, choices):
    """Return the difference in count between the most and the least frequent of `choices` possible values."""
    counts = Counter(values)
    return max(counts.values()) - (min(counts.values()) if len(counts) == choices else 0)


def test_every_choice_comes_equally_often(rows):
    assert rows.shape == (200, 42)
    for column, decision in enumerate(SPACE.decisions):
        assert spread(rows[:, column], len(decision.choices)) <= 1


def test_choices_that_other_blocks_do_not_have_come_equally_often():
    space = SPACES["mobilenetv4"]
    sample = np.array(design_sample(space, 72, seed=0))
    for column, decision in enumerate(space.decisions):
        assert spread(sample[:, column], len(decision.choices)) <= 1


def test_every_triple_of_op_kernel_and_layers_comes_equally_often(rows):
    names = [decision.name for decision in SPACE.decisions]
    for block in range(1, 8):
        columns = [names.index(f"block{block}.{what}") for what in ("op", "kernel", "layers")]
        assert spread(map(tuple, rows[:, columns]), 4 * 2 * 3) <= 1


def excess(rows):
    """Return the sum of squared deviations of the counts of pairs of choices from equal counts."""
    sizes = [len(decision.choices) for decision in SPACE.decisions]
    total = 0.0
    for i, j in itertools.combinations(range(len(sizes)), 2):
        met = np.zeros((sizes[i], sizes[j]))
        np.add.at(met, (rows[:, i], rows[:, j]), 1)
        total += ((met - len(rows) / met.size) ** 2).sum()
    return total


def test_pairs_of_choices_meet_far_more_equally_than_at_random(rows):
    draw = np.random.default_rng(0)
    random = np.stack([draw.integers(len(d.choices), size=200) for d in SPACE.decisions], axis=1)
    assert excess(rows) < excess(random) / 5


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    sample = design_sample(SPACE, 30, seed=1)
    assert sample == design_sample(SPACE, 30, seed=1)
    assert sample != design_sample(SPACE, 30, seed=2)


TINY = space_from_dict(
    {
        "name": "tiny",
        "skeleton": {"filters": [16, 24], "layers": [1, 2], "strides": [1, 2]},
        "choices": {"se_ratio": [0.0], "skip": ["none"], "filters": [1.0], "layers": [0]},
    }
)


def test_a_whole_space_is_each_of_its_networks_once():
    rows = design_sample(TINY, TINY.distinct, seed=0)
    assert TINY.distinct == 64
    assert len({TINY.decode(row).fingerprint for row in rows}) == 64


@pytest.mark.parametrize("count", [0, 65])
def test_more_samples_than_networks_are_refused(count):
    with pytest.raises(
        ValueError, match=f"--samples must be from 1 to 64, the size of the search space, but got {count}"
    ):
        design_sample(TINY, count, seed=0)
