"""The table of ops, and all that follows from the row of `fused`."""

import functools
import json
import random
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from same_function import assert_delegated, assert_same_function, trained_like
from timm.models._efficientnet_blocks import EdgeResidual, SqueezeExcite

from mnas.arch import Arch
from mnas.architecture import architecture_from_json
from mnas.block import Block
from mnas.latency.prediction.parts import parts_of_arch
from mnas.nn.cost import by_layer, cost
from mnas.nn.layouts import LAYOUTS
from mnas.nn.network import build_network
from mnas.ops import OPS, Convolution, Mean, Op, Residual, Squeeze, op_text, parse_op
from mnas.report.diagram import arch_svg, block_label
from mnas.report.facts import _natural
from mnas.space.named import space_from_dict, space_from_toml
from mnas.tflite.writer import graph_bytes

TOML = """
name = "edge"

[skeleton]
filters = [8, 12, 16]
layers = [1, 2, 2]
strides = [1, 2, 2]
stem_filters = 8
head_filters = 64

[choices]
op = ["fused4", "mbconv3", "fused12", "conv"]
"""
SPACE = space_from_toml(TOML)


def members(count: int) -> list[Arch]:
    rng = random.Random(5)
    return [SPACE.decode([rng.randrange(len(d.choices)) for d in SPACE.decisions]) for _ in range(count)]


# The table


def test_every_op_has_a_row_and_its_names_are_read_back() -> None:
    assert tuple(OPS) == get_args(Op)
    for op, row in OPS.items():
        for expansion in (*range(1, 33), 0.25, 0.5, 2.3, 3.67, 4.5) if row.expands else (1,):
            assert parse_op(op_text(op, expansion)) == (op, expansion)


@pytest.mark.parametrize(
    "text",
    ["", "fused", "fused0", "fused33", "fused04", "fused4.0", "fused0.2", "fused4 ", "conv2", "sepconv1", "Fused4"],
)
def test_names_that_no_op_has(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"op must be conv, sepconv, mbconvN, fusedN or uibN with an expansion N from 0\.25 to 32, as in uib2\.5",
    ):
        parse_op(text)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("skip", ["identity", "pool", "none"])
def test_the_visit_is_the_computation(op: Op, skip: str) -> None:
    """Each part takes the shape that the part before it gives, and the network has its modules and no others."""
    block = Block(op=op, kernel=5, stride=2, filters=8, layers=2, expansion=3 if OPS[op].expands else 1, se_ratio=0.5)
    arch = Arch(blocks=(replace(block, skip=skip),), stem_filters=8, head_filters=24)
    visits = list(arch.visit(33))
    assert [visits[0].name, *(visit.name for visit in visits[-2:])] == ["stem", "head", "head.mean"]
    shapes = {"": (3, 33, 33)} | {visit.name: visit.output_shape for visit in visits}
    assert all(visit.input_shape == shapes[visit.source] for visit in visits)
    layers = {visit.layer: visit.source for visit in reversed(visits)}  # the first part of each layer
    names = []
    for before, visit in zip([None, *visits], visits, strict=False):
        if isinstance(visit.part, Mean):
            assert (visit.source, visit.output_shape) == ("head", (24, 1, 1))
            continue
        if isinstance(visit.part, Residual):
            assert visit.source == layers[visit.layer]
            continue
        assert visit.source == (before.name if before else "")
        ends = [f".{end}" for end, _, _ in visit.part.ends] if isinstance(visit.part, Squeeze) else [".conv"]
        names += [f"{visit.name}{end}" for end in ends]
    network = build_network(arch, 3)
    modules = {"stem": network.stem, "head": network.head}
    modules |= {layer.name: module for layer, module in zip(arch.layers, network.layers, strict=True)}
    found = [
        f"{name}.{inner}"
        for name, module in modules.items()
        for inner, part in module.named_modules()
        if isinstance(part, torch.nn.Conv2d)
    ]
    assert sorted(found) == sorted(names)
    assert Counter(type(visit.part) for visit in visits)[Residual] == {"identity": 1, "pool": 2, "none": 0}[skip]


# Fused blocks


def fused(**changed: object) -> Arch:
    values = {"op": "fused", "kernel": 3, "stride": 1, "filters": 8, "expansion": 4, **changed}
    return Arch(blocks=(Block(**values),), stem_filters=8, stem_stride=1, head_filters=24)  # type: ignore[arg-type]


def test_block_strings_and_json_round_trip() -> None:
    strings = (
        "r2_k3_s22_e4_i32_o40_fused",
        "r1_k5_s11_e6_i40_o40_se0.25_pool_fused",
        "r1_k3_s11_e2_i40_o24_noskip_fused",
    )
    arch = Arch.from_block_strings(strings)
    assert arch.block_strings == strings
    assert {block.op for block in arch.blocks} == {"fused"}
    assert architecture_from_json(arch.to_json()) == arch
    assert arch.to_dict()["blocks"][0]["op"] == "fused"
    mbconv = replace(arch, blocks=tuple(replace(block, op="mbconv") for block in arch.blocks))
    assert mbconv.fingerprint != arch.fingerprint


def test_a_space_of_fused_blocks() -> None:
    assert space_from_dict(json.loads(json.dumps(SPACE.to_dict()))) == SPACE
    seen: set[str] = set()
    for arch in members(30):
        indices = SPACE.encode(arch)
        assert SPACE.decode(indices) == arch
        seen |= {op_text(block.op, block.expansion) for block in arch.blocks}
        assert architecture_from_json(arch.to_json()) == Arch.from_dict(arch.to_dict()) == arch
    assert seen == {"fused4", "mbconv3", "fused12", "conv"}
    with pytest.raises(ValueError, match="op must be one of fused4, mbconv3, fused12, conv, but got fused6"):
        SPACE.encode(replace(arch, blocks=(replace(arch.blocks[0], op="fused", expansion=6), *arch.blocks[1:])))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("se_ratio", [0.0, 0.25])
