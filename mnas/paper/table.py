"""A table of the paper beside numbers of mnas: every cell has a value, or the reason for its absence."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnas.paper.published import Origin

_REASONS = "missing"


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """A value with its text, or the reason for its absence."""

    value: float | str | None = None
    text: str = ""
    """The value as printed."""
    low: float | None = None
    """Lower end of the value's 95 % interval; None for values without one."""
    high: float | None = None
    reason: str = ""
    """Reason for the missing value, in one line; empty where there is a value."""

    def __post_init__(self) -> None:
        assert (self.value is None) == bool(self.reason), self
        assert (self.value is None) != bool(self.text), self
        assert (self.low is None) == (self.high is None), self


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    key: str
    """Name in JSON and CSV, which ends with the unit."""
    title: str
    """Heading in the printed table."""
    part: str
    """Title of the printed table that shows the column."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper. Its first column names the model, and is part of every printed table."""

    name: str
    """Name in commands, such as table3."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, TableCell], ...]
    """Cells of each row by the key of their column."""
    notes: tuple[str, ...]
    """Meaning of the numbers, in one sentence for each."""

    def __post_init__(self) -> None:
        keys = {column.key for column in self.columns}
        assert all(set(row) == keys for row in self.rows), self.name

    @property
    def parts(self) -> dict[str, tuple[Column, ...]]:
        """Return the title of each printed table with its columns, the first one in all."""
        first, *rest = self.columns
        titles = dict.fromkeys(column.part for column in rest)
        return {title: (first, *(column for column in rest if column.part == title)) for title in titles}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return every different reason for a missing value, in the order of the rows."""
        cells = (row[column.key] for row in self.rows for column in self.columns)
        return tuple(dict.fromkeys(cell.reason for cell in cells if cell.reason))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: each row has its values, and the reason for each missing one."""
        rows = []
        for row, values in zip(self.rows, self._values(), strict=True):
            reasons = {key: cell.reason for key, cell in row.items() if cell.reason}
            rows.append({**values, _REASONS: reasons})
        return {"table": self.name, "title": self.title, "rows": rows, "notes": list(self.notes)}

    def to_csv(self) -> str:
        """Return a CSV file with a header; the last column has the reasons for the missing values of its row."""
        records = [
            {**values, _REASONS: "; ".join(f"{key}: {cell.reason}" for key, cell in row.items() if cell.reason)}
            for row, values in zip(self.rows, self._values(), strict=True)
        ]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def _values(self) -> Sequence[dict[str, float | str | None]]:
        """Return the values of each row, with the intervals of the columns that have any."""
        values = []
        for row in self.rows:
            record: dict[str, float | str | None] = {}
            for column in self.columns:
                cell = row[column.key]
                record[column.key] = cell.value
                if any(other[column.key].low is not None for other in self.rows):
                    record |= {f"{column.key}_low": cell.low, f"{column.key}_high": cell.high}
            values.append(record)
        return values


def published_cell(value: float | None, text: str, origin: Origin) -> TableCell:
    """Return the cell of a published number, marked where nobody has verified it.

    Args:
        text: the number as printed.
    """
    if value is None:
        return TableCell(reason="the published table has no number here")
    return TableCell(value=value, text=f"{text} (unverified)" if origin == "memory" else text)
