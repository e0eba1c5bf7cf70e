"""Networks of cells: costs against the torch network, operations against loops, and pytorchcv's networks."""

import itertools
import math
import random

import pytest
import torch
from torch import nn

from mnas.cell_arch import OPS, Cell, CellArch, CellSkeleton
from mnas.nn.cell_steps import cell_steps
from mnas.nn.cells import Shift, WindowPool
from mnas.nn.cost import by_layer, cost
from mnas.nn.fast import speed_up
from mnas.nn.network import build_network
from mnas.space.cell import CellSpace
from mnas.zoo.architectures import named_arch
from mnas.zoo.cells import CELL_NETWORKS

SPACE = CellSpace(
    name="narrow",
    ops=OPS,
    concat="chosen",
    skeleton=CellSkeleton(filters=8, cells=(1, 1, 1), stem_filters=(4,), dropout=0.0),
)


def random_members(count, seed, strides=(32, 16, 8, 4)):
    rng = random.Random(seed)
    for _ in range(count):
        space = SPACE.with_output_stride(rng.choice(strides))
        yield rng, space.decode([rng.randrange(len(d.choices)) for d in space.decisions])


def convolutions(network, x):
    """Return (name, module, output shape) of every convolution and classifier, in the order of a forward pass."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: seen.append((name, m, tuple(o.shape[1:]))))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


# Costs


def test_params_and_macs_equal_the_networks():
    for rng, arch in random_members(12, seed=0):
        size, classes = rng.randint(arch.output_stride, 2 * arch.output_stride + 9), rng.randint(1, 20)
        network, whole = build_network(arch, classes), cost(arch, size, classes)
        assert whole.params == sum(p.numel() for p in network.parameters())
        seen = convolutions(network, torch.zeros(1, 3, size, size))
        assert [row.macs for row in whole.rows] == [m.weight.numel() * math.prod(s[1:]) for _, m, s in seen]
        assert [row.output_shape for row in whole.rows] == [(*shape, 1, 1)[:3] for _, _, shape in seen]


def test_rows_of_a_cell_add_up():
    for _, arch in random_members(15, seed=1):
        whole = cost(arch, 65, 10)
        rows = by_layer(arch, whole)
        assert (rows[0].name, rows[-1].name) == ("stem", "classifier")
        assert sum(row.params for row in rows) == whole.params
        assert sum(row.macs for row in rows) == whole.macs
        assert rows[-1].input_shape[0] == rows[-2].output_shape[0]


def test_rows_of_nasnet():
    arch = named_arch("nasnet-a")
    rows = {row.name: row for row in by_layer(arch, cost(arch, 224))}
    assert list(rows) == ["stem", *(f"cell{i}" for i in range(1, 17)), "classifier"]
    assert (rows["cell1"].op, rows["cell1"].output_shape) == ("reduction 11", (44, 56, 56))
    assert (rows["cell3"].op, rows["cell3"].output_shape) == ("normal 44", (6 * 44, 28, 28))
    assert (rows["cell16"].op, rows["cell16"].output_shape) == ("normal 176", (1056, 7, 7))
    assert rows["stem"].macs == 27 * 32 * 112 * 112


def test_what_nothing_depends_on_is_not_built():
    """Normal cells that use only the cell before the previous one leave every other cell unused."""
    only = Cell(pairs=((1, "conv1", 1, "conv1"),), concat=(2,))
    arch = CellArch(normal=only, reduction=only, skeleton=CellSkeleton(cells=(4,), stem_cells=0, filters=8))
    cells = {name.split(".")[0] for name in (step.name for step in cell_steps(arch)) if name.startswith("cell")}
    assert cells == {"cell2", "cell4"}
    network = build_network(arch, 3)
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Operations


def first_pixel(size, stride, kernel):
    return -(max(0, (math.ceil(size / stride) - 1) * stride + kernel - size) // 2)


@pytest.mark.parametrize("op", ["average", "max"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (7, 8), (8, 7), (9, 2)])
def test_pools_against_a_loop_over_pixels(op, kernel, stride, size):
    x = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    got = WindowPool(op, kernel, stride)(x)[0, 0]
    assert got.shape == tuple(math.ceil(n / stride) for n in size)
    top, left = (first_pixel(n, stride, kernel) for n in size)
    for i, j in itertools.product(range(got.shape[0]), range(got.shape[1])):
        rows = slice(max(0, top + i * stride), top + i * stride + kernel)
        columns = slice(max(0, left + j * stride), left + j * stride + kernel)
        window = x[0, 0, rows, columns]
        torch.testing.assert_close(got[i, j], window.max() if op == "max" else window.mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_shift(size):
    x = torch.randn(1, 2, size, size)
    shifted = Shift()(x)
    assert shifted.shape == x.shape
    torch.testing.assert_close(shifted[:, :, :-1, :-1], x[:, :, 1:, 1:])
    assert not shifted[:, :, -1].any()
    assert not shifted[:, :, :, -1].any()


def one_branch(op, stride, filters=16):
    """Return the steps of `op` on a state of `filters` channels, in a cell with nothing else."""
    cell = Cell(pairs=((0, op, 0, "identity"),), concat=(2,))
    skeleton = CellSkeleton(cells=(0, 0) if stride == 2 else (1,), stem_cells=0, filters=filters, stem_strides=(1,))
    kind = "reduction" if stride == 2 else "normal"
    arch = CellArch(normal=cell, reduction=cell, skeleton=skeleton)
    assert [k for k, _ in skeleton.plan] == [kind]
    return [s for s in cell_steps(arch) if s.name.startswith("cell1.pair1.left")], skeleton.plan[0][1]


def words(steps):
    return [
        f"{s.op} {s.in_channels}-{s.channels} k{s.kernel[0]}x{s.kernel[1]} s{s.stride[0]}x{s.stride[1]}"
        + (f" d{s.dilation}" if s.dilation > 1 else "")
        + (" relu" if s.relu else "")
        for s in steps
    ]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("identity", []),
        ("conv1", ["conv 16-16 k1x1 s1x1"]),
        ("avg3", ["average 16-16 k3x3 s1x1"]),
        ("max7", ["max 16-16 k7x7 s1x1"]),
        ("conv3", ["conv 16-4 k1x1 s1x1 relu", "conv 4-4 k3x3 s1x1 relu", "conv 4-16 k1x1 s1x1"]),
        ("dil3", ["conv 16-4 k1x1 s1x1 relu", "conv 4-4 k3x3 s1x1 d2 relu", "conv 4-16 k1x1 s1x1"]),
        (
            "conv1x3",
            ["conv 16-6 k1x1 s1x1 relu", "conv 6-6 k1x3 s1x1 relu", "conv 6-6 k3x1 s1x1 relu", "conv 6-16 k1x1 s1x1"],
        ),
        (
            "conv1x7",
            ["conv 16-4 k1x1 s1x1 relu", "conv 4-4 k1x7 s1x1 relu", "conv 4-4 k7x1 s1x1 relu", "conv 4-16 k1x1 s1x1"],
        ),
        (
            "sep5",
            [
                "depthwise 16-16 k5x5 s1x1",
                "conv 16-16 k1x1 s1x1 relu",
                "depthwise 16-16 k5x5 s1x1",
                "conv 16-16 k1x1 s1x1",
            ],
        ),
        ("dilsep3", ["depthwise 16-16 k3x3 s1x1 d2", "conv 16-16 k1x1 s1x1"]),
    ],
)
def test_steps_of_every_operation(op, expected):
    assert words(one_branch(op, 1)[0]) == expected


def test_strides_of_a_reduction_cell():
    steps, filters = one_branch("conv1x7", 2)
    assert [s.stride for s in steps] == [(1, 1), (1, 2), (2, 1), (1, 1)]
    assert [s.stride for s in one_branch("sep7", 2)[0]] == [(2, 2), (1, 1), (1, 1), (1, 1)]
    assert words(one_branch("identity", 2)[0]) == [f"conv {filters}-{filters} k1x1 s2x2"]
    assert [s.stride for s in one_branch("max3", 2)[0]] == [(2, 2)]


def test_a_bottleneck_too_narrow_is_left_out():
    """The second reduction cell of a stem of 4 filters works on one channel, which has no quarter."""
    cell = Cell(pairs=((0, "conv3", 0, "conv1x7"),), concat=(2,))
    arch = CellArch(normal=cell, reduction=cell, skeleton=CellSkeleton(cells=(1,), stem_cells=2, filters=4))
    steps = [s for s in cell_steps(arch) if s.name.startswith("cell1.pair1.")]
    assert words(steps)[:3] == ["conv 1-1 k3x3 s2x2", "conv 1-1 k1x7 s1x2 relu", "conv 1-1 k7x1 s2x1"]


# The network


def test_gradients_reach_every_parameter_and_outputs_depend_on_every_pixel():
    for rng, arch in random_members(4, seed=2, strides=(4,)):
        torch.manual_seed(rng.randrange(1000))
        network = build_network(arch, 3)
        x = torch.randn(4, 3, 12, 12, requires_grad=True)
        network(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert (x.grad.abs().sum((0, 1)) > 0).all()


def test_fast_training_computes_the_same():
    """Fast depthwise convolutions replace the network's: same outputs, same gradients, same state dict.

    The test uses double precision, because rounding decides which pixel is a maximum.
    """
    for _, arch in random_members(1, seed=3, strides=(8,)):
        networks = []
        for _ in range(2):
            torch.manual_seed(0)
            networks.append(build_network(arch, 5).double().to(memory_format=torch.channels_last).train())
        plain, fast = networks
        speed_up(fast)
        assert any(type(m).__name__ == "_Depthwise" for m in fast.modules())
        x = torch.randn(4, 3, 33, 33).double().contiguous(memory_format=torch.channels_last)
        outputs = [network(x) for network in networks]
        torch.testing.assert_close(*outputs, atol=1e-8, rtol=1e-8)
        for output in outputs:
            output.square().mean().backward()
        assert list(plain.state_dict()) == list(fast.state_dict())
        for (name, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
            difference = torch.linalg.vector_norm(a.grad - b.grad)
            assert difference <= 1e-6 * torch.linalg.vector_norm(a.grad) + 1e-9, name


# pytorchcv's networks


def prepared(network):
    """Set batch norms to values that are not the identity, so that an exchange of two parts is noticed."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, value in ((module.weight, 0.9), (module.bias, 0.1), (module.running_mean, 0.05)):
                nn.init.constant_(tensor, value)
            nn.init.constant_(module.running_var, 1.3)
    return network.eval()


