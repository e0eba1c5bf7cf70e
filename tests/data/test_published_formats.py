"""CIFAR-10, Fashion-MNIST and ImageNet in their published formats, made here from other images.

The tests cannot download the published files. torchvision compares the MD5 of its files with the published sums before
it reads anything. So these sums, and the address of Fashion-MNIST's mirror, are replaced by those of the files made
here; nothing else of torchvision is changed. The tests check that `load_dataset` returns the images that the files were
made from.
"""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.image import Pixels
from mnas.data.load import load_dataset

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.gz"
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def images() -> dict[str, list[Pixels]]:
    """Return the first 12 training images of every class."""
    if not ARCHIVE.exists():
        pytest.skip(f"needs {ARCHIVE}: CIFAR-10's images as JPEGs")
    count = 12
    found: dict[str, list[Pixels]] = {name: [] for name in CIFAR_CLASSES}
    with tarfile.open(ARCHIVE, "r|gz") as file:
        for member in file:
            folder, name = Path(member.name).parts[-3:-1] if member.isreg() else ("", "")
            if folder == "train" and len(found[name]) < count:
                found[name].append(np.asarray(Image.open(file.extractfile(member))))
                if all(len(images) == count for images in found.values()):
                    break
    return found


def load(data: str, tmp_path: Path, size: int) -> Dataset:
    return load_dataset(data, input_size=size, seed=0, cache_dir=tmp_path / "cache", data_dir=tmp_path)


def contents(*parts: ImageArrays | None) -> set[tuple[bytes, int]]:
    """Return (pixels, label) of all images."""
    there = [part for part in parts if part is not None]
    return {(image.tobytes(), int(label)) for p in there for image, label in zip(p.images, p.labels, strict=True)}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 python version"


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes bytes as Python 2 wrote its strings, as in the published batches."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: bytes) -> None:
        short = len(value) < 256
        self.write((b"U" + struct.pack("<B", len(value)) if short else b"T" + struct.pack("<i", len(value))) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def python2_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")  # its name then


def write_cifar(folder: Path, images: dict[str, list[Pixels]]) -> tuple[set[tuple[bytes, int]], set[tuple[bytes, int]]]:
    """Write data_batch_1 to 5 and test_batch, in rows of 1024 red, 1024 green and 1024 blue; return train and test."""
    folder.mkdir(parents=True)
    labelled = [(label, image) for label, name in enumerate(CIFAR_CLASSES) for image in images[name]]
    chunks = [labelled[i::6] for i in range(6)]
    for chunk, name in zip(chunks, [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], strict=True):
        batch = {
            b"batch_label": f"training batch {name[-1]} of 5".encode(),
            b"labels": [label for label, _ in chunk],
            b"data": np.stack([image.transpose(2, 0, 1).reshape(3072) for _, image in chunk]),
            b"filenames": [f"{CIFAR_CLASSES[label]}_s_{i:06d}.png".encode() for i, (label, _) in enumerate(chunk)],
        }
        (folder / name).write_bytes(python2_pickle(batch))
    meta = {
        b"num_cases_per_batch": len(chunks[0]),
        b"label_names": [name.encode() for name in CIFAR_CLASSES],
        b"num_vis": 3072,
    }
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    train, test = ({(image.tobytes(), label) for chunk in part for label, image in chunk} for part in
                   (chunks[:5], chunks[5:]))  # fmt: skip
    return train, test


def test_cifar10(images: dict[str, list[Pixels]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    train, test = write_cifar(folder, images)
    cls = datasets.CIFAR10
    for attribute in ("train_list", "test_list"):
        names = [name for name, _ in getattr(cls, attribute)]
        monkeypatch.setattr(cls, attribute, [[name, md5(folder / name)] for name in names])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(folder / "batches.meta")})
    dataset = load("cifar10", tmp_path, 32)
    assert dataset.classes == CIFAR_CLASSES
    assert contents(dataset.train, dataset.val) == train
    assert contents(dataset.test) == test
    assert (len(train), len(test), dataset.flip) == (100, 20, True)
    assert np.bincount(dataset.val.labels).tolist() == [2] * 10
    with (folder / "test_batch").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="missing or incomplete"):
        load("cifar10", tmp_path, 16)


# Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist, in MNIST's idx format


