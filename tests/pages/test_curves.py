"""Curves over epochs: the places of their points, their ticks and their labels."""

import re

import pytest

from mnas.pages.curves import Curve, chart, round_ticks, thinned


def test_points_have_exact_places() -> None:
    svg = chart([Curve(name="loss", points=[(1, 4.0), (2, 3.0), (5, 0.0)])])
    # x: 52 + 460 * (epoch - 1) / 4; y: 10 + 220 * (1 - value / 4.2)
    assert 'class="curve first" d="M52.0 20.5L167.0 72.9L512.0 230.0"' in svg
    assert '<circle class="first" cx="512.0" cy="230.0"' in svg
    assert re.findall(r'text-anchor="end">([^<]+)<', svg) == ["0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4"]
    assert re.findall(r'text-anchor="middle">([^<]+)<', svg) == ["1", "2", "3", "4", "5", "epoch"]
    assert 'aria-label="loss 0 at the end"' in svg


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_one_epoch_is_a_point(value: float) -> None:
    svg = chart([Curve(name=name, points=[(1, value)]) for name in ("mAP", "<AP>")], percent=True)
    y = 230.0 if value == 0 else round(10 + 220 * (1 - 1 / 1.05), 1)
    assert svg.count(f'cx="52.0" cy="{y}"') == 2
    assert f'aria-label="mAP {100 * value:g} % at the end; &lt;AP&gt; {100 * value:g} % at the end"' in svg
    assert '<span class="key second">&lt;AP&gt;</span>' in svg


@pytest.mark.parametrize(
    ("low", "high", "first", "last", "count"),
    [
        *((0.0, 1.0, 0, 1, 6), (0, 0.93, 0, 0.8, 5), (1, 300, 50, 300, 6), (0, 1e-4, 0, 1e-4, 6), (1, 2, 1, 2, 6)),
        *((0.83, 1.07, 0.85, 1.05, 5), (-3e-4, 2e-3, 0, 2e-3, 5), (12.0, 1234.0, 200, 1200, 6)),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, first: float, last: float, count: int) -> None:
    values = round_ticks(low, high)
    assert (values[0], values[-1], len(values)) == (first, last, count)


def test_a_long_training_has_500_points() -> None:
    points = [(float(epoch), 1.0) for epoch in range(1, 10_001)]
    few = thinned(points)
    assert (len(few), few[0], few[-1]) == (500, points[0], points[-1])
    assert len(set(few)) == 500
    assert thinned(points[:500]) == points[:500]
