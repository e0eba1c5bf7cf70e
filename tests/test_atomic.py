"""Files are whole or absent, and errors name the file."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mnas.atomic import claimed, place, require_writable, write_atomic

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
    """For a program, a limit on file size is like a full disk."""
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


def test_a_new_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "first", new=True)
    with pytest.raises(FileExistsError, match="A file of that name already exists"):
        write_atomic(path, "second", new=True)
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_atomic(path, "third")
    assert path.read_text() == "third"


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        if target.exists():
            raise FileExistsError
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    place(tmp_path / "a", tmp_path / "c", new=True)
    with pytest.raises(FileExistsError):
        place(tmp_path / "b", tmp_path / "c", new=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"b": "b", "c": "a"}


def test_a_file_is_claimed_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    link = tmp_path / "link"
    link.symlink_to(path)
    with claimed([path], "--out"):
        with (
            pytest.raises(ValueError, match=f"^another process is writing the file '{path}' of --out; wait"),
            claimed([tmp_path / "other", link], "--out"),
        ):
            pass
        with claimed([tmp_path / "other"], "--out"):  # what was claimed before the refusal is free again
            pass
    with claimed([path], "--out"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["link"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "--run")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--run must be a folder, but got .*b', where '.*file' is a file"):
        require_writable(tmp_path / "file" / "b", "--run")
