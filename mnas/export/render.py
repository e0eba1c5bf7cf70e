"""Make the file that a latency is measured on: an architecture with random weights, in the runtime's format."""

from mnas.architecture import Architecture
from mnas.latency.latency import Setup
from mnas.latency.protocol import Render
from mnas.tflite.writer import graph_bytes

INT8_RUNTIMES = ("litert", "litert-builtin", "onnxruntime", "executorch")
"""Runtimes that can measure an architecture in int8; model files are measured as they are."""
DETECTOR_RUNTIMES = ("litert", "litert-builtin", "onnxruntime")
"""Runtimes that can measure a detector; those of LiteRT also in int8."""


def render(setup: Setup, *, int8: bool = False) -> Render:
    """Return a function from an architecture to a file for `setup.runtime`, at its batch where files have one.

    The function raises ValueError for an input too small for the strides, and ImportError where the format's package is
    missing.

    Raises:
        ValueError: int8 is requested for a runtime without it.
    """
    if int8 and setup.runtime not in INT8_RUNTIMES:
        raise ValueError(f"--int8 requires one of the runtimes {', '.join(INT8_RUNTIMES)}, but got {setup.runtime}")
    if setup.runtime.startswith("litert") and not int8:
        return graph_bytes  # takes a tenth of a second, because it needs neither a network nor torch

    def rendered(arch: Architecture, input_size: int, num_classes: int) -> bytes:
        from mnas.export.random_network import random_file

        return random_file(arch, input_size, num_classes, setup, int8=int8)

    return rendered


def require_detector_runtime(runtime: str, *, int8: bool) -> None:
    """Raise ValueError unless `mnas.export.detector.random_detector` makes files for the runtime."""
    runtimes = DETECTOR_RUNTIMES[:2] if int8 else DETECTOR_RUNTIMES
    if runtime not in runtimes:
        what = "a detector in int8" if int8 else "a detector"
        raise ValueError(f"--runtime must be one of {', '.join(runtimes)} for {what}, but got {runtime}")
