"""Blocks with any combination of fields, and heads of all kinds: every part of the program gives them one meaning."""

import random
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from same_function import assert_delegated, assert_same_function, trained_like
from torch import nn

from mnas.arch import Arch
from mnas.architecture import architecture_from_json
from mnas.block import Block, BlockActivation
from mnas.latency.prediction.parts import parts_of_arch
from mnas.nn.cost import by_layer, cost
from mnas.nn.network import build_network
from mnas.ops import OPS, Activation, Gate
from mnas.report.diagram import arch_svg
from mnas.tflite.writer import graph_bytes

HEADS: list[dict[str, Any]] = [
    {"head_filters": 24},
    {"head_filters": 24, "head_norm": False},
    {"head_filters": 24, "head_pooled": True},
    {"head_filters": 24, "head_pooled": True, "head_norm": False},
    {"head_filters": 0},
]


def random_block(rng: random.Random, **fixed: Any) -> Block:
    op = rng.choice(list(OPS))
    row = OPS[op]
    inside = rng.choice([{"expansion": 3}, {"expansion": 1}, {"expansion": 2.3}, {"mid_filters": 20}])
    values = {
        "op": op,
        "kernel": rng.choice(row.kernels),
        "start_kernel": rng.choice(row.start_kernels),
        "stride": rng.choice([1, 2]),
        "filters": rng.choice([8, 12]),
        "layers": rng.choice([1, 2]),
        **(inside if row.expands else {}),
        "se_ratio": rng.choice([0.0, 0.5]),
        "skip": rng.choice(["identity", "pool", "none"]),
        "activation": rng.choice(get_args(BlockActivation)),
        "projection_activation": row.projects and rng.random() < 0.3,
        "se_width": rng.choice(["input", "middle"]),
        "se_activation": rng.choice(get_args(Activation)),
        "se_gate": rng.choice(get_args(Gate)),
    }
    return Block(**{**values, **fixed})


def random_arch(seed: int) -> Arch:
    rng = random.Random(seed)
    return Arch(
        blocks=tuple(random_block(rng) for _ in range(3)),
        stem_filters=8,
        stem_stride=1,
        activation=rng.choice(get_args(Activation)),
        padding=rng.choice(["same", "symmetric"]),
        **HEADS[seed % len(HEADS)],
    )


ARCHS = [random_arch(seed) for seed in range(40)]


def test_every_value_of_every_field_occurs() -> None:
    blocks = [block for arch in ARCHS for block in arch.blocks]
    assert {block.op for block in blocks} == set(OPS)
    assert {(b.start_kernel > 0, b.kernel > 0) for b in blocks if b.op == "uib"} == {
        (a, k) for a in (0, 1) for k in (0, 1)
    }
    for name, values in (("activation", BlockActivation), ("se_activation", Activation), ("se_gate", Gate)):
        assert {getattr(block, name) for block in blocks if block.se_ratio} == set(get_args(values))


@pytest.mark.parametrize("arch", ARCHS, ids=range(len(ARCHS)))
@pytest.mark.sample(12)
def test_the_litert_file_computes_what_torch_computes(arch: Arch) -> None:
    network = trained_like(arch, 5, len(arch.block_strings[0]))
    for size in (16, 17):
        assert_delegated(assert_same_function(network, size, size))


def test_text_forms_round_trip() -> None:
    for arch in ARCHS:
        assert architecture_from_json(arch.to_json()) == arch
        blocks = Arch.from_block_strings(arch.block_strings).blocks
        assert replace(arch, blocks=blocks) == arch
        assert arch.canonical().fingerprint == arch.fingerprint
        assert arch.canonical().canonical() == arch.canonical()


def macs_by_hooks(network: nn.Module, size: int) -> int:
    counts = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pixels = output[0].numel() if isinstance(module, nn.Linear) else output.shape[2] * output.shape[3]
        counts.append(module.weight.numel() * (1 if isinstance(module, nn.Linear) else pixels))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    return sum(counts)


def test_costs_are_those_of_the_network() -> None:
    for arch in ARCHS:
        whole = cost(arch, 33, 5)
        network = build_network(arch, 5)
        assert whole.params == sum(p.numel() for p in network.parameters())
        assert whole.macs == macs_by_hooks(network, 33)
        assert sum(row.macs for row in by_layer(arch, whole)) == whole.macs


def test_every_operator_of_the_file_is_predicted() -> None:
    operators = {"squeeze": 2, "scale": 2, "hard scale": 2}
    for arch in ARCHS:
        arch = replace(arch, padding="same")
        parts = [part for part in parts_of_arch(arch, 32, 10) if part.kind != "network"]
        graph = schema.Model.GetRootAsModel(graph_bytes(arch, 32, 10)).Subgraphs(0)
        assert sum(operators.get(part.kind, 1) for part in parts) == graph.OperatorsLength()
        macs = sum(part.amounts.get("macs", 0.0) for part in parts)
        assert macs == pytest.approx(cost(arch, 32, 10).macs / 1e6, rel=1e-12)


def test_networks_train_and_are_drawn() -> None:
    for arch in ARCHS[:10]:
        network = build_network(arch, 3).train()
        network(torch.randn(2, 3, 16, 16)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        assert arch_svg(arch, 32).startswith("<svg")


def test_widths_inside_follow_the_published_rules() -> None:
    """MobileNetV3's table: expansions of 4.5, 3.67, 2.5 and 2.3, and gates of a quarter of the middle, in eights."""
    block = Block(op="mbconv", kernel=3, stride=1, filters=8, expansion=4.5, se_ratio=0.25, se_width="middle")
    widths = [(16, 4.5), (24, 3.67), (80, 2.5), (80, 2.3), (24, 6), (36, 9)]
    assert [replace(block, expansion=e).inside(width) for width, e in widths] == [72, 88, 200, 184, 144, 324]
    assert [replace(block, expansion=6).squeezed(width) for width in (40, 112)] == [64, 168]
    assert [replace(block, expansion=3).squeezed(width) for width in (24, 48)] == [24, 40]
    assert replace(block, expansion=6, se_width="input").squeezed(40) == 10
    assert replace(block, expansion=1, mid_filters=20).inside(40) == 20


def test_the_stride_of_a_uib_is_in_one_convolution() -> None:
    for start, kernel, strided in ((0, 3, "depthwise"), (5, 3, "depthwise"), (5, 0, "start"), (0, 0, "expand")):
        block = Block(op="uib", kernel=kernel, start_kernel=start, stride=2, filters=8, expansion=4)
        (layer,) = Arch(blocks=(block,)).layers
        assert [part.name for part in layer.convolutions if part.stride == 2] == [strided]
