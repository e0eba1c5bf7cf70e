"""Small files that would fill the memory or never end: each is rejected in seconds with one line."""

import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from mnas.evaluate.accel_nasbench import accel_nasbench
from mnas.evaluate.table import MAX_CSV_BYTES, read_table

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

pytestmark = pytest.mark.timeout(60)


def refused(path, words):
    with pytest.raises(ValueError, match=words) as error:
        read_table(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)


def test_a_small_parquet_file_of_20_million_rows(tmp_path):
    path = tmp_path / "rows.parquet"
    column = np.ones(20_000_000, np.int8)
    parquet.write_table(pa.table({"a": column, "accuracy": column, "cost": column}), path)
    assert path.stat().st_size < 300_000
    refused(path, "at most 1,000,000 rows.*got 20,000,000 rows")


def test_a_parquet_file_of_long_texts_lists_or_many_columns(tmp_path):
    path = tmp_path / "table.parquet"
    texts = pa.array(["x" * 2_000_000] * 3)
    parquet.write_table(pa.table({"a": texts, "accuracy": [0.5] * 3, "cost": [1.0] * 3}), path)
    refused(path, "column a: a text must have at most 1,000 characters, but got 2,000,000")
    parquet.write_table(pa.table({"a": [[1], [2]], "accuracy": [0.5] * 2, "cost": [1.0] * 2}), path)
    refused(path, "column a must be numbers, text or true and false, but got list")
    parquet.write_table(pa.table({f"c{i}": [1] for i in range(1001)}), path)
    refused(path, "1,000 columns")


def test_a_parquet_file_keeps_its_values(tmp_path):
    path = tmp_path / "table.parquet"
    values = {"kind": ["a", None, "\u00e9", "a"], "k": [3, 5, 3, None], "accuracy": [0.5] * 4, "cost": [1.0] * 4}
    parquet.write_table(pa.table(values), path, row_group_size=2)
    from mnas.evaluate.table import _read

    columns = _read(path)
    assert {name: list(column) for name, column in columns.values.items()} == values
    assert columns.place(3) == "row 4"


BAD_CSV = {
    "an endless line": ("a" * (2 << 20), "line 1 has 2,097,152 characters"),
    "an endless line of values": ("a," * (1 << 20), "line 1 has 2,097,152 characters"),
    "a million columns": (",".join(f"c{i:06}"[:7] for i in range(120_000)), "1,000 columns"),
    "columns over lines": ('"\n",' * 2000 + "a", "1,000 columns"),
    "NUL": ("a,accuracy,cost\n1,\0,2\n", "it is not text"),
    "no UTF-8": ("a,accuracy,cost\n\udcff,1,2\n", "utf-8"),
    "values of many rows": ("a,accuracy,cost\n" + "1,1,1\n" * 1_000_002, "at most 1,000,000 rows"),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_a_csv_file_without_measure(tmp_path, name):
    path = tmp_path / "table.csv"
    text, words = BAD_CSV[name]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(path, words)


def test_a_csv_file_that_is_too_large_or_no_file(tmp_path):
    path = tmp_path / "table.csv"
    with path.open("wb") as file:
        file.truncate(MAX_CSV_BYTES + 1)  # a sparse file, which takes no disk space
    refused(path, "at most 67,108,864 bytes")
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="named pipe"):
        read_table(pipe)


def archive_of(members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_of_accel_nasbench_is_bounded(tmp_path):
    path = tmp_path / "anb_dataset_jsons.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(160):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="at most 134,217,728 bytes unpacked"):
        accel_nasbench(path)
    link, nested = tarfile.TarInfo("a.json"), tarfile.TarInfo("b.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path.write_bytes(gzip.compress(archive_of([(link, b"")])))
    with pytest.raises(ValueError, match=r"must contain a \.json file for each network, but it has none"):
        accel_nasbench(path)
    path.write_bytes(gzip.compress(archive_of([(nested, b"[" * 100_000)])))
    with pytest.raises(ValueError, match=r"b\.json: lists and objects must be nested at most 64 deep"):
        accel_nasbench(path)
    path.write_bytes(b"\x1f\x8b" + bytes(100))
    with pytest.raises(ValueError, match="cannot be read as anb_dataset_jsons"):
        accel_nasbench(path)
