"""Where images come from: a folder, scikit-learn's digits, torchvision's sets; identified without reading pixels."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnas.data.image import SUFFIXES, Item, Pixels, reason
from mnas.data.split import hold_out, hold_out_exactly

Triple = tuple[float, float, float]
IMAGENET_MOMENTS: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As published weights expect them."""
IMAGENET_VAL_IMAGES = 50_000
"""Of the training images (paper, section 5) ..."""
_MOST_IMAGENET_VAL = 0.2
"""... but no more than this share, where somebody has only some of the classes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """All images of a source."""

    classes: tuple[str, ...]
    train: Sequence[Item]
    val: Sequence[Item] | None
    """None where validation images are yet to be held out of `train`."""
    test: Sequence[Item] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set by its identity; the images themselves only on demand."""

    name: str
    identity: Any
    """JSON-able; changes when any file does (relative path, size, time of change): what the cache is keyed by."""
    flip: bool
    parts: Callable[[], Parts]
    moments: tuple[Triple, Triple] | None = None
    """Mean and deviation of pixels as 0..1, by channel, where everybody uses the same; None where they are computed."""
    fixed_val: bool = False
    """Whether the validation images were held out of a published training part: their names are kept as a list."""


# Folders

_VAL_NAMES = ("val", "valid", "validation")


def folder_source(root: Path, *, val_is_test: bool = False) -> Source:
    """Class folders in `root`, or in its train/, val/ (valid/, validation/) and test/.

    Args:
        val_is_test: keep val/ out of the search, as its labels are what a benchmark reports on (ImageNet).

    Raises:
        ValueError: no such folder, no class folders, no images in one of them, fewer than two classes, or a class
            that is not among those of train/.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing there"
        raise ValueError(f"data must be a folder of class folders, but got {str(root)!r} ({what})")
    folders = {name: root / name for name in ("train", *_VAL_NAMES, "test")}
    # a folder `train` that holds images is a class (of vehicles, say), one that holds folders is a part
    if folders["train"].is_dir() and _subfolders(folders["train"]):
        given = [name for name in _VAL_NAMES if folders[name].is_dir()]
        if len(given) > 1:
            raise ValueError(f"data must have one validation folder, but got {' and '.join(given)} in {str(root)!r}")
        parts = {"train": folders["train"]}
        parts |= {"test" if val_is_test else "val": folders[name] for name in given}
        parts |= {"test": folders["test"]} if folders["test"].is_dir() else {}
    else:
        parts = {"train": root}
    classes = tuple(path.name for path in _subfolders(parts["train"]))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "no folder"
        raise ValueError(f"data must have at least two class folders of images, but got {found} in {parts['train']}")
    files = {part: _scan(path, classes) for part, path in parts.items()}

    def items(part: str) -> list[Item]:
        found = files[part]
        return [
            Item(name=f"{part}/{name}", label=label, content=parts[part] / name, size_bytes=size)
            for name, label, size, _ in found
        ]

    return Source(
        name=root.resolve().name,
        identity={part: [(name, size, time) for name, _, size, time in found] for part, found in files.items()},
        flip=True,
        parts=lambda: Parts(
            classes=classes,
            train=items("train"),
            val=items("val") if "val" in files else None,
            test=items("test") if "test" in files else None,
        ),
    )


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _scan(path: Path, classes: Sequence[str]) -> list[tuple[str, int, int, int]]:
    """(relative path, label, bytes, time of change) of all images below the class folders, in order of their names."""
    unknown = sorted({folder.name for folder in _subfolders(path)} - set(classes))
    if unknown:
        raise ValueError(f"every part of the data must have the classes of train/, but got {unknown[0]!r} in {path}")
    found: list[tuple[str, int, int, int]] = []
    for label, name in enumerate(classes):
        count = len(found)
        if (path / name).is_dir():
            found += ((f"{name}/{file}", label, size, time) for file, size, time in sorted(_images(str(path / name))))
            if len(found) == count:
                raise ValueError(f"a class folder must have images (jpg, png, ...), but got none in {path / name}")
    if not found:
        raise ValueError(f"a part of the data must have images in class folders, but got none in {path}")
    return found


def _images(folder: str) -> Iterator[tuple[str, int, int]]:
    """(relative path, bytes, time of change) of all images below `folder`; plain strings, as there may be a million."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from ((f"{entry.name}/{name}", size, time) for name, size, time in _images(entry.path))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                stat = entry.stat()
                yield entry.name, stat.st_size, stat.st_mtime_ns


