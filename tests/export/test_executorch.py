"""ExecuTorch programs: equal to torch, run entirely by XNNPACK, with a sidecar of metadata."""

import json

import numpy as np
import pytest
import torch

from mnas.export.executorch import executorch_fp32
from mnas.foreign.sidecar import sidecar
from mnas.metadata import metadata_from_json
from tests.export.networks import assert_equal, assert_ships, inputs, network_of, outputs


@pytest.fixture(scope="module", params=["same", pytest.param("symmetric", marks=pytest.mark.slow)])
def exported(request):
    """(network, info, program) with every kind of layer; writing the program takes 20 s."""
    network, info = network_of(request.param)
    return network, info, executorch_fp32(network, info)


def test_every_kind_of_layer(exported):
    from executorch.runtime import Runtime

    network, info, content = exported
    method = Runtime.get().load_program(content).load_method("forward")
    x = inputs(info)
    got = [method.execute((torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)[None])),))[0] for i in x]
    assert_equal(np.concatenate([g.numpy() for g in got]), outputs(network, x), 1e-4)
    assert metadata_from_json(json.loads(sidecar(info, b""))) == info


def test_it_passes_the_gate(exported, tmp_path):
    """A slow test, since a measuring process imports ExecuTorch for 10 s; test_runtimes.py has another that does."""
    speed_s = 0.01 if exported[1].arch.padding == "symmetric" else 0
    files = ["m.pte", "m.pte.gate.json", "m.pte.json"]
    assert_ships(*exported, "executorch", tmp_path, files=files, speed_s=speed_s)
