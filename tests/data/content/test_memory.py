"""Cached digests: files that are read again, files that are not, and a damaged cache."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnas.data.content import digests, memory
from mnas.data.content.digests import UNREADABLE, Digest, digest_file
from mnas.data.content.memory import DigestMemory
from mnas.data.content.mounts import stat_tells_change


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record the names of the files that were read since the list was last cleared."""
    names: list[str] = []

    def counted(path: str) -> Digest:
        names.append(Path(path).name)
        return digest_file(path)

    monkeypatch.setattr(memory, "digest_file", counted)
    # make the tests' files older, as new files are not trusted for 2 s
    monkeypatch.setattr(digests, "SETTLED_NS", -1)
    monkeypatch.setattr(memory, "stat_tells_change", lambda path: True)
    return names


def make(folder: Path, count: int = 4) -> list[str]:
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    paths = [folder / "ab"[i % 2] / f"{i}.png" for i in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 100)
    return list(map(str, paths))


def sha256(paths: list[str]) -> list[bytes]:
    return [hashlib.sha256(Path(path).read_bytes()).digest() for path in paths]


def found(tmp_path: Path, paths: list[str]) -> list[bytes]:
    return DigestMemory(tmp_path / "digests").digests(paths)


def test_an_unchanged_folder_is_read_once(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets")
    assert found(tmp_path, paths) == sha256(paths)
    assert sorted(read) == ["0.png", "1.png", "2.png", "3.png"]
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert read == []


@pytest.mark.parametrize("change", ["in place", "replaced", "copied over", "same times", "link", "exchanged"])
def test_a_changed_file_is_read_again_whatever_its_name_size_and_time(
    tmp_path: Path, read: list[str], change: str
) -> None:
    paths = make(tmp_path / "pets")
    found(tmp_path, paths)
    read.clear()
    first, before = Path(paths[0]), os.stat(paths[0])
    other = tmp_path / "other.png"
    other.write_bytes(b"x" * 100)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    expected = ["0.png"]
    if change == "in place":
        with first.open("r+b") as file:
            file.write(b"x")
        os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "replaced":
        os.replace(other, first)
    elif change == "copied over":
        shutil.copy2(other, first)  # like cp -p
    elif change == "same times":
        first.unlink()
        shutil.copy2(other, first)
    elif change == "link":
        first.unlink()
        first.symlink_to(other)
    else:
        os.rename(first, other)
        os.rename(paths[2], first)
        os.rename(other, paths[2])
        expected.append("2.png")
    assert os.stat(first).st_mtime_ns == before.st_mtime_ns or change == "exchanged"
    assert found(tmp_path, paths) == sha256(paths)
    assert sorted(read) == expected
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert read == []


def test_the_target_of_a_link_counts(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets")
    (tmp_path / "target.png").write_bytes(b"one")
    Path(paths[0]).unlink()
    Path(paths[0]).symlink_to(tmp_path / "target.png")
    before = found(tmp_path, paths)
    (tmp_path / "target.png").write_bytes(b"two")
    after = found(tmp_path, paths)
    assert (before[0], after[0]) == (hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest())


def test_a_hard_link_that_is_written_through_is_read_again(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets")
    os.link(paths[0], tmp_path / "outside.png")
    found(tmp_path, paths)
    with (tmp_path / "outside.png").open("r+b") as file:
        file.write(b"x")
    assert found(tmp_path, paths) == sha256(paths)


@pytest.mark.parametrize("when", ["now", "in the future"])
def test_a_file_that_has_just_changed_is_not_trusted(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    paths = make(tmp_path / "pets")
    if when == "in the future":
        os.utime(paths[0], (2**33, 2**33))
        monkeypatch.setattr(digests, "SETTLED_NS", 0)
        time.sleep(0.05)
        expected = ["0.png"]
    else:
        monkeypatch.setattr(digests, "SETTLED_NS", 2_000_000_000)
        expected = ["0.png", "1.png", "2.png", "3.png"]
    for _ in range(2):
        found(tmp_path, paths)
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert sorted(read) == expected


def test_a_clock_that_was_set_back_makes_files_of_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = make(tmp_path / "pets", 1)
    monkeypatch.setattr(digests.time, "time_ns", lambda: os.stat(path).st_ctime_ns + digests.SETTLED_NS)
    assert digest_file(path).stamp is not None
    monkeypatch.setattr(digests.time, "time_ns", lambda: os.stat(path).st_ctime_ns + digests.SETTLED_NS - 1)
    assert digest_file(path).stamp is None
    monkeypatch.setattr(digests.time, "time_ns", lambda: os.stat(path).st_ctime_ns - 10**18)
    assert digest_file(path).stamp is None


def test_nothing_is_remembered_of_a_network_file_system(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make(tmp_path / "pets")
    found(tmp_path, paths)
    monkeypatch.setattr(memory, "stat_tells_change", lambda path: False)
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)  # nor are digests that were cached for a local one at the same place
    assert len(read) == 4
    read.clear()
    found(tmp_path, paths)
    assert len(read) == 4


def test_times_outside_of_64_bits_are_cached_too(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets")
    os.utime(paths[0], (-5, -5))
    found(tmp_path, paths)
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert read == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "folder", "pipe", "swapped"])
def test_a_damaged_memory_is_ignored_and_made_again(tmp_path: Path, read: list[str], damage: str) -> None:
    paths = make(tmp_path / "pets")
    found(tmp_path, paths)
    (kept,) = (tmp_path / "digests").iterdir()
    content = bytearray(kept.read_bytes())
    if damage == "flipped":
        content[-150] ^= 1
    elif damage == "swapped":  # two exchanged rows, each with the stamp of the other's file
        start = len(b"mnas digests 1\n") + 32 + 8
        content[start : start + 144] = content[start + 72 : start + 144] + content[start : start + 72]
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    elif damage == "pipe":
        kept.unlink()
        os.mkfifo(kept)
    else:
        kept.write_bytes({"cut": content[:100], "empty": b"", "foreign": b"{}"}.get(damage, bytes(content)))
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert len(read) == 4
    read.clear()
    assert found(tmp_path, paths) == sha256(paths)
    assert len(read) == (4 if damage == "folder" else 0)


def test_vanished_files_do_not_pile_up_and_other_files_stay(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets", 40)
    found(tmp_path, paths)
    (kept,) = (tmp_path / "digests").iterdir()
    whole = kept.stat().st_size
    found(tmp_path, paths[:10])  # some of them, as with a limit on images
    read.clear()
    found(tmp_path, paths)
    assert read == []
    for path in paths[4:]:
        os.unlink(path)
    Path(paths[0]).write_bytes(b"new")
    found(tmp_path, paths[:4])
    assert kept.stat().st_size < whole / 5


def test_the_folders_that_were_used_last_are_kept(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MOST_FOLDERS", 3)
    folders = [make(tmp_path / name) for name in "abcd"]
    for paths in folders[:3]:
        found(tmp_path, paths)
        time.sleep(0.02)
    found(tmp_path, folders[0])
    time.sleep(0.02)
    found(tmp_path, folders[3])
    assert len(list((tmp_path / "digests").iterdir())) == 3
    read.clear()
    found(tmp_path, folders[0])
    assert read == []
    found(tmp_path, folders[1])
    assert len(read) == 4


def test_a_memory_that_cannot_be_written_is_only_slower(tmp_path: Path, read: list[str]) -> None:
    paths = make(tmp_path / "pets")
    (tmp_path / "digests").write_text("a file")
    assert found(tmp_path, paths) == found(tmp_path, paths) == sha256(paths)
    assert len(read) == 8


def test_what_a_killed_writer_left_is_removed(tmp_path: Path, read: list[str]) -> None:
    old, new = (tmp_path / "digests" / f".{name}.tmp" for name in ("old", "new"))
    (tmp_path / "digests").mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    found(tmp_path, make(tmp_path / "pets"))
    assert not old.exists()
    assert new.exists()  # its writer may still run


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_writers_at_once_that_are_killed_leave_right_digests(tmp_path: Path) -> None:
    paths = make(tmp_path / "pets", 200)
    for path in paths:
        os.utime(path, (0, 0))
    script = (
        "import sys\nfrom pathlib import Path\nfrom mnas.data.content import digests, memory\n"
        "digests.SETTLED_NS = -1\nmemory.stat_tells_change = lambda path: True\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for path in sys.argv[2:12]:\n        Path(path).touch()\n"
        "    memory.DigestMemory(Path(sys.argv[1])).digests(sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "digests"), *paths]
    for _ in range(3):
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.1)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        assert found(tmp_path, paths) == sha256(paths)


def test_what_is_no_file_or_too_large_counts_as_unreadable_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    names = ["pipe.png", "folder.png", "sparse.png", "absent.png"]
    assert found(tmp_path, [str(tmp_path / name) for name in names]) == [UNREADABLE] * 4


def test_this_machine_tells_where_its_files_lie(tmp_path: Path) -> None:
    """Only check that there is an answer, as a test may run on any file system."""
    (tmp_path / "file").write_text("")
    assert stat_tells_change(str(tmp_path / "file")) in (True, False)
    assert stat_tells_change(str(tmp_path / "absent")) is False
