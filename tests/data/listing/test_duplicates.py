"""Equal images in several parts or classes: counted and named, from pixels or files, and cached."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.data.augmentation import Augmentation
from mnas.data.files import FolderBatches
from mnas.data.image import Item
from mnas.data.listing import duplicates as module
from mnas.data.listing.duplicates import Duplicates, cached_duplicates, duplicates, names_of, pixel_keys
from mnas.data.load import load_dataset, open_source


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def make(root: Path) -> Path:
    """Make 2 x 4 images in train, 2 x 2 in val and 2 x 1 in test, all different."""
    seed = 0
    for part, count in (("train", 4), ("val", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                noise(seed).save(root / part / name / f"{index}.png")
                seed += 1
    return root


def notes(root: Path, tmp_path: Path, size: int = 16) -> tuple[str, ...]:
    return load_dataset(str(root), input_size=size, seed=0, cache_dir=tmp_path / "cache").listing.notes


def opened(root: Path, tmp_path: Path) -> tuple[str, ...]:
    return FolderBatches(
        open_source(str(root), root, False), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), workers=0,
        cache_dir=tmp_path / "cache",
    ).listing.notes  # fmt: skip


def test_different_images_are_none(tmp_path: Path) -> None:
    root = make(tmp_path / "pets")
    assert notes(root, tmp_path) == opened(root, tmp_path) == ()


@pytest.mark.parametrize("find", [notes, opened])
def test_the_same_image_in_train_and_val_and_in_two_classes(tmp_path: Path, find: object) -> None:
    root = make(tmp_path / "pets")
    shutil.copy(root / "train/cat/1.png", root / "val/cat/again.png")
    shutil.copy(root / "train/cat/1.png", root / "val/cat/and again.png")
    shutil.copy(root / "train/dog/2.png", root / "train/cat/9.png")
    expected = (
        "warning: 2 of the 6 val images are also in train (val/cat/again.png = train/cat/1.png, val/cat/and "
        "again.png = train/cat/1.png), so the val accuracy is too high",
        "warning: 2 images are in more than one class (train/cat/9.png = train/dog/2.png), so no model can "
        "classify all of them correctly",
    )
    assert find(root, tmp_path) == expected  # type: ignore[operator]
    assert find(root, tmp_path) == expected  # type: ignore[operator]  # from the cache


def test_pixels_are_compared_not_files(tmp_path: Path) -> None:
    root = make(tmp_path / "pets")
    Image.open(root / "train/cat/1.png").save(root / "test/cat/other.bmp")
    (found,) = notes(root, tmp_path)
    assert found.startswith("warning: 1 of the 3 test images are also in train (test/cat/other.bmp = train/cat/1.png)")
    assert opened(root, tmp_path) == ()


def test_a_double_across_our_own_split_is_said(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(10):
            noise(label).save(root / name / f"{index}.png")
    (found,) = notes(root, tmp_path)
    assert found.startswith("warning: 4 of the 4 val images are also in train (cat/")


def test_images_of_one_part_and_class_may_be_equal(tmp_path: Path) -> None:
    root = make(tmp_path / "pets")
    shutil.copy(root / "train/cat/1.png", root / "train/cat/9.png")
    shutil.copy(root / "val/cat/1.png", root / "test/cat/9.png")
    assert notes(root, tmp_path) == ()


def test_names_are_right_where_images_are_unreadable(tmp_path: Path) -> None:
    items = [Item(name=name, label=0, content=np.zeros((1, 1), np.uint8)) for name in ("a", "b: c", "d")]
    assert names_of(items, ["b: c: cannot be read: at all"]) == ["a", "d"]


def test_only_equal_pixels_have_equal_keys() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    pixels[1, 0, 0, 0] = 1  # equal only in the middle line
    pixels[2, 4] = 7
    keys = pixel_keys(pixels)
    assert set(keys) == {0, 1, 3}
    assert keys[0] == keys[3] != keys[1]


def test_damaged_memory_is_made_again(tmp_path: Path) -> None:
    root = make(tmp_path / "pets")
    shutil.copy(root / "train/cat/1.png", root / "val/cat/again.png")
    (found,) = notes(root, tmp_path)
    (path,) = (tmp_path / "cache").glob("duplicates-*.json")
    good = path.read_text()
    for damaged in ("", "[]", '{"format": 1}', '{"format": 2}', good.replace('"in_train"', '"x"'), good[:20]):
        path.write_text(damaged)
        assert notes(root, tmp_path) == (found,)
        assert path.read_text() == good


def test_too_much_to_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "pets")
    shutil.copy(root / "train/cat/1.png", root / "val/cat/again.png")
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    assert opened(root, tmp_path) == (
        "the check for duplicate images was skipped, because there are too many files to compare",
    )


def test_counts_over_all_parts() -> None:
    found = duplicates({0: "a", 1: "a", 3: "a", 2: "b", 5: "b"}, [0, 0, 1, 0, 1, 1], {"train": 3, "val": 2, "test": 1})
    assert found.in_train == {"val": 1, "test": 1}
    assert found.examples == {"val": ((3, 0),), "test": ((5, 2),)}
    assert (found.in_two_classes, found.of_two_classes) == (0, ())
    two = duplicates({0: "a", 1: "a", 2: "a"}, [0, 1, 1], {"train": 3})
    assert (two.in_train, two.in_two_classes, two.of_two_classes) == ({}, 3, ((0, 1),))


def test_images_without_files_are_not_too_many(tmp_path: Path) -> None:
    assert opened(Path("digits"), tmp_path) == (
        "the check for duplicate images was skipped, because they are not files of their own",
    )


def test_what_a_writer_that_was_killed_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".duplicates-f00d.json.abc.tmp"
    stale.write_text("half")
    other = tmp_path / ".duplicates-beef.json.abc.tmp"
    other.write_text("of another data set, perhaps being written")
    nothing = Duplicates(in_train={}, examples={}, in_two_classes=0, of_two_classes=())
    assert cached_duplicates(tmp_path, "f00d", lambda: nothing) == nothing
    assert not stale.exists()
    assert other.exists()
