"""The flat space: counts, members of the factorized space in it, and its TOML form."""

import itertools
import json
import pickle
import random
from dataclasses import replace

import pytest

from mnas.nn.cost import cost
from mnas.space.factorized import BlockChoices
from mnas.space.named import SPACES, load_space, space_from_dict, space_from_toml
from mnas.space.per_layer import PerLayerSpace, unrolled
from mnas.space.skeleton import MOBILENETV2, Skeleton
from mnas.zoo.architectures import named_arch, reference_arch

FLAT = SPACES["per-layer"]
MNASNET = SPACES["mnasnet"]


def vectors(space, count, seed=0):
    rng = random.Random(seed)
    return [tuple(rng.randrange(len(d.choices)) for d in space.decisions) for _ in range(count)]


def layers_of(arch):
    """Return the computation of a network, regardless of its blocks."""
    return [replace(layer, name="") for layer in arch.layers]


def test_144_choices_for_each_of_17_layers():
    assert FLAT.size == 144**17
    assert len(FLAT.decisions) == 17 * 5
    names = ["op", "kernel", "se_ratio", "skip", "filters"]
    assert [d.name for d in FLAT.decisions[5:10]] == [f"block2.{name}" for name in names]
    assert FLAT.distinct == 23_338_818_035_470_030_730_842_504_937_078_784
    member = FLAT.decode((0,) * 85)
    assert [b.layers for b in member.blocks] == [1] * 17
    assert [b.stride for b in member.blocks] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert [b.filters for b in member.blocks][:6] == [12, 20, 20, 24, 24, 24]


def test_distinct_is_what_enumeration_finds():
    skeleton = Skeleton(filters=(16, 24), layers=(1, 2), strides=(1, 2))
    choices = BlockChoices(op=("sepconv",), kernel=(3,), se_ratio=(0.0,), layers=(0,))
    space = PerLayerSpace(name="small", skeleton=skeleton, block_choices=(choices,) * 2)
    members = [space.decode(v) for v in itertools.product(*(range(len(d.choices)) for d in space.decisions))]
    assert len(members) == space.size == 9**3
    assert len({m.fingerprint for m in members}) == space.distinct < space.size


@pytest.mark.parametrize("output_stride", [32, 8, 4])
def test_decode_and_encode_of_random_members(output_stride):
    space = FLAT.with_output_stride(output_stride)
    for vector in vectors(space, 100):
        arch = space.decode(vector)
        assert arch == arch.canonical() == unrolled(arch)
        assert arch.output_stride == output_stride
        canonical = space.encode(arch)
        assert space.decode(canonical) == arch
        assert space.indices(space.params(vector)) == vector
        assert all(
            a <= b or d.name.endswith("skip") for a, b, d in zip(canonical, vector, space.decisions, strict=True)
        )


def test_members_of_the_factorized_space_with_the_skeletons_depths():
    """Their networks are in the flat space, layer by layer; those of other depths are not."""
    for vector in vectors(MNASNET, 100):
        depths = [1 if d.name.endswith("layers") else i for d, i in zip(MNASNET.decisions, vector, strict=True)]
        arch = MNASNET.decode(depths)
        same = FLAT.decode(FLAT.encode(arch))
        assert layers_of(same) == layers_of(arch)
        whole, expected = cost(same, 224), cost(arch, 224)
        assert (whole.params, whole.macs) == (expected.params, expected.macs)
        other = MNASNET.decode(vector)
        if len(other.layers) != 17:
            with pytest.raises(
                ValueError, match=f"networks of space per-layer have 17 blocks, but got one with {len(other.layers)}"
            ):
                FLAT.encode(other)


def test_what_is_in_neither():
    with pytest.raises(ValueError, match="networks of space per-layer have 17 blocks, but got one with 16"):
        FLAT.encode(named_arch("mnasnet-a1"))
    changed = MNASNET.decode([1] * 42)
    blocks = (*changed.blocks[:2], replace(changed.blocks[2], kernel=7), *changed.blocks[3:])
    with pytest.raises(ValueError, match="block 4 is not in space per-layer: kernel must be one of 3, 5, but got 7"):
        FLAT.encode(replace(changed, blocks=blocks))


@pytest.mark.parametrize("width", [1.0, 0.35])
@pytest.mark.parametrize("output_stride", [32, 8])
def test_one_reference_model_for_both_spaces(width, output_stride):
    flat, blocks = (
        replace(space, skeleton=space.skeleton.scaled(width)).with_output_stride(output_stride)
        for space in (FLAT, MNASNET)
    )
    reference = reference_arch(flat.skeleton)
    assert reference == reference_arch(blocks.skeleton)
    # it is a member of both, except for its activation
    plain = replace(reference, activation="relu")
    assert layers_of(flat.decode(flat.encode(plain))) == layers_of(blocks.decode(blocks.encode(plain)))


def test_unrolled_is_the_same_network():
    a1 = named_arch("mnasnet-a1")
    assert layers_of(unrolled(a1)) == layers_of(a1)
    assert len(unrolled(a1).blocks) == 16
    assert unrolled(unrolled(a1)) == unrolled(a1)
    deep = replace(a1, blocks=(replace(a1.blocks[1], layers=100), a1.blocks[2]))
    with pytest.raises(ValueError, match="an architecture must have 1 to 100 blocks, but got 103"):
        unrolled(deep)


def test_skeleton_of_single_layers():
    once = MOBILENETV2.unrolled()
    assert once.layers == (1,) * 17
    assert once.filters == (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
    assert once.output_stride == 32
    assert once.unrolled() == once
    for stride in (16, 8, 4):
        assert once.with_output_stride(stride) == MOBILENETV2.with_output_stride(stride).unrolled()


# As a value and a file


TOML = """
name = "flat-two"
kind = "per-layer"

[skeleton]
filters = [16, 24]
layers = [1, 3]
strides = [1, 2]

[choices]
kernel = [3, 5, 7]

[block.2]
op = ["mbconv3"]
"""


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text(TOML)
    space = load_space(str(path))
    assert isinstance(space, PerLayerSpace)
    # block 2: all three layers have its choices
    assert space.size == (4 * 3 * 2 * 3 * 3) * (1 * 3 * 2 * 3 * 3) ** 3
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert space.to_dict()["kind"] == "per-layer"


def test_one_word_makes_a_space_flat():
    assert space_from_toml('name = "per-layer"\nkind = "per-layer"') == FLAT
    assert space_from_toml('name = "mnasnet"\nkind = "factorized"') == MNASNET
    assert "kind" not in MNASNET.to_dict()  # as in runs of earlier versions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "flat"', "kind must be one of factorized, per-layer, cell, but got 'flat'"),
        ("kind = 3", "kind must be one of factorized, per-layer, cell, but got 3"),
        (
            'kind = "per-layer"\n[choices]\nlayers = [0, 1]',
            "block 1: layers must be [0], because a per-layer space has",
        ),
        ('kind = "per-layer"\n[block.3]\nlayers = [1]', "block 3: layers must be [0], because a per-layer space has"),
        ('kind = "per-layer"\n[skeleton]\nlayers = [1, 2, 3, 4, 90, 3, 1]', "1 to 100 blocks, but got 104"),
    ],
)
def test_what_a_file_may_not_say(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the message is compared below)
        space_from_toml('name = "a"\n' + text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
