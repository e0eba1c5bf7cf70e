"""The factorized space: its size, its members, and its TOML form; counts against enumeration."""

import itertools
import json
import math
import pickle
import random
from collections import defaultdict
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnas.arch import Arch
from mnas.architecture import architecture_from_json
from mnas.block import Block
from mnas.nn.cost import cost
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.named import SPACES, space_from_dict
from mnas.space.per_layer import PerLayerSpace
from mnas.space.skeleton import MOBILENETV2, Skeleton, multiple_of_4, output_stride_for
from mnas.zoo.architectures import named_arch, reference_arch

MNASNET = SPACES["mnasnet"]


def vectors(space, count, seed=0):
    rng = random.Random(seed)
    return [tuple(rng.randrange(len(d.choices)) for d in space.decisions) for _ in range(count)]


def test_the_papers_space():
    assert BlockChoices().size == 432
    assert MNASNET.size == 432**7
    assert len(MNASNET.decisions) == 42
    assert [(d.name, d.choices) for d in MNASNET.decisions[12:18]] == [
        ("block3.op", ("conv", "sepconv", "mbconv3", "mbconv6")),
        ("block3.kernel", (3, 5)),
        ("block3.se_ratio", (0.0, 0.25)),
        ("block3.skip", ("pool", "identity", "none")),
        ("block3.filters", (0.75, 1.0, 1.25)),
        ("block3.layers", (-1, 0, 1)),
    ]
    assert SPACES["mnasnet-no-se"].size == 216**7
    assert MNASNET.distinct == 770_351_078_729_318_400
    assert SPACES["mnasnet-no-se"].distinct == 6_018_367_802_572_800 == MNASNET.distinct // 2**7


def test_widths_and_depths_of_the_papers_space():
    widths = [[MNASNET.filters(block, m) for m in (0.75, 1.0, 1.25)] for block in range(7)]
    assert widths == [
        [12, 16, 20], [20, 24, 32], [24, 32, 40], [48, 64, 80], [72, 96, 120], [120, 160, 200], [240, 320, 400],
    ]  # fmt: skip
    assert [[MNASNET.layers(block, n) for n in (-1, 0, 1)] for block in (0, 1, 6)] == [[1, 1, 2], [1, 2, 3], [1, 1, 2]]


def test_one_vector_by_hand():
    vector = (1, 0, 0, 2, 1, 1) + (3, 1, 1, 1, 2, 0) + (0, 0, 0, 0, 0, 2) + (2, 0, 0, 1, 1, 1) * 4
    arch = MNASNET.decode(vector)
    assert arch.block_strings[:4] == (
        "r1_k3_s11_e1_i32_o16_noskip",
        "r1_k5_s22_e6_i16_o32_se0.25_noskip",  # identity in one layer with a stride becomes none
        "r4_k3_s22_e1_i32_o24_pool_conv",
        "r4_k3_s22_e3_i24_o64",
    )
    assert (arch.stem_filters, arch.head_filters, arch.activation, arch.padding) == (32, 1280, "relu", "same")
    # of choices that are equivalent (one layer: -1 and 0; no residual: identity and none), the first is encoded
    assert MNASNET.encode(arch)[:12] == (1, 0, 0, 1, 1, 0, 3, 1, 1, 1, 2, 0)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("output_stride", [32, 8, 4])
def test_decode_and_encode_of_random_members(space, output_stride):
    space = space.with_output_stride(output_stride)
    for vector in vectors(space, 200):
        arch = space.decode(vector)
        assert arch == arch.canonical()
        assert arch.output_stride == output_stride == space.skeleton.output_stride
        canonical = space.encode(arch)
        assert space.decode(canonical) == arch
        assert space.encode(space.decode(canonical)) == canonical
        if space.name == "cell":  # the first of all index vectors of the same network
            assert canonical <= vector
        else:
            assert all(
                a <= b or d.name.endswith("skip") for a, b, d in zip(canonical, vector, space.decisions, strict=True)
            )
        assert space.contains(arch)
        assert space.indices(space.params(vector)) == vector


