"""The fast weight gradient of wide depthwise convolutions is correct."""

import copy

import pytest
import torch
from torch import nn

from mnas.arch import Arch
from mnas.block import Block
from mnas.nn import depthwise
from mnas.nn.blocks import convolution
from mnas.nn.depthwise import speed_up_depthwise
from mnas.nn.network import build_network


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [4, 7, 8, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_outputs_and_gradients_agree(
    kernel: int, stride: int, size: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(convolution(padding, 12, 12, kernel, stride, groups=12)).double()
    fast = copy.deepcopy(plain)
    speed_up_depthwise(fast)
    monkeypatch.setattr(depthwise, "_SMALL", 0)
    alike = kernel == 3 and (stride == 1 or padding == "symmetric")
    assert (type(fast[0]) is type(plain[0])) == alike
    gradients = []
    for network in (plain, fast):
        x = torch.randn(3, 12, size, size, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        y = network(x)
        y.backward(torch.randn(y.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2)))
        gradients.append((y, x.grad, network[0].weight.grad))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_network_keeps_its_parameters_and_state_dict() -> None:
    arch = Arch(
        blocks=(
            Block(op="mbconv", kernel=5, stride=2, filters=8, expansion=3),
            Block(op="sepconv", kernel=3, stride=1, filters=8),
            Block(op="conv", kernel=5, stride=1, filters=8),
        ),
        stem_filters=8,
        head_filters=16,
    )
    network = build_network(arch, 3)
    before = dict(network.named_parameters())
    speed_up_depthwise(network)
    assert {name: id(p) for name, p in network.named_parameters()} == {name: id(p) for name, p in before.items()}
    assert type(network.layers[0].depthwise.conv) is not nn.Conv2d
    for module in (network.layers[1].depthwise.conv, network.layers[2].conv.conv):
        assert isinstance(module, nn.Conv2d)
    build_network(arch, 3).load_state_dict(network.state_dict())
