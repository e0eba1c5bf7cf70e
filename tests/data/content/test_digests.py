"""Only the names and bytes of its files identify a data set."""

import os
import re
import shutil
from pathlib import Path

import pytest

from mnas.data.augmentation import Augmentation
from mnas.data.batches import by_stat_line
from mnas.data.content.digests import content_of
from mnas.data.files import FolderBatches
from mnas.data.load import load_dataset, open_source
from mnas.data.shards import ShardBatches, write_shards
from tests.data.test_load import make_folder


def content(data: Path | str, cache: Path, **options: object) -> str:
    given: dict[str, object] = {"input_size": 8, "seed": 0, "cache_dir": cache, **options}
    return load_dataset(str(data), **given).content  # type: ignore[arg-type]


def test_content_depends_on_nothing_but_names_and_bytes(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"train": 6, "val": 2})
    known = content(root, tmp_path)
    assert re.fullmatch("[0-9a-f]{64}", known)
    assert known == content(root, tmp_path, seed=5, input_size=16, crop=0.5, max_images_per_class=3)
    shutil.copytree(root, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(path, (5, 5))
    assert content(tmp_path / "elsewhere", tmp_path) == known


@pytest.mark.parametrize("change", ["bytes", "name", "class", "part", "label"])
def test_content_changes_with_any_file(tmp_path: Path, change: str) -> None:
    root = make_folder(tmp_path / "pets", {"train": 6, "val": 2})
    known = content(root, tmp_path)
    first = root / "train" / "cat" / "0.png"
    if change == "bytes":
        shutil.copy(root / "train" / "dog" / "0.png", first)
    elif change == "name":
        first.rename(first.with_name("6.png"))
    elif change == "class":
        (root / "train" / "cat").rename(root / "train" / "bat")
        (root / "val" / "cat").rename(root / "val" / "bat")
    elif change == "part":
        first.rename(root / "val" / "cat" / "6.png")
    else:
        first.rename(root / "train" / "dog" / "6.png")
    assert content(root, tmp_path) != known


def test_names_cannot_run_into_each_other() -> None:
    assert content_of(["a", "bc"], {}) != content_of(["ab", "c"], {})
    digest = bytes(32)
    assert content_of([], {"train": [("ab", digest)]}) != content_of([], {"train": [("a", digest)], "b": []})
    assert content_of([], {"t": [("b", digest), ("a", digest)]}) == content_of(
        [], {"t": [("a", digest), ("b", digest)]}
    )


def test_digits_have_content_too(tmp_path: Path) -> None:
    assert re.fullmatch("[0-9a-f]{64}", content("digits", tmp_path))
    assert open_source("digits", tmp_path, False).content(tmp_path) == content("digits", tmp_path)


def test_what_is_not_decoded_is_identified_by_stat_and_says_so(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"train": 6, "val": 2})

    def of_files() -> FolderBatches:
        return FolderBatches(
            open_source(str(root), tmp_path, False), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(),
            workers=0, cache_dir=tmp_path,
        )  # fmt: skip

    first = of_files()
    assert re.fullmatch("stat:[0-9a-f]{64}", first.content)
    assert (
        by_stat_line(first) == "pets is identified by file names, sizes and modification times instead of its content"
    )
    os.utime(root / "train" / "cat" / "0.png", (5, 5))
    second = of_files()
    assert second.content != first.content
    assert second.fingerprint == first.fingerprint  # trainings from before can still be resumed


def test_shards_are_identified_by_stat(tmp_path: Path) -> None:
    write_shards(make_folder(tmp_path / "pets", {"train": 6, "val": 2}), tmp_path / "shards")

    def of_shards() -> ShardBatches:
        return ShardBatches(
            str(tmp_path / "shards"), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), workers=0,
            cache_dir=tmp_path,
        )  # fmt: skip

    first = of_shards()
    assert re.fullmatch("stat:[0-9a-f]{64}", first.content)
    os.utime(tmp_path / "shards" / "train-000000.tar", (5, 5))
    second = of_shards()
    assert second.content != first.content
    assert second.fingerprint == first.fingerprint