def test_a_member_in_another_spelling():
    """MobileNetV2 as published has `identity` where no residual is possible."""
    published = replace(named_arch("mobilenetv2"), activation="relu")
    assert published != published.canonical()
    assert MNASNET.decode(MNASNET.encode(published)) == published.canonical()


def test_what_is_not_in_the_space():
    assert not MNASNET.contains(named_arch("mnasnet-a1"))
    member = MNASNET.decode((0,) * 42)

    def changed(block, **fields):
        blocks = list(member.blocks)
        blocks[block] = replace(blocks[block], **fields)
        return replace(member, blocks=tuple(blocks))

    cases = [
        (named_arch("mnasnet-a1"), "block 5 is not in space mnasnet: filters must be one of 72, 96, 120, but got 112"),
        (changed(1, kernel=7), "block 2 is not in space mnasnet: kernel must be one of 3, 5, but got 7"),
        (changed(2, se_ratio=0.5), "block 3 is not in space mnasnet: se_ratio must be one of 0.0, 0.25, but got 0.5"),
        (
            changed(3, op="mbconv", expansion=4),
            "block 4 is not in space mnasnet: op must be one of conv, sepconv, mbconv3, mbconv6, but got mbconv4",
        ),
        (changed(3, layers=9), "block 4 is not in space mnasnet: layers must be one of 3, 4, 5, but got 9"),
        (changed(6, stride=2), "block 7 is not in space mnasnet: stride must be 1, but got 2"),
        (replace(member, blocks=member.blocks[:6]), "networks of space mnasnet have 7 blocks, but got one with 6"),
        (replace(member, stem_filters=16), "stem_filters must be 32 in space mnasnet, but got 16"),
        (replace(member, dropout=0.0), "dropout must be 0.2 in space mnasnet, but got 0.0"),
    ]
    for arch, message in cases:
        with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole message is compared below)
            MNASNET.encode(arch)
        assert str(error.value) == message
        assert not MNASNET.contains(arch)


def test_vectors_that_are_none():
    with pytest.raises(ValueError, match="mnasnet has 42 decisions, but got 3 indices"):
        MNASNET.decode((0, 0, 0))
    for bad in (4, -1):
        with pytest.raises(ValueError, match=f"block1.op must be from 0 to 3, but got {bad}"):
            MNASNET.decode((bad, *[0] * 41))
    params = MNASNET.params((0,) * 42)
    with pytest.raises(ValueError, match=r"block1\.kernel must be one of 3, 5, but got 9"):
        MNASNET.indices({**params, "block1.kernel": 9})
    with pytest.raises(ValueError, match="parameters must be the decisions of space mnasnet"):
        MNASNET.indices({"block1.kernel": 3})


# Exact counts, against every member of small spaces


def enumerate_space(space):
    """Return fingerprint -> all its index vectors."""
    members = defaultdict(list)
    for vector in itertools.product(*(range(len(d.choices)) for d in space.decisions)):
        members[space.decode(vector).fingerprint].append(vector)
    return members


def check_exhaustively(space):
    members = enumerate_space(space)
    assert space.size == sum(map(len, members.values()))
    assert space.distinct == len(members)
    for same in members.values():
        assert space.encode(space.decode(same[-1])) == min(same)


def test_distinct_of_two_blocks_of_the_papers_kind():
    """All combinations of skips, widths and depths: with and without a stride, and widths that round alike."""
    paper = BlockChoices(op=("mbconv3",), kernel=(3,), se_ratio=(0.0,))
    for filters, strides, stem in [
        ((16, 16), (1, 1), 16),
        ((16, 24), (1, 2), 16),
        ((8, 4), (1, 1), 8),
        ((4, 4), (2, 1), 4),
    ]:
        skeleton = Skeleton(filters=filters, layers=(1, 2), strides=strides, stem_filters=stem)
        check_exhaustively(FactorizedSpace(name="small", skeleton=skeleton, block_choices=(paper, paper)))


def some(choices, most=3):
    return st.lists(st.sampled_from(choices), min_size=1, max_size=most, unique=True).map(tuple)