def share_weights(ours, theirs, x, y, order=lambda name: 0):
    """Give our network the other library's weights, convolution by convolution in order of execution.

    Args:
        order: sort key for the other library's modules that run in parallel.
    """
    source = sorted(convolutions(theirs, y), key=lambda seen: order(seen[0]))
    target = convolutions(ours, x)
    assert [m.weight.shape for _, m, _ in target] == [m.weight.shape for _, m, _ in source]
    with torch.no_grad():
        for (_, mine, _), (_, their, _) in zip(target, source, strict=True):
            mine.weight.copy_(their.weight)
            if their.bias is not None:
                mine.bias.copy_(their.bias)


def assert_same(a, b):
    assert a.std() > 1e-3 * a.abs().max()
    torch.testing.assert_close(a, b, atol=1e-4 * float(a.abs().max()), rtol=0)


def test_nasnet_computes_what_pytorchcvs_does():
    """Their network begins with a convolution without padding, so it receives our image with a border of zeros."""
    from pytorchcv.models.nasnet import NASNet

    f = 8
    theirs = NASNet(
        channels=[[6 * f] * 4, [8 * f, *[12 * f] * 4], [16 * f, *[24 * f] * 4]],
        init_block_channels=32,
        stem_blocks_channels=(f, 2 * f),
        final_pool_size=2,
        extra_padding=True,
        skip_reduction_layer_input=False,
        num_classes=10,
    )
    arch = named_arch("nasnet-a").scale_width(f / 44)
    arch = CellArch(normal=arch.normal, reduction=arch.reduction, skeleton=CellSkeleton(filters=f, stem_filters=(32,)))
    torch.manual_seed(0)
    ours, theirs = prepared(build_network(arch, 10)), prepared(theirs)
    x = torch.randn(2, 3, 61, 61)
    y = nn.functional.pad(x, (1, 1, 1, 1))
    share_weights(ours, theirs, x, y)
    with torch.no_grad():
        assert_same(theirs(y), ours(x))


