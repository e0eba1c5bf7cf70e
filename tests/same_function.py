"""A LiteRT file and the torch network that it was written from, side by side."""

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import nn

from mnas.architecture import Architecture
from mnas.nn.network import Network, build_network
from mnas.tflite.runtime import run_tflite
from mnas.tflite.writer import write_tflite

TOLERANCE = 1e-4  # of the largest output


def trained_like(arch: Architecture, classes: int, seed: int) -> Network:
    """A network whose batch norm and biases are as after training: nothing is 0 or 1, and no two channels are alike."""
    torch.manual_seed(seed)
    network = build_network(arch, classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.2, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.5)
    return network.eval()


def images(size: int, seed: int, count: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, size, size, 3), np.float32)


def outputs(network: Network, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        return network(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


def assert_same_function(network: Network, size: int, seed: int = 0, count: int = 1, at_most: float = 1e6) -> bytes:
    x = images(size, seed, count)
    expected = outputs(network, x)
    model = write_tflite(network, size)
    got = run_tflite(model, x)
    largest = np.abs(expected).max()
    assert got.shape == expected.shape
    assert 1e-2 < largest < at_most  # or the comparison would say nothing
    assert expected.std() > 1e-3 * largest
    assert np.abs(got - expected).max() <= TOLERANCE * largest
    return model


def assert_delegated(model: bytes) -> None:
    """XNNPACK takes all: one delegated part computes the output from nothing but the image and constants.

    An operator left over stands on a path from image to output: it would cut the part in two, feed it or follow it.
    """
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    delegates = [op for op in details if op["op_name"] == "DELEGATE"]
    assert len(delegates) == 1
    computed = {int(index) for op in details for index in op["outputs"]}
    assert list(delegates[0]["outputs"]) == [interpreter.get_output_details()[0]["index"]]
    assert interpreter.get_input_details()[0]["index"] in delegates[0]["inputs"]
    assert not computed.intersection(map(int, delegates[0]["inputs"]))