block_choices = st.builds(
    BlockChoices,
    op=st.sampled_from([("mbconv2",), ("conv", "sepconv"), ("fused2",), ("mbconv1", "uib1.5")]),
    kernel=st.just((3,)),
    se_ratio=st.just((0.25,)),
    skip=some(["pool", "identity", "none"]),
    filters=some([0.5, 0.75, 1.0, 1.25]),
    layers=some([-2, -1, 0, 1]),
)


@settings(max_examples=25)
@given(st.data())
def test_distinct_of_random_spaces(data):
    blocks = data.draw(st.integers(1, 2))
    skeleton = Skeleton(
        filters=[data.draw(st.sampled_from([4, 8, 12, 16])) for _ in range(blocks)],
        layers=[data.draw(st.integers(1, 3)) for _ in range(blocks)],
        strides=[data.draw(st.integers(1, 2)) for _ in range(blocks)],
        stem_filters=data.draw(st.sampled_from([8, 12])),
    )
    choices = tuple(data.draw(block_choices) for _ in range(blocks))
    check_exhaustively(FactorizedSpace(name="random", skeleton=skeleton, block_choices=choices))


later_choices = st.builds(
    BlockChoices,
    op=some(["conv", "sepconv", "mbconv1", "fused2", "uib2", "uib2.5"], 2),
    kernel=st.just((3,)),
    se_ratio=some([0.0, 0.25], 2),
    skip=some(["identity", "none"], 2),
    filters=st.just((1.0,)),
    layers=st.just((0,)),
    start_kernel=some([0, 3, 5], 2),
    activation=some(["network", "relu", "hardswish"], 2),
    projection_activation=some([False, True], 2),
    se_width=some(["input", "middle"], 2),
    se_activation=some(["relu", "silu"], 1),
    se_gate=some(["sigmoid", "hardsigmoid"], 2),
)


@settings(max_examples=25)
@given(later_choices, st.integers(1, 2), st.sampled_from([8, 16]), st.sampled_from(["relu", "hardswish"]))
def test_distinct_of_all_fields_of_a_block(choices, stride, filters, activation):
    skeleton = Skeleton(filters=(filters,), layers=(1,), strides=(stride,), stem_filters=8, activation=activation)
    check_exhaustively(FactorizedSpace(name="random", skeleton=skeleton, block_choices=(choices,)))


def test_distinct_of_universal_inverted_bottlenecks():
    """Both depthwise convolutions may be absent, also from a layer with a stride; other ops have no first one."""
    uib = BlockChoices(
        op=("uib2",), kernel=(0, 3), se_ratio=(0.0,), skip=("identity",), filters=(1.0,), layers=(0, 1),
        start_kernel=(0, 3),
    )  # fmt: skip
    mixed = replace(uib, op=("uib2", "mbconv2"), kernel=(3,), start_kernel=(3, 5))
    skeleton = Skeleton(filters=(8, 8), layers=(1, 1), strides=(2, 1), stem_filters=8)
    space = FactorizedSpace(name="small", skeleton=skeleton, block_choices=(uib, mixed))
    check_exhaustively(space)
    assert (space.size, space.distinct) == (8 * 8, 8 * (4 + 2))
    assert [d.name for d in space.decisions][6:8] == ["block1.start_kernel", "block2.op"]
    # mbconv has no start_kernel, so its first choice is encoded
    arch = space.decode((*[0] * 7, 1, 0, 0, 0, 0, 0, 1))
    assert arch.block_strings == ("r1_k0_s22_e2_i8_o8_noskip_uib", "r1_k3_s11_e2_i8_o8")
    assert space.encode(arch) == (*[0] * 7, 1, 0, 0, 0, 0, 0, 0)


