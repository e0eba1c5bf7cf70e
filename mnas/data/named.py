"""Named data sets: scikit-learn's digits, torchvision's sets, ImageNet."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnas.data.image import Item, Pixels, reason
from mnas.data.listing.folder import folder_source
from mnas.data.source import Parts, Source, Triple
from mnas.data.split import hold_out, hold_out_exactly

IMAGENET_MOMENTS: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation for published weights."""
IMAGENET_VAL_IMAGES = 50_000
"""Number of training images to hold out for validation (paper, section 5)."""
_MOST_IMAGENET_VAL = 0.2
"""Largest share of training images to hold out; it matters if the folder has only some of the classes."""


def digits_source(data_dir: Path, download: bool) -> Source:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fifth, the same for any seed, are test images."""

    def parts() -> Parts:
        from sklearn.datasets import load_digits  # takes half a second, which other data sets need not spend

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        items = _array_items(pixels, bunch.target)
        classes = tuple("0123456789")
        train, test = hold_out(items, classes, 0.2, len(items), 0)
        return Parts(classes=classes, train=train, val=None, test=test)

    return Source(
        name="digits", identity={"name": "digits"}, flip=False, parts=parts, files=_digits_files, in_memory=True
    )


def _digits_files() -> dict[str, list[tuple[str, str]]]:
    """Return the file of the digits without importing scikit-learn, which takes half a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return {"all": [("digits.csv.gz", str(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"))]}


def cifar10_source(data_dir: Path, download: bool) -> Source:
    """Return CIFAR-10: 50,000 + 10,000 images of 32x32."""
    return _torchvision_source("cifar10", "CIFAR10", data_dir, data_dir / "cifar-10-batches-py", download, flip=True)


def fashion_mnist_source(data_dir: Path, download: bool) -> Source:
    """Return Fashion-MNIST: 60,000 + 10,000 gray images of 28x28."""
    files = data_dir / "FashionMNIST" / "raw"
    return _torchvision_source("fashion-mnist", "FashionMNIST", data_dir, files, download, flip=False)


def imagenet_source(data_dir: Path, download: bool) -> Source:
    """Return ImageNet 2012, unpacked or from the archives for torchvision.

    Its val/ is the test part: labels of its own test images are not public, and a search must not see the images that
    the final number is reported on."""
    if not (data_dir / "train").is_dir() or not (data_dir / "val").is_dir():
        from torchvision.datasets import ImageNet

        try:
            for split in ("train", "val"):
                ImageNet(str(data_dir), split=split)  # the constructor unpacks the archives into class folders
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"--data-dir must contain ImageNet as train/ and val/ with class folders, or as the three archives "
                f"ILSVRC2012_*.tar* from image-net.org, but got {str(data_dir)!r} ({reason(error)}). mnas cannot "
                "download ImageNet."
            ) from None
    return imagenet_folder(data_dir)


def imagenet_folder(root: Path, val_images: int = IMAGENET_VAL_IMAGES) -> Source:
    """Return ImageNet in folders; `val_images` of train/, the same for any seed, are for validation, val/ for tests."""
    source = folder_source(root, val_is_test=True)

    def parts() -> Parts:
        given = source.parts()
        count = min(val_images, round(_MOST_IMAGENET_VAL * len(given.train)))
        train, val = hold_out_exactly(given.train, given.classes, count)
        return Parts(classes=given.classes, train=train, val=val, test=given.test)

    return Source(
        name="imagenet",
        identity={"val_images": val_images, "files": source.identity},
        classes=source.classes,
        files=source.files,
        flip=True,
        parts=parts,
        moments=IMAGENET_MOMENTS,
        own_val=True,
        fixed_val=True,
        split={"val_images": val_images},
    )


NAMED: dict[str, Callable[[Path, bool], Source]] = {
    "digits": digits_source,
    "cifar10": cifar10_source,
    "fashion-mnist": fashion_mnist_source,
    "imagenet": imagenet_source,
}


def _torchvision_source(name: str, cls: str, data_dir: Path, files: Path, download: bool, *, flip: bool) -> Source:
    """Return one of torchvision's sets that hold all pixels in memory (`data`, `targets`, `classes`)."""
    from torchvision import datasets

    def load(train: bool) -> Any:
        try:
            return getattr(datasets, cls)(str(data_dir), train=train, download=download)
        except (RuntimeError, OSError) as error:
            hint = "Check the network connection and try again" if download else "Download it with --download"
            failed = "the download failed" if download else "it is missing or incomplete"
            raise ValueError(
                f"{name} must be in {str(files)!r}, but {failed} ({reason(error)}). {hint}, or copy it there."
            ) from None

    if not files.is_dir():
        load(train=True)  # downloads or fails first

    def parts() -> Parts:
        train, test = load(train=True), load(train=False)
        return Parts(
            classes=tuple(train.classes),
            train=_array_items(np.asarray(train.data), train.targets),
            val=None,
            test=_array_items(np.asarray(test.data), test.targets),
        )

    stats = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files.iterdir() if p.is_file())
    # Only files that torchvision reads count; archives and descriptions may have been removed.
    read = [
        name for name, *_ in stats if name.startswith(("data_batch", "test_batch")) or name.endswith(("ubyte", "meta"))
    ]
    return Source(
        name=name,
        identity={"name": name, "files": stats},
        flip=flip,
        parts=parts,
        files=lambda: {"all": [(name, str(files / name)) for name in read]},
        in_memory=True,
    )


def _array_items(pixels: Pixels, labels: Sequence[Any]) -> list[Item]:
    return [Item(name=str(i), label=int(labels[i]), content=pixels[i]) for i in range(len(labels))]
