"""Layers against naive loops over pixels, and the initialisation."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import create_conv2d

from mnas.arch import Arch
from mnas.block import Block
from mnas.nn.blocks import ConvNorm, LayerModule, PooledSkip, SqueezeExcite, convolution
from mnas.nn.network import build_network
from mnas.ops import OPS, Layer, Squeeze

ARCH = {padding: Arch(blocks=(Block(op="conv", kernel=3, stride=1, filters=4),), padding=padding) for padding in
        ("same", "symmetric")}  # fmt: skip


def layer(**changed):
    fields = {"op": "sepconv", "kernel": 3, "stride": 1, "in_filters": 4, "mid_filters": 4, "out_filters": 4}
    return Layer(**{"name": "block1.0", "se_filters": 0, "skip": "none", **fields, **changed})


def first_pixel(size, stride, kernel, padding):
    """Return the start of the first window relative to the first pixel, by TensorFlow's rule for `same`."""
    outputs = math.ceil(size / stride)
    total = max(0, (outputs - 1) * stride + kernel - size)
    return -(total // 2) if padding == "same" else -((kernel - 1) // 2)


def naive_pool(x, stride, padding):
    """Return the mean over the valid pixels of every 3x3 window of an (H, W) image."""
    height, width = x.shape
    top, left = (first_pixel(n, stride, 3, padding) for n in (height, width))
    out = torch.empty(math.ceil(height / stride), math.ceil(width / stride))
    for i, j in itertools.product(range(out.shape[0]), range(out.shape[1])):
        rows = [r for r in range(top + i * stride, top + i * stride + 3) if 0 <= r < height]
        columns = [c for c in range(left + j * stride, left + j * stride + 3) if 0 <= c < width]
        out[i, j] = sum(x[r, c] for r in rows for c in columns) / (len(rows) * len(columns))
    return out


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (8, 8), (5, 6), (6, 5), (1, 2)])
@pytest.mark.parametrize("outputs", [2, 4, 7])
def test_pooled_skip_against_a_loop_over_pixels(padding, stride, size, outputs):
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    skip = PooledSkip(layer(stride=stride, out_filters=outputs, skip="pool"), padding)(x)
    assert skip.shape == (2, outputs, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    for image, channel in itertools.product(range(2), range(outputs)):
        if channel < 4:
            expected = naive_pool(x[image, channel], stride, padding)
        else:
            expected = torch.zeros_like(skip[image, channel])
        torch.testing.assert_close(skip[image, channel], expected, atol=1e-6, rtol=0)


def test_paddings_differ_at_stride_2_on_even_sizes_only():
    for size, equal in ((8, False), (7, True)):
        x = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0))
        same, symmetric = (PooledSkip(layer(stride=2, skip="pool"), p)(x) for p in ("same", "symmetric"))
        assert torch.allclose(same, symmetric) == equal


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 3])
def test_convolution_padding_against_the_formula(padding, kernel, stride, groups):
    torch.manual_seed(0)
    norm = ConvNorm(ARCH[padding], 3, 6, kernel, stride, groups=groups)
    for height, width in ((1, 1), (2, 3), (5, 4), (8, 8), (9, 14)):
        x = torch.randn(1, 3, height, width)
        outputs = [math.ceil(n / stride) for n in (height, width)]
        pads = []
        for n, out in zip((width, height), reversed(outputs), strict=True):
            before = -first_pixel(n, stride, kernel, padding)
            pads += [before, max(0, (out - 1) * stride + kernel - n - before)]
        expected = F.conv2d(F.pad(x, pads), norm.conv.weight, stride=stride, groups=groups)
        torch.testing.assert_close(norm.conv(x), expected[:, :, : outputs[0], : outputs[1]], atol=1e-5, rtol=0)