def test_the_litert_file_computes_what_torch_computes(padding: str, stride: int, kernel: int, se_ratio: float) -> None:
    for skip, filters in (("identity", 8), ("pool", 12), ("none", 8)):
        arch = fused(kernel=kernel, stride=stride, se_ratio=se_ratio, skip=skip, filters=filters)
        network = trained_like(replace(arch, padding=padding), 5, kernel)  # type: ignore[arg-type]
        for size in (4, 9):
            assert_delegated(assert_same_function(network, size, size))


def test_random_members_compute_the_same_in_litert() -> None:
    for seed, arch in enumerate(members(6)):
        assert_delegated(assert_same_function(trained_like(arch, 7, seed), 33, seed))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("outputs", "skip"), [(16, "identity"), (16, "none"), (24, "none")])
@pytest.mark.parametrize("squeezed", [0, 4])
@pytest.mark.parametrize(("padding", "pad_type"), [("symmetric", ""), ("same", "same")])
def test_outputs_equal_timms_edge_residual(
    stride: int, outputs: int, skip: str, squeezed: int, padding: str, pad_type: str
) -> None:
    torch.manual_seed(stride + outputs + squeezed)
    arch = fused(stride=stride, filters=outputs, se_ratio=squeezed / 16, skip=skip)
    arch = replace(arch, stem_filters=16, padding=padding, bn_epsilon=1e-5)  # type: ignore[arg-type]
    ours = trained_like(arch, 3, seed=outputs)
    theirs = EdgeResidual(
        *(16, outputs),
        stride=stride,
        exp_ratio=4.0,
        pad_type=pad_type,
        noskip=skip == "none",
        se_layer=functools.partial(SqueezeExcite, rd_channels=squeezed) if squeezed else None,
    ).eval()
    timm = next(layout for layout in LAYOUTS if layout.title == "timm")
    state = {}
    for module, name in timm.modules(arch, ()).items():
        if name.startswith("blocks.0.0.") and (squeezed or ".se." not in name):
            tensors = ours.get_submodule(module).state_dict()
            state |= {f"{name.removeprefix('blocks.0.0.')}.{leaf}": tensor for leaf, tensor in tensors.items()}
    theirs.load_state_dict(state)  # strict: the same tensors
    for size in (8, 13):
        x = torch.randn(2, 16, size, size)
        with torch.no_grad():
            expected = theirs(x)
            assert expected.std() > 0.1
            torch.testing.assert_close(ours.layers[0](x), expected, rtol=1e-5, atol=1e-5)


def test_params_and_macs_by_hand() -> None:
    """A 3x3 convolution of 8 to 32 channels at stride 2 on 9x9 pixels, a gate of 2, a projection to 12 on 5x5."""
    arch = fused(stride=2, filters=12, se_ratio=0.25)
    whole = cost(arch, 9, 3)
    rows = {row.name: (row.params, row.macs) for row in whole.rows if row.name.startswith("block")}
    assert rows == {
        "block1.0.expand": (9 * 8 * 32 + 64, 9 * 8 * 32 * 25),
        "block1.0.se.reduce": (66, 64),
        "block1.0.se.expand": (96, 64),
        "block1.0.project": (32 * 12 + 24, 32 * 12 * 25),
    }
    assert by_layer(arch, whole)[1].op == "fused4 k3 s2 se2"
    assert whole.params == sum(p.numel() for p in build_network(arch, 3).parameters())


def test_every_operator_of_the_file_is_predicted() -> None:
    operators = {"squeeze": 2, "scale": 2}  # two convolutions; a sigmoid and a product
    for arch in members(10):
        parts = [part for part in parts_of_arch(arch, 32, 10) if part.kind != "network"]
        graph = schema.Model.GetRootAsModel(graph_bytes(arch, 32, 10)).Subgraphs(0)
        assert sum(operators.get(part.kind, 1) for part in parts) == graph.OperatorsLength()
        macs = sum(part.amounts.get("macs", 0.0) for part in parts)
        assert macs == pytest.approx(cost(arch, 32, 10).macs / 1e6, rel=1e-12)
    parts = parts_of_arch(fused(kernel=5, stride=2), 32, 10)
    assert [part.kind for part in parts] == ["stem", "conv5", "pointwise", "pointwise", "mean", "classifier", "network"]


def test_drawing_and_order_of_choices() -> None:
    arch = Arch.from_block_strings(("r3_k3_s22_e4_o16_se0.25_fused", "r1_k5_s22_e6_o24_fused"))
    assert [block_label(block) for block in arch.blocks] == ["Fused4 (k3x3) SE ×3", "Fused6 (k5x5)"]
    svg = arch_svg(arch, 64)
    assert all(row.colours[wide][0] in svg for row in (OPS["fused"],) for wide in (0, 1))
    assert len({colours for row in OPS.values() for colours in row.colours}) == 8
    names = ["fused12", "conv", "fused4", "sepconv", "fused6"]
    assert sorted(names, key=lambda name: _natural((name, 1))) == ["conv", "sepconv", "fused4", "fused6", "fused12"]


def test_a_convolution_counts_its_weights() -> None:
    assert Convolution("expand", 8, 32, 3).weights == 9 * 8 * 32
    assert Convolution("depthwise", 8, 8, 5, depthwise=True).weights == 25 * 8
    assert Convolution("depthwise", 1, 1, 3, depthwise=True).weights == 9
