"""Networks of cells as ONNX files and ExecuTorch programs, equal to torch."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from mnas.cell_arch import OPS, Cell, CellArch, CellSkeleton, Pair, unused_states
from mnas.export.executorch import executorch_fp32
from mnas.export.onnx import onnx_fp32
from mnas.metadata import metadata_from_json, metadata_json
from tests.export.networks import CLASSES, as_trained, assert_equal, info_of, inputs, outputs


def every_op(ops: tuple[str, ...]) -> CellArch:
    """Return a network with each of `ops` at stride 2, then at stride 1 with one input larger than the other."""
    again = iter([*ops, "identity"])
    pairs = tuple(Pair(0, next(again), 1, next(again)) for _ in range((len(ops) + 1) // 2))
    skeleton = CellSkeleton(filters=8, cells=(0, 1), stem_cells=0, stem_filters=(6,), bn_momentum=0.1)
    states = tuple(sorted({0, 1, *unused_states(pairs)}))
    return CellArch(
        normal=Cell(pairs=pairs, concat=states), reduction=Cell(pairs=pairs, concat=states), skeleton=skeleton
    )


@pytest.fixture(scope="module", params=[OPS[:8], OPS[8:]], ids=["first", "second"])
def network(request):
    arch = every_op(request.param)
    return as_trained(arch, len(CLASSES)), info_of(arch, CLASSES, 18)  # 18, 9, 5: strides meet even and odd sizes


def test_onnx(network):
    network, info = network
    content = onnx_fp32(network, info)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = inputs(info, 3)
    expected = outputs(network, x)
    nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    for batch in (nchw, nchw[:1]):
        [got] = session.run(["logits"], {"image": batch})
        assert_equal(got, expected[: len(batch)], 1e-4)


@pytest.mark.slow  # lowering each takes half a minute
def test_executorch(network):
    from executorch.runtime import Runtime

    network, info = network
    content = executorch_fp32(network, info)
    method = Runtime.get().load_program(content).load_method("forward")
    x = inputs(info)
    got = [method.execute((torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)[None])),))[0] for i in x]
    assert_equal(np.concatenate([g.numpy() for g in got]), outputs(network, x), 1e-4)


def test_what_files_say_of_themselves(network):
    _, info = network
    assert metadata_from_json(json.loads(json.dumps(metadata_json(info)))) == info
