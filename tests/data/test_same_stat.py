"""Two versions of a folder with equal names, sizes and times: each one gives its own images.

Reproducible archives, `cp -p`, `rsync -t` and container layers leave such folders. Classes are exchanged between the
versions, so that a model of the first one is always wrong on the second.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block
from mnas.cli.main import run
from mnas.data.augmentation import Augmentation
from mnas.data.content import digests, memory
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.files import FolderBatches
from mnas.data.load import load_dataset, open_source
from tests.data.test_cache import entries

Replace = Callable[[Path, Path], object]


@pytest.fixture(autouse=True)
def cached_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache digests immediately, as for older files, on any file system."""
    monkeypatch.setattr(digests, "SETTLED_NS", -1)
    monkeypatch.setattr(memory, "stat_tells_change", lambda path: True)


def make_version(root: Path, *, swapped: bool, images: int = 40) -> Path:
    """Write dark and bright noise as BMP files, all of one size, with time 0."""
    random = np.random.default_rng(0)
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for index in range(images):
            pixels = random.random((12, 12, 3)) * 50 + (200 if label ^ swapped else 40)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.bmp")
            os.utime(root / name / f"{index}.bmp", (0, 0))
    return root


def load(folder: Path, tmp_path: Path, **options: int) -> Dataset:
    return load_dataset(str(folder), input_size=12, seed=0, cache_dir=tmp_path / "cache", **options)  # type: ignore[arg-type]


def brightness(part: ImageArrays, label: int) -> float:
    return float(part.images[part.labels == label].mean())


def accuracy(model: Dataset, part: ImageArrays) -> float:
    """Return the class of the nearest mean brightness, learnt from the training images of `model`."""
    means = np.array([brightness(model.train, label) for label in (0, 1)])
    predicted = np.abs(part.images.mean((1, 2, 3))[:, None] - means).argmin(1)
    return float((predicted == part.labels).mean())


def stats(root: Path) -> list[tuple[str, int, int]]:
    files = sorted(path for path in root.rglob("*.bmp"))
    return [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


@pytest.mark.parametrize("limit", [0, 20])
def test_two_folders_that_no_stat_tells_apart(tmp_path: Path, limit: int) -> None:
    first = make_version(tmp_path / "v1" / "photos", swapped=False)
    second = make_version(tmp_path / "v2" / "photos", swapped=True)
    assert stats(first) == stats(second)
    one, two = (load(folder, tmp_path, max_images_per_class=limit) for folder in (first, second))
    assert brightness(one.train, 0) == pytest.approx(65, abs=2)
    assert brightness(two.train, 0) == pytest.approx(225, abs=2)
    assert (accuracy(one, one.val), accuracy(one, two.val), accuracy(two, two.val)) == (1.0, 0.0, 1.0)
    assert one.content != two.content
    assert one.fingerprint != two.fingerprint


def in_place(source: Path, target: Path) -> None:
    """Overwrite the files in place, like `rsync --inplace -t`."""
    for path in source.rglob("*.bmp"):
        copy = target / path.relative_to(source)
        with copy.open("r+b") as file:
            file.write(path.read_bytes())
        os.utime(copy, (0, 0))


def renamed_over(source: Path, target: Path) -> None:
    """Create new inodes under the old names, like `rsync -t`."""
    for path in source.rglob("*.bmp"):
        copy = target / path.relative_to(source)
        shutil.copy2(path, copy.with_suffix(".new"))
        os.replace(copy.with_suffix(".new"), copy)


def copied(source: Path, target: Path) -> None:
    """Copy the folder, like `cp -rp`."""
    shutil.copytree(source, target, dirs_exist_ok=True)


def exchanged(source: Path, target: Path) -> None:
    """Move the whole folder, with its files and inodes."""
    target.rename(target.with_name("old"))
    source.rename(target)


def relinked(source: Path, target: Path) -> None:
    """Replace the folder by a link to the other version."""
    target.rename(target.with_name("old"))
    target.symlink_to(source)


@pytest.mark.parametrize("replace", [in_place, renamed_over, copied, exchanged, relinked])
def test_a_folder_that_becomes_another_version_at_the_same_path(tmp_path: Path, replace: Replace) -> None:
    folder = make_version(tmp_path / "photos", swapped=False)
    other = make_version(tmp_path / "v2", swapped=True)
    one = load(folder, tmp_path)
    known = accuracy(one, one.val)
    assert len(list((tmp_path / "cache" / "digests").iterdir())) == 1
    before = stats(folder)
    time.sleep(0.02)  # longer than a tick of any kernel's clock
    replace(other, folder)
    assert stats(folder) == before
    two = load(folder, tmp_path)
    assert (known, accuracy(one, two.val), accuracy(two, two.val)) == (1.0, 0.0, 1.0)
    again = load(folder, tmp_path)
    assert again.fingerprint == two.fingerprint


def test_files_that_only_other_times_tell_apart_share_an_entry(tmp_path: Path) -> None:
    folder = make_version(tmp_path / "photos", swapped=False)
    one = load(folder, tmp_path)
    for path in folder.rglob("*.bmp"):
        os.utime(path)
    two = load(folder, tmp_path)
    assert (two.content, two.key, two.fingerprint) == (one.content, one.key, one.fingerprint)
    assert len(entries(tmp_path / "cache")) == 1


def test_the_moments_of_folders_that_are_never_decoded_as_a_whole(tmp_path: Path) -> None:
    """Identified by stat the versions look equal, but the cached moments of their pixels must differ."""
    dark, bright = tmp_path / "v1" / "photos", tmp_path / "v2" / "photos"
    for folder in (dark, bright):
        make_version(folder, swapped=False)
    for path in (bright / "a").iterdir():
        shutil.copy2(bright / "b" / path.name, path)
    one, two = (
        FolderBatches(
            open_source(str(folder), tmp_path, False), input_size=12, seed=0, crop=1.0, augmentation=Augmentation(),
            workers=0, cache_dir=tmp_path / "cache",
        )
        for folder in (dark, bright)
    )  # fmt: skip
    assert one.content == two.content
    assert one.content.startswith("stat:")
    assert one.mean[0] * 255 == pytest.approx((65 + 225) / 2, abs=2)
    assert two.mean[0] * 255 == pytest.approx(225, abs=2)


@pytest.mark.slow
def test_the_score_of_a_trained_model_is_right_on_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    make_version(tmp_path / "v1" / "photos", swapped=False)
    make_version(tmp_path / "v2" / "photos", swapped=True)
    blocks = (Block(op="sepconv", kernel=3, stride=2, filters=8, skip="none"),)
    arch = Arch(blocks=blocks, stem_filters=8, stem_stride=1, head_filters=32)
    (tmp_path / "tiny.json").write_text(arch.to_json())

    def mnas(*arguments: str) -> str:
        capsys.readouterr()
        assert run(list(arguments)) == 0
        return capsys.readouterr().out

    quick = ("--input-size", "12", "--epochs", "30", "--batch-size", "16", "--fewest-steps", "0", "--threads", "1")
    mnas("train", "tiny.json", "--data", "v1/photos", *quick)
    scores = [
        json.loads(mnas("eval", "trained/tiny-12px", "--data", f"{version}/photos", "--part", "all", "--json"))["top1"]
        for version in ("v1", "v2", "v1")
    ]
    assert scores == [1.0, 0.0, 1.0]
