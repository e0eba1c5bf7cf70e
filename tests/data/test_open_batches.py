"""The contract of all three loaders, and the choice among them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnas.data.arrays import ArrayBatches
from mnas.data.augmentation import Augmentation
from mnas.data.batches import Batches
from mnas.data.files import FolderBatches
from mnas.data.load import load_dataset
from mnas.data.open_batches import open_batches
from mnas.data.shards import ShardBatches, write_shards
from tests.data.test_load import make_folder

Open = Callable[..., Batches]
CLASSES = tuple("abc")


@pytest.fixture(params=["array", "files", "shards"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open 3 x 30 training, 3 x 5 validation and 3 x 3 test images, each with its own gray level."""
    folder = make_folder(tmp_path / "gray", {"train": 30, "val": 5, "test": 3}, classes=CLASSES)
    data = folder
    if request.param == "shards":
        data = tmp_path / "shards"
        write_shards(folder, data, 10)

    def open_it(seed: int = 0, workers: int = 0, **changed: object) -> Batches:
        return opening(str(data), tmp_path, loader=request.param, seed=seed, workers=workers, **changed)

    return open_it


def opening(data: str, tmp_path: Path, **changed: object) -> Batches:
    options: dict[str, object] = {
        "input_size": 8, "seed": 0, "crop": 1.0, "augmentation": Augmentation(), "loader": "auto", "workers": 0,
        "data_dir": None, "download": False, "max_images_per_class": 0, "on_progress": None,
        "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    return open_batches(data, **(options | changed))  # type: ignore[arg-type]


def drawn(batches: Batches, epoch: int, batch_size: int, **options: int) -> list[tuple[Tensor, Tensor]]:
    return list(batches.training(epoch, batch_size, **options))


def levels(steps: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Return the gray level of every image, which identifies it."""
    return [int(level) for images, _ in steps for level in images[:, 0, 0, 0]]


def same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for pair in zip(left, right, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_what_is_there(opened: Open) -> None:
    batches = opened()
    assert batches.classes == CLASSES
    assert batches.counts == {"train": 90, "val": 15, "test": 9}
    assert (batches.input_size, batches.crop, batches.steps(8)) == (8, 1.0, 11)
    mean = sum(range(90)) / 90 / 255
    assert batches.mean == pytest.approx((mean, mean, mean), abs=1e-6)
    assert batches.skipped == ()
    assert len(batches.fingerprint) == 16


def test_an_epoch_shows_every_image_at_most_once_with_its_label(opened: Open) -> None:
    batches = opened()
    steps = drawn(batches, 0, 8)
    assert [(tuple(images.shape), images.dtype, tuple(labels.shape), labels.dtype) for images, labels in steps] == [
        ((8, 8, 8, 3), torch.uint8, (8,), torch.int64)
    ] * 11
    seen = levels(steps)
    assert len(set(seen)) == 88
    assert [level // 30 for level in seen] == [int(label) for _, labels in steps for label in labels]
    assert seen != sorted(seen)
    first, second = set(seen), set(levels(drawn(batches, 1, 8)))
    assert first | second == set(range(90))  # another image was left out


def test_batches_are_a_function_of_seed_and_epoch(opened: Open) -> None:
    batches = opened()
    assert same(drawn(batches, 3, 8), drawn(opened(), 3, 8))
    assert levels(drawn(batches, 3, 8)) != levels(drawn(batches, 4, 8))
    assert levels(drawn(batches, 3, 8)) != levels(drawn(opened(seed=1), 3, 8))


def test_a_resumed_epoch_goes_on_as_if_never_stopped(opened: Open) -> None:
    whole = drawn(opened(), 2, 8)
    for start in (0, 1, 5, 10, 11):
        assert same(drawn(opened(), 2, 8, start=start), whole[start:])


@pytest.mark.parametrize("world", [2, 4])
def test_all_processes_together_see_what_one_would(opened: Open, world: int) -> None:
    batches = opened()
    shares = [drawn(batches, 1, 8, rank=rank, world=world) for rank in range(world)]
    together = [tuple(torch.cat(tensors) for tensors in zip(*step, strict=True)) for step in zip(*shares, strict=True)]
    assert same(together, drawn(batches, 1, 8))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:This DataLoader")  # more workers than this machine has cores
def test_workers_change_nothing(opened: Open) -> None:
    varied = Augmentation(kind="inception", random_erasing=0.5)
    alone, several = opened(augmentation=varied), opened(augmentation=varied, workers=3)
    assert same(drawn(several, 1, 8, start=2), drawn(alone, 1, 8, start=2))
    assert same(list(several.scoring("val", 4)), list(alone.scoring("val", 4)))


def test_scoring_shows_all_images_unchanged(opened: Open) -> None:
    batches = opened()
    for part, first, count in (("val", 90, 15), ("test", 105, 9), ("train", 0, 90)):
        steps = list(batches.scoring(part, 4))  # type: ignore[arg-type]
        assert sorted(levels(steps)) == list(range(first, first + count))
        assert max(len(labels) for _, labels in steps) == 4
        assert same(steps, list(batches.scoring(part, 4)))  # type: ignore[arg-type]
        labels = [int(label) for _, step in steps for label in step]
        assert labels == [(level - first) * 3 // count for level in levels(steps)]


def test_the_same_images_in_other_batches(opened: Open) -> None:
    """With several processes the shares differ, so batch sizes without a common divisor must work."""
    batches = opened()
    assert sorted(levels(drawn(batches, 0, 9))) == list(range(90))
    assert len(drawn(batches, 0, 7)) == 12
    assert drawn(batches, 0, 91) == []


# Choice of the loader


def test_the_loader_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(make_folder(tmp_path / "gray", {"train": 3, "val": 2}))
    write_shards(Path(folder), tmp_path / "shards")
    inception = Augmentation(kind="inception")

    def taken(data: str, **changed: object) -> type[Batches]:
        return type(opening(data, tmp_path, **changed))

    assert taken(folder) is ArrayBatches
    assert taken(folder, augmentation=inception, input_size=64) is ArrayBatches
    assert taken(folder, augmentation=inception, input_size=65) is FolderBatches
    assert taken(folder, augmentation=Augmentation(auto_augment="rand-m5")) is FolderBatches
    assert taken(folder, crop=0.875) is FolderBatches
    assert taken(folder, loader="files") is FolderBatches
    assert taken("digits") is ArrayBatches
    assert taken("digits", crop=0.875) is FolderBatches
    assert taken(str(tmp_path / "shards")) is ShardBatches
    assert taken(f"{tmp_path}/shards/{{train,val}}-000000.tar") is ShardBatches
    monkeypatch.setattr("mnas.data.open_batches.MOST_ARRAY_BYTES", 10 * 8 * 8 * 3)
    assert taken(folder) is ArrayBatches
    monkeypatch.setattr("mnas.data.open_batches.MOST_ARRAY_BYTES", 10 * 8 * 8 * 3 - 1)
    assert taken(folder) is FolderBatches
    assert taken(folder, loader="array") is ArrayBatches


def test_arrays_and_files_show_the_same_images(tmp_path: Path) -> None:
    """Digits have no files, so their pixels are decoded like those of a file."""
    files, arrays = (opening("digits", tmp_path, loader=loader) for loader in ("files", "array"))
    assert files.counts == arrays.counts
    assert same(list(files.scoring("test", 100)), list(arrays.scoring("test", 100)))
    pairs = zip(files.training(0, 64), arrays.training(0, 64), strict=True)
    assert all(torch.equal(left[1], right[1]) for left, right in pairs)
    assert files.mean == pytest.approx(arrays.mean, abs=0.01)  # of 1,024 of the 1,151 images


def test_images_per_class(tmp_path: Path) -> None:
    folder = str(make_folder(tmp_path / "gray", {"": 20}))
    for loader in ("files", "array"):
        assert opening(folder, tmp_path, loader=loader, max_images_per_class=10).counts == {"train": 16, "val": 4}


def test_a_loader_that_cannot_serve_has_its_line(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "gray", {"train": 3, "val": 2})
    write_shards(folder, tmp_path / "shards")

    def message(data: str, **changed: object) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            opening(data, tmp_path, **changed)
        assert "\n" not in str(error.value)
        return str(error.value)

    shards = str(tmp_path / "shards")
    assert "--loader must be one of auto, array, files, shards, but got 'tar'" in message(str(folder), loader="tar")
    assert f"--loader shards does not fit the data: {str(folder)!r} contains no tar shards" in message(
        str(folder), loader="shards"
    )
    assert f"--loader files does not fit the data: {shards!r} contains tar shards" in message(shards, loader="files")
    assert "--max-images-per-class must be 0 for shards, but got 5" in message(shards, max_images_per_class=5)
    assert "--loader files" in message(str(folder), loader="array", crop=0.5)
    assert "but got 'cifar11' (no such folder)" in message("cifar11")
    for loader, data in (("files", str(folder)), ("shards", shards)):
        assert "--workers must be an integer from 0 to 256, but got -1" in message(data, loader=loader, workers=-1)
        assert "--input-size must be an integer from 8" in message(data, loader=loader, input_size=4)
        assert "--crop must be above 0" in message(data, loader=loader, crop=0.0)
        policy = Augmentation(auto_augment="random-m9")
        assert "policy of timm, such as rand-m9" in message(data, loader=loader, augmentation=policy)


def test_files_and_arrays_are_split_in_the_same_way(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "gray", {"": 20})
    dataset = load_dataset(str(folder), input_size=8, seed=5, cache_dir=tmp_path / "cache")
    batches = opening(str(folder), tmp_path, loader="files", seed=5)
    assert sorted(levels(list(batches.scoring("val", 3)))) == sorted(dataset.val.images[:, 0, 0, 0].tolist())
