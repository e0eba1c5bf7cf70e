"""ExecuTorch programs: equal to torch, computed by XNNPACK from end to end, with a sidecar that says what they are."""

import json

import numpy as np
import pytest
import torch

from mnas.export.executorch import executorch_fp32, sidecar
from mnas.nn.weights_info import weights_info
from tests.export.networks import assert_equal, inputs, network_of, outputs


@pytest.mark.parametrize("padding", ["same", pytest.param("symmetric", marks=pytest.mark.slow)])
def test_every_kind_of_layer(padding):
    from executorch.runtime import Runtime

    network, info = network_of(padding)
    content = executorch_fp32(network, info)
    method = Runtime.get().load_program(content).load_method("forward")
    x = inputs(info)
    got = [method.execute((torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)[None])),))[0] for i in x]
    assert_equal(np.concatenate([g.numpy() for g in got]), outputs(network, x), 1e-4)
    assert weights_info(json.loads(sidecar(info, b""))) == info
