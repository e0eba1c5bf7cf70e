import random
import re
from xml.etree import ElementTree

import pytest

from mnas.arch import Arch
from mnas.architecture import architecture_from_json
from mnas.report.diagram import BOX_WIDTHS, arch_svg, block_label
from mnas.space.named import load_space
from mnas.zoo.architectures import named_arch

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


def box_labels(svg: str) -> list[str]:
    """Return the bold centred texts except the first, "input"."""
    elements = ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")
    return [e.text or "" for e in elements if e.get("font-weight") == "600" and e.get("text-anchor") == "middle"][1:]


def random_archs(count: int) -> list[Arch]:
    space, rng = load_space("mnasnet"), random.Random(0)
    return [space.decode([rng.randrange(len(d.choices)) for d in space.decisions]) for _ in range(count)]


def test_a1_says_what_the_papers_figure_says():
    shown = texts(arch_svg(named_arch("mnasnet-a1"), 224))
    # paper, Figure 7 (a): labels from the top, and the feature maps between them
    labels = [
        "SepConv (k3x3)",
        "MBConv6 (k3x3) ×2",
        "MBConv3 (k5x5) SE ×3",
        "MBConv6 (k3x3) ×4",
        "MBConv6 (k3x3) SE ×2",
        "MBConv6 (k5x5) SE ×3",
        "MBConv6 (k3x3)",
    ]
    assert [t for t in shown if t in labels] == labels
    maps = [
        "224×224×3",
        "112×112×32",
        "112×112×16",
        "56×56×24",
        "28×28×40",
        "14×14×80",
        "14×14×112",
        "7×7×160",
        "7×7×320",
    ]
    assert [t for t in shown if "×" in t and "(" not in t] == [*maps, "7×7×1280", "1×1×1280"]
    assert shown.count("stride 2") == 5
    assert shown.count("identity") == 5  # neither the first nor the last block (160 -> 320) has a residual


@pytest.mark.parametrize("input_size", [32, 33, 224])
def test_random_members_of_the_space_are_well_formed_and_complete(input_size):
    for arch in random_archs(50):
        svg = arch_svg(arch, input_size)
        shown = texts(svg)
        assert box_labels(svg) == ["Conv (k3x3)", *map(block_label, arch.blocks), "Conv (k1x1)", "average pool", "FC"]
        last = -(-input_size // 32)  # five strides of 2, each of which rounds up, equal one of 32
        assert f"{last}×{last}×{arch.blocks[-1].filters}" in shown
        assert shown.count("pool") == sum(b.skip == "pool" for b in arch.blocks)
        assert svg == arch_svg(architecture_from_json(arch.to_json()), input_size)


def test_everything_lies_inside_the_picture_and_nothing_is_fetched():
    widest = Arch.from_block_strings("r100_k7_s11_e12_i32_o64_se0.125_pool,r9_k7_s22_e6_i64_o64_se0.25")
    for arch in [widest, *random_archs(20)]:
        root = ElementTree.fromstring(arch_svg(arch, 64))
        width, height = float(root.get("width")), float(root.get("height"))
        for box in root.iter(f"{NAMESPACE}rect"):
            assert float(box.get("x", 0)) >= 0
            assert float(box.get("x", 0)) + float(box.get("width")) <= width
            assert float(box.get("y", 0)) + float(box.get("height")) <= height
    assert set(re.findall(r"https?://[^\"<]+", arch_svg(widest, 64))) == {"http://www.w3.org/2000/svg"}


def test_kernels_differ_in_width_and_operations_in_colour():
    arch = Arch.from_block_strings(
        "r1_k3_s11_e1_i32_o32,r1_k5_s11_e3_i32_o32,r1_k7_s11_e6_i32_o32,r1_k3_s11_e1_i32_o32_conv"
    )
    boxes = [b for b in ElementTree.fromstring(arch_svg(arch, 64)).iter(f"{NAMESPACE}rect") if b.get("stroke")]
    widths = [int(b.get("width")) for b in boxes]
    assert widths[1:5] == [BOX_WIDTHS[3], BOX_WIDTHS[5], BOX_WIDTHS[7], BOX_WIDTHS[3]]
    assert len({b.get("fill") for b in boxes[1:5]}) == 4


def test_an_image_too_small_for_the_strides_is_refused():
    with pytest.raises(ValueError, match="at least the output stride 32, but got 16"):
        arch_svg(named_arch("mnasnet-a1"), 16)
