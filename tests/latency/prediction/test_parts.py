"""Parts of networks: they include every operator exactly once."""

import functools
import math
from collections import Counter
from dataclasses import replace

import pytest
from ai_edge_litert import schema_py_generated as schema

from mnas.cell_arch import OPS
from mnas.latency.prediction import design
from mnas.latency.prediction.parts import Part, parts_of_arch, parts_of_decisions
from mnas.nn.cost import cost
from mnas.space.named import SPACES
from mnas.tflite.writer import graph_bytes
from mnas.zoo.architectures import named_arch

ARCHS = ["mnasnet-a1", "mnasnet-b1", "mnasnet-small/s8", "mobilenetv2"]
SAMPLES = 4
CELLS = ["nasnet-a@0.25", "amoebanet-a@0.25", "darts-v2@0.25/s8"]


@functools.cache
def cost_of(arch):
    """Return the cost, computed once for all tests, because it builds a network."""
    return cost(arch, 96, 10)


@functools.cache
def members():
    """Return members of the space that together contain every operator."""
    return sampled(SPACES["mnasnet"])


@functools.cache
def cell_members():
    return sampled(replace(SPACES["cell"], ops=OPS).scaled(0.25).with_output_stride(8))


@functools.cache
def uib_members():
    return sampled(SPACES["mobilenetv4"].scaled(0.5))


def sampled(space):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "SWAPS", 100)  # each choice comes as often as any other without them
        return [space.decode(indices) for indices in design.design_sample(space, SAMPLES, seed=0)]


NETWORKS = [
    *((named_arch, name) for name in ARCHS + CELLS),
    *((sample, number) for sample in (members, cell_members, uib_members) for number in range(SAMPLES)),
]


def arch_of(network):
    """Return a network of NETWORKS; samples take seconds, so they are not drawn when this file is imported."""
    source, which = network
    return source(which) if source is named_arch else source()[which]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network[0].__name__}-{network[1]}")
def test_macs_of_the_parts_add_up_to_the_networks(network):
    arch = arch_of(network)
    parts = parts_of_arch(arch, 96, 10)
    macs = sum(part.amounts.get("macs", 0.0) for part in parts)
    assert macs == pytest.approx(cost_of(arch).macs / 1e6, rel=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network[0].__name__}-{network[1]}")
def test_weights_of_the_parts_add_up_to_the_networks(network):
    """Biases and batch norms do not count. A dense part has as many weights as MACs."""
    arch = arch_of(network)
    found = sum(p.amounts.get("weights", 0.0) for p in parts_of_arch(arch, 96, 10))
    found += sum(
        p.amounts["macs"] for p in parts_of_arch(arch, 96, 10) if p.kind in ("squeeze", "hidden", "classifier")
    )
    rows = [row for row in cost_of(arch).rows if row.op != "depthwise"]
    weights = [row.macs / math.prod(row.output_shape[1:]) for row in rows]
    assert found == pytest.approx(sum(weights) / 1e6, rel=1e-12)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network[0].__name__}-{network[1]}")
def test_there_is_a_part_for_every_operator_of_the_file(network):
    arch = arch_of(network)
    operators = {"squeeze": 2, "scale": 2}  # two convolutions; a sigmoid and a product
    kinds = Counter(part.kind for part in parts_of_arch(arch, 96, 10) if part.kind != "network")
    graph = schema.Model.GetRootAsModel(graph_bytes(arch, 96, 10)).Subgraphs(0)
    assert sum(operators.get(kind, 1) * count for kind, count in kinds.items()) == graph.OperatorsLength()


def test_the_members_above_have_every_kind_of_part():
    kinds = {part.kind for arch in members() for part in parts_of_arch(arch, 96, 10)}
    assert kinds == {
        *("stem", "conv3", "conv5", "pointwise", "depthwise3", "depthwise5", "classifier", "network"),
        *("mean", "squeeze", "scale", "add", "pool", "pad", "slice"),
    }


def test_universal_inverted_bottlenecks_have_the_parts_of_other_blocks():
    kinds = {part.kind for arch in uib_members() for part in parts_of_arch(arch, 96, 10)}
    assert kinds == {
        *("stem", "conv3", "pointwise", "depthwise3", "depthwise5", "add", "mean", "hidden", "classifier", "network")
    }


def test_cells_have_parts_of_their_own_and_of_blocks():
    kinds = {part.kind for arch in cell_members() for part in parts_of_arch(arch, 97, 10)}
    assert kinds == {
        *("stem", "pointwise", "classifier", "network", "mean", "add", "pool", "slice", "pad", "relu", "concat"),
        *("depthwise3", "depthwise5", "depthwise7", "dilated depthwise3", "dilated depthwise5", "max3", "max5", "max7"),
        *("conv3", "dilated conv3", "conv1x3", "conv3x1", "conv1x7", "conv7x1"),
    }


def test_an_input_too_small_is_refused():
    with pytest.raises(ValueError, match="--input-size must be at least the output stride 32, but got 16"):
        parts_of_arch(named_arch("mnasnet-a1"), 16, 10)


def test_decisions_of_a_block_are_one_part():
    parts = parts_of_decisions({"block0_k": 5, "block0_e": 4, "block10_se": False, "resolution": 224})
    assert parts == (
        Part("block0", {"block0_e=4": 1.0, "block0_k=5": 1.0}, ("block0_e=4", "block0_k=5")),
        Part("block10", {"block10_se=False": 1.0}, ("block10_se=False",)),
        Part("resolution", {"resolution=224": 1.0}, ("resolution=224",)),
    )
