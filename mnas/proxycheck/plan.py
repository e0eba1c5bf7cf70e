"""Plan of a proxy check: the architectures and the training settings."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mnas.architecture import Architecture
from mnas.evaluate.config import ProxyConfig
from mnas.nn.cost import cost
from mnas.space.space import Space

POOL = 1000
"""Number of members drawn to choose the spread from."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Training settings of a proxy task, as options of `mnas search`."""

    epochs: int
    image_share: float
    """Share of each class's training images."""
    input_size: int
    """Side of the images, in pixels."""

    @property
    def key(self) -> str:
        """Return the key of its results, such as `e5-i100-s16`."""
        return f"e{self.epochs}-i{100 * self.image_share:g}-s{self.input_size}"

    def config(self, proxy: ProxyConfig) -> ProxyConfig:
        """Return `proxy` with the values of this setting."""
        return replace(proxy, epochs=self.epochs, image_share=self.image_share)


def settings_of(
    base: Setting, epochs: Sequence[int], image_shares: Sequence[float], input_sizes: Sequence[int], *, every: bool
) -> list[Setting]:
    """Return `base`, then all that differ from it in one of these, or every combination; without repeats."""
    combinations = itertools.product(
        (base.epochs, *epochs), (base.image_share, *image_shares), (base.input_size, *input_sizes)
    )
    start = (base.epochs, base.image_share, base.input_size)
    return [
        Setting(epochs=values[0], image_share=values[1], input_size=values[2])
        for values in dict.fromkeys(combinations)
        if every or sum(a != b for a, b in zip(values, start, strict=True)) <= 1
    ]


def spread(space: Space, count: int, *, input_size: int, num_classes: int, seed: int) -> list[Architecture]:
    """Return `count` different members, spread evenly over the multiply-accumulates of random ones.

    A larger spread begins with a smaller one, so that a check can be extended.

    Raises:
        ValueError: the space has fewer members.
    """
    if not 1 <= count <= space.distinct:
        raise ValueError(
            f"--architectures must be from 1 to {space.distinct:,}, the networks in the space, but got {count}"
        )
    draw = np.random.default_rng(seed)
    sizes = [len(decision.choices) for decision in space.decisions]
    pool: dict[str, Architecture] = {}
    for _ in range(20 * POOL):  # small spaces have fewer members
        arch = space.decode([int(draw.integers(size)) for size in sizes])
        pool.setdefault(arch.fingerprint, arch)
        if len(pool) == POOL:
            break
    if len(pool) < count:
        raise ValueError(
            f"--architectures must be at most {len(pool)}, the number of networks found in the space, but got {count}"
        )
    ranked = sorted(pool.values(), key=lambda arch: (cost(arch, input_size, num_classes).macs, arch.fingerprint))
    chosen: dict[int, Architecture] = {}
    step = 0
    while len(chosen) < count:
        place = int(_even(step) * len(ranked))
        chosen.setdefault(place, ranked[place])
        step += 1
    return list(chosen.values())


def _even(step: int) -> float:
    """Return 0.5, 0.25, 0.75, 0.125, ...: van der Corput's sequence, whose every start is spread evenly over 0 to 1."""
    value, share, step = 0.0, 0.5, step + 1
    while step:
        value += share * (step & 1)
        share, step = share / 2, step >> 1
    return value


def smaller_sizes(input_size: int, output_stride: int) -> list[int]:
    """Return three quarters and half of the size, where possible and where the last feature map keeps two pixels."""
    sizes = (round(0.75 * input_size), round(0.5 * input_size))
    return [size for size in sizes if size >= 8 and math.ceil(size / output_stride) >= 2]
