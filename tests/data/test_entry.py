"""Damaged entries of the cache are detected, reported and decoded again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnas.data import entry as entry_module
from mnas.data.cache import entry_key
from mnas.data.dataset import Dataset
from mnas.data.load import load_dataset
from tests.data.test_cache import entries
from tests.data.test_load import make_folder

Change = Callable[[Path], object]


def load(tmp_path: Path, **options: Any) -> Dataset:
    return load_dataset(str(tmp_path / "pets"), input_size=8, seed=0, cache_dir=tmp_path / "cache", **options)


def built(tmp_path: Path) -> tuple[Path, np.ndarray[Any, Any]]:
    """Return the entry's folder, and a copy of the training images."""
    make_folder(tmp_path / "pets", {"": 10})
    images = load(tmp_path).train.images.copy()
    (folder,) = entries(tmp_path / "cache")
    return folder, images


def index(**fields: object) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / "index.json").read_text())
        assert set(fields) <= set(values) | {"more"}
        (folder / "index.json").write_text(json.dumps(values | fields))

    return change


def without(name: str) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / "index.json").read_text())
        del values[name]
        (folder / "index.json").write_text(json.dumps(values))

    return change


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def inverted(folder: Path) -> None:
    pixels = np.memmap(folder / "images.u8", dtype=np.uint8, mode="r+")
    pixels[:] = 255 - pixels
    pixels.flush()


def one_bit(folder: Path) -> None:
    with (folder / "images.u8").open("r+b") as file:
        file.seek(777)
        value = file.read(1)[0]
        file.seek(777)
        file.write(bytes([value ^ 1]))


