"""Files that change while they are read: every image returned existed, under the right key."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnas.data import load as load_module
from mnas.data.augmentation import Augmentation
from mnas.data.content import digests
from mnas.data.content.digests import UNREADABLE, ContentChangedError, digest_file, verified
from mnas.data.dataset import Dataset
from mnas.data.files import FolderBatches, _Images
from mnas.data.load import load_dataset, open_source
from tests.data.test_cache import entries
from tests.data.test_load import levels, make_folder


def load(tmp_path: Path, cache: str = "cache") -> Dataset:
    return load_dataset(str(tmp_path / "pets"), input_size=8, seed=0, cache_dir=tmp_path / cache)


def repaint(path: Path, level: int) -> None:
    """Write another gray level to the file and keep its name, size and time."""
    before = path.stat()
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def between(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], None]) -> list[int]:
    """Call `change` with the number of the attempt, after files are digested and before they are decoded."""
    turns: list[int] = []
    real = load_module.split_parts

    def split(*arguments: Any) -> Any:
        change(len(turns))
        turns.append(len(turns))
        return real(*arguments)

    monkeypatch.setattr(load_module, "split_parts", split)
    return turns


@pytest.mark.parametrize("what", ["changed", "vanished", "became a pipe"])
def test_a_file_that_changes_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    root = make_folder(tmp_path / "pets", {"": 10})
    path = root / "cat" / "3.png"

    def change(turn: int) -> None:
        if turn == 0 and what == "changed":
            repaint(path, 200)
        elif turn == 0:
            path.unlink()
            if what == "became a pipe":
                os.mkfifo(path)

    turns = between(monkeypatch, change)
    dataset = load(tmp_path)
    assert turns == [0, 1]
    expected = sorted([*range(20), 200])
    expected.remove(3)
    if what != "changed":
        expected.remove(200)
    assert sorted(levels(dataset.train) + levels(dataset.val)) == expected
    assert dataset.skipped == ()
    assert len(entries(tmp_path / "cache")) == 1
    monkeypatch.undo()
    assert load(tmp_path, "another").content == dataset.content


def test_a_file_that_never_stays_as_it_is_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "pets", {"": 10})
    turns = between(monkeypatch, lambda turn: repaint(root / "cat" / "3.png", 100 + turn))
    with pytest.raises(ValueError, match=r"files must not change while mnas reads them, but .*3\.png' changed") as e:
        load(tmp_path)
    assert "\n" not in str(e.value)
    assert turns == [0, 1, 2]
    assert entries(tmp_path / "cache") == []


def test_a_set_that_torchvision_reads_is_digested_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("digits", tmp_path, False)
    assert source.in_memory
    contents = iter(["0" * 64, *[source.content(None)] * 3])
    monkeypatch.setattr(
        "mnas.data.source.Source.read_content", lambda self, cache_dir: (next(contents), {})
    )  # the file has another content at first
    dataset = load_dataset("digits", input_size=8, seed=0, cache_dir=tmp_path / "cache")
    monkeypatch.undo()
    assert dataset.content == source.content(None)
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize("most_in_memory", [digests.MOST_IN_MEMORY, 10])
def test_verified_bytes_are_those_of_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_in_memory: int
) -> None:
    monkeypatch.setattr(digests, "MOST_IN_MEMORY", most_in_memory)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    known = digest_file(str(path)).sha256
    with verified(str(path), known) as file:
        assert file.read() == b"x" * 100
    path.write_bytes(b"y" * 100)
    with pytest.raises(ContentChangedError, match="file"), verified(str(path), known):
        pass
    with pytest.raises(ContentChangedError), verified(str(path), UNREADABLE):
        pass
    path.unlink()
    with pytest.raises(ContentChangedError), verified(str(path), known):
        pass
    with pytest.raises(FileNotFoundError), verified(str(path), UNREADABLE):
        pass


def test_a_large_file_that_changes_while_it_is_decoded_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_IN_MEMORY", 10)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ContentChangedError), verified(str(path), digest_file(str(path)).sha256) as file:  # noqa: PT012
        assert file.read(50) == b"x" * 50
        with path.open("r+b") as writer:
            writer.write(b"y" * 100)
        raise ValueError("a decoder's")


def test_a_file_too_large_to_be_an_image_is_skipped_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "pets", {"": 60})
    monkeypatch.setattr(digests, "MOST_BYTES", 10_000)
    with (root / "cat" / "3.png").open("r+b") as file:
        file.truncate(10_001)
    (skipped,) = load(tmp_path).skipped
    assert skipped.startswith("train/cat/3.png: ")
    assert "File larger than" in skipped


def test_moments_are_of_the_sample_that_was_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "pets", {"train": 10, "val": 2})
    real = _Images.sample
    turns: list[int] = []

    def sample(self: _Images) -> Any:
        found = list(real(self))
        turns.append(len(turns))
        return found

    monkeypatch.setattr(_Images, "sample", sample)
    once = iter([True])
    seen = digests.verified

    def then_changed(path: str, sha256: bytes) -> Any:
        if next(once, False):
            repaint(root / "train" / "cat" / "3.png", 200)
        return seen(path, sha256)

    monkeypatch.setattr("mnas.data.files.verified", then_changed)
    batches = FolderBatches(
        open_source(str(root), tmp_path, False), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(),
        workers=0, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    assert turns == [0, 1]
    assert batches.mean[0] == pytest.approx((sum(range(20)) - 3 + 200) / 20 / 255, abs=1e-6)
    assert len(list((tmp_path / "cache").glob("moments-*.json"))) == 1