def test_pnasnet_computes_what_pytorchcvs_does():
    """Their network has the stack of the large one, N = 4 including the reduction cell."""
    from pytorchcv.models.pnasnet import PNASNet

    f = 8
    channels = [[5 * f // 2, *[5 * f] * 4], [10 * f] * 4, [20 * f] * 4]
    theirs = PNASNet(channels=channels, init_block_channels=16, stem1_blocks_channels=5 * f // 4, num_classes=10)
    theirs.features.final_pool = nn.AdaptiveAvgPool2d(1)
    cell = CELL_NETWORKS["pnasnet-5"][0].normal
    arch = CellArch(normal=cell, reduction=cell, skeleton=CellSkeleton(filters=f, cells=(4, 3, 3), stem_filters=(16,)))
    torch.manual_seed(0)
    ours, theirs = prepared(build_network(arch, 10)), prepared(theirs)
    x = torch.randn(2, 3, 41, 41)
    y = nn.functional.pad(x, (1, 1, 1, 1))
    units = {}

    def order(name):
        """Sort unit by unit; their network projects the cell before first."""
        unit = name.split(".conv_")[0].split(".comb")[0]
        place = units.setdefault(unit, len(units))
        return place, 0 if ".conv_1x1" in name else 1 if ".conv_prev" in name else 2

    share_weights(ours, theirs, x, y, order)
    with torch.no_grad():
        assert_same(theirs(y), ours(x))


class Swapped(nn.Module):
    """The halves of a factorized reduction are in the opposite order."""

    def forward(self, even, odd):
        return torch.cat((odd, even), 1)


@pytest.mark.parametrize("size", [64, 96])
def test_darts_computes_what_pytorchcvs_does(size):
    """Their symmetric padding at stride 2 on even sizes is SAME padding of the rotated image.

    So our network gets all kernels and the image rotated, and uses the other pixels first in a factorized reduction.
    Their network has no ReLU before the pooling.
    """
    from pytorchcv.models.darts import darts

    torch.manual_seed(0)
    theirs = prepared(darts(num_classes=10))
    theirs.features.final_pool = nn.AdaptiveAvgPool2d(1)
    ours = prepared(build_network(named_arch("darts-v2"), 10))
    ours.cells.parts["cell14/relu"] = nn.Identity()
    for step in ours.cells.steps:
        if step.op == "concat" and step.name.endswith(".before"):
            ours.cells.parts[step.name.replace(".", "/")] = Swapped()
    x = torch.randn(1, 3, size, size)
    source = convolutions(theirs, x)
    target = convolutions(ours, x.flip(2, 3))
    first_of_two = {}  # in a factorized reduction, their first half is our second
    for place, (name, _, _) in enumerate(target):
        if name.endswith("before/even.conv"):
            first_of_two[place] = place + 1
            first_of_two[place + 1] = place
    with torch.no_grad():
        for place, (_, mine, shape) in enumerate(target):
            _, their, their_shape = source[first_of_two.get(place, place)]
            assert (mine.weight.shape, shape) == (their.weight.shape, their_shape)
            mine.weight.copy_(their.weight.flip(2, 3) if their.weight.dim() == 4 else their.weight)
            if their.bias is not None:
                mine.bias.copy_(their.bias)
        assert_same(theirs(x), ours(x.flip(2, 3)))
