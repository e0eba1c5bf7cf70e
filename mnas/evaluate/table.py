"""Tables as benchmarks: CSV or Parquet, a column for each decision, one for accuracy and one for cost.

Values are looked up if every combination of choices has a row, and predicted if not.
"""

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from mnas.evaluate.benchmark import Benchmark, Indices, Values
from mnas.evaluate.regressor import fit_regressor, hold_out
from mnas.readers import open_regular, read_regular
from mnas.space.space import Choice, Space

FEWEST = 25
"""Minimum number of rows to predict others from, held-out ones included."""
MAX_ROWS, MAX_COLUMNS, MAX_VALUES = 1_000_000, 1000, 10_000_000
"""Limits of a table; the largest published ones have some 420,000 rows."""
MAX_CSV_BYTES = 64 << 20
MAX_LINE_CHARS = 1 << 20
MAX_TEXT_CHARS = 1000
"""Maximum length of a value in a Parquet file."""
MAX_CHOICES = 100
"""Maximum number of choices; a column with more different values is a name or a measurement, not a decision."""


@dataclass(frozen=True, eq=False)
class LookUp:
    """Values of all members of a complete table, in the order of their indices."""

    values: Values
    shape: tuple[int, ...]

    def __call__(self, indices: Indices) -> Values:
        """Return the values, (N,), of (N, D) indices."""
        values: Values = self.values[np.ravel_multi_index(tuple(indices.T), self.shape)]
        return values


@dataclass(frozen=True)
class _Columns:
    """Columns of a table by name, and the words for the place of a row."""

    values: Mapping[str, Sequence[Any]]
    row: str
    """Word for a row: `line` of a CSV file, `row` of a Parquet file."""
    numbers: Sequence[int]
    """Numbers of the rows in the file."""

    def place(self, index: int) -> str:
        return f"{self.row} {self.numbers[index]}"


def read_table(
    path: Path,
    *,
    accuracy: str = "accuracy",
    cost: str = "cost",
    ignore: Sequence[str] = (),
    percent: bool = False,
    space: Space | None = None,
) -> Benchmark:
    """Return the benchmark in the CSV or Parquet file at `path`; rows with the same choices have their mean.

    Args:
        path: path of the file; a CSV file has commas, and names in its first line.
        accuracy: name of the column with accuracies, in [0, 1].
        cost: name of the column with costs, above 0.
        ignore: names of columns that are no decisions.
        percent: whether accuracies are from 0 to 100.
        space: space whose decisions are the columns and whose choices are the values. None: all other columns are
            decisions, with the choices that occur.

    Raises:
        ValueError: the file is of another kind, or a value is impossible; one line with file, column and row.
        ImportError: the file is Parquet, and pyarrow (extra `bench`) is missing.
    """
    columns = _read(path)
    _require_columns(path, columns, accuracy, cost, ignore, space)
    try:
        return _benchmark(path, columns, accuracy, cost, ignore, percent, space)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _benchmark(
    path: Path,
    columns: _Columns,
    accuracy: str,
    cost: str,
    ignore: Sequence[str],
    percent: bool,
    space: Space | None,
) -> Benchmark:
    names = _decisions(columns, accuracy, cost, ignore, space)
    accuracies = _numbers(columns, accuracy, 0.0, 100.0 if percent else 1.0) / (100.0 if percent else 1.0)
    costs = _numbers(columns, cost, 0.0, math.inf)
    choices = {name: _choices(columns, name, space) for name in names}
    indices = np.array([_column(columns, name, choices[name]) for name in names], np.int64).T
    different, group = np.unique(indices, axis=0, return_inverse=True)
    counts = np.bincount(group.ravel())
    means = [np.bincount(group.ravel(), weights=v) / counts for v in (accuracies, costs)]
    notes = [f"{path.name}: {len(indices):,} rows, {len(names)} decisions"]
    if len(different) < len(indices):
        notes.append(f"{len(indices) - len(different):,} repeated rows; each combination gets the mean of its rows")
    ordered = np.array([all(isinstance(c, int | float) for c in choices[name]) for name in names])
    shape = tuple(len(choices[name]) for name in names)
    accuracy_of, cost_of = _values(different, means, shape, ordered, notes, (accuracy, cost))
    digest = hashlib.sha256(json.dumps([[name, list(choices[name])] for name in names]).encode())
    for array in (different, *means):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Benchmark(
        name=path.stem,
        space={name: CategoricalDistribution(choices[name]) for name in names},
        cost_unit=cost,
        accuracy_of=accuracy_of,
        cost_of=cost_of,
        content=digest.hexdigest(),
        notes=tuple(notes),
        networks=space,
    )


