"""An architecture with random weights as the file that a runtime takes: what its latency is measured on."""

from mnas.architecture import Architecture
from mnas.latency.latency import Setup
from mnas.latency.protocol import Render
from mnas.tflite.writer import graph_bytes

INT8_RUNTIMES = ("litert", "litert-builtin", "onnxruntime", "executorch")
"""For which an architecture can be had in int8; files are measured as they are."""


def render(setup: Setup, *, int8: bool = False) -> Render:
    """How an architecture becomes a file for `setup.runtime`, and for its batch where a file has one.

    What is returned raises ValueError for an input too small for the strides, and ImportError where the format's
    package is missing.

    Raises:
        ValueError: int8 for a runtime that has none.
    """
    if int8 and setup.runtime not in INT8_RUNTIMES:
        raise ValueError(f"int8 of an architecture is for {', '.join(INT8_RUNTIMES)}, but got {setup.runtime}")
    if setup.runtime.startswith("litert") and not int8:
        return graph_bytes  # built from no network, in a tenth of a second, and without torch

    def rendered(arch: Architecture, input_size: int, num_classes: int) -> bytes:
        from mnas.export.random_network import random_file

        return random_file(arch, input_size, num_classes, setup, int8=int8)

    return rendered
