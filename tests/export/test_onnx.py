"""ONNX files: equal to torch at any batch size, with their metadata."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from mnas.export.onnx import onnx_fp32
from mnas.metadata import metadata_from_json
from tests.export.networks import assert_equal, assert_ships, inputs, network_of, outputs


@pytest.fixture(scope="module", params=["same", pytest.param("symmetric", marks=pytest.mark.slow)])
def exported(request):
    """(network, info, file) with every kind of layer; symmetric padding is slow."""
    network, info = network_of(request.param)
    return network, info, onnx_fp32(network, info)


def test_every_kind_of_layer(exported):
    network, info, content = exported
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = inputs(info, 5)
    expected = outputs(network, x)
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    for batch in (nchw, nchw[:1], nchw[:0]):
        [got] = session.run(["logits"], {"image": batch})
        assert got.shape == (len(batch), len(info.classes))
        if len(batch):
            assert_equal(got, expected[: len(batch)], 1e-4)
    model = onnx.load_from_string(content)
    [entry] = model.metadata_props
    assert entry.key == "mnas"
    assert metadata_from_json(json.loads(entry.value)) == info
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert b"site-packages" not in content  # paths of this machine must not be in the file
    assert not network.training


def test_it_passes_the_gate_and_is_timed_beside_litert(exported, tmp_path):
    assert_ships(*exported, "onnx", tmp_path, files=["m.onnx", "m.onnx.gate.json"])
