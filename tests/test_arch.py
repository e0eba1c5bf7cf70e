"""Architectures as values: every rule, every text form, and fingerprints that are the same everywhere."""

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnas.arch import Arch, with_product
from mnas.architecture import architecture_from_json
from mnas.block import Block, BlockActivation, round_filters
from mnas.ops import OPS

BLOCK = {"op": "mbconv", "kernel": 3, "stride": 2, "filters": 24, "layers": 2, "expansion": 6}
A1 = (
    "r1_k3_s11_e1_i32_o16_noskip",
    "r2_k3_s22_e6_i16_o24",
    "r3_k5_s22_e3_i24_o40_se0.25",
    "r4_k3_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o112_se0.25",
    "r3_k5_s22_e6_i112_o160_se0.25",
    "r1_k3_s11_e6_i160_o320",
)


def random_arch(rng: random.Random) -> Arch:
    """Any valid architecture, not only members of a space."""
    blocks = []
    for _ in range(rng.randint(1, 9)):
        op = rng.choice(list(OPS))
        row = OPS[op]
        inside = rng.choice(["whole", "fraction", "filters"]) if row.expands else "none"
        blocks.append(
            Block(
                op=op,
                kernel=rng.choice(row.kernels),
                start_kernel=rng.choice(row.start_kernels),
                stride=rng.choice([1, 2]),
                filters=rng.choice([1, 7, 16, 24, rng.randint(1, 16384)]),
                layers=rng.randint(1, 4),
                expansion={"whole": rng.randint(1, 32), "fraction": rng.uniform(0.25, 32)}.get(inside, 1),
                mid_filters=rng.randint(1, 16384) if inside == "filters" else 0,
                se_ratio=rng.choice([0.0, 0.25, 1e-7, rng.random(), rng.random() / 1e4, 1.0]),
                skip=rng.choice(["identity", "pool", "none"]),
                activation=rng.choice(get_args(BlockActivation)),
                projection_activation=row.projects and rng.random() < 0.5,
                se_width=rng.choice(["input", "middle"]),
                se_activation=rng.choice(["relu", "relu6", "hardswish", "silu"]),
                se_gate=rng.choice(["sigmoid", "hardsigmoid"]),
            )
        )
    return Arch(
        blocks=tuple(blocks),
        stem_filters=rng.randint(1, 64),
        stem_stride=rng.choice([1, 2]),
        head_filters=rng.choice([1280, 96, 0]),
        activation=rng.choice(["relu", "relu6", "hardswish", "silu"]),
        head_pooled=rng.random() < 0.5,
        head_norm=rng.random() < 0.5,
        dropout=rng.random() * 0.99,
        bn_epsilon=rng.choice([1e-3, 1e-5]),
        bn_momentum=rng.choice([0.01, 0.1]),
        padding=rng.choice(["same", "symmetric"]),
    )


