"""One unreadable image among good ones: only it is left out, by its name, with every way of reading."""

from pathlib import Path

import numpy as np
import pytest
from image_files import exif, tiff
from PIL import Image, TiffImagePlugin

from mnas.data.augmentation import Augmentation
from mnas.data.files import FolderBatches
from mnas.data.load import load_dataset, open_source
from mnas.data.native import native_size

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(touched) run\n%%EOF\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two classes of 80 readable images; those of b are turned by an EXIF block with other errors."""
    for name, gray in (("a", 40), ("b", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(80):
            pixels = Image.fromarray(np.full((24, 20), gray + i % 3, np.uint8))
            block = exif({0x112: (3, 6), 0x131: (3, 3), 0x11A: (2, b"72 dpi\0\0")} if name == "b" else {})
            pixels.save(tmp_path / "data" / name / f"{i:02}.jpg", exif=block)
    return tmp_path / "data"


def batches(folder: Path, **options: object) -> FolderBatches:
    return FolderBatches(
        open_source(str(folder), folder, download=False), input_size=16, seed=0, crop=1.0, workers=0,
        augmentation=Augmentation(**options), cache_dir=folder.parent / "cache",
    )  # fmt: skip


def test_odd_exif_is_no_reason_to_skip(folder: Path) -> None:
    dataset = load_dataset(str(folder), input_size=16, seed=0, cache_dir=folder.parent / "cache")
    assert dataset.skipped == ()
    assert len(dataset.train) + len(dataset.val) == 160
    assert native_size(str(folder)) == 20
    read = batches(folder)
    assert sum(len(labels) for _, labels in read.training(0, 24)) == 120
    assert read.skipped == ()


@pytest.mark.parametrize("kind", ["inception", "shift"])
def test_what_no_decoder_reads_is_named(folder: Path, kind: str) -> None:
    (folder / "a" / "00.jpg").write_bytes(EPS)
    dataset = load_dataset(str(folder), input_size=16, seed=0, cache_dir=folder.parent / "cache")
    assert dataset.skipped == ("train/a/00.jpg: it is not an image",)
    assert len(dataset.train) + len(dataset.val) == 159
    assert native_size(str(folder)) == 20
    read = batches(folder, kind=kind)
    for epoch in range(2):
        for images, labels in read.training(epoch, 24):
            assert images.shape == (24, 16, 16, 3)
            assert ((images.float().mean((1, 2, 3)) > 120).long() == labels).all()
    held = sum(len(labels) for _, labels in read.scoring("val", 24))
    assert held in (31, 32)
    assert [line.endswith("/a/00.jpg: it is not an image") for line in read.skipped] == [True]


def test_whatever_a_decoder_raises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a" / "00.jpg").write_bytes(tiff(np.zeros((8, 8), np.uint8)))

    def fail(image: object) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", fail)
    dataset = load_dataset(str(folder), input_size=16, seed=0, cache_dir=folder.parent / "cache")
    assert dataset.skipped == ("train/a/00.jpg: it is damaged or cut off: maximum recursion depth exceeded",)