def test_fields_that_a_choice_has_no_use_for():
    choices = BlockChoices(
        op=("conv", "uib2"),
        se_ratio=(0.5, 0.0),
        projection_activation=(True,),
        start_kernel=(5,),
        activation=("relu", "silu"),
        se_width=("middle",),
        se_gate=("hardsigmoid",),
    )
    skeleton = Skeleton(filters=(8,), layers=(1,), strides=(1,), stem_filters=8)
    space = FactorizedSpace(name="small", skeleton=skeleton, block_choices=(choices,))
    assert [d.name for d in space.decisions] == [
        "block1.op", "block1.kernel", "block1.se_ratio", "block1.skip", "block1.filters", "block1.layers",
        "block1.activation",
    ]  # fmt: skip
    assert space.decode((0, 0, 0, 1, 1, 1, 0)).block_strings == ("r1_k3_s11_e1_i8_o8_se0.5_semid_sehard_conv",)
    assert space.decode((0, 0, 1, 1, 1, 1, 0)).block_strings == ("r1_k3_s11_e1_i8_o8_conv",)
    assert space.decode((1, 0, 1, 1, 1, 1, 1)).block_strings == ("r1_a5_k3_s11_e2_i8_o8_silu_act_uib",)
    with pytest.raises(ValueError, match="start_kernel must be one of 5, but got 0"):
        space.encode(skeleton.arch([Block(op="uib", expansion=2, kernel=3, stride=1, filters=8)]))
    with pytest.raises(ValueError, match="block 1 is not in space small: mid_filters must be 0, but got 16"):
        space.encode(skeleton.arch([Block(op="uib", mid_filters=16, kernel=3, stride=1, filters=8)]))


# The space of MobileNetV4

MOBILENETV4_CONV_S = (
    "r1_k3_s22_e1_i32_o32_act_noskip_fused,r1_k3_s22_e3_o64_act_noskip_fused,"
    "r1_a5_k5_s22_e3_o96_uib,r4_k3_s11_e2_o96_uib,r1_a3_k0_s11_e4_o96_uib,"
    "r1_a3_k3_s22_e6_o128_uib,r1_a5_k5_s11_e4_o128_uib,r1_k5_s11_e4_o128_uib,r1_k5_s11_e3_o128_uib,"
    "r2_k3_s11_e4_o128_uib,r1_k1_s11_e1_o960_conv_noskip"
)


def test_the_space_of_mobilenetv4_contains_the_published_network():
    """Its parameters are those of timm's mobilenetv4_conv_small."""
    space = SPACES["mobilenetv4"]
    assert space.size == space.distinct == 3**2 * 4**2 * 24**2 * 72**4 * 108**2 == 25_999_348_907_114_496
    assert sum(len(d.choices) > 1 for d in space.decisions) == 34
    assert [(d.name, d.choices) for d in space.decisions if d.name.startswith("block4")] == [
        ("block4.op", ("uib2", "uib3", "uib4", "uib6")),
        ("block4.kernel", (0, 3, 5)),
        ("block4.se_ratio", (0.0,)),
        ("block4.skip", ("identity",)),
        ("block4.filters", (1.0,)),
        ("block4.layers", (-1, 0, 1)),
        ("block4.start_kernel", (0, 3, 5)),
    ]
    blocks = Arch.from_block_strings(MOBILENETV4_CONV_S).blocks
    published = space.skeleton.arch(blocks)
    assert space.decode(space.encode(published)) == published.canonical()
    assert cost(published, 224, 1000).params == 3_774_024


@pytest.mark.parametrize(("width", "output_stride"), [(1.0, 32), (0.5, 16), (0.25, 8), (0.1, 4)])
def test_the_space_of_mobilenetv4_at_other_sizes(width, output_stride):
    space = SPACES["mobilenetv4"].scaled(width).with_output_stride(output_stride)
    for vector in vectors(space, 20):
        arch = space.decode(vector)
        assert arch.output_stride == output_stride
        assert space.decode(space.encode(arch)) == arch
        cost(arch, 4 * output_stride, 10)
    for block in (0, 1):
        assert len({space.filters(block, multiplier) for multiplier in (0.75, 1.0, 1.25)}) == 3


