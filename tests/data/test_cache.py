"""The cache: two concurrent builders, builders killed at any moment, damage, and an unwritable folder."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mnas.data.load import load_dataset
from tests.data.test_load import make_folder

BUILD = """
import sys
from pathlib import Path
from mnas.data.load import load_dataset
print("ready", flush=True)
d = load_dataset(sys.argv[1], input_size=64, seed=0, cache_dir=Path(sys.argv[2]))
print(d.fingerprint, int(d.train.images.sum(dtype="int64")), len(d.train), len(d.val))
"""


def start(data: Path, cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(data), str(cache)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def entries(cache: Path) -> list[Path]:
    """Return the other files: locks, and cached digests of files."""
    return [path for path in cache.iterdir() if path.is_dir() and path.name != "digests"]


def test_two_processes_building_at_once_see_one_entry(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 100}, size=64)
    processes = [start(root, tmp_path / "cache") for _ in range(3)]
    results = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(results) == 1
    assert len(entries(tmp_path / "cache")) == 1


def test_a_builder_killed_at_any_moment_leaves_nothing_wrong(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 120}, size=256)
    expected = start(root, tmp_path / "whole").communicate(timeout=120)[0]
    random = np.random.default_rng(0)
    for _ in range(6):
        process = start(root, tmp_path / "cache")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(random.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    final = start(root, tmp_path / "cache")
    assert final.communicate(timeout=120)[0] == expected
    names = [p.name for p in (tmp_path / "cache").iterdir() if not p.name.startswith(("digests", "duplicates-"))]
    assert len(names) == 2, names  # the entry and its lock


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 4})
    load_dataset(str(root), input_size=8, seed=0, cache_dir=tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    entry.rename(f"{entry}.tmp")
    (Path(f"{entry}.tmp") / "images.u8").write_bytes(b"half")
    dataset = load_dataset(str(root), input_size=8, seed=0, cache_dir=tmp_path / "cache")
    assert len(dataset.train) == 6
    assert not Path(f"{entry}.tmp").exists()


def test_a_cache_that_cannot_be_written_has_its_line(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 4})
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the cache folder .*XDG_CACHE_HOME"):
        load_dataset(str(root), input_size=8, seed=0, cache_dir=tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_has_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size replaces the full disk: a write during the building fails in the same way."""
    root = make_folder(tmp_path / "pets", {"": 50}, size=64)
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + BUILD
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(root), str(tmp_path / "cache")], capture_output=True, text=True, timeout=120
    )
    assert "ValueError: cannot write to the cache folder" in found.stderr
    assert not entries(tmp_path / "cache")


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnas.folders import user_cache_dir

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "mnas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/user")
    if sys.platform == "linux":
        assert user_cache_dir() == Path("/home/user/.cache/mnas")


def test_a_source_that_cannot_be_read_is_no_fault_of_the_cache(tmp_path: Path) -> None:
    """Without file descriptors the folder cannot be listed; unlike permissions, this also affects root."""
    pytest.importorskip("resource")
    root = make_folder(tmp_path / "pets", {"": 4})
    script = (
        "import os, resource, sys\nfrom pathlib import Path\nfrom mnas.data.load import load_dataset\n"
        "limit = len(os.listdir('/dev/fd')) - 1\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "try:\n    load_dataset(sys.argv[1], input_size=8, seed=0, cache_dir=Path(sys.argv[2]))\n"
        "except ValueError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "cache")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert found == (f"cannot read {str(root)!r} (Too many open files); check its permissions and the disk\n")
