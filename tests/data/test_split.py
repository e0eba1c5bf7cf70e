"""ImageNet's validation part: 50,000 training images, the same for everyone, written to a list."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.data.image import Item
from mnas.data.load import keep_list, load_dataset, split_parts
from mnas.data.named import IMAGENET_VAL_IMAGES, imagenet_folder
from mnas.data.split import hold_out_exactly
from tests.data.test_load import levels


def fake_imagenet(root: Path, images: tuple[int, ...] = (30, 20, 10)) -> Path:
    """Make class folders of tiny JPEGs as in the archives, each image with its own gray level."""
    level = 0
    for part, counts in (("train", images), ("val", (2,) * len(images))):
        for label, count in enumerate(counts):
            name = f"n{label:08d}"
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((9, 8), level, np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{name}_{index}.JPEG")
                level += 1
    return root


@pytest.mark.slow
def test_of_the_listing_of_imagenet_exactly_50000_are_held_out() -> None:
    """Return 1,281,167 names in 1,000 classes of 732 to 1,300 images, as published, without files."""
    sizes = [1300] * 895 + [732] + [1125] * 39 + [1124] * 65
    assert (len(sizes), sum(sizes)) == (1000, 1_281_167)
    content = Path()
    items = [
        Item(name=f"train/n{label:08d}/n{label:08d}_{index}.JPEG", label=label, content=content)
        for label, size in enumerate(sizes)
        for index in range(size)
    ]
    kept, held = hold_out_exactly(items, ["class"] * 1000, IMAGENET_VAL_IMAGES)
    assert (len(held), len(kept)) == (50_000, 1_231_167)
    assert len({item.name for item in kept} | {item.name for item in held}) == 1_281_167
    by_class = Counter(item.label for item in held)
    assert max(abs(by_class[label] - size * 50_000 / 1_281_167) for label, size in enumerate(sizes)) < 1
    # the first class's images are those with the smallest hashes, which can be computed without mnas
    names = [item.name for item in items[:1300]]
    smallest = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[: by_class[0]]
    assert {item.name for item in held if item.label == 0} == set(smallest)


def test_the_choice_depends_on_names_only(tmp_path: Path) -> None:
    names = [f"{label}/{index}" for label in range(3) for index in range(20)]
    items = [Item(name=name, label=int(name[0]), content=tmp_path) for name in names]
    _, held = hold_out_exactly(items, "abc", 10)
    _, again = hold_out_exactly(items[::-1], "abc", 10)
    assert sorted(item.name for item in held) == sorted(item.name for item in again) == [
        "0/10", "0/14", "0/16", "0/4", "1/11", "1/18", "1/3", "2/18", "2/5", "2/9",
    ]  # fmt: skip


def test_every_seed_has_the_same_validation_images_and_the_list_of_them(tmp_path: Path) -> None:
    root = fake_imagenet(tmp_path / "ilsvrc")
    cache = tmp_path / "cache"
    first, second = (
        load_dataset("imagenet", input_size=8, seed=seed, cache_dir=cache, data_dir=root) for seed in (0, 7)
    )
    assert levels(first.val) == levels(second.val)
    assert first.fingerprint == second.fingerprint
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1  # decoded once for both
    assert np.bincount(first.val.labels).tolist() == [6, 4, 2]  # a fifth, as there are fewer than 250,000
    assert first.test is not None
    assert (len(first.train), len(first.test)) == (48, 6)
    (path,) = cache.glob("imagenet-val-*.txt")
    head, *names = path.read_text().splitlines()
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    assert head == f"# 12 validation images held out of imagenet; SHA-256 of the lines below: {digest}"
    assert path.name == f"imagenet-val-{digest[:16]}.txt"
    assert names == sorted(names)
    assert all((root / name).is_file() for name in names)
    found = sorted(int(np.asarray(Image.open(root / name))[0, 0]) for name in names)
    assert found == levels(first.val)


def test_the_number_can_be_chosen(tmp_path: Path) -> None:
    source = imagenet_folder(fake_imagenet(tmp_path / "ilsvrc"), val_images=7)
    _, parts = split_parts(source, 0, 0, tmp_path / "cache")
    assert {part: len(items) for part, items in parts.items()} == {"train": 53, "val": 7, "test": 6}
    _, fewer = split_parts(source, 0, 5, tmp_path / "cache")
    assert {item.name for item in fewer["val"]} == {item.name for item in parts["val"]}
    assert len(fewer["train"]) == 15


def test_a_kept_list_is_not_written_twice_and_needs_no_cache(tmp_path: Path) -> None:
    items = [Item(name=name, label=0, content=tmp_path) for name in ("b", "a")]
    path = keep_list(tmp_path / "new", "imagenet", items)
    before = path.stat().st_mtime_ns
    assert keep_list(tmp_path / "new", "imagenet", items[::-1]) == path
    assert path.stat().st_mtime_ns == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        keep_list(tmp_path / "file", "imagenet", items)
    split_parts(
        imagenet_folder(fake_imagenet(tmp_path / "ilsvrc")), 0, 0, tmp_path / "file"
    )  # the split does not change