BAD_BLOCKS = [
    ({"op": "maxpool"}, "op must be one of conv, sepconv, mbconv, fused, uib, but got 'maxpool'"),
    ({"kernel": 4}, "kernel must be one of 3, 5, 7 for op mbconv, but got 4"),
    ({"kernel": "3"}, "kernel must be one of 3, 5, 7 for op mbconv, but got '3'"),
    ({"stride": 3}, "stride must be one of 1, 2, but got 3"),
    ({"stride": True}, "stride must be one of 1, 2, but got True"),
    ({"filters": 0}, "filters must be an integer from 1 to 16384, but got 0"),
    ({"filters": 24.0}, "filters must be an integer from 1 to 16384, but got 24.0"),
    ({"filters": 16385}, "filters must be an integer from 1 to 16384, but got 16385"),
    ({"layers": 0}, "layers must be an integer from 1 to 100, but got 0"),
    ({"layers": 101}, "layers must be an integer from 1 to 100, but got 101"),
    ({"kernel": 1}, "kernel must be one of 3, 5, 7 for op mbconv, but got 1"),
    ({"op": "conv", "kernel": 0}, "kernel must be one of 1, 3, 5, 7 for op conv, but got 0"),
    ({"op": "uib", "kernel": 1}, "kernel must be one of 0, 3, 5, 7 for op uib, but got 1"),
    ({"op": "uib", "start_kernel": 4}, "start_kernel must be one of 0, 3, 5, 7 for op uib, but got 4"),
    ({"start_kernel": 3}, "start_kernel must be 0 for op mbconv, but got 3"),
    ({"expansion": 33}, "expansion must be a number from 0.25 to 32, but got 33"),
    ({"expansion": 0.2}, "expansion must be a number from 0.25 to 32, but got 0.2"),
    ({"op": "conv", "expansion": 1, "mid_filters": 8}, "mid_filters must be 0 for op conv, but got 8"),
    ({"mid_filters": 8}, "expansion must be 1 where mid_filters is given, but got 6"),
    ({"mid_filters": -1}, "mid_filters must be an integer from 0 to 16384, but got -1"),
    (
        {"op": "conv", "expansion": 1, "projection_activation": True},
        "projection_activation must be false for op conv, which has no projection",
    ),
    ({"projection_activation": 1}, "projection_activation must be true or false, but got 1"),
    ({"activation": "gelu"}, "activation must be one of network, relu, relu6, hardswish, silu, but got 'gelu'"),
    ({"se_width": "output"}, "se_width must be one of input, middle, but got 'output'"),
    ({"se_gate": "tanh"}, "se_gate must be one of sigmoid, hardsigmoid, but got 'tanh'"),
    ({"se_activation": "none"}, "se_activation must be one of relu, relu6, hardswish, silu, but got 'none'"),
    ({"op": "conv"}, "expansion must be 1 for op conv, but got 6"),
    ({"op": "sepconv"}, "expansion must be 1 for op sepconv, but got 6"),
    ({"se_ratio": 1.5}, "se_ratio must be a number from 0 to 1, but got 1.5"),
    ({"se_ratio": float("nan")}, "se_ratio must be a number from 0 to 1, but got nan"),
    ({"skip": "add"}, "skip must be one of identity, pool, none, but got 'add'"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_BLOCKS)
def test_each_rule_of_a_block_has_its_own_error(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole message is compared below)
        Block(**{**BLOCK, **changed})
    assert str(error.value) == message


BAD_ARCHS = [
    ({"blocks": ()}, "an architecture must have 1 to 100 blocks, but got 0"),
    ({"blocks": (Block(**BLOCK),) * 101}, "an architecture must have 1 to 100 blocks, but got 101"),
    ({"blocks": ("r1",)}, "blocks must be Blocks, but got 'r1'"),
    ({"stem_filters": 0}, "stem_filters must be an integer from 1 to 16384, but got 0"),
    ({"stem_stride": 4}, "stem_stride must be one of 1, 2, but got 4"),
    ({"head_filters": -1}, "head_filters must be an integer from 0 to 16384, but got -1"),
    ({"activation": "swish"}, "activation must be one of relu, relu6, hardswish, silu, but got 'swish'"),
    ({"dropout": 1.0}, "dropout must be a number from 0 to 0.99, but got 1.0"),
    ({"bn_epsilon": 0}, "bn_epsilon must be a number from 1e-09 to 1, but got 0"),
    ({"bn_momentum": 2}, "bn_momentum must be a number from 1e-09 to 1, but got 2"),
    ({"padding": "valid"}, "padding must be one of same, symmetric, but got 'valid'"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_ARCHS)
def test_each_rule_of_an_architecture_has_its_own_error(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Arch(**{"blocks": (Block(**BLOCK),), **changed})
    assert str(error.value) == message


def test_widths_and_skips_of_the_layers_are_derived():
    arch = Arch.from_block_strings(A1)
    assert [layer.name for layer in arch.layers][:4] == ["block1.0", "block2.0", "block2.1", "block3.0"]
    first, second = arch.layers[3], arch.layers[4]
    assert (first.in_filters, first.mid_filters, first.out_filters, first.stride) == (24, 72, 40, 2)
    assert (first.se_filters, first.skip) == (6, "none")  # a quarter of the layer's input, not of its expansion
    assert (second.in_filters, second.se_filters, second.skip) == (40, 10, "identity")
    assert arch.output_stride == 32


def test_squeezed_width_is_at_least_one():
    block = Block(op="sepconv", kernel=3, stride=1, filters=8, se_ratio=0.05)
    assert Arch(blocks=(block,), stem_filters=4).layers[0].se_filters == 1


def test_identity_that_cannot_be_is_none():
    def arch(skip, **changed):
        return Arch(blocks=(Block(**{**BLOCK, "layers": 1, "stride": 1, "filters": 32, "skip": skip, **changed}),))

    for changed in ({"stride": 2}, {"filters": 24}):
        assert arch("identity", **changed).fingerprint == arch("none", **changed).fingerprint
        assert arch("identity", **changed).canonical() == arch("none", **changed)
    for changed in ({}, {"layers": 2, "stride": 2}):
        assert arch("identity", **changed).fingerprint != arch("none", **changed).fingerprint
    assert arch("pool", stride=2).fingerprint != arch("none", stride=2).fingerprint


def test_width_scaling_follows_the_published_rounding():
    assert [round_filters(f, 0.5) for f in (16, 24, 40, 112)] == [8, 16, 24, 56]  # 12 -> 16, because 8 would lose 33 %
    assert round_filters(24, 0.35) == 8
    assert round_filters(32, 0.35) == 16  # 8 would lose more than 10 % of 11.2
    assert round_filters(36, 1.0) == 36
    scaled = Arch.from_block_strings(A1).scale_width(1.4)
    assert (scaled.stem_filters, scaled.head_filters) == (48, 1280)
    assert [b.filters for b in scaled.blocks] == [24, 32, 56, 112, 160, 224, 448]
    assert Arch.from_block_strings(A1).scale_width(1.4, scale_head=True).head_filters == 1792
    with pytest.raises(ValueError, match="width multiplier must be a number"):
        scaled.scale_width(0)


def test_output_stride_takes_the_earliest_strides_out():
    arch = Arch.from_block_strings(A1)
    strides = {s: arch.with_output_stride(s) for s in (32, 16, 8, 4, 2, 1)}
    assert strides[32] == arch
    assert strides[16].stem_stride == 1
    assert [b.stride for b in strides[8].blocks] == [1, 1, 2, 2, 1, 2, 1]
    assert all(a.output_stride == s for s, a in strides.items())
    for bad in (64, 3, 0, -2, 2.0):
        with pytest.raises(ValueError, match="output stride must be a power of 2 up to the network's own 32"):
            arch.with_output_stride(bad)
    assert with_product((2, 1, 2, 2), 4) == (1, 1, 2, 2)


def test_input_must_not_be_smaller_than_the_strides():
    arch = Arch.from_block_strings(A1)
    arch.check_input_size(32)
    with pytest.raises(ValueError, match="--input-size must be at least the output stride 32, but got 31"):
        arch.check_input_size(31)
    for bad in (0, -5, 32.0, 10**6):
        with pytest.raises(ValueError, match="--input-size must be an integer"):
            arch.check_input_size(bad)


# Text forms


def test_published_strings_read_and_print_unchanged():
    assert Arch.from_block_strings(A1).block_strings == A1
    assert Arch.from_block_strings(" , ".join(A1)).block_strings == A1


def test_extended_strings():
    texts = ("r1_k3_s11_e1_i32_o16_pool_conv", "r2_k7_s22_e4_i16_o24_se0.5_pool", "r1_k5_s11_e1_i24_o24_noskip_conv")
    arch = Arch.from_block_strings(texts)
    assert [(b.op, b.skip) for b in arch.blocks] == [("conv", "pool"), ("mbconv", "pool"), ("conv", "none")]
    assert arch.block_strings == texts


def test_fields_that_block_strings_leave_out():
    assert Arch.from_block_strings(A1).not_in_strings == {}
    arch = replace(Arch.from_block_strings("r1_k3_s11_e1_i16_o16"), stem_stride=1, activation="silu", head_norm=False)
    assert arch.not_in_strings == {"stem_stride": 1, "activation": "silu", "head_norm": False}


def test_a_stem_as_wide_as_the_first_block_says():
    assert Arch.from_block_strings("r1_k3_s11_e1_i8_o8").stem_filters == 8
    assert Arch.from_block_strings("r1_k3_s11_e1_o8").stem_filters == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown part ''"),
        ("r1_k3_s11_e1_o16,", "unknown part ''"),
        ("r1_k3_s11_e1_o16_swish", "unknown part 'swish'"),
        ("r1_k3_s11_e1_o16_d2", "unknown part 'd2'"),
        ("r1_k3_s11_e1_o16_o24", "has 'o' twice"),
        ("r1_k3_s11_e1_o16_pool_pool", "has 'pool' twice"),
        ("r1_k3_s11_o16", "lacks e"),
        ("r1_k3_s1_e1_o16", "must have stride s11 or s22, but got s1"),
        ("r1_k3_s12_e1_o16", "must have stride s11 or s22, but got s12"),
        ("r1_k3_s11_e1_o16_noskip_pool", "has both noskip and pool"),
        ("r1_k4_s11_e1_o16", "kernel must be one of 3, 5, 7 for op sepconv, but got 4"),
        ("r1_k3_s11_e3_o16_conv", "expansion must be 1 for op conv, but got 3"),
        ("r1_k3_s11_e3_o16_fused_conv", "has both fused and conv"),
        ("r1_k3_s11_e3_o16_silu_relu", "has both silu and relu"),
        ("r1_k3_s11_e3_m8_o16", "has both e3 and m8"),
        ("r1_k3_s11_m8_o16_sepconv", "mid_filters must be 0 for op sepconv, but got 8"),
        ("r1_k3_s11_m0_o16", "must have m1 or more, but got m0"),
        ("r1_k1_s11_e6_o16", "kernel must be one of 3, 5, 7 for op mbconv, but got 1"),
        ("r1_a3_k3_s11_e6_o16", "start_kernel must be 0 for op mbconv, but got 3"),
        ("r1_k3_s11_e1_o16_conv_act", "projection_activation must be false for op conv"),
        ("r1_k3_s11_e4.5.1_o16", "unknown part 'e4.5.1'"),
        ("r1_k3_s11_e1_o16_se1.5", "se_ratio must be a number from 0 to 1"),
        ("r1_k3_s11_e1_o16,r1_k3_s11_e6_i24_o24", "has i24, but its input has 16 filters"),
        ("r1_k3_s11_e1_o٣", "unknown part"),
    ],
)
def test_bad_block_strings(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Arch.from_block_strings(text)
    assert message in str(error.value)


def test_round_trips_of_random_architectures():
    rng = random.Random(0)
    for _ in range(500):
        arch = random_arch(rng)
        assert architecture_from_json(arch.to_json()) == arch
        assert Arch.from_dict(copy.deepcopy(arch.to_dict())).fingerprint == arch.fingerprint
        assert pickle.loads(pickle.dumps(arch)) == arch
        again = Arch.from_block_strings(arch.block_strings)
        assert (again.blocks, again.stem_filters) == (arch.blocks, arch.stem_filters)
        assert arch.canonical().canonical() == arch.canonical()
        assert arch.canonical().fingerprint == arch.fingerprint


def test_no_two_architectures_share_a_fingerprint():
    rng = random.Random(1)
    archs = {random_arch(rng).canonical() for _ in range(500)}
    assert len({arch.fingerprint for arch in archs}) == len(archs)


def test_a_number_written_as_int_or_float_is_the_same_architecture():
    values = Arch.from_block_strings(A1).to_dict()
    values["dropout"], values["blocks"][0]["se_ratio"] = 0, 0
    assert Arch.from_dict(values) == replace(Arch.from_block_strings(A1), dropout=0.0)
    assert Arch.from_dict(values).fingerprint == replace(Arch.from_block_strings(A1), dropout=0.0).fingerprint


def test_fingerprints_are_pinned():
    """Fingerprints are keys in studies: a change here loses cached results."""
    assert Arch.from_block_strings(A1).fingerprint == "c75036a805254520"
    assert Arch(blocks=(Block(**BLOCK),)).fingerprint == "f3e65a15ea61ec9d"


def test_fingerprint_does_not_depend_on_the_process():
    code = f"from mnas.arch import Arch; print(Arch.from_block_strings({A1!r}).fingerprint)"
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == Arch.from_block_strings(A1).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(depth=3), "architecture has unknown fields 'depth'; its fields are blocks, stem_filters"),
        (lambda v: v.pop("blocks"), "architecture lacks the fields blocks"),
        (lambda v: v["blocks"][1].pop("op"), "block 2 lacks the fields op"),
        (lambda v: v["blocks"][1].update(se=0.25), "block 2 has unknown fields 'se'; its fields are op, kernel"),
        (lambda v: v.update(blocks=3), "blocks must be a list, but got 3"),
        (lambda v: v.update(blocks=[3]), "block 1 must be a mapping of fields, but got 3"),
        (lambda v: v.update(blocks="abc"), "blocks must be a list, but got 'abc'"),
    ],
)
def test_bad_json(change, message):
    values = Arch.from_block_strings(A1).to_dict()
    change(values)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        architecture_from_json(json.dumps(values))
    assert message in str(error.value)