# Named sets


def digits_source(data_dir: Path, download: bool) -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fifth, the same for every seed, are test images."""

    def parts() -> Parts:
        from sklearn.datasets import load_digits  # half a second that other data sets should not pay

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        items = _array_items(pixels, bunch.target)
        classes = tuple("0123456789")
        train, test = hold_out(items, classes, 0.2, len(items), 0)
        return Parts(classes=classes, train=train, val=None, test=test)

    return Source(name="digits", identity={"name": "digits"}, flip=False, parts=parts)


def cifar10_source(data_dir: Path, download: bool) -> Source:
    """CIFAR-10: 50,000 + 10,000 images of 32x32."""
    return _torchvision_source("cifar10", "CIFAR10", data_dir, data_dir / "cifar-10-batches-py", download, flip=True)


def fashion_mnist_source(data_dir: Path, download: bool) -> Source:
    """Fashion-MNIST: 60,000 + 10,000 gray images of 28x28."""
    files = data_dir / "FashionMNIST" / "raw"
    return _torchvision_source("fashion-mnist", "FashionMNIST", data_dir, files, download, flip=False)


def imagenet_source(data_dir: Path, download: bool) -> Source:
    """ImageNet 2012, unpacked, or the archives as torchvision takes them; its val/ is the test part, as nobody has the
    labels of its own test images, and a search must not see what the final number is reported on."""
    if not (data_dir / "train").is_dir() or not (data_dir / "val").is_dir():
        from torchvision.datasets import ImageNet

        try:
            for split in ("train", "val"):
                ImageNet(str(data_dir), split=split)  # unpacks the archives into class folders
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"imagenet must lie in the data folder as train/ and val/ of class folders, or as the three archives "
                f"ILSVRC2012_*.tar* from image-net.org (it cannot be downloaded for you), but got {str(data_dir)!r} "
                f"({reason(error)})"
            ) from None
    return imagenet_folder(data_dir)


def imagenet_folder(root: Path, val_images: int = IMAGENET_VAL_IMAGES) -> Source:
    """ImageNet in folders: `val_images` of train/ are for validation, the same for everyone; val/ is the test part."""
    source = folder_source(root, val_is_test=True)

    def parts() -> Parts:
        given = source.parts()
        count = min(val_images, round(_MOST_IMAGENET_VAL * len(given.train)))
        train, val = hold_out_exactly(given.train, given.classes, count)
        return Parts(classes=given.classes, train=train, val=val, test=given.test)

    return Source(
        name="imagenet",
        identity={"val_images": val_images, "files": source.identity},
        flip=True,
        parts=parts,
        moments=IMAGENET_MOMENTS,
        fixed_val=True,
    )


NAMED: dict[str, Callable[[Path, bool], Source]] = {
    "digits": digits_source,
    "cifar10": cifar10_source,
    "fashion-mnist": fashion_mnist_source,
    "imagenet": imagenet_source,
}


def _torchvision_source(name: str, cls: str, data_dir: Path, files: Path, download: bool, *, flip: bool) -> Source:
    """One of torchvision's sets that hold all pixels in memory (`data`, `targets`, `classes`)."""
    from torchvision import datasets

    def load(train: bool) -> Any:
        try:
            return getattr(datasets, cls)(str(data_dir), train=train, download=download)
        except (RuntimeError, OSError) as error:
            hint = "the download failed; try again when online" if download else "download it with --download"
            raise ValueError(
                f"{name} must lie in {str(files)!r}, but it is not there or not whole: {hint}, "
                f"or copy it there ({reason(error)})"
            ) from None

    if not files.is_dir():
        load(train=True)  # downloads, or fails, before anything is identified

    def parts() -> Parts:
        train, test = load(train=True), load(train=False)
        return Parts(
            classes=tuple(train.classes),
            train=_array_items(np.asarray(train.data), train.targets),
            val=None,
            test=_array_items(np.asarray(test.data), test.targets),
        )

    found = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files.iterdir() if p.is_file())
    return Source(name=name, identity={"name": name, "files": found}, flip=flip, parts=parts)


def _array_items(pixels: Pixels, labels: Sequence[Any]) -> list[Item]:
    return [Item(name=str(i), label=int(labels[i]), content=pixels[i]) for i in range(len(labels))]
