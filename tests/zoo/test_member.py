"""Published networks as members of a space: what is kept, what is nearest, and what is impossible."""

from dataclasses import replace

import pytest

from mnas.space.named import SPACES
from mnas.zoo.architectures import named_arch, reference_arch
from mnas.zoo.member import nearest_member

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


def test_another_number_of_blocks():
    arch = named_arch("mnasnet-a1")
    with pytest.raises(ValueError, match="networks of space mnasnet have 7 blocks, but this one has 6"):
        nearest_member(MNASNET, replace(arch, blocks=arch.blocks[:6]))