def test_the_reference_of_mobilenetv4_has_its_stages():
    """The 1x1 convolution before the head is left out, and the head precedes the pool, as in MobileNetV2."""
    skeleton = SPACES["mobilenetv4"].reference_skeleton
    assert skeleton.filters == (32, 64, 96, 96, 96, 128, 128, 128, 128, 128)
    assert (skeleton.output_stride, skeleton.head_pooled, skeleton.head_filters) == (32, False, 1280)
    reference = reference_arch(skeleton)
    assert reference.block_strings[1] == "r1_k3_s22_e6_i32_o64"
    assert cost(reference, 224, 1000).macs == 259_714_624
    flat = PerLayerSpace(
        name="flat",
        skeleton=SPACES["mobilenetv4"].skeleton,
        block_choices=tuple(replace(c, layers=(0,)) for c in SPACES["mobilenetv4"].block_choices),
    )
    assert flat.reference_skeleton == skeleton


def test_a_reference_keeps_the_strides_of_its_space():
    """A 1x1 convolution with a stride stays, and so does a skeleton of nothing else."""
    pointwise = BlockChoices(op=("conv",), kernel=(1,))
    skeleton = Skeleton(filters=(16, 24), layers=(1, 1), strides=(2, 1))
    for choices, filters in [((pointwise, pointwise), (16,)), ((pointwise, BlockChoices()), (16, 24))]:
        space = FactorizedSpace(name="own", skeleton=skeleton, block_choices=choices)
        assert space.reference_skeleton.filters == filters
        assert space.reference_skeleton.output_stride == 4
    flat = replace(skeleton, strides=(1, 1))
    space = FactorizedSpace(name="own", skeleton=flat, block_choices=(pointwise, pointwise))
    assert space.reference_skeleton == flat


# Skeletons


def test_output_stride_for_every_input_size():
    strides = {size: output_stride_for(size) for size in range(9, 513)}
    assert {size: strides[size] for size in (9, 16, 17, 24, 32, 33, 48, 64, 65, 96, 224, 512)} == {
        9: 4, 16: 4, 17: 8, 24: 8, 32: 8, 33: 16, 48: 16, 64: 16, 65: 32, 96: 32, 224: 32, 512: 32,
    }  # fmt: skip
    for size, stride in strides.items():
        assert math.ceil(size / stride) >= 3
        assert stride == 32 or math.ceil(size / (2 * stride)) < 3
        MNASNET.with_output_stride(stride).decode((0,) * 42).check_input_size(size)
    with pytest.raises(ValueError, match="--input-size must be at least 9"):
        output_stride_for(8)


def test_skeleton_with_another_output_stride():
    assert MOBILENETV2.output_stride == 32
    small = MOBILENETV2.with_output_stride(4)
    assert (small.stem_stride, small.strides) == (1, (1, 1, 1, 2, 1, 2, 1))
    arch = MNASNET.with_output_stride(4).decode((0,) * 42)
    assert arch == MNASNET.decode((0,) * 42).with_output_stride(4).canonical()
    with pytest.raises(ValueError, match="output stride must be a power of 2 up to the network's own 32, but got 64"):
        MOBILENETV2.with_output_stride(64)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.3, 0.5, 0.75, 1.0, 1.4])
def test_three_widths_stay_three_on_a_narrower_skeleton(width):
    skeleton = MOBILENETV2.scaled(width)
    space = replace(MNASNET, skeleton=skeleton)
    for block in range(7):
        assert len({space.filters(block, m) for m in (0.75, 1.0, 1.25)}) == 3
    assert all(f % 4 == 0 for f in skeleton.filters)
    assert (skeleton.layers, skeleton.strides, skeleton.head_filters) == (MOBILENETV2.layers, MOBILENETV2.strides, 1280)


