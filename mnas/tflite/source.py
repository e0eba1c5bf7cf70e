"""Sources of a LiteRT graph's weights: a trained network (mnas/tflite/weights.py), or here a random generator.

A source maps a `Kernel` to (kernel, bias), both float32; shapes are as LiteRT stores them: convolution
(outputs, k, k, inputs), depthwise (1, k, k, channels), classifier (outputs, inputs).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


class Kernel(NamedTuple):
    """A convolution or classifier that needs weights."""

    name: str
    """Name, such as `block1.0.expand`."""
    shape: tuple[int, ...]
    depthwise: bool = False
    combines: bool = False
    """Whether no ReLU follows, as after a projection or a classifier. Random weights of all others have twice the
    variance, because the ReLU zeroes half of the values."""


Source = Callable[[Kernel], Weights]


def random_weights(seed: int) -> Source:
    """Return a source of normal weights that keep activations near 1, so that special numbers do not change latencies.

    All come from one short random sequence, as drawing millions of numbers would take longer than writing the file.
    """
    sequence = np.random.default_rng(seed).standard_normal(65521, np.float32)  # a prime length, so that rows differ

    def source(kernel: Kernel) -> Weights:
        fan_in = math.prod(kernel.shape[1:3] if kernel.depthwise else kernel.shape[1:])
        gain = 1.0 if kernel.combines else 2.0
        weights = np.resize(sequence, kernel.shape) * np.float32(math.sqrt(gain / fan_in))
        outputs = kernel.shape[-1] if kernel.depthwise else kernel.shape[0]
        return weights, np.zeros(outputs, np.float32)

    return source
