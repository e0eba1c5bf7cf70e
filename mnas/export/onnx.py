"""Write a trained network as an ONNX file, in float32 or in int8.

Both files have one input `image`, float32 of shape (N, 3, S, S), normalised, and one output `logits`, float32 of shape
(N, classes). N is any batch size; S is the network's input size.
"""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnas import digests
from mnas.foreign.onnx_file import METADATA_KEY, sealed
from mnas.metadata import ModelMetadata, metadata_json
from mnas.nn.network import Network
from mnas.nn.weights_info import sealed_json

OPSET = 18  # from 2022: old enough for the runtimes in use, new enough for torch's exporter to write it directly


def onnx_fp32(network: Network, info: ModelMetadata, *, seal: bool = True) -> bytes:
    """Return the network as an ONNX file, with batch norm folded into the convolutions.

    Leaves `network` in evaluation mode. The file carries `info` as JSON in metadata_props.

    Args:
        seal: whether the metadata include a digest of the file and the architecture's fingerprint.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    model = onnx_model(network.eval(), info.input_size, ("logits",))
    return onnx_file(model, sealed_json(info) if seal else metadata_json(info))


def onnx_file(model: Any, values: dict[str, Any]) -> bytes:
    """Return the file of an onnx.ModelProto with `values` as its metadata, sealed if they have a placeholder."""
    import onnx

    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(values, ensure_ascii=False)
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString(deterministic=True))
    return sealed(content, values) if digests.KEY in values else content


def onnx_int8(model: bytes, images: NDArray[np.float32]) -> bytes:
    """Return a file of `onnx_fp32` in int8, by ONNX Runtime's own quantiser.

    Weights become int8 with one scale per channel, activations uint8: ONNX Runtime's x86 kernels are fastest for this
    pair. Input and output stay float32.

    Args:
        images: (N, 3, S, S), normalised; typical images, which set the ranges of the activations.

    Raises:
        ImportError: onnx or onnxruntime is missing.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError:
        raise ImportError("int8 ONNX files need onnx and onnxruntime; pip install 'mnas[onnx]'") from None

    class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]
        """Passes images one by one to the quantiser; None marks their end."""

        def __init__(self) -> None:
            self._batches = ({"image": image[None]} for image in images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as folder, _quiet_logger("root"):
        path = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(model),  # a separate model, because the quantiser changes the one that it gets
            str(path),  # the quantiser returns nothing
            CalibrationImages(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # products of 8-bit weights overflow on x86 processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()


def onnx_model(module: nn.Module, input_size: int, outputs: Sequence[str], *, any_batch: bool = True) -> Any:
    """Return a module of one image, (N, 3, S, S), as an onnx.ModelProto. Discards what torch's exporter prints.

    Args:
        outputs: names of the module's outputs.
        any_batch: whether N is any number, else 1.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("writing ONNX files needs onnx and onnxscript; pip install 'mnas[onnx]'") from None
    # torch.export would treat a batch of 1 as constant
    example = torch.zeros(2 if any_batch else 1, 3, input_size, input_size)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _quiet_logger("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("N")},) if any_batch else None,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _remove_origins(model.graph)
    return model


def _remove_origins(graph: Any) -> None:
    """Remove the origins of operators from an onnx.GraphProto: lines and paths of this machine's Python files."""
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    del graph.metadata_props[:], graph.value_info[:]


@contextlib.contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    """Drop the logger's messages below errors while the context lasts."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
