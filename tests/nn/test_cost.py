"""Costs counted from an architecture, against those of the torch network."""

import itertools
import random

import pytest
import torch

from mnas.arch import Arch
from mnas.nn.cost import by_layer, cost
from mnas.nn.network import build_network
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.skeleton import MOBILENETV2
from mnas.zoo.architectures import named_arch

CHOICES = BlockChoices(
    op=("conv", "sepconv", "mbconv2", "mbconv6", "fused2", "fused4"), kernel=(3, 5, 7), se_ratio=(0.0, 0.25, 0.5)
)
SPACE = FactorizedSpace(
    name="narrow", skeleton=MOBILENETV2.scaled(0.25).with_output_stride(8), block_choices=(CHOICES,) * 7
)


def random_members(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        yield rng, SPACE.decode([rng.randrange(len(d.choices)) for d in SPACE.decisions])


def counted(network, input_size):
    """Return module name -> (output shape, MACs) of every convolution and classifier, from one forward pass."""
    seen = {}

    def hook(name):
        def count(module, inputs, output):
            positions = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
            seen[name] = (tuple(output.shape[1:]), module.weight.numel() * positions)

        return count

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, input_size, input_size))
    return seen


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_params_and_macs_equal_the_networks(padding):
    for rng, member in random_members(25, seed=0):
        arch = Arch.from_dict({**member.to_dict(), "padding": padding})
        size, classes = rng.randint(8, 65), rng.randint(1, 20)
        network, whole = build_network(arch, classes), cost(arch, size, classes)
        assert whole.params == sum(p.numel() for p in network.parameters())
        seen = list(counted(network, size).values())
        # in the order of computation: the same convolutions with the same shapes
        assert [row.macs for row in whole.rows] == [macs for _, macs in seen]
        shapes = [(*shape, 1, 1)[:3] for shape, _ in seen]
        assert [row.output_shape for row in whole.rows] == shapes


def test_rows_of_a_layer_add_up():
    for _, arch in random_members(25, seed=1):
        whole = cost(arch, 33, 10)
        rows = by_layer(arch, whole)
        assert [row.name for row in rows] == ["stem", *(layer.name for layer in arch.layers), "head", "classifier"]
        assert sum(row.params for row in rows) == whole.params
        assert sum(row.macs for row in rows) == whole.macs
        for before, row in itertools.pairwise(rows[:-1]):
            assert row.input_shape == before.output_shape
        network = build_network(arch, 10)
        modules = [network.stem, *network.layers, network.head, network.classifier]
        assert [row.params for row in rows] == [sum(p.numel() for p in m.parameters()) for m in modules]


def test_names_and_words():
    arch = named_arch("mnasnet-a1")
    whole = cost(arch, 224)
    assert [row.name for row in whole.rows[:4]] == ["stem", "block1.0.depthwise", "block1.0.project", "block2.0.expand"]
    squeeze = next(row for row in whole.rows if row.name == "block3.1.se.reduce")
    assert (squeeze.op, squeeze.input_shape, squeeze.output_shape) == ("conv", (120, 1, 1), (10, 1, 1))
    assert (squeeze.params, squeeze.macs) == (1210, 1200)
    words = {row.name: row.op for row in by_layer(arch, whole)}
    assert words["block1.0"] == "sepconv k3"
    assert words["block3.0"] == "mbconv3 k5 s2 se6"
    assert words["block3.1"] == "mbconv3 k5 se10 identity"


def test_what_cannot_be():
    arch = named_arch("mnasnet-a1")
    with pytest.raises(ValueError, match="--input-size must be at least the output stride 32, but got 31"):
        cost(arch, 31)
    with pytest.raises(ValueError, match="num_classes must be 1 or more, but got 0"):
        cost(arch, 224, 0)
