"""A trained network as an ONNX file: input `image` (N, 3, S, S) float32, normalised; output `logits` (N, classes)."""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnas.foreign.onnx_file import METADATA_KEY, sealed
from mnas.metadata import ModelMetadata, metadata_json
from mnas.nn.network import Network
from mnas.nn.weights_info import sealed_json

OPSET = 18  # of 2022: old enough for the runtimes in use, new enough for torch's exporter to write it directly


def onnx_fp32(network: Network, info: ModelMetadata, *, seal: bool = True) -> bytes:
    """The network as in evaluation mode, for any batch size; batch norm folded, `metadata_json` in metadata_props.

    Args:
        seal: whether the file carries a digest and the architecture's fingerprint.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("writing ONNX files needs onnx and onnxscript; pip install 'mnas[onnx]'") from None
    example = torch.zeros(2, 3, info.input_size, info.input_size)  # 2: torch.export takes 1 for a constant
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _quiet_logger("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # where in whose Python files each operator came from
    del graph.metadata_props[:], graph.value_info[:]
    entry = model.metadata_props.add()
    values = sealed_json(info) if seal else metadata_json(info)
    entry.key, entry.value = METADATA_KEY, json.dumps(values, ensure_ascii=False)
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString(deterministic=True))
    return sealed(content, values) if seal else content


def onnx_int8(model: bytes, images: NDArray[np.float32]) -> bytes:
    """A file by `onnx_fp32` in integers, by ONNX Runtime's own quantiser: int8 kernels, one scale a channel, and uint8
    activations, the pair that its kernels for x86 are fastest with. Input and output stay float32.

    Args:
        images: (N, 3, S, S), normalised; typical ones, from which the ranges of the activations are taken.

    Raises:
        ImportError: onnx or onnxruntime is missing.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ImportError:
        raise ImportError("int8 ONNX files need onnx and onnxruntime; pip install 'mnas[onnx]'") from None

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images = [{"image": image[None]} for image in images]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self._images.pop() if self._images else None

    with tempfile.TemporaryDirectory() as folder, _quiet_logger("root"):
        path = Path(folder) / "int8.onnx"  # it writes nowhere else, and changes the model that it is given
        quantize_static(
            onnx.load_from_string(model),
            str(path),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # products of 8-bit weights overflow on x86 processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()


@contextlib.contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
