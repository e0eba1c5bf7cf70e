"""Sources of a LiteRT graph's weights: a trained network (mnas/tflite/weights.py), or here a random generator.

A source maps (name, shape) to (kernel, bias), both float32: names as `block1.0.expand`, shapes as LiteRT stores them
(convolution (outputs, k, k, inputs), depthwise (1, k, k, channels), classifier (outputs, inputs)).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]
Source = Callable[[str, tuple[int, ...]], Weights]
LINEAR_INPUT = (".project", ".pointwise", "classifier")
"""Ends of the names of convolutions whose input does not come from a ReLU."""


def random_weights(seed: int) -> Source:
    """Return a source of normal weights that keep activations near 1, so that special numbers do not change latencies.

    All come from one short random sequence, as drawing millions of numbers would take longer than writing the file.
    """
    sequence = np.random.default_rng(seed).standard_normal(65521, np.float32)  # a prime length, so that rows differ

    def source(name: str, shape: tuple[int, ...]) -> Weights:
        fan_in = math.prod(shape[1:3] if name.endswith(".depthwise") else shape[1:])
        gain = 1.0 if name.endswith(LINEAR_INPUT) else 2.0  # a ReLU zeroes half of the values
        kernel = np.resize(sequence, shape) * np.float32(math.sqrt(gain / fan_in))
        outputs = shape[-1] if name.endswith(".depthwise") else shape[0]
        return kernel, np.zeros(outputs, np.float32)

    return source
