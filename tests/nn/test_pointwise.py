"""The training of 1x1 convolutions as matrix products gives the same outputs and gradients."""

import copy

import pytest
import torch
from torch import nn

from mnas.nn.pointwise import _Pointwise, speed_up_pointwise


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_outputs_and_gradients_agree(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(6, 9, 1, bias=False)).double()
    fast = copy.deepcopy(plain)
    speed_up_pointwise(fast)
    assert isinstance(fast[0], _Pointwise)
    assert list(fast.state_dict()) == list(plain.state_dict())
    found = []
    for network in (plain, fast):
        x = torch.randn(3, 6, 5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        x = x.to(memory_format=memory_format).requires_grad_()
        y = network(x)
        y.backward(torch.randn(y.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2)))
        found.append((y, x.grad, network[0].weight.grad))
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert torch.equal(fast.eval()(x), plain.eval()(x))


def test_other_convolutions_stay_as_they_are() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 1, stride=2, bias=False), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2, bias=False)
    )
    speed_up_pointwise(network)
    assert all(type(module) is nn.Conv2d for module in network)