def test_text_that_is_no_json():
    for text in ("", "{", "[" * 100_000, b"\xff\xfe\x00", "1" * 5000):
        with pytest.raises(ValueError, match="must be JSON"):
            architecture_from_json(text)


# Fuzz: the parser returns an Arch or raises ValueError on one line


def parse(read, text):
    try:
        arch = read(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "an architecture"
        assert architecture_from_json(arch.to_json()) == arch
    assert len(message.splitlines()) == 1


part = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["r", "a", "k", "s", "e", "m", "i", "o", "se"]), st.integers(-1, 40)),
    st.sampled_from(
        [
            "r1",
            "k3",
            "s11",
            "s22",
            "e1",
            "e6",
            "o16",
            "se0.25",
            "noskip",
            "pool",
            *OPS,
            "",
            "se1e-5",
            "e4.5",
            "silu",
            "act",
            "sehard",
        ]
    ),
    st.text(max_size=4),
)


@given(st.lists(st.lists(part, max_size=8).map("_".join), max_size=3).map(",".join))
def test_fuzz_block_strings_of_parts(text):
    parse(Arch.from_block_strings, text)


@given(st.text())
def test_fuzz_block_strings(text):
    parse(Arch.from_block_strings, text)


@given(st.one_of(st.text(), st.binary()))
def test_fuzz_json_text(text):
    parse(architecture_from_json, text)


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
names = st.one_of(st.sampled_from([*Arch.from_block_strings(A1).to_dict(), *BLOCK, "se_ratio", "skip"]), st.text())


@given(st.lists(st.tuples(st.integers(-1, 6), names, json_value), min_size=1, max_size=3))
def test_fuzz_json_with_changed_fields(changes):
    values = Arch.from_block_strings(A1).to_dict()
    for block, name, value in changes:
        target = values if block < 0 or not isinstance(values.get("blocks"), list) else None
        if target is None:
            if block >= len(values["blocks"]) or not isinstance(values["blocks"][block], dict):
                continue
            target = values["blocks"][block]
        target[name] = value
    parse(architecture_from_json, json.dumps(values))
