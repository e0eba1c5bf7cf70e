"""The fast training of wide 1x1 convolutions gives the same outputs, gradients and statistics."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.block import Block
from mnas.nn import expansion
from mnas.nn.blocks import ConvNorm
from mnas.nn.depthwise import _Depthwise
from mnas.nn.expansion import _Expansion, speed_up_expansions
from mnas.nn.fast import speed_up
from mnas.nn.network import build_network

BLOCKS = (
    Block(op="mbconv", kernel=5, stride=2, filters=8, expansion=6, se_ratio=0.25),
    Block(op="mbconv", kernel=5, stride=1, filters=8, expansion=3, layers=2),
    Block(op="conv", kernel=3, stride=1, filters=12, skip="pool"),
)
ARCH = Arch(blocks=BLOCKS, stem_filters=8, stem_stride=1, head_filters=32, dropout=0.0)


def trained(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Return output, gradients and buffers after a step on `x`."""
    x = x.clone().to(memory_format=torch.channels_last).requires_grad_()
    y = network(x)
    y.backward(torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2)))
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in network.parameters()), *network.buffers()]


def randomised(network: nn.Module) -> nn.Module:
    """Return a network in double precision, with weights and biases of batch norm other than 1 and 0."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.double().train()


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("chunk", [1, 100, 10**9])
@pytest.mark.parametrize("size", [8, 5])
def test_outputs_gradients_and_statistics_agree(
    size: int, chunk: int, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "_CHUNK", chunk)
    plain = randomised(nn.Sequential(ConvNorm(ARCH, 6, 36, 1, activation=activation)))
    fast = copy.deepcopy(plain)
    speed_up_expansions(fast)
    assert isinstance(fast[0], _Expansion)
    x = 3 + 2 * torch.randn(4, 6, size, size, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    assert x.shape[0] * size * size >= expansion._ROWS_PER_INPUT * 6
    for theirs, ours in zip(trained(plain, x), trained(fast, x), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_network_trains_alike_and_keeps_its_state_dict() -> None:
    plain = randomised(build_network(ARCH, 3))
    fast = copy.deepcopy(plain)
    before = {name: id(p) for name, p in fast.named_parameters()}
    speed_up(fast)
    assert {name: id(p) for name, p in fast.named_parameters()} == before
    assert list(fast.state_dict()) == list(plain.state_dict())
    kinds = [type(module) for module in fast.modules()]
    assert (kinds.count(_Expansion), kinds.count(_Depthwise)) == (4, 3)  # the head is one of them
    x = torch.randn(8, 3, 16, 16, dtype=torch.double)
    for theirs, ours in zip(trained(plain, x), trained(fast, x), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8)
    plain.load_state_dict(fast.state_dict())
    assert torch.equal(fast.eval()(x), plain.eval()(x))


def test_where_it_does_not_apply_the_plain_operations_run() -> None:
    plain = nn.Sequential(ConvNorm(ARCH, 8, 32, 1, activation="relu")).train()
    fast = copy.deepcopy(plain)
    speed_up_expansions(fast)
    many, few = torch.randn(4, 8, 8, 8), torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(fast(many), plain(many))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(many), plain(many))
    assert torch.equal(fast(few), plain(few))  # 64 positions
    fast[0].norm.momentum = plain[0].norm.momentum = None
    assert torch.equal(fast(many), plain(many))
    assert torch.equal(fast[0].norm.running_var, plain[0].norm.running_var)


def test_the_same_bits_again() -> None:
    x = torch.randn(16, 3, 16, 16)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        network = build_network(ARCH, 3).to(memory_format=torch.channels_last)
        speed_up(network)
        found.append(trained(network, x))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