def idx(values: np.ndarray) -> bytes:  # type: ignore[type-arg]
    """Return the magic number (0, 0, 8 for bytes, dimensions), lengths as big-endian 32-bit integers, and bytes."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def gray_28(images: list[Pixels]) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([np.asarray(Image.fromarray(image).convert("L").resize((28, 28))) for image in images])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_fashion_mnist(images: dict[str, list[Pixels]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision downloads the four published .gz files from a local mirror and unpacks them."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    expected: dict[str, set[tuple[bytes, int]]] = {}
    for part, chosen in (("train", slice(0, 10)), ("t10k", slice(10, 12))):
        pixels = np.concatenate([gray_28(images[name][chosen]) for name in CIFAR_CLASSES])
        labels = np.repeat(np.arange(10), len(pixels) // 10)
        (mirror / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (mirror / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        rgb = np.repeat(pixels[..., None], 3, 3)
        expected[part] = {(image.tobytes(), int(label)) for image, label in zip(rgb, labels, strict=True)}
    cls = datasets.FashionMNIST
    monkeypatch.setattr(cls, "resources", [(name, md5(mirror / name)) for name, _ in cls.resources])
    with served(mirror) as address:
        monkeypatch.setattr(cls, "mirrors", [address])
        dataset = load_dataset(
            "fashion-mnist", input_size=28, seed=0, cache_dir=tmp_path / "cache", data_dir=tmp_path, download=True
        )
    assert dataset.classes[0] == "T-shirt/top"
    assert contents(dataset.train, dataset.val) == expected["train"]
    assert contents(dataset.test) == expected["t10k"]
    assert (len(expected["train"]), len(expected["t10k"]), dataset.flip) == (100, 20, False)
    # works without --download, as the unpacked files now exist
    assert load("fashion-mnist", tmp_path, 28).fingerprint == dataset.fingerprint
    images_file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    images_file.write_bytes(images_file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="fashion-mnist must be in") as error:
        load("fashion-mnist", tmp_path, 28)
    assert "\n" not in str(error.value)


# ImageNet 2012: the three archives of image-net.org, as torchvision unpacks them

WNIDS = ("n01440764", "n01443537", "n01484850")


def jpeg(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 8, 3), level, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def devkit(truth: list[int]) -> bytes:
    """Return the archive of meta.mat and of the classes of the validation images, from 1 on.

    meta.mat lists synsets (ID, WNID, words, gloss, num_children, children, wordnet_height, num_train_images); those
    with children are not classes.
    """
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"),
              ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]  # fmt: skip
    synsets: Any = np.zeros((len(WNIDS) + 1, 1), dtype=fields)
    for index, wnid in enumerate(WNIDS):
        synsets[index, 0] = (index + 1, wnid, f"fish {index}, a fish", "it swims", 0, [], 0, 10)
    synsets[-1, 0] = (len(WNIDS) + 1, "n99999999", "animal", "it lives", 3, [1, 2, 3], 1, 0)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data"
    return tar_of({
        f"{data}/meta.mat": buffer.getvalue(),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": "".join(f"{label}\n" for label in truth).encode(),
    }, "w:gz")  # fmt: skip


def test_imagenet_from_its_three_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    train = {
        f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": jpeg(20 * label + i) for i in range(10)})
        for label, wnid in enumerate(WNIDS)
    }
    truth = [3, 1, 2, 2, 1, 3]
    val = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(200 + i) for i in range(len(truth))}
    archives = {
        "train": ("ILSVRC2012_img_train.tar", tar_of(train)),
        "val": ("ILSVRC2012_img_val.tar", tar_of(val)),
        "devkit": ("ILSVRC2012_devkit_t12.tar.gz", devkit(truth)),
    }
    for name, content in archives.values():
        (tmp_path / name).write_bytes(content)
    sums = {part: (name, hashlib.md5(content).hexdigest()) for part, (name, content) in archives.items()}
    monkeypatch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", sums)
    dataset = load("imagenet", tmp_path, 8)
    assert dataset.classes == WNIDS
    seen = {(int(image[0, 0, 0]), int(label)) for part in (dataset.train, dataset.val)
            for image, label in zip(part.images, part.labels, strict=True)}  # fmt: skip
    assert seen == {(20 * label + i, label) for label in range(3) for i in range(10)}
    assert len(dataset.val) == 6
    assert dataset.test is not None
    tested = {(int(image[0, 0, 0]), int(label)) for image, label in
              zip(dataset.test.images, dataset.test.labels, strict=True)}  # fmt: skip
    assert tested == {(200 + i, label - 1) for i, label in enumerate(truth)}
