"""The suite itself: long files are there, samples have each value of each parameter, and recipes name real files."""

import re
from pathlib import Path

import pytest
from long_files import LONG

SEEN = set()


def test_the_long_files_are_there():
    assert len(set(LONG)) == len(LONG)
    assert [name for name in LONG if not (Path(__file__).parent / name).is_file()] == []


@pytest.mark.sample(6)
@pytest.mark.parametrize("letter", "abcde")
@pytest.mark.parametrize("number", range(3))
def test_cases(letter, number):
    SEEN.add((letter, number))


def test_a_sample_has_each_value_of_each_parameter():
    if not SEEN:
        pytest.skip("needs the cases above")
    assert {letter for letter, _ in SEEN} == set("abcde")
    assert {number for _, number in SEEN} == {0, 1, 2}
    assert len(SEEN) in (6, 15)


def test_the_recipes_name_files_that_are_there():
    root = Path(__file__).parents[1]
    names = set(re.findall(r"`((?:mnas|tests)/[a-z_/]+\.py)`", (root / "CONTRIBUTING.md").read_text()))
    assert len(names) > 10
    assert [name for name in sorted(names) if not (root / name).is_file()] == []