def test_scaled_skeletons():
    assert MOBILENETV2.scaled(1.0) == MOBILENETV2
    assert MOBILENETV2.scaled(0.25).filters == (12, 12, 12, 16, 24, 40, 80)
    assert MOBILENETV2.scaled(0.25).stem_filters == 8
    assert MOBILENETV2.scaled(0.25, scale_head=True).head_filters == 320
    assert Skeleton(filters=(4,), layers=(1,), strides=(1,)).scaled(0.5).filters == (4,)
    assert replace(MOBILENETV2, head_filters=0).scaled(0.5, scale_head=True).head_filters == 0
    assert [multiple_of_4(f) for f in (0.1, 5.9, 6, 18, 30)] == [4, 4, 8, 20, 32]
    for bad in (0, -1, 1000, float("nan")):
        with pytest.raises(ValueError, match=r"width multiplier must be a number from 0\.01 to 100"):
            MOBILENETV2.scaled(bad)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filters": (16, 24)}, "must have one number for each block, but got 2, 7 and 7"),
        ({"filters": 16}, "filters must be a list with one number for each block, but got 16"),
        ({"strides": (1, 2, 2, 3, 1, 2, 1)}, "block 4 of the skeleton: stride must be one of 1, 2, but got 3"),
        ({"layers": (0, 2, 3, 4, 3, 3, 1)}, "block 1 of the skeleton: layers must be an integer from 1 to 100"),
        ({"filters": (), "layers": (), "strides": ()}, "an architecture must have 1 to 100 blocks, but got 0"),
        ({"activation": "swish"}, "activation must be one of relu, relu6, hardswish, silu, but got 'swish'"),
        ({"head_filters": -1}, "head_filters must be an integer from 0 to 16384, but got -1"),
        ({"head_pooled": 1}, "head_pooled must be true or false, but got 1"),
        ({"stem_stride": 4}, "stem_stride must be one of 1, 2, but got 4"),
    ],
)
def test_bad_skeletons(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Skeleton(**changed)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"op": ()}, "op must be a list of at least one choice, but got ()"),
        ({"op": "conv"}, "op must be a list of at least one choice, but got 'conv'"),
        (
            {"op": ("mbconv0",)},
            "op must be conv, sepconv, mbconvN, fusedN or uibN "
            "with an expansion N from 0.25 to 32, as in uib2.5, but got 'mbconv0'",
        ),
        ({"op": ("mbconv33",)}, "expansion N from 0.25 to 32, as in uib2.5, but got 'mbconv33'"),
        ({"op": ("mbconv",)}, "expansion N from 0.25 to 32, as in uib2.5, but got 'mbconv'"),
        ({"op": ("uib4.50",)}, "expansion N from 0.25 to 32, as in uib2.5, but got 'uib4.50'"),
        ({"op": (6,)}, "op must be conv, sepconv, mbconvN, fusedN or uibN, but got 6"),
        ({"kernel": (3, 9)}, "kernel must be one of 0, 1, 3, 5, 7, but got 9"),
        ({"kernel": (3, 3)}, "kernel must not repeat a choice, but got 3, 3"),
        ({"se_ratio": (0, 0.0)}, "se_ratio must not repeat a choice, but got 0.0, 0.0"),
        ({"se_ratio": (-0.5,)}, "se_ratio must be a number from 0 to 1, but got -0.5"),
        ({"skip": ("add",)}, "skip must be one of identity, pool, none, but got 'add'"),
        ({"filters": (0,)}, "a choice of filters must be a number from 0.01 to 100, but got 0"),
        ({"filters": (True,)}, "a choice of filters must be a number from 0.01 to 100, but got True"),
        ({"layers": (0.5,)}, "a choice of layers must be an integer from -100 to 100, but got 0.5"),
        ({"start_kernel": (1,)}, "start_kernel must be one of 0, 3, 5, 7, but got 1"),
        (
            {"activation": ("swish",)},
            "activation must be one of network, relu, relu6, hardswish, silu, but got 'swish'",
        ),
        ({"projection_activation": (1,)}, "projection_activation must be true or false, but got 1"),
        ({"se_width": (0.5,)}, "se_width must be one of input, middle, but got 0.5"),
        (
            {"se_activation": ("network",)},
            "se_activation must be one of relu, relu6, hardswish, silu, but got 'network'",
        ),
        ({"se_gate": ("hard",)}, "se_gate must be one of sigmoid, hardsigmoid, but got 'hard'"),
    ],
)
def test_bad_choices(changed, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BlockChoices(**changed)
    assert message in str(error.value)


def test_no_member_may_be_impossible():
    skeleton = Skeleton(filters=(16000,), layers=(1,), strides=(1,))
    with pytest.raises(ValueError, match="block 1: filters must be an integer from 1 to 16384, but got 20000"):
        FactorizedSpace(name="wide", skeleton=skeleton, block_choices=(BlockChoices(),))
    skeleton = Skeleton(filters=(16,), layers=(100,), strides=(1,))
    with pytest.raises(ValueError, match="block 1: layers must be an integer from 1 to 100, but got 101"):
        FactorizedSpace(name="deep", skeleton=skeleton, block_choices=(BlockChoices(),))
    skeleton = Skeleton(filters=(16, 24), layers=(1, 1), strides=(1, 2))
    for op, kernel, message in [
        (("uib2", "fused4"), (3, 0), "block 2: kernel must be one of 3, 5, 7 where op offers fused4, but got 0"),
        (("conv", "sepconv"), (1,), "block 2: kernel must be one of 3, 5, 7 where op offers sepconv, but got 1"),
        (("uib2",), (1,), "block 2: kernel must be one of 0, 3, 5, 7 where op offers uib2, but got 1"),
    ]:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            FactorizedSpace(
                name="mixed", skeleton=skeleton, block_choices=(BlockChoices(), BlockChoices(op=op, kernel=kernel))
            )
        assert str(error.value) == message
    with pytest.raises(ValueError, match="there must be choices for each of 7 blocks, but got 1"):
        FactorizedSpace(name="short", skeleton=MOBILENETV2, block_choices=(BlockChoices(),))


# As a value


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_is_a_value(space):
    values = space.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert space_from_dict(values) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert len({space, space_from_dict(values), space.with_output_stride(8)}) == 2


def test_a_space_with_unlike_blocks_is_a_value():
    space = FactorizedSpace(
        name="own",
        skeleton=Skeleton(filters=(16, 24, 40), layers=(1, 2, 2), strides=(1, 2, 2), padding="symmetric"),
        block_choices=(BlockChoices(), BlockChoices(kernel=(7,), skip=("none",)), BlockChoices()),
    )
    assert space.to_dict()["block"] == {"2": {"kernel": [7], "skip": ["none"]}}
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_later_fields_are_written_where_they_are_not_default():
    """Older versions read the spaces that they can describe, and runs of these stay the same."""
    assert list(MNASNET.to_dict()["choices"]) == ["op", "kernel", "se_ratio", "skip", "filters", "layers"]
    assert not {"head_pooled", "head_norm"} & MNASNET.to_dict()["skeleton"].keys()
    space = FactorizedSpace(
        name="own",
        skeleton=Skeleton(filters=(16, 24, 40), layers=(1, 2, 2), strides=(1, 2, 2), head_filters=0, head_pooled=True),
        block_choices=(BlockChoices(se_gate=("hardsigmoid",)), BlockChoices(se_gate=("hardsigmoid",)), BlockChoices()),
    )
    values = space.to_dict()
    assert values["choices"]["se_gate"] == ["hardsigmoid"]
    assert values["block"] == {"3": {"se_gate": ["sigmoid"]}}
    assert values["skeleton"]["head_pooled"] is True
    assert space_from_dict(json.loads(json.dumps(values))) == space
    arch = space.decode([0] * 18)
    assert (arch.features, arch.head_pooled) == (32, False)  # without a head, there is nothing to pool before
    assert space.decode(space.encode(arch)) == arch


def test_optuna_draws_members():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert list(MNASNET.distributions) == [d.name for d in MNASNET.decisions]
    for _ in range(20):
        params = study.ask(MNASNET.distributions).params
        assert MNASNET.params(MNASNET.indices(params)) == params
        assert MNASNET.contains(MNASNET.decode(MNASNET.indices(params)))


def test_members_are_valid_architectures():
    for vector in vectors(MNASNET, 50):
        arch = MNASNET.decode(vector)
        assert architecture_from_json(arch.to_json()) == arch
        assert all(isinstance(block, Block) for block in arch.blocks)