def test_squeeze_excite_by_hand():
    torch.manual_seed(0)
    se, x = SqueezeExcite(Squeeze(4, 2)), torch.randn(3, 4, 5, 5)
    squeezed = torch.relu(x.mean((2, 3)) @ se.reduce.weight[:, :, 0, 0].T + se.reduce.bias)
    gate = torch.sigmoid(squeezed @ se.expand.weight[:, :, 0, 0].T + se.expand.bias)
    torch.testing.assert_close(se(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("op", ["conv", "sepconv", "mbconv", "fused"])
@pytest.mark.parametrize("se_filters", [0, 2])
@pytest.mark.parametrize("skip", ["identity", "pool", "none"])
def test_order_within_a_layer(op, se_filters, skip):
    """Apply convolutions, batch norms and gate one by one, from the module's parts."""
    torch.manual_seed(0)
    fields = layer(op=op, mid_filters=8 if OPS[op].expands else 4, se_filters=se_filters, skip=skip)
    module = LayerModule(fields, ARCH["same"]).eval()
    x = torch.randn(2, 4, 6, 6)
    y = x

    def norm(part, y):
        return part.norm(part.conv(y))

    if op == "conv":
        y = torch.relu(norm(module.conv, y))
        y = module.se(y) if se_filters else y
    else:
        if op in ("mbconv", "fused"):
            y = torch.relu(norm(module.expand, y))
        if op != "fused":
            y = torch.relu(norm(module.depthwise, y))
        y = module.se(y) if se_filters else y
        y = norm(module.project, y)  # linear
    y = y + {"identity": x, "pool": module.pool(x) if skip == "pool" else 0, "none": 0}[skip]
    torch.testing.assert_close(module(x), y)
    assert hasattr(module, "se") == bool(se_filters)
    assert hasattr(module, "pool") == (skip == "pool")


def test_relu6_clips():
    arch = Arch(blocks=(Block(op="conv", kernel=3, stride=1, filters=4),), activation="relu6")
    norm = ConvNorm(arch, 3, 4, 3, activation=arch.activation)
    assert norm.activation(torch.tensor([-1.0, 3.0, 9.0])).tolist() == [0.0, 3.0, 6.0]
    assert not hasattr(ConvNorm(arch, 3, 4, 3), "activation")


def test_initialisation():
    """The published rule: normal(0, sqrt(2 / fan_out)), fan_out k * k for a depthwise kernel; classifier uniform."""
    torch.manual_seed(0)
    blocks = (
        Block(op="conv", kernel=3, stride=1, filters=256, se_ratio=0.25),
        Block(op="mbconv", kernel=5, stride=1, filters=256, expansion=3),
    )
    network = build_network(Arch(blocks=blocks, stem_filters=256), 100)
    fan_outs = {
        network.stem.conv: 9 * 256,
        network.layers[0].conv.conv: 9 * 256,
        network.layers[0].se.reduce: 64,
        network.layers[0].se.expand: 256,
        network.layers[1].expand.conv: 768,
        network.layers[1].depthwise.conv: 25,
        network.layers[1].project.conv: 256,
        network.head.conv: 1280,
    }
    assert len(fan_outs) == sum(isinstance(m, torch.nn.Conv2d) for m in network.modules())
    for conv, fan_out in fan_outs.items():
        weights = conv.weight.detach()
        deviations = 5 / math.sqrt(2 * weights.numel())  # five standard errors of a standard deviation
        assert weights.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=deviations)
        assert abs(weights.mean().item()) < 5 * math.sqrt(2 / fan_out / weights.numel())
        assert conv.bias is None or not conv.bias.any()
    bound = 1 / math.sqrt(100)
    weights = network.classifier.weight.detach()
    assert 0.999 * bound < weights.abs().max().item() <= bound
    assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not network.classifier.bias.any()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.weight.min() == module.weight.max() == 1
            assert not module.bias.any()
            assert (module.eps, module.momentum) == (1e-3, 0.01)


def test_same_seed_same_weights():
    arch = Arch(blocks=(Block(op="mbconv", kernel=3, stride=2, filters=8, expansion=6),))
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_network(arch, 10).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["stem.conv.weight"], states[2]["stem.conv.weight"])


def test_no_classes_no_network():
    with pytest.raises(ValueError, match="num_classes must be 1 or more, but got 0"):
        build_network(ARCH["same"], 0)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(("height", "width"), [(7, 8), (12, 5), (16, 16), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_convolution_is_timms(kernel, stride, height, width, padding):
    ours = convolution(padding, 4, 4, kernel, stride, groups=2)
    theirs = create_conv2d(
        4, 4, kernel, stride=stride, groups=2, padding="same" if padding == "same" else "", bias=False
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).shape[2:] == (-(-height // stride), -(-width // stride))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(("inputs", "size"), [(1, 7), (6, 24), (7, 9)])
def test_thin_strided_1x1_convolutions_train(padding, inputs, size):
    """Their gradient crashed in torch's kernel for float32; that for float64 is correct."""
    conv = convolution(padding, inputs, 4, 1, 2).to(memory_format=torch.channels_last)
    for seed in range(20):
        x = torch.randn(8, inputs, size, size, generator=torch.Generator().manual_seed(seed))
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        x64, weight64 = x.detach().double().requires_grad_(), conv.weight.detach().double().requires_grad_()
        conv.weight.grad = None
        y, y64 = conv(x), F.conv2d(x64, weight64, stride=2)
        torch.testing.assert_close(y.double(), y64, rtol=1e-4, atol=1e-5)
        (y**2).sum().backward()
        (y64**2).sum().backward()
        torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(conv.weight.grad.double(), weight64.grad, rtol=1e-3, atol=1e-2)
