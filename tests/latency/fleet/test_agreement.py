"""The units that are used, and the scale of their milliseconds."""

import dataclasses

import pytest
from calibrations import PIXEL, unit

from mnas.latency.fleet.agreement import agree


def test_one_unit_keeps_its_numbers():
    assert agree([PIXEL]) == ([PIXEL], {})
    assert agree([]) == ([], {})


def test_all_units_are_on_the_scale_of_the_median():
    used, left_out = agree([unit(0, 9.0), unit(1, 10.0), unit(2, 12.0)])
    assert left_out == {}
    assert [c.reference_ms for c in used] == [10.0] * 3
    assert [c.unit_scale for c in used] == pytest.approx([0.9, 1.0, 1.2])
    assert [(c.low_ms, c.high_ms) for c in used] == [pytest.approx((9.9, 10.1))] * 3
    assert agree(used) == (used, {})  # the units' own times are unchanged


def test_of_three_units_the_one_that_disagrees_is_not_used():
    used, left_out = agree([unit(0), unit(1, share=0.6), unit(2, share=0.51)])
    assert [c.unit for c in used] == ["pixel/0", "pixel/2"]
    assert left_out == {
        "pixel/1": "its light reference takes 0.600 of the reference's time, but 0.500 on pixel/0; the unit is hot, "
        "busy or another model"
    }


def test_of_two_units_that_disagree_the_faster_is_in_use():
    used, left_out = agree([unit(0, 14.0, share=0.6), unit(1, 10.0)])
    assert ([c.unit for c in used], list(left_out)) == (["pixel/1"], ["pixel/0"])
    assert used[0].unit_scale == 1.0


def test_of_two_pairs_the_faster_is_in_use():
    used, left_out = agree([unit(0, 12.0, 0.6), unit(1, 10.0), unit(2, 11.0, 0.6), unit(3, 13.0)])
    assert ([c.unit for c in used], sorted(left_out)) == (["pixel/1", "pixel/3"], ["pixel/0", "pixel/2"])


def test_ratios_whose_intervals_meet_or_that_are_near_agree():
    wide = dataclasses.replace(unit(1, share=0.6), light_ratio_low=0.5)
    assert len(agree([unit(0), wide])[0]) == 2
    assert len(agree([unit(0), unit(1, share=0.52)])[0]) == 2
    assert len(agree([unit(0), unit(1, share=0.56)])[0]) == 1


def test_a_different_device_is_not_used_and_the_reason_names_the_difference():
    other = {"device": {"processor": "G4", "os": "14"}}
    used, left_out = agree([unit(0), unit(1, 5.0, **other)])  # the first of two, although the other is faster
    assert [c.unit for c in used] == ["pixel/0"]
    assert left_out == {"pixel/1": "it is a different device from pixel/0 (processor 'G4' instead of 'G3')"}
    used, left_out = agree([unit(0), unit(1, **other), unit(2, **other)])
    assert ([c.unit for c in used], list(left_out)) == (["pixel/1", "pixel/2"], ["pixel/0"])
