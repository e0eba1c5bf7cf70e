"""Whole or absent, and an error that names the file."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mnas.atomic import write_atomic

FULL = """
import resource, sys
from pathlib import Path
from mnas.atomic import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"x" * 2000)
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    """A limit on file size is what a full disk is to a program."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    found = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout == f"{errno.EFBIG} {path}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to (/proc)")
def test_a_folder_that_cannot_be_written_to_names_the_file() -> None:
    with pytest.raises(OSError, match="/proc/self/file'"):
        write_atomic(Path("/proc/self/file"), "new")
