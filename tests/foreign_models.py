"""Tiny classifiers as others make them: three classes, red, green, blue; each output is the mean of its channel."""

from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from mnas.tflite.graph import Graph
from mnas.tflite.metadata import append_labels

CLASSES = ("red", "green", "blue")
SIZE = 8
SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Where there are real data, see its README; not everywhere."""
FOREIGN = SHARED / "tflite" / "mobilenet_v2_1.0_224_quant.tflite"


def images(count: int = 5, size: int = SIZE) -> np.ndarray:
    """uint8 noise, of channels that are bright to different degrees."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 256, (count, size, size, 3)) * rng.uniform(0.2, 1, (count, 1, 1, 3))).astype(np.uint8)


def channel_means(pixels: np.ndarray, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)) -> np.ndarray:
    """What a float model gives for uint8 (N, S, S, 3)."""
    return ((pixels / 255 - np.array(mean)) / np.array(std)).mean((1, 2))


def litert(
    *,
    metadata: dict[str, bytes] | None = None,
    labels: tuple[str, ...] = (),
    softmax: bool = False,
    signature: tuple[int, ...] | None = None,
    quantised: tuple[int, tuple[float, int], tuple[float, int]] | None = None,
    shape: tuple[int, ...] = (1, SIZE, SIZE, 3),
) -> bytes:
    """A .tflite file.

    Args:
        signature: the input's shape with -1 for what may be resized.
        quantised: type of input and output, and (scale, zero point) of each.
    """
    graph = Graph()
    image = graph.value("image", shape)
    output = graph.mean("mean", image)
    if softmax:
        output = graph.softmax("softmax", output)
    tensors = graph._tensors
    if signature is not None:
        tensors[image.index].shapeSignature = list(signature)
    if quantised is not None:
        for value, (scale, zero_point) in zip((image, output), quantised[1:], strict=True):
            tensors[value.index].type = quantised[0]
            tensors[value.index].quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    return append_labels(
        graph.to_bytes(inputs={"image": image}, outputs={"output": output}, metadata=metadata or {}), labels
    )


def onnx_model(
    *,
    channels_first: bool = True,
    batch: int | str = "N",
    size: int | str = SIZE,
    softmax: bool = False,
    dtype: int = TensorProto.FLOAT,
    outputs: int = 1,
    channels: int = 3,
) -> bytes:
    """An .onnx file."""
    shape = [batch, channels, size, size] if channels_first else [batch, size, size, channels]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([2, 3] if channels_first else [1, 2], np.int64), "axes")
    nodes += [helper.make_node("Softmax" if softmax else "Identity", ["mean"], ["output0"])]
    nodes += [helper.make_node("Identity", ["mean"], [f"output{i}"]) for i in range(1, outputs)]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info(f"output{i}", TensorProto.FLOAT, [batch, channels]) for i in range(outputs)],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()