def _values(
    different: Indices,
    means: Sequence[Values],
    shape: tuple[int, ...],
    ordered: NDArray[np.bool_],
    notes: list[str],
    names: Sequence[str],
) -> tuple[Any, Any]:
    """Return functions for accuracies and costs: by look-up, or predicted."""
    size = math.prod(shape)
    if len(different) == size:
        notes.append(f"complete: all {size:,} combinations have a row, so values are looked up")
        return LookUp(means[0], shape), LookUp(means[1], shape)  # np.unique has sorted the rows
    held = hold_out(len(different))
    notes.append(f"{len(different):,} of {size:.3g} combinations have a row, so values are predicted")
    if len(different) < FEWEST:
        raise ValueError(
            f"a table must have a row for each of its {size:,} combinations of choices, or at least {FEWEST} "
            f"different rows from which to predict the others, but got {len(different)}"
        )
    fits = [
        fit_regressor(different, mean, held, ordered=ordered, logarithmic=logarithmic)
        for mean, logarithmic in zip(means, (False, True), strict=True)
    ]
    notes += [f"{name}: {fit.describe()}" for name, fit in zip(names, fits, strict=True)]
    return fits[0], fits[1]


def _require_columns(
    path: Path, columns: _Columns, accuracy: str, cost: str, ignore: Sequence[str], space: Space | None
) -> None:
    """Raise ValueError, naming the option, unless the table has all columns that options name."""
    if accuracy == cost:
        raise ValueError(f"--accuracy and --cost must be two columns, but got {accuracy!r} for both")
    if needed := [name for name in (accuracy, cost) if name in ignore]:
        raise ValueError(f"--ignore must name other columns than --accuracy and --cost, but got {needed[0]!r}")
    for option, name in (("--accuracy", accuracy), ("--cost", cost), *(("--ignore", name) for name in ignore)):
        if name not in columns.values:
            raise ValueError(f"{option} must be a column of {path} ({_listed(columns.values)}), but got {name!r}")
    if space and (missing := [repr(name) for name in space.distributions if name not in columns.values]):
        raise ValueError(
            f"--space must have a column for each of its decisions in {path} ({_listed(columns.values)}), which has "
            f"none for {_listed(missing)}"
        )


def _decisions(
    columns: _Columns, accuracy: str, cost: str, ignore: Sequence[str], space: Space | None
) -> tuple[str, ...]:
    """Return the names of the columns that are decisions."""
    if space:
        return tuple(space.distributions)
    names = tuple(name for name in columns.values if name not in (accuracy, cost, *ignore))
    if not names:
        raise ValueError(f"there must be a column for each decision, but got only {_listed(columns.values)}")
    return names


