"""A trained network as an ONNX file: input `image` (N, 3, S, S) float32, normalised; output `logits` (N, classes)."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator

import torch

from mnas.nn.network import Network
from mnas.nn.weights import WeightsInfo, weights_json

OPSET = 18  # of 2022: old enough for the runtimes in use, new enough for torch's exporter to write it directly
METADATA_KEY = "mnas"


def onnx_fp32(network: Network, info: WeightsInfo) -> bytes:
    """The network as in evaluation mode, for any batch size; batch norm folded, `weights_json` in metadata_props.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("--to onnx needs onnx and onnxscript; pip install 'mnas[onnx]'") from None
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
    entry.key, entry.value = METADATA_KEY, json.dumps(weights_json(info), ensure_ascii=False)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
