"""Write a trained network as a LiteRT file: float32 by our writer, float16 or int8 by ai-edge-quantizer from that file.

All three take the same float32 input, (pixel - mean) / std for RGB pixels in [0, 1], and return float32 outputs, so
that one can replace another without a change to the calling program. The int8 file computes in integers between a
QUANTIZE and a DEQUANTIZE; `integer_io` omits these two, for microcontrollers and accelerators without floats.
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
from mnas.tflite.hardswish import without_hardswish
from mnas.tflite.metadata import append_labels, read_labels, sealed
from mnas.tflite.writer import write_tflite

SIGNATURE, INPUT = "serving_default", "image"  # names that mnas.tflite.writer gives
RANGE_QUANTILE = 0.99
"""Quantile of the images' extremes that sets an activation's range: one image in a hundred may exceed it."""
NARROWEST_RANGE = 1e-3
"""Smallest range of an activation, as a share of the median range."""


def litert_fp32(network: Network, info: ModelMetadata, *, softmax: bool = False) -> bytes:
    """Return the network in evaluation mode as a LiteRT file with labels, normalisation and crop.

    Raises:
        ValueError: a weight is not finite, or a class name is empty or has several lines.
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
    """Return a file of `litert_fp32` with float16 kernels, half the size. Activations and biases stay float32.

    Runtimes convert the kernels to float32 when they load the file (XNNPACK), or compute with them directly (GPUs).

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


def litert_int8(model: bytes, images: NDArray[np.float32], *, integer_io: bool = False, float_scope: str = "") -> bytes:
    """Return a file of `litert_fp32` with int8 kernels (one scale per channel) and activations (one per tensor).

    Args:
        images: (N, S, S, 3), normalised; typical images, which set the ranges of the activations.
        integer_io: whether input and output are int8 too; the file contains their scales and zero points.
        float_scope: regular expression for the names of results that are computed in float; empty: none.

    Raises:
        ValueError: there are no images.
        ImportError: ai-edge-quantizer is missing.
    """
    if not len(images):
        raise ValueError("int8 needs at least one image to calibrate on, but got none")
    _require_quantizer()
    from ai_edge_quantizer import qtyping, quantizer

    quantizing = quantizer.Quantizer(without_hardswish(model))
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    quantizing.add_static_config(".*", everything, activation_num_bits=8, weight_num_bits=8)
    if not integer_io:
        for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizing.update_quantization_recipe(".*", border, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    if float_scope:
        quantizing.update_quantization_recipe(
            float_scope, everything, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
        )
    with _quiet():
        ranges = _ranges(quantizing, images)
        quantized = quantizing.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    return _finished(quantized, model)


def _ranges(quantizing: Any, images: NDArray[np.float32]) -> dict[str, dict[str, Any]]:
    """Return tensor -> its range over the images, without outliers.

    The quantizer's own rule, a moving average over the images' ranges, clips the peaks of every other image: outputs of
    a small network trained on digits were off by 2 to 3 % of the largest on average, and by 0.5 % with this rule.
    """
    extremes = [quantizing.calibrate({SIGNATURE: [{INPUT: image[None]}]}, num_threads=1) for image in images]
    ranges = {
        name: {
            "min": np.quantile([each[name]["min"] for each in extremes], 1 - RANGE_QUANTILE, axis=0).astype(np.float32),
            "max": np.quantile([each[name]["max"] for each in extremes], RANGE_QUANTILE, axis=0).astype(np.float32),
        }
        for name in extremes[0]
    }
    # a layer whose outputs are all 0 after training would have a scale of 0, which XNNPACK rejects
    narrowest = NARROWEST_RANGE * np.float32(np.median([np.max(r["max"] - r["min"]) for r in ranges.values()]))
    return {name: r | {"max": np.maximum(r["max"], r["min"] + narrowest)} for name, r in ranges.items()}


def _finished(quantized: Any, model: bytes) -> bytes:
    """Return the quantizer's file in the layout of our own files, with `model`'s labels at its end again."""
    # the entry names the oldest runtime for the fp32 graph, which may be too old for this one
    packed = repacked(bytes(quantized), drop=("min_runtime_version",))
    return sealed(append_labels(packed, read_labels(model)))


def _require_quantizer() -> None:
    try:
        import ai_edge_quantizer  # noqa: F401
    except ImportError:
        raise ImportError("int8 and fp16 files need ai-edge-quantizer; pip install 'mnas[quantize]'") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the quantizer's progress bars and warnings."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