def _listed(names: Collection[str]) -> str:
    first, rest = list(names)[:20], list(names)[20:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


def _choices(columns: _Columns, name: str, space: Space | None) -> tuple[Choice, ...]:
    if space:
        return cast("tuple[Choice, ...]", tuple(space.distributions[name].choices))
    used = set(columns.values[name]) - {None}
    if len(used) > MAX_CHOICES:
        raise ValueError(
            f"column {name} has {len(used):,} different values, too many for a decision; leave it out with --ignore "
            f"{name}"
        )
    return tuple(sorted(used))


def _column(columns: _Columns, name: str, choices: Sequence[Choice]) -> list[int]:
    """Return the index of each row's choice."""
    place = {choice: index for index, choice in enumerate(choices)}
    # a CSV file has them as text
    place |= {text: place[c] for c in choices if isinstance(c, bool) for text in (str(c), str(c).lower())}
    column = []
    for row, value in enumerate(columns.values[name]):
        if value not in place:
            got = "nothing" if value is None else repr(value)
            listed = ", ".join(map(str, choices))
            raise ValueError(f"{columns.place(row)}: {name} must be one of {listed}, but got {got}")
        column.append(place[value])
    return column


def _numbers(columns: _Columns, name: str, low: float, high: float) -> Values:
    """Return a column of finite numbers from `low` (for costs: above it) to `high`."""
    for row, value in enumerate(columns.values[name]):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, str) and _is_number(value):
            continue  # a word further down made the whole column text, so name that one
        if number and low <= value <= high and (value > low or high < math.inf) and math.isfinite(value):
            continue
        rule = "a number above 0" if high == math.inf else f"a number from {low:g} to {high:g}"
        hint = "; use --percent if these are percentages" if number and high == 1 and 1 < value <= 100 else ""
        got = "nothing" if value is None else repr(value)
        raise ValueError(f"{columns.place(row)}: {name} must be {rule}, but got {got}{hint}")
    return np.array(columns.values[name], np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Files


def _read(path: Path) -> _Columns:
    with open_regular(path) as file:
        parquet = file.read(4) == b"PAR1"
    columns = _read_parquet(path) if parquet else _read_csv(path)
    if not columns.values or not len(next(iter(columns.values.values()))):
        raise ValueError(f"{path} must have at least one row, but it has none")
    return columns


def _read_csv(path: Path) -> _Columns:
    try:
        text = read_regular(path, MAX_CSV_BYTES).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it is not text")
        reader = csv.reader(_short_lines(text), strict=True)
        header = next(reader, [])
        _require_size(1, len(header))
        lines = [(1, header)] if header else []
        for line in reader:
            if line:
                lines.append((reader.line_num, line))
                _require_size(len(lines) - 1, len(header))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not a CSV file (UTF-8, with commas) or Parquet file: {error}") from None
    if not lines:
        raise ValueError(f"{path} must have at least one row, but it has none")
    header = [name.strip() for name in lines[0][1]]
    _check_names(path, header)
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ValueError(f"{path}: line {number} must have {len(header)} values, but got {len(line)}")
    columns = zip(*(line for _, line in lines[1:]), strict=True)
    values = {name: _typed(texts) for name, texts in zip(header, columns, strict=False)}
    return _Columns(values, "line", [number for number, _ in lines[1:]])


def _require_size(rows: int, columns: int) -> None:
    if columns > MAX_COLUMNS or rows > MAX_ROWS or rows * columns > MAX_VALUES:
        raise ValueError(
            f"a table must have at most {MAX_ROWS:,} rows, {MAX_COLUMNS:,} columns and {MAX_VALUES:,} values, but got "
            f"{rows:,} rows or more of {columns:,} columns"
        )


def _short_lines(text: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > MAX_LINE_CHARS:
            raise ValueError(f"line {number} has {len(line):,} characters, more than the limit of {MAX_LINE_CHARS:,}")
        yield line


def _check_names(path: Path, names: Sequence[str]) -> None:
    counts = Counter(names)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice or not all(names):
        raise ValueError(f"{path}: columns must have different names, but got {', '.join(map(repr, twice or names))}")


def _typed(texts: Sequence[str]) -> list[Choice | None]:
    """Return numbers where all texts are numbers; None for empty ones."""
    stripped = [text.strip() for text in texts]
    filled = [text for text in stripped if text.lower() not in ("", "nan", "null", "none", "na")]
    if set(stripped) == {"none"}:
        return list(stripped)  # a skip that all networks share; a column of missing values would have no use
    # a word among numbers makes the column text, and an error then names it; there `none` and `na` may be choices
    for kind in (int, float):
        try:
            values = {text: kind(text) for text in filled}
        except ValueError:
            continue
        return [values.get(text) for text in stripped]
    return [text or None for text in stripped]


def _read_parquet(path: Path) -> _Columns:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError("Parquet files need pyarrow: pip install 'mnas[bench]'") from None
    open_regular(path).close()
    try:
        with parquet.ParquetFile(path) as file:  # `read_table` would accept a folder of many files, and duplicate names
            schema, metadata = file.schema_arrow, file.metadata
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} must be a Parquet file, but it cannot be read: {error}") from None
    _check_names(path, schema.names)
    texts = _require_small(path, metadata, schema)
    try:
        # with a dictionary, a long text in a million rows is in memory once
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read()
            table.validate(full=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} must be a Parquet file, but it cannot be read: {error}") from None
    columns = {}
    for name, column in zip(schema.names, table.columns, strict=True):
        try:
            columns[name] = _plain_values(column)
        except ValueError as error:
            raise ValueError(f"{path}: column {name}: {error}") from None
    return _Columns(columns, "row", range(1, len(table) + 1))


def _require_small(path: Path, metadata: Any, schema: Any) -> list[str]:
    """Return the columns of text. Raises ValueError, before reading rows, for too many rows and for lists."""
    from pyarrow import types

    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
        if not any(is_kind(kind) for is_kind in plain):
            raise ValueError(f"{path}: column {field.name} must be numbers, text or true and false, but got {kind}")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    try:
        rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
        _require_size(rows, metadata.num_columns)
        if max((chunk.total_uncompressed_size for chunk in chunks), default=0) > MAX_CSV_BYTES:
            raise ValueError(f"a column must have at most {MAX_CSV_BYTES:,} bytes unpacked, but got more")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]


def _plain_values(column: Any) -> list[Any]:
    """Return a column's values; None for missing ones and NaN."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        values: list[Any] = []
        for chunk in column.chunks:
            texts = chunk.dictionary.to_pylist()
            if (longest := max((len(text) for text in texts if text is not None), default=0)) > MAX_TEXT_CHARS:
                raise ValueError(f"a text must have at most {MAX_TEXT_CHARS:,} characters, but got {longest:,}")
            values += [None if index is None else texts[index] for index in chunk.indices.to_pylist()]
        return values
    return [None if isinstance(v, float) and math.isnan(v) else v for v in column.to_pylist()]
