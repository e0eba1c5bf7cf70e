"""Test networks cut from a parent: exact where nothing of it is lost, refused where they are no part of it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mnas.arch import Arch
from mnas.nn.inherit.cut import cut
from mnas.nn.inherit.trace import trace
from mnas.nn.network import build_network
from mnas.zoo.architectures import ZOO

SIZE = 32


def parent_of(arch, *, seed=0):
    """Return a network whose batch norms have the statistics of `images`, and odd scales and shifts."""
    torch.manual_seed(seed)
    network = build_network(arch, 5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 0.5
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(images(seed=1))
    return network.eval()


def images(seed=2, count=12):
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def gap(one, other):
    """Return the largest difference of logits on images that neither has seen, in standard deviations."""
    x = images(seed=3)
    expected = one(x)
    return float((other(x) - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    "name",
    [
        "mnasnet-a1@0.25",
        "efficientnet-lite0@0.25",
        "mobilenetv1@0.25",
        "mobilenetv3-small@0.5",
        "mobilenetv4-conv-small@0.25",
    ],
)
def test_where_nothing_is_cut_the_function_is_that_of_the_parent(name):
    base, _, width = name.partition("@")
    arch = ZOO[base].arch.scale_width(float(width))
    parent = parent_of(arch)
    traced = trace(parent, images())
    assert gap(parent, cut(traced, arch)) < 1e-3  # of sums over few pixels
    grown = replace(
        arch,
        blocks=tuple(
            replace(
                block,
                se_ratio=block.se_ratio or (0.25 if block.op != "conv" else 0.0),
                kernel=5 if block.kernel == 3 and block.op != "conv" else block.kernel,
            )
            for block in arch.blocks
        ),
    )
    assert grown != arch
    assert gap(parent, cut(traced, grown)) < 1e-3


INSIDE = {"expansion": 1, "mid_filters": 40}
FIRST, *REST = Arch.from_block_strings("r1_k3_s11_e1_i16_o8_noskip,r3_k3_s22_e2_o16,r2_k5_s22_e2_o24").blocks
SMALL = Arch(blocks=(FIRST, *(replace(block, **INSIDE) for block in REST)), stem_filters=16, head_filters=64)


def project_by(layer, matrix):
    """Multiply the result of a layer's projection by a matrix, with a batch norm that changes nothing else."""
    norm = layer.project.norm
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - factor * norm.running_mean
    linear = factor[:, None] * layer.project.conv.weight.flatten(1)
    layer.project.conv.weight.copy_((matrix @ linear)[:, :, None, None])
    for parameter, value in ((norm.weight, 1.0), (norm.running_mean, 0.0), (norm.running_var, 1 - norm.eps)):
        parameter.fill_(value)
    norm.bias.copy_(matrix @ shift)


def changed(number, **fields):
    """Return SMALL with other fields of one block."""
    blocks = list(SMALL.blocks)
    blocks[number - 1] = replace(blocks[number - 1], **fields)
    return replace(SMALL, blocks=tuple(blocks))


@torch.no_grad()
def test_a_result_in_half_of_the_directions_is_narrowed_without_loss():
    parent = parent_of(SMALL)
    half = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(4))).Q[:, :8]
    for layer in parent.layers[1:4]:  # all of block 2, whose directions are no choice of channels
        project_by(layer, half @ half.t())
    traced = trace(parent, images(count=24))
    assert gap(parent, cut(traced, changed(2, filters=8))) < 0.01
    assert gap(parent, cut(traced, changed(2, filters=4))) > 0.1


@torch.no_grad()
def test_layers_that_add_nothing_are_dropped_without_loss():
    parent = parent_of(SMALL)
    for layer in parent.layers[2:4]:
        project_by(layer, torch.zeros(16, 16))
    traced = trace(parent, images(count=24))
    assert gap(parent, cut(traced, changed(2, layers=1))) < 0.01
    assert gap(parent, cut(traced, changed(3, layers=1))) > 0.1


@torch.no_grad()
def test_channels_inside_that_are_not_read_are_dropped_without_loss():
    parent = parent_of(SMALL)
    absent = torch.randperm(40, generator=torch.Generator().manual_seed(5))[:24]
    for layer in parent.layers[1:4]:
        layer.project.conv.weight[:, absent] = 0.0
    traced = trace(parent, images(count=24))
    assert gap(parent, cut(traced, changed(2, mid_filters=16))) < 0.01
    assert gap(parent, cut(traced, changed(2, mid_filters=8))) > 0.1


@torch.no_grad()
def test_a_dead_channel_does_not_blow_up():
    parent = parent_of(SMALL)
    parent.layers[1].expand.conv.weight[3] = 0.0
    parent.layers[1].depthwise.norm.bias[5] = -1e3  # zero after the activation
    network = cut(trace(parent, images()), changed(2, filters=8, mid_filters=20))
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert gap(parent, network) < 20


def test_the_same_cut_has_the_same_bits_and_leaves_the_parent_and_the_random_state_alone():
    parent = parent_of(SMALL)
    before = {name: value.clone() for name, value in parent.state_dict().items()}
    state = torch.get_rng_state()
    arch = changed(2, filters=8, kernel=5, se_ratio=0.25, layers=2)
    one, two = (cut(trace(parent, images()), arch).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(before[name], value) for name, value in parent.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_squeeze_and_excitation_is_dropped_for_its_mean_gate_and_narrowed():
    parent = parent_of(changed(3, se_ratio=0.5))
    traced = trace(parent, images(count=24))
    assert 0.01 < gap(parent, cut(traced, SMALL)) < 1.5
    assert 0.01 < gap(parent, cut(traced, changed(3, se_ratio=0.25))) < 1.5


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (changed(2, filters=24), "channels of block 2 must be at most 16, as in the parent, but got 24"),
        (changed(2, layers=4), "layers of block 2 must be at most 3, as in the parent, but got 4"),
        (changed(3, mid_filters=48), "channels inside block3.0 must be at most 40, as in the parent, but got 48"),
        (changed(2, stride=1), "stride of block 2 must be that of the parent, 2, but got 1"),
        (changed(2, op="fused"), "op of block 2 must be that of the parent, mbconv, but got fused"),
        (replace(SMALL, blocks=SMALL.blocks[:2]), "number of blocks must be that of the parent, 3, but got 2"),
        (replace(SMALL, stem_filters=32), "channels of the stem must be at most 16, as in the parent, but got 32"),
        (replace(SMALL, padding="symmetric"), "padding of the network must be that of the parent, same"),
        (ZOO["darts-v1"].arch, "a network of cells cannot be cut, only one of blocks"),
    ],
)
def test_what_is_no_part_of_the_parent_is_refused(arch, message):
    with pytest.raises(ValueError, match=message):
        cut(trace(parent_of(SMALL), images(count=2)), arch)


def test_a_network_of_cells_is_not_traced():
    with pytest.raises(ValueError, match="a network of cells cannot be cut"):
        trace(build_network(ZOO["darts-v1"].arch.scale_width(0.25), 5), images(count=1))
