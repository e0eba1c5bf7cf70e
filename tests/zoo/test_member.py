"""Published networks as members of a space: what is kept, what is nearest, and what is impossible or far away."""

from dataclasses import replace

import pytest
import torch

from mnas.nn.network import build_network
from mnas.space.named import SPACES, space_from_dict
from mnas.zoo.architectures import named_arch, reference_arch
from mnas.zoo.member import member_like, nearest_member

MNASNET = SPACES["mnasnet"]


def test_a1_in_the_papers_own_space_has_120_filters_for_112():
    published = named_arch("mnasnet-a1")
    blocks = list(published.blocks)
    blocks[4] = replace(blocks[4], filters=120)
    member = nearest_member(MNASNET, published)
    assert member == replace(published, blocks=tuple(blocks)).canonical()
    assert MNASNET.contains(member)


@pytest.mark.parametrize(("width", "output_stride"), [(1.0, 32), (1.0, 8), (0.5, 16), (0.25, 4)])
def test_mobilenetv2_is_the_reference_but_for_its_activation(width, output_stride):
    space = replace(MNASNET, skeleton=MNASNET.skeleton.scaled(width)).with_output_stride(output_stride)
    expected = replace(reference_arch(space.skeleton), activation="relu").canonical()
    assert nearest_member(space, named_arch("mobilenetv2")) == expected


def test_widths_are_as_many_times_the_skeletons():
    space = replace(MNASNET, skeleton=MNASNET.skeleton.scaled(0.5)).with_output_stride(8)
    member = nearest_member(space, named_arch("mnasnet-a1"))
    assert space.skeleton.filters == (12, 12, 16, 32, 48, 80, 160)
    # multiples of A1: 1, 1, 1.25, 1.25, 1.25 (for 1.17), 1 and 1
    assert [b.filters for b in member.blocks] == [12, 12, 20, 40, 60, 80, 160]
    assert [b.layers for b in member.blocks] == [1, 2, 3, 4, 2, 3, 1]
    assert member.output_stride == 8


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (
            "mnasnet",
            "mnasnet-small",
            "block 1 is 0.50 times as wide as MobileNetV2's, but space mnasnet offers 0.75, 1",
        ),
        ("mnasnet", "mobilenetv2@1.4", "block 1 is 1.50 times as wide as MobileNetV2's"),
        ("mnasnet", "mobilenetv2-120d", "block 1 is 1.50 times as wide as MobileNetV2's"),
        ("mnasnet-no-se", "mnasnet-a1", "block 3 is not in space mnasnet-no-se: se_ratio must be one of 0.0, but got"),
    ],
)
def test_what_has_no_member_says_why(space, name, message):
    with pytest.raises(ValueError, match=message):
        nearest_member(SPACES[space], named_arch(name))


CONV_S = named_arch("mobilenetv4-conv-small")


def test_mobilenetv4_is_a_member_of_its_space_in_another_spelling():
    """Its first two stages are pairs of convolutions, and fused blocks in the space."""
    published = CONV_S
    member = nearest_member(SPACES["mobilenetv4"], published)
    assert member.block_strings[:2] == (
        "r1_k3_s22_e1_i32_o32_act_noskip_fused",
        "r1_k3_s22_e3_i32_o64_act_noskip_fused",
    )
    assert member.block_strings[2:] == published.canonical().block_strings[4:]
    networks = [build_network(arch, 5).eval() for arch in (published, member)]
    weights = [network.state_dict() for network in networks]
    networks[1].load_state_dict(dict(zip(weights[1], weights[0].values(), strict=True)))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(networks[0](image), networks[1](image))


def test_mobilenetv4_on_a_narrower_skeleton():
    space = SPACES["mobilenetv4"].scaled(0.5).with_output_stride(8)
    member = nearest_member(space, CONV_S)
    assert [b.filters for b in member.blocks] == [16, 32, 48, 48, 48, 64, 64, 64, 64, 64, 480]
    assert (member.output_stride, member.head_filters) == (8, 1280)