DAMAGE: dict[str, Change] = {
    "inverted pixels": inverted,
    "one bit of the pixels": one_bit,
    "pixels cut": lambda folder: os.truncate(folder / "images.u8", 100),
    "pixels longer": lambda folder: os.truncate(folder / "images.u8", 10**5),
    "no pixels": lambda folder: (folder / "images.u8").unlink(),
    "pixels are a folder": lambda folder: [(folder / "images.u8").unlink(), (folder / "images.u8").mkdir()],
    "labels of 99": index(labels=[99] * 20),
    "labels below 0": index(labels=[-1] * 20),
    "labels exchanged": index(labels=[1] * 8 + [0] * 8 + [1] * 2 + [0] * 2),
    "labels of other types": index(labels=[0.5] * 20),
    "labels true": index(labels=[True] * 20),
    "labels too few": index(labels=[0] * 19),
    "labels text": index(labels="0" * 20),
    "counts that do not add up": index(counts={"train": 16, "val": 5}),
    "counts below 0": index(counts={"train": 24, "val": -4}),
    "counts of another part": index(counts={"train": 16, "vol": 4}),
    "counts a list": index(counts=[16, 4]),
    "mean not a number": index(mean=[float("nan")] * 3),
    "mean too long": index(mean=[0.5] * 4),
    "mean moved": index(mean=[0.5] * 3),
    "deviation 0": index(std=[0.0, 0.1, 0.1]),
    "deviation infinite": index(std=[float("inf")] * 3),
    "deviation text": index(std=["0.1"] * 3),
    "one class twice": index(classes=["cat", "cat"]),
    "classes exchanged": index(classes=["dog", "cat"]),
    "no classes": index(classes=[]),
    "another size": index(size=16),
    "size below 0": index(size=-8),
    "another key": index(key="0" * 64),
    "fingerprint short": index(fingerprint="0"),
    "fingerprint of others": index(fingerprint="0" * 16),
    "skipped numbers": index(skipped=[1]),
    "a field more": index(more=1),
    "a field less": without("mean"),
    "index cut": text("index.json", "{"),
    "index a list": text("index.json", "[]"),
    "index nested": text("index.json", "[" * 100_000),
    "a pipe instead of the index": lambda folder: [(folder / "index.json").unlink(), os.mkfifo(folder / "index.json")],
    "a pipe instead of the pixels": lambda folder: [(folder / "images.u8").unlink(), os.mkfifo(folder / "images.u8")],
    "a pipe instead of the seal": lambda folder: [(folder / "seal.json").unlink(), os.mkfifo(folder / "seal.json")],
    "no index": lambda folder: (folder / "index.json").unlink(),
    "no seal": lambda folder: (folder / "seal.json").unlink(),
    "seal cut": text("seal.json", '{"pixels"'),
    "seal a list": text("seal.json", "[1]"),
    "seal empty": text("seal.json", "{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_decoded_again_and_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, images = built(tmp_path)
    before = load(tmp_path)
    facts = (before.fingerprint, before.classes, before.mean, before.std, before.val.labels.tolist())
    DAMAGE[damage](folder)
    assert caplog.messages == []
    after = load(tmp_path)
    assert (after.fingerprint, after.classes, after.mean, after.std, after.val.labels.tolist()) == facts
    assert np.array_equal(after.train.images, images)
    (message,) = caplog.messages
    assert f"The cached images in {folder} are damaged (" in message
    assert "\n" not in message
    caplog.clear()
    load(tmp_path, verify_cache=True)
    assert caplog.messages == []


def test_an_entry_that_was_copied_is_read_in_full_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, images = built(tmp_path)
    shutil.move(folder, tmp_path / "away")
    shutil.copytree(tmp_path / "away", folder)
    inode = (folder / "images.u8").stat().st_ino
    reads: list[int] = []
    real = entry_module._digest_of

    def counted(*arguments: Any) -> str:
        reads.append(1)
        return real(*arguments)

    monkeypatch.setattr(entry_module, "_digest_of", counted)
    for expected in (1, 1, 1):
        assert np.array_equal(load(tmp_path).train.images, images)
        assert len(reads) == expected
    load(tmp_path, verify_cache=True)
    assert len(reads) == 2
    assert (folder / "images.u8").stat().st_ino == inode  # nothing was decoded


def test_damage_that_no_stat_shows_is_found_by_the_option(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A seal with the stats of the changed file simulates a disk that returns other bytes."""
    folder, images = built(tmp_path)
    one_bit(folder)
    seal = json.loads((folder / "seal.json").read_text())
    seal["stats"]["images.u8"] = entry_module.stat_of((folder / "images.u8").stat())
    (folder / "seal.json").write_text(json.dumps(seal))
    assert not np.array_equal(load(tmp_path).train.images, images)
    assert np.array_equal(load(tmp_path, verify_cache=True).train.images, images)
    assert ["images.u8 was changed" in message for message in caplog.messages] == [True]


def test_an_entry_under_the_name_of_another_one_is_not_taken(tmp_path: Path) -> None:
    folder, images = built(tmp_path)
    load(tmp_path, crop=0.5)
    (other,) = set(entries(tmp_path / "cache")) - {folder}
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    assert np.array_equal(load(tmp_path).train.images, images)


def test_entries_of_earlier_versions_are_left_alone(tmp_path: Path) -> None:
    _, images = built(tmp_path)
    old = tmp_path / "cache" / "pets-8px-0123456789abcdef"
    old.mkdir()
    (old / "images.u8").write_bytes(b"x" * 3840)
    (old / "index.json").write_text('{"size": 8, "classes": ["cat", "dog"]}')
    assert np.array_equal(load(tmp_path).train.images, images)
    assert sorted(path.name for path in old.iterdir()) == ["images.u8", "index.json"]


def test_the_fingerprint_is_that_of_runs_begun_before(tmp_path: Path) -> None:
    """The expected value is that of the release before entries were keyed by content."""
    make_folder(tmp_path / "pets", {"": 20})
    assert load(tmp_path).fingerprint == "97ea5b4c5d0ce9f2"


def test_a_known_entry_is_opened_without_looking_at_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, images = built(tmp_path)
    first = load(tmp_path)

    def nobody_may(*_: object) -> None:
        raise AssertionError("a file was digested")

    monkeypatch.setattr("mnas.data.source.Source.read_content", nobody_may)
    shutil.copy(
        tmp_path / "pets" / "dog" / "0.png", tmp_path / "pets" / "cat"
    )  # a worker sees the same images as the parent
    again = load(tmp_path, cached=(first.content, first.key))
    assert np.array_equal(again.train.images, images)
    assert (again.fingerprint, again.content, again.key) == (first.fingerprint, first.content, first.key)
    monkeypatch.undo()
    shutil.rmtree(folder)
    assert load(tmp_path, cached=(first.content, first.key)).content != first.content


def test_a_folder_that_was_renamed_is_not_decoded_again(tmp_path: Path) -> None:
    folder, _ = built(tmp_path)
    (tmp_path / "pets").rename(tmp_path / "animals")
    moved = load_dataset(str(tmp_path / "animals"), input_size=8, seed=0, cache_dir=tmp_path / "cache")
    assert moved.name == "animals"
    assert entries(tmp_path / "cache") == [folder]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_only_be_read_serves(tmp_path: Path) -> None:
    folder, images = built(tmp_path)
    for path in (folder, tmp_path / "cache"):
        path.chmod(0o500)
    try:
        assert np.array_equal(load(tmp_path).train.images, images)
        with pytest.raises(ValueError, match="cannot write to the cache folder"):
            load(tmp_path, crop=0.5)
    finally:
        for path in (tmp_path / "cache", folder):
            path.chmod(0o700)


def test_the_key_has_all_that_decides_the_pixels() -> None:
    assert len(entry_key({"content": "a"}, 8)) == 64
    assert entry_key({"content": "a"}, 8) != entry_key({"content": "a"}, 16)
    assert entry_key({"content": "a"}, 8) != entry_key({"content": "b"}, 8)
