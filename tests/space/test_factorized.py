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

from mnas.arch import Block
from mnas.architecture import architecture_from_json
from mnas.space.factorized import BlockChoices, FactorizedSpace
from mnas.space.named import SPACES, space_from_dict
from mnas.space.skeleton import MOBILENETV2, Skeleton, multiple_of_4, output_stride_for
from mnas.zoo.architectures import named_arch

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


def some(choices):
    return st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique=True).map(tuple)


block_choices = st.builds(
    BlockChoices,
    op=st.sampled_from([("mbconv2",), ("conv", "sepconv"), ("fused2",)]),
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
        ({"activation": "swish"}, "activation must be one of relu, relu6, but got 'swish'"),
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
            {"op": ("mbconv1",)},
            "op must be conv, sepconv, mbconvN or fusedN with an expansion N from 2 to 32, but got 'mbconv1'",
        ),
        ({"op": ("mbconv33",)}, "expansion N from 2 to 32, but got 'mbconv33'"),
        ({"op": ("mbconv",)}, "expansion N from 2 to 32, but got 'mbconv'"),
        ({"op": ("fused1",)}, "expansion N from 2 to 32, but got 'fused1'"),
        ({"op": (6,)}, "op must be conv, sepconv, mbconvN or fusedN, but got 6"),
        ({"kernel": (3, 9)}, "kernel must be one of 3, 5, 7, but got 9"),
        ({"kernel": (3, 3)}, "kernel must not repeat a choice, but got 3, 3"),
        ({"se_ratio": (0, 0.0)}, "se_ratio must not repeat a choice, but got 0.0, 0.0"),
        ({"se_ratio": (-0.5,)}, "se_ratio must be a number from 0 to 1, but got -0.5"),
        ({"skip": ("add",)}, "skip must be one of identity, pool, none, but got 'add'"),
        ({"filters": (0,)}, "a choice of filters must be a number from 0.01 to 100, but got 0"),
        ({"filters": (True,)}, "a choice of filters must be a number from 0.01 to 100, but got True"),
        ({"layers": (0.5,)}, "a choice of layers must be an integer from -100 to 100, but got 0.5"),
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
