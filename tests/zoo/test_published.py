"""The published models of other widths and sizes: counts within 3 %, and the meaning of the published counts."""

import re
from pathlib import Path

import pytest
import timm

from mnas.nn.cost import cost
from mnas.nn.toco import toco_macs
from mnas.zoo.architectures import named_arch
from mnas.zoo.published import A1_SCALED

DOCS = Path(__file__).parents[2] / "docs" / "measurements" / "scaling.md"


def test_the_table_is_a_grid():
    grid = [(size, width) for size in (224, 192, 160, 128, 96) for width in (1.4, 1.0, 0.75, 0.5, 0.35)]
    assert [(p.input_size, p.width_multiplier) for p in A1_SCALED] == grid


@pytest.mark.parametrize("point", A1_SCALED, ids=lambda p: f"{p.input_size}-{p.width_multiplier}")
def test_macs_within_3_percent_and_explained_to_rounding(point):
    arch = named_arch(point.name)
    ours_m = cost(arch, point.input_size).macs / 1e6
    assert 0.97 * point.macs_m <= ours_m <= point.macs_m
    assert round(toco_macs(arch, point.input_size) / 1e6, 1) == point.macs_m


@pytest.mark.parametrize(
    ("width", "model", "params"),
    [
        (0.5, "semnasnet_050", 2_082_006),
        (0.75, "semnasnet_075", 2_912_278),
        (1.0, "semnasnet_100", 3_887_038),
        (1.4, "semnasnet_140", 6_105_992),
    ],
)
def test_params_equal_timms(width, model, params):
    point = next(p for p in A1_SCALED if p.width_multiplier == width)
    assert cost(named_arch(point.name), 224).params == params
    assert sum(p.numel() for p in timm.create_model(model).parameters()) == params


@pytest.mark.parametrize("point", A1_SCALED[:5], ids=lambda p: p.name)
def test_params_within_the_published_rounding(point):
    assert abs(cost(named_arch(point.name), 224).params / 1e6 - point.params_m) <= 0.06  # 1.75M is printed as 1.7


def test_the_documents_table_is_what_is_computed():
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \|(.*)\|$", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == 25
    for (size, width, rest), point in zip(rows, A1_SCALED, strict=True):
        assert (int(size), float(width)) == (point.input_size, point.width_multiplier)
        arch = named_arch(point.name)
        ours, counted = cost(arch, point.input_size).macs / 1e6, toco_macs(arch, point.input_size) / 1e6
        difference = 100 * (ours / point.macs_m - 1)
        cells = [f"{point.macs_m:.1f}", f"{ours:.1f}", f"{difference:+.1f} %", f"{counted:.1f}"]
        assert [cell.strip() for cell in rest.split("|")] == cells
