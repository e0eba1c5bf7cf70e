"""Cells and tables of the paper, whatever their numbers."""

import csv
import io

import pytest

from mnas.cli.console import make_console
from mnas.cli.paper import print_paper_table
from mnas.paper.table import Column, PaperTable, TableCell, published_cell

COLUMNS = (Column(key="model", title="model", part=""), Column(key="ms", title="time", part="times"))


def table(*cells: TableCell) -> PaperTable:
    rows = tuple({"model": TableCell(value=f"m{i}", text=f"m{i}"), "ms": cell} for i, cell in enumerate(cells))
    return PaperTable(name="table9", title="Table 9", columns=COLUMNS, rows=rows, notes=("a note",))


def test_a_number_from_memory_is_marked() -> None:
    assert published_cell(4.2, "4.2M", "copy").text == "4.2M"
    assert published_cell(4.2, "4.2M", "memory").text == "4.2M (unverified)"
    assert published_cell(None, "", "memory").reason == "the published table has no number here"


def test_a_cell_has_a_value_or_a_reason() -> None:
    for fields in ({}, {"value": 1.0}, {"value": 1.0, "text": "1", "reason": "no"}, {"text": "1", "reason": "no"}):
        with pytest.raises(AssertionError):
            TableCell(**fields)


def test_intervals_are_columns_of_their_own_for_every_row() -> None:
    whole = table(TableCell(value=2.0, text="2 (1-3)", low=1.0, high=3.0), TableCell(reason="broken, twice"))
    assert whole.to_dict()["rows"] == [
        {"model": "m0", "ms": 2.0, "ms_low": 1.0, "ms_high": 3.0, "missing": {}},
        {"model": "m1", "ms": None, "ms_low": None, "ms_high": None, "missing": {"ms": "broken, twice"}},
    ]
    assert list(csv.reader(io.StringIO(whole.to_csv()))) == [
        ["model", "ms", "ms_low", "ms_high", "missing"],
        ["m0", "2.0", "1.0", "3.0", ""],
        ["m1", "", "", "", "ms: broken, twice"],
    ]


def test_reasons_are_printed_once_each_and_never_run_out_of_letters(capsys) -> None:
    reasons = [f"reason {i}" for i in range(28)]
    print_paper_table(make_console(), table(*(TableCell(reason=reason) for reason in [*reasons, "reason 1"])))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.endswith("reason 1")] == ["(b) reason 1"]
    assert "m1 (b)" in lines
    assert "m28 (b)" in lines
    assert "(ab) reason 27" in lines
    assert "m27 (ab)" in lines
    assert lines[-1] == "a note"
