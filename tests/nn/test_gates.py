"""The fast training of squeeze-and-excitation and pooled skips gives the same outputs and gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mnas.arch import Arch
from mnas.block import Block
from mnas.nn import gates
from mnas.nn.blocks import PooledSkip, SqueezeExcite
from mnas.nn.fast import speed_up
from mnas.nn.gates import speed_up_gates
from mnas.nn.network import build_network
from mnas.ops import Squeeze


def layer_of(filters: int, stride: int, se_ratio: float, skip: str, padding: str) -> nn.Module:
    blocks = (Block(op="conv", kernel=3, stride=stride, filters=filters, se_ratio=se_ratio, skip=skip),)
    arch = Arch(blocks=blocks, stem_filters=6, stem_stride=1, head_filters=8, padding=padding)
    return build_network(arch, 2).layers[0].double().train()


def trained(module: nn.Module, x: Tensor, memory_format: torch.memory_format) -> list[Tensor]:
    x = x.clone(memory_format=memory_format).requires_grad_()
    y = module(x)
    grad = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    y.backward(grad.contiguous(memory_format=memory_format))
    assert x.grad is not None
    return [y, x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [8, 7, 2, 1])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("filters", [4, 6, 12])
def test_pooled_skips_agree(
    filters: int, stride: int, padding: str, size: int, memory_format: torch.memory_format
) -> None:
    if size == 1 and padding == "symmetric" and stride == 2:
        size = 3
    torch.manual_seed(0)
    plain = layer_of(filters, stride, 0.0, "pool", padding).pool
    fast = nn.Sequential(copy.deepcopy(plain))
    speed_up_gates(fast)
    assert type(fast[0]) is not PooledSkip
    x = torch.randn(3, 6, size, size, dtype=torch.double)
    for theirs, ours in zip(trained(plain, x, memory_format), trained(fast, x, memory_format), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 100, 10**9])
def test_gates_agree(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_CHUNK", chunk)
    torch.manual_seed(0)
    plain = nn.Sequential(SqueezeExcite(Squeeze(6, 3))).double()
    fast = copy.deepcopy(plain)
    speed_up_gates(fast)
    assert type(fast[0]) is not SqueezeExcite
    x = torch.randn(5, 6, 4, 4, dtype=torch.double)
    for theirs, ours in zip(trained(plain, x, torch.channels_last), trained(fast, x, torch.channels_last), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_in_evaluation_and_mixed_precision_the_plain_operations_run() -> None:
    torch.manual_seed(0)
    blocks = (Block(op="sepconv", kernel=3, stride=2, filters=8, se_ratio=0.25, skip="pool"),)
    plain = build_network(Arch(blocks=blocks, stem_filters=8, stem_stride=1, head_filters=16, dropout=0.0), 3)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    x = torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        fast.train()(x).float().sum().backward()
        plain.train()(x)
    assert torch.equal(fast.eval()(x), plain.eval()(x))
