"""The drawing of a network of cells shows all of its content."""

import random
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from mnas.report.cell_diagram import drawing
from mnas.report.diagram import arch_svg
from mnas.report.facts import sampled_shares
from mnas.report.sections import SHARE_COLOURS
from mnas.space.cell import CellSpace
from mnas.space.named import SPACES
from mnas.zoo.architectures import named_arch

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


def random_archs(count):
    rng, space = random.Random(0), CellSpace(name="all", pairs=6, concat="chosen")
    return [space.decode([rng.randrange(len(d.choices)) for d in space.decisions]) for _ in range(count)]


def test_nasnet_a():
    shown = texts(drawing(named_arch("nasnet-a"), 224))
    assert [t for t in shown if t.endswith("cell") or "cell ×" in t] == [
        *("reduction cell", "reduction cell", "normal cell ×4", "reduction cell", "normal cell ×4", "reduction cell"),
        *("normal cell ×4", "normal cell", "reduction cell"),
    ]
    assert [t for t in shown if "×" in t and "cell" not in t] == [
        *("224×224×3", "112×112×32", "56×56×44", "28×28×88", "28×28×264", "14×14×352", "14×14×528"),
        *("7×7×704", "7×7×1056", "1×1×1056"),
    ]
    assert shown.count("sep5") == 4
    assert shown.count("of cell -2") == 9
    assert "out: cell -2, 2, 3, 4, 5, 6" in shown
    assert "out: 3, 4, 5, 6" in shown


@pytest.mark.parametrize("input_size", [32, 33, 224])
def test_random_cells_are_complete_and_inside_the_picture(input_size):
    for arch in random_archs(20):
        root = ElementTree.fromstring(drawing(arch, input_size))
        shown = [element.text for element in root.iter(f"{NAMESPACE}text")]
        for cell in (arch.normal, arch.reduction):
            for op in {op for pair in cell.pairs for op in (pair.op1, pair.op2)}:
                assert op in shown
        width, height = float(root.get("width")), float(root.get("height"))
        for box in root.iter(f"{NAMESPACE}rect"):
            assert float(box.get("x", 0)) >= 0
            assert float(box.get("x", 0)) + float(box.get("width")) <= width
            assert float(box.get("y", 0)) + float(box.get("height")) <= height
        assert all(0 < float(e.get("y")) < height for e in root.iter(f"{NAMESPACE}text"))


def test_blocks_are_drawn_as_ever():
    arch = named_arch("mnasnet-a1")
    assert drawing(arch, 224) == arch_svg(arch, 224)


def test_an_image_too_small_for_the_strides_is_refused():
    with pytest.raises(ValueError, match="at least the output stride 32, but got 16"):
        drawing(named_arch("nasnet-a"), 16)


def test_shares_of_operations():
    shares = sampled_shares([SimpleNamespace(arch=named_arch(name)) for name in ("nasnet-a", "darts-v2")])
    assert set(shares) == {"normal cell", "reduction cell"}
    assert shares["normal cell"]["sep3"] == pytest.approx((3 + 5) / 18)
    assert all(sum(share.values()) == pytest.approx(1) for share in shares.values())
    assert len(SHARE_COLOURS) >= len(SPACES["cell"].ops)  # so that no two operations share a colour
