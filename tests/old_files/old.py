"""Files as they were written before model files said what their models were trained on.

Texts are kept as they were then (headers, metadata, a database's statements); tensors, whose values make no difference,
are drawn.
"""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnas.nn.network import build_network
from mnas.nn.weights_info import read_weights_info
from mnas.tflite import writer

HERE = Path(__file__).parent


def old_training(folder: Path) -> Path:
    """Write `model.safetensors`: two classes, a and b, of 8 pixels; `mnas train --seed 3` wrote it."""
    return _weights(folder / "model.safetensors", "training.header.json")


def old_litert(folder: Path) -> Path:
    """Write `model.tflite`, exported from `old_training`."""
    network = build_network(read_weights_info(old_training(folder)).arch, 2).eval()
    text = (HERE / "training.tflite.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "metadata_entries", lambda metadata, seal: {"mnas": text})
        content = writer.write_tflite(network, 8)
    (folder / "model.tflite").write_bytes(content)
    return folder / "model.tflite"


def old_onnx(folder: Path) -> Path:
    """Write `model.onnx` with the metadata of an export of `old_training`; its graph takes means of two channels."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "two"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = "mnas", (HERE / "training.onnx.json").read_text()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def old_run(path: Path) -> Path:
    """Write a finished search of two trials on digits, 20 images a class, seed 5; trial 1 has its weights."""
    (path / "models").mkdir(parents=True)
    with sqlite3.connect(path / "study.db") as database:
        database.executescript((HERE / "run.sql").read_text())
    database.close()
    (path / "config.json").write_text((HERE / "run.config.json").read_text())
    _weights(path / "models" / "1.safetensors", "trial-1.header.json")
    return path


def _weights(path: Path, header: str) -> Path:
    text = (HERE / header).read_text().strip()
    draw = np.random.default_rng(0)
    content = b""
    tensors = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
    for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] == "I64":
            content += bytes(8)
        else:
            values = draw.normal(0, 0.5, entry["shape"])
            content += (1 + values**2 if name.endswith("var") else values).astype(np.float32).tobytes()
        assert len(content) == entry["data_offsets"][1]
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)
    return path
