"""Test folders, splits, the cache and its faults on real files."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.data.dataset import Dataset
from mnas.data.load import load_dataset


def make_folder(root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog"), size: int = 8) -> Path:
    """Make images by class below each part ("" for none), each with its own gray level."""
    level = 0
    for part, count in parts.items():
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((size, size), level, np.uint8)).save(root / part / name / f"{index}.png")
                level += 1
    return root


def load(data: Path | str, tmp_path: Path, seed: int = 0, **options: object) -> Dataset:
    return load_dataset(str(data), input_size=8, seed=seed, cache_dir=tmp_path / "cache", **options)  # type: ignore[arg-type]


def levels(part: object) -> list[int]:
    return sorted(part.images[:, 0, 0, 0].tolist())  # type: ignore[attr-defined]


def test_digits(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)
    assert dataset.classes == tuple("0123456789")
    assert dataset.test is not None
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (1151, 287, 359)
    assert dataset.train.images.shape == (1151, 8, 8, 3)
    assert not dataset.flip
    pixels = dataset.train.images / 255.0
    assert np.allclose(pixels.mean((0, 1, 2)), dataset.mean, atol=1e-6)
    assert np.allclose(pixels.std((0, 1, 2)), dataset.std, atol=1e-6)
    # at their native size the digits stay unchanged
    from sklearn.datasets import load_digits

    bunch = load_digits()
    known = {
        (np.rint(i * 255 / 16).astype(np.uint8).tobytes(), int(t))
        for i, t in zip(bunch.images, bunch.target, strict=True)
    }
    parts = (dataset.train, dataset.val, dataset.test)
    found = [(i[..., 0].tobytes(), int(t)) for p in parts for i, t in zip(p.images, p.labels, strict=True)]
    assert set(found) <= known
    assert len(found) == 1797


def test_the_test_part_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    first, second = load("digits", tmp_path, seed=0), load("digits", tmp_path, seed=1)
    assert first.test is not None
    assert second.test is not None
    assert np.array_equal(first.test.images, second.test.images)
    assert not np.array_equal(first.val.images, second.val.images)
    assert first.fingerprint != second.fingerprint


def test_a_plain_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 10})
    dataset = load(root, tmp_path)
    assert (dataset.name, dataset.classes, dataset.test) == ("pets", ("cat", "dog"), None)
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8
    assert dataset.val.labels.tolist() == [0] * 2 + [1] * 2
    assert sorted(levels(dataset.train) + levels(dataset.val)) == list(range(20))
    assert np.array_equal(dataset.train.images[:, 0, 0, 0] >= 10, dataset.train.labels == 1)
    again = load_dataset(str(root), input_size=8, seed=0, cache_dir=tmp_path / "another")
    assert np.array_equal(again.val.images, dataset.val.images)
    assert any(levels(load(root, tmp_path, seed=s).val) != levels(dataset.val) for s in (1, 2, 3))


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_given_parts_are_kept(tmp_path: Path, val: str) -> None:
    dataset = load(make_folder(tmp_path / "pets", {"train": 5, val: 3, "test": 2}), tmp_path)
    assert dataset.test is not None
    assert levels(dataset.train) == list(range(10))
    assert levels(dataset.val) == list(range(10, 16))
    assert levels(dataset.test) == list(range(16, 20))


def test_validation_images_come_from_train_never_from_test(tmp_path: Path) -> None:
    dataset = load(make_folder(tmp_path / "pets", {"train": 5, "test": 2}), tmp_path)
    assert dataset.test is not None
    assert sorted(levels(dataset.train) + levels(dataset.val)) == list(range(10))
    assert levels(dataset.test) == list(range(10, 14))


def test_imagenets_val_is_the_test_part(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "ilsvrc", {"train": 5, "val": 3})
    dataset = load("imagenet", tmp_path, data_dir=root)
    assert dataset.test is not None
    assert levels(dataset.test) == list(range(10, 16))
    assert sorted(levels(dataset.train) + levels(dataset.val)) == list(range(10))


def test_a_class_may_be_called_train_and_nested_and_hidden_files_are_handled(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "vehicles", {"": 4}, classes=("car", "train"))
    (root / "car" / "red").mkdir()
    shutil.move(root / "car" / "0.png", root / "car" / "red" / "0.png")
    (root / "car" / ".hidden.png").write_text("")
    (root / "car" / "notes.txt").write_text("")
    (root / ".git").mkdir()
    dataset = load(root, tmp_path)
    assert dataset.classes == ("car", "train")
    assert sorted(levels(dataset.train) + levels(dataset.val)) == list(range(8))


def test_images_per_class_are_limited(tmp_path: Path) -> None:
    dataset = load(make_folder(tmp_path / "pets", {"": 10}), tmp_path, max_images_per_class=5)
    assert (len(dataset.train), len(dataset.val)) == (8, 2)


def test_a_changed_image_changes_the_key_and_the_fingerprint(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 4})
    before = load(root, tmp_path)
    assert load(root, tmp_path).fingerprint == before.fingerprint
    path = root / "cat" / "0.png"
    stat = path.stat()
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = load(root, tmp_path)
    assert after.fingerprint != before.fingerprint
    assert 99 in levels(after.train) + levels(after.val)


def test_equal_data_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    first = load(make_folder(tmp_path / "a" / "pets", {"": 4}), tmp_path)
    second = load_dataset(
        str(make_folder(tmp_path / "b" / "pets", {"": 4})), input_size=8, seed=0, cache_dir=tmp_path / "another"
    )
    assert first.fingerprint == second.fingerprint


def test_writing_to_the_arrays_does_not_reach_the_cache(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 4})
    load(root, tmp_path).train.images[:] = 255
    assert max(levels(load(root, tmp_path).train)) < 8


def test_unreadable_images_are_named_and_skipped_up_to_one_percent(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pets", {"": 100})
    image = root / "cat" / "7.png"
    image.write_bytes(image.read_bytes()[:40])
    seen: list[tuple[int, int]] = []
    dataset = load(root, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith("train/cat/7.png: ")
    assert len(dataset.train) + len(dataset.val) == 199
    assert len(dataset.train.labels) == len(dataset.train.images)
    assert seen[-1] == (200, 200)
    assert load(root, tmp_path).skipped == dataset.skipped
    for index in range(2):
        (root / "dog" / f"{index}.png").write_text("broken")
    with pytest.raises(
        ValueError, match=r"at most 1 % of the images may be unreadable, but 3 of 200 are \(.*\.png: .*"
    ):
        load(root, tmp_path)


def test_more_pixels_than_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must take at most 1e-06 GB.*--max-images-per-class"):
        load(make_folder(tmp_path / "pets", {"": 10}), tmp_path, max_bytes=1000)


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_folders_each_have_their_line(tmp_path: Path) -> None:
    def message(data: Path | str) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            load(data, tmp_path)
        return one_line(error)

    assert "digits, cifar10, fashion-mnist, imagenet, but got 'cifar11' (no such folder)" in message("cifar11")
    (tmp_path / "file").write_text("")
    assert "folder of class folders" in message(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "--data must have at least two class folders of images, but got no folder" in message(tmp_path / "empty")
    assert "only 'cat'" in message(make_folder(tmp_path / "one", {"": 3}, classes=("cat",)))
    assert "--data must have at least 2 images in each class, as" in message(make_folder(tmp_path / "few", {"": 1}))
    assert "has none" in message(make_folder(tmp_path / "none", {"": 0}))
    assert "'bird'" in message(
        make_folder(make_folder(tmp_path / "odd", {"train": 3}), {"val": 1}, classes=("cat", "bird"))
    )
    assert "one validation folder" in message(make_folder(tmp_path / "two", {"train": 3, "val": 1, "valid": 1}))


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="--download") as error:
        load(name, tmp_path)
    one_line(error)


def test_imagenet_that_is_not_there_says_what_to_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train/ and val/ with class folders") as error:
        load("imagenet", tmp_path)
    one_line(error)


@pytest.mark.parametrize("size", [0, 7, 2000, "32", True])
def test_input_size_out_of_range(tmp_path: Path, size: object) -> None:
    with pytest.raises(ValueError, match="--input-size must be an integer from 8 to 1024"):
        load_dataset("digits", input_size=size, seed=0, cache_dir=tmp_path)  # type: ignore[arg-type]


def test_cifar10_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    """Make the published layout, with five training batches and one test batch, but other bytes."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    with pytest.raises(ValueError, match="missing or incomplete"):  # torchvision compares the published checksums
        load("cifar10", tmp_path, data_dir=tmp_path / "data")
