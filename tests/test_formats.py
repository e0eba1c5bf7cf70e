"""The table of model formats refers to existing functions, runtimes and extras."""

import tomllib
from pathlib import Path

import pytest

from mnas.formats import FORMATS, SUFFIXES, format_of, imported
from mnas.latency.onboard.script import RUNTIMES

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_every_function_of_a_row_is_there(row):
    for name in (row.opener, row.reader, row.writer, row.sidecar):
        assert not name or callable(imported(name))


def test_runtimes_and_extras_are_those_of_the_program():
    assert [runtime for row in FORMATS.values() for runtime in row.runtimes if runtime not in RUNTIMES] == []
    assert {runtime for row in FORMATS.values() for runtime in row.runtimes} == set(RUNTIMES)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {row.extra for row in FORMATS.values() if row.extra} <= set(extras)


def test_a_format_is_found_by_its_suffix():
    assert len(SUFFIXES) == len(FORMATS)
    for row in FORMATS.values():
        assert format_of(f"folder/model.int8{row.suffix}") is row
    assert format_of("model.pth") is None
