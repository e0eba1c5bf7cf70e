"""A trained network as a LiteRT file: float32 by our writer, float16 weights or int8 by ai-edge-quantizer on that file.

All three take the same input, RGB in [0, 1] less mean, over std, as float32, and give float32 outputs, so that one
replaces another without a change of the program around it. The int8 file computes in integers between a QUANTIZE and a
DEQUANTIZE; `integer_io` leaves these two out, for microcontrollers and accelerators that know no floats.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.tflite.graph import repacked
from mnas.tflite.metadata import append_labels, read_metadata, sealed
from mnas.tflite.writer import write_tflite

SIGNATURE, INPUT = "serving_default", "image"  # as mnas.tflite.writer names them
RANGE_QUANTILE = 0.99
"""Of the images' largest values is an activation's range taken: an image in a hundred may be cut, as it may be odd."""
NARROWEST_RANGE = 1e-3
"""Of the median activation's range."""


def litert_fp32(network: Network, info: ModelMetadata, *, softmax: bool = False) -> bytes:
    """The network as in evaluation mode, with labels, normalisation and crop inside.

    Raises:
        ValueError: a weight is not finite, or a class's name is empty or of several lines.
    """
    return write_tflite(
        network,
        info.input_size,
        labels=info.classes,
        mean=info.mean,
        std=info.std,
        crop=info.crop,
        softmax=softmax,
        trained_on=info.trained_on,
    )


def litert_fp16(model: bytes) -> bytes:
    """A file by `litert_fp32` with kernels as float16: half the size. Activations and biases stay float32.

    Runtimes turn the kernels back into float32 when they load the file (XNNPACK; GPUs compute with them as they are).

    Raises:
        ImportError: ai-edge-quantizer is missing.
    """
    _require_quantizer()
    from ai_edge_quantizer import qtyping, quantizer

    quantizing = quantizer.Quantizer(model)
    half = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for operation in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        quantizing.update_quantization_recipe(
            ".*", qtyping.TFLOperationName[operation], half, quantizer.AlgorithmName.FLOAT_CASTING
        )
    with _quiet():
        quantized = quantizing.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model
    return _finished(quantized, model)


def litert_int8(model: bytes, images: NDArray[np.float32], *, integer_io: bool = False) -> bytes:
    """A file by `litert_fp32` in integers: int8 kernels (one scale a channel) and activations (one scale a tensor).

    Args:
        images: (N, S, S, 3), normalised; typical ones, from which the ranges of the activations are taken.
        integer_io: also int8 input and output; their scales and zero points are in the file.

    Raises:
        ValueError: no images.
        ImportError: ai-edge-quantizer is missing.
    """
    if not len(images):
        raise ValueError("calibration images must be 1 or more, but got none")
    _require_quantizer()
    from ai_edge_quantizer import qtyping, quantizer

    quantizing = quantizer.Quantizer(model)
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    quantizing.add_static_config(".*", everything, activation_num_bits=8, weight_num_bits=8)
    if not integer_io:
        for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizing.update_quantization_recipe(".*", border, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    with _quiet():
        ranges = _ranges(quantizing, images)
        quantized = quantizing.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    return _finished(quantized, model)


def _ranges(quantizing: Any, images: NDArray[np.float32]) -> dict[str, dict[str, Any]]:
    """Tensor -> its range, that of all images but for the outermost.

    The quantizer's own rule, a moving average over the images' ranges, cuts the peaks of every other image off: outputs
    of a small network that had learnt the digits were off by 2 to 3 % of the largest in the mean, and by 0.5 % so.
    """
    extremes = [quantizing.calibrate({SIGNATURE: [{INPUT: image[None]}]}, num_threads=1) for image in images]
    ranges = {
        name: {
            "min": np.quantile([each[name]["min"] for each in extremes], 1 - RANGE_QUANTILE, axis=0).astype(np.float32),
            "max": np.quantile([each[name]["max"] for each in extremes], RANGE_QUANTILE, axis=0).astype(np.float32),
        }
        for name in extremes[0]
    }
    # a layer that training has left without any output would have a scale of 0, which XNNPACK refuses
    narrowest = NARROWEST_RANGE * np.float32(np.median([np.max(r["max"] - r["min"]) for r in ranges.values()]))
    return {name: r | {"max": np.maximum(r["max"], r["min"] + narrowest)} for name, r in ranges.items()}


def _finished(quantized: Any, model: bytes) -> bytes:
    """The quantizer's file laid out as our own are, with `model`'s labels at its end again."""
    # the fp32 graph's oldest runtime is not that of this one
    packed = repacked(bytes(quantized), drop=("min_runtime_version",))
    return sealed(append_labels(packed, read_metadata(model).classes))


def _require_quantizer() -> None:
    try:
        import ai_edge_quantizer  # noqa: F401
    except ImportError:
        raise ImportError("int8 and fp16 files need ai-edge-quantizer; pip install 'mnas[quantize]'") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's progress bars and warnings about how it works."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