def test_what_the_space_of_mobilenetv4_has_not():
    space = SPACES["mobilenetv4"]
    with pytest.raises(ValueError, match="networks of space mobilenetv4 have 11 blocks, but this one has 7"):
        nearest_member(space, named_arch("mnasnet-a1"))
    published = CONV_S
    with pytest.raises(
        ValueError, match=r"block 1 is 1\.50 times as wide as MobileNetV4's, but space mobilenetv4 offers"
    ):
        nearest_member(space, published.scale_width(1.5))
    blocks = list(published.blocks)
    blocks[2] = replace(blocks[2], filters=40)
    with pytest.raises(ValueError, match="block 2 is not in space mobilenetv4: mid_filters must be 0, but got 40"):
        nearest_member(space, replace(published, blocks=tuple(blocks)))


def test_another_number_of_blocks():
    arch = named_arch("mnasnet-a1")
    with pytest.raises(ValueError, match="networks of space mnasnet have 7 blocks, but this one has 6"):
        nearest_member(MNASNET, replace(arch, blocks=arch.blocks[:6]))


@pytest.mark.parametrize("name", ["mobilenetv2", "mnasnet-a1"])
@pytest.mark.parametrize("width", [0.05, 0.25, 0.5, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
def test_the_most_similar_member_is_the_nearest_where_that_exists(name, width, output_stride):
    published = named_arch(name)
    for space_name, within_tolerance in (("mnasnet", True), ("mnasnet-no-se", name == "mobilenetv2")):
        space = SPACES[space_name].scaled(width).with_output_stride(output_stride)
        member = member_like(space, published)
        assert space.contains(member)
        if within_tolerance and width > 0.25:  # below, so small widths round to other multiples
            assert member == nearest_member(space, published)
    for space_name in ("per-layer", "mobilenetv4"):
        space = SPACES[space_name].scaled(width).with_output_stride(output_stride)
        assert space.contains(member_like(space, published))


SIMILAR = {
    ("mnasnet", "mobilenetv2"): (
        "r1_k3_s11_e1_i32_o16_noskip,r2_k3_s22_e6_i16_o24,r3_k3_s22_e6_i24_o32,r4_k3_s22_e6_i32_o64,"
        "r3_k3_s11_e6_i64_o96,r3_k3_s22_e6_i96_o160,r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("mnasnet", "mnasnet-a1"): (
        "r1_k3_s11_e1_i32_o16_noskip,r2_k3_s22_e6_i16_o24,r3_k5_s22_e3_i24_o40_se0.25,r4_k3_s22_e6_i40_o80,"
        "r2_k3_s11_e6_i80_o120_se0.25,r3_k5_s22_e6_i120_o160_se0.25,r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("mnasnet-no-se", "mobilenetv2"): (
        "r1_k3_s11_e1_i32_o16_noskip,r2_k3_s22_e6_i16_o24,r3_k3_s22_e6_i24_o32,r4_k3_s22_e6_i32_o64,"
        "r3_k3_s11_e6_i64_o96,r3_k3_s22_e6_i96_o160,r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("mnasnet-no-se", "mnasnet-a1"): (
        "r1_k3_s11_e1_i32_o16_noskip,r2_k3_s22_e6_i16_o24,r3_k5_s22_e3_i24_o40,r4_k3_s22_e6_i40_o80,"
        "r2_k3_s11_e6_i80_o120,r3_k5_s22_e6_i120_o160,r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("per-layer", "mobilenetv2"): (
        "r1_k3_s11_e1_i32_o16_noskip,r1_k3_s22_e6_i16_o24_noskip,r1_k3_s11_e6_i24_o24,r1_k3_s22_e6_i24_o32_noskip,"
        "r1_k3_s11_e6_i32_o32,r1_k3_s11_e6_i32_o32,r1_k3_s22_e6_i32_o64_noskip,r1_k3_s11_e6_i64_o64,"
        "r1_k3_s11_e6_i64_o64,r1_k3_s11_e6_i64_o64,r1_k3_s11_e6_i64_o96_noskip,r1_k3_s11_e6_i96_o96,"
        "r1_k3_s11_e6_i96_o96,r1_k3_s22_e6_i96_o160_noskip,r1_k3_s11_e6_i160_o160,r1_k3_s11_e6_i160_o160,"
        "r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("per-layer", "mnasnet-a1"): (  # with three layers of 120 filters, as the space has no choice of layers
        "r1_k3_s11_e1_i32_o16_noskip,r1_k3_s22_e6_i16_o24_noskip,r1_k3_s11_e6_i24_o24,"
        "r1_k5_s22_e3_i24_o40_se0.25_noskip,r1_k5_s11_e3_i40_o40_se0.25,r1_k5_s11_e3_i40_o40_se0.25,"
        "r1_k3_s22_e6_i40_o80_noskip,r1_k3_s11_e6_i80_o80,r1_k3_s11_e6_i80_o80,r1_k3_s11_e6_i80_o80,"
        "r1_k3_s11_e6_i80_o120_se0.25_noskip,r1_k3_s11_e6_i120_o120_se0.25,r1_k3_s11_e6_i120_o120_se0.25,"
        "r1_k5_s22_e6_i120_o160_se0.25_noskip,r1_k5_s11_e6_i160_o160_se0.25,r1_k5_s11_e6_i160_o160_se0.25,"
        "r1_k3_s11_e6_i160_o320_noskip"
    ),
    ("mobilenetv4", "mobilenetv2"): (
        "r1_k3_s22_e1_i32_o32_act_noskip_fused,r1_k3_s22_e4_i32_o64_act_noskip_fused,r1_k3_s22_e6_i64_o96_noskip_uib,"
        "r4_k3_s11_e6_i96_o96_uib,r1_k3_s11_e6_i96_o96_uib,r1_k3_s22_e6_i96_o128_noskip_uib,r1_k3_s11_e6_i128_o128_uib,"
        "r1_k3_s11_e6_i128_o128_uib,r1_k3_s11_e6_i128_o128_uib,r2_k3_s11_e6_i128_o128_uib,"
        "r1_k1_s11_e1_i128_o960_noskip_conv"
    ),
    ("mobilenetv4", "mnasnet-a1"): (
        "r1_k3_s22_e1_i32_o32_act_noskip_fused,r1_k3_s22_e4_i32_o64_act_noskip_fused,r1_k3_s22_e6_i64_o96_noskip_uib,"
        "r4_k5_s11_e3_i96_o96_uib,r1_k3_s11_e6_i96_o96_uib,r1_k3_s22_e6_i96_o128_noskip_uib,r1_k3_s11_e6_i128_o128_uib,"
        "r1_k3_s11_e6_i128_o128_uib,r1_k5_s11_e6_i128_o128_uib,r2_k5_s11_e6_i128_o128_uib,"
        "r1_k1_s11_e1_i128_o960_noskip_conv"
    ),
}


@pytest.mark.parametrize(("space", "name"), SIMILAR)
def test_the_most_similar_member_of_each_space_of_blocks(space, name):
    assert ",".join(member_like(SPACES[space], named_arch(name)).block_strings) == SIMILAR[space, name]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"op": ["conv"]}, ["r1_k5_s22_e1_i8_o12_se0.25_noskip_conv", "r1_k3_s11_e1_i12_o12_se0.25_conv"]),
        ({"op": ["conv", "sepconv"]}, ["r1_k5_s22_e1_i8_o12_se0.25_noskip", "r1_k3_s11_e1_i12_o12_se0.25"]),
        (
            {"op": ["fused2", "uib4"], "kernel": [7, 3], "start_kernel": [3, 0], "se_ratio": [0, 0.4]},
            ["r1_k3_s22_e4_i8_o12_se0.4_noskip_uib", "r1_k3_s11_e4_i12_o12_se0.4_uib"],
        ),
        (
            {"skip": ["pool"], "layers": [0, 5], "filters": [3, 2], "se_ratio": [0]},
            ["r1_k5_s22_e3_i8_o16_pool", "r1_k3_s11_e6_i16_o16_pool"],
        ),
    ],
)  # fmt: skip
def test_the_most_similar_member_of_a_space_that_has_little_of_it(choices, expected):
    """Two blocks, which correspond to the third and the fifth of MnasNet-A1, but without their choices."""
    skeleton = {"filters": [8, 8], "layers": [1, 1], "strides": [2, 1], "stem_filters": 8, "head_filters": 8}
    space = space_from_dict({"name": "small", "skeleton": skeleton, "choices": choices})
    assert list(member_like(space, named_arch("mnasnet-a1")).block_strings) == expected
