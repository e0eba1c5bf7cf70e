"""The architectures and the settings of a proxy check."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.proxy import trained_images
from mnas.nn.cost import cost
from mnas.proxycheck.plan import Setting, settings_of, smaller_sizes, spread
from mnas.space.named import SPACES

SPACE = replace(SPACES["mnasnet"], skeleton=SPACES["mnasnet"].skeleton.scaled(0.25)).with_output_stride(8)
BASE = Setting(epochs=5, image_share=1.0, input_size=16)


def macs_of(archs):
    return [cost(arch, 16, 10).macs for arch in archs]


def test_the_spread_covers_the_space_evenly():
    archs = spread(SPACE, 15, input_size=16, num_classes=10, seed=0)
    assert len({arch.fingerprint for arch in archs}) == 15
    assert all(SPACE.contains(arch) for arch in archs)
    rng = np.random.default_rng(1)
    random = [SPACE.decode([int(rng.integers(len(d.choices))) for d in SPACE.decisions]) for _ in range(800)]
    shares = [np.mean(np.array(macs_of(random)) < macs) for macs in sorted(macs_of(archs))]
    # ends of 16 parts; shares of 1,000 and of 800 are 1.6 and 1.8 % off (standard deviation)
    assert shares == pytest.approx([i / 16 for i in range(1, 16)], abs=0.07)


def test_a_larger_spread_extends_a_smaller_one():
    few, many = (spread(SPACE, n, input_size=16, num_classes=10, seed=0) for n in (6, 13))
    assert many[:6] == few
    assert spread(SPACE, 6, input_size=16, num_classes=10, seed=1) != few


def test_more_architectures_than_the_space_has():
    with pytest.raises(ValueError, match="--architectures must be from 1 to"):
        spread(SPACE, 0, input_size=16, num_classes=10, seed=0)


def test_settings_differ_in_one_value_or_in_all():
    one = settings_of(BASE, [2, 1], [0.5], [12], every=False)
    assert [s.key for s in one] == ["e5-i100-s16", "e5-i100-s12", "e5-i50-s16", "e2-i100-s16", "e1-i100-s16"]
    every = settings_of(BASE, [2, 1, 5], [0.5], [12], every=True)
    assert len(every) == 3 * 2 * 2
    assert len({s.key for s in every}) == 12
    assert every[0] == BASE


def test_smaller_sizes_leave_two_pixels():
    assert smaller_sizes(224, 32) == [168, 112]
    assert smaller_sizes(16, 4) == [12, 8]
    assert smaller_sizes(16, 8) == [12]  # with 8 pixels, one pixel would remain
    assert smaller_sizes(12, 4) == [9]  # images have 8 pixels or more


def test_a_share_of_the_images_covers_every_class_and_is_nested():
    labels = np.repeat(np.arange(3), [10, 20, 7])
    everything = trained_images(labels, 1.0)
    assert everything.tolist() == list(range(37))
    half = trained_images(labels, 0.5)
    assert np.bincount(labels[half]).tolist() == [5, 10, 4]
    assert set(trained_images(labels, 0.2)) < set(half)
    assert np.bincount(labels[trained_images(labels, 0.001)]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("share", [0, 1.01, math.nan])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(ValueError, match="--image-share must be above 0 and at most 1"):
        ProxyConfig(image_share=share)
