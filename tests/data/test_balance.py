"""Balanced epochs have exact numbers of each class and image, and each draw of an image is augmented on its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnas.data.augmentation import Augmentation
from mnas.data.balance import balanced_order, class_weights
from mnas.data.batches import Batches
from mnas.data.open_batches import open_batches

COUNTS = {"ants": 40, "bees": 10, "wasps": 3}
"""Images of each class, of which a fifth (at least one) is held out."""
TRAINED = (32, 8, 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("balance") / "photos"
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def opened(photos: Path, loader: str, tmp_path: Path) -> Batches:
    batches = open_batches(
        str(photos), input_size=16, seed=0, crop=1.0, augmentation=Augmentation(), loader=loader, workers=0,
        data_dir=None, download=False, max_images_per_class=0, on_progress=None, cache_dir=tmp_path,
    )  # fmt: skip
    batches.balanced = True
    return batches


def drawn(batches: Batches, epoch: int, *, numbered: bool = False, **options: int) -> torch.Tensor:
    return torch.cat([labels for _, labels in batches.training(epoch, 9, numbered=numbered, **options)])


@pytest.mark.parametrize("loader", ["array", "files"])
def test_an_epoch_shows_all_classes_equally_often(photos: Path, tmp_path: Path, loader: str) -> None:
    batches = opened(photos, loader, tmp_path)
    assert tuple(torch.bincount(batches.train_labels()).tolist()) == TRAINED
    assert batches.steps(9) == 4  # 42 images
    for epoch in range(3):
        assert torch.bincount(drawn(batches, epoch)).tolist() == [12, 12, 12]
        images = drawn(batches, epoch, numbered=True)
        labels = batches.train_labels()
        assert torch.equal(labels[images], drawn(batches, epoch))
        times = torch.bincount(images, minlength=42)
        assert times[labels == 0].max() == 1  # 12 of 32
        assert sorted(times[labels == 1].tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]
        assert times[labels == 2].tolist() == [6, 6]
    assert not torch.equal(drawn(batches, 0, numbered=True), drawn(batches, 1, numbered=True))
    assert torch.equal(drawn(batches, 1, numbered=True, start=2), drawn(batches, 1, numbered=True)[18:])
    whole, half = (
        drawn(batches, 1, numbered=True),
        [drawn(batches, 1, numbered=True, rank=r, world=3) for r in range(3)],
    )
    assert torch.equal(torch.cat([part.view(-1, 3) for part in half], 1).flatten(), whole)


@pytest.mark.parametrize("loader", ["array", "files"])
def test_each_draw_of_an_image_has_its_own_augmentation(photos: Path, tmp_path: Path, loader: str) -> None:
    batches = opened(photos, loader, tmp_path)
    steps = list(batches.training(0, 9, numbered=True))
    numbers = torch.cat([numbers for _, numbers in steps])
    pixels = torch.cat([images for images, _ in steps])
    rare = int((batches.train_labels() == 2).nonzero()[0])
    views = pixels[numbers == rare]
    assert len(views) == 6
    assert len({view.numpy().tobytes() for view in views}) > 1


def test_without_balance_nothing_changes(photos: Path, tmp_path: Path) -> None:
    batches = opened(photos, "array", tmp_path)
    batches.balanced = False
    assert sorted(drawn(batches, 0, numbered=True).tolist()) == sorted(set(drawn(batches, 0, numbered=True).tolist()))


def test_the_first_part_of_an_order_is_balanced_too() -> None:
    labels = torch.tensor([0] * 50 + [2] * 7 + [3])  # class 1 has no images
    order = balanced_order(labels, torch.Generator().manual_seed(0))
    assert len(order) == len(labels) == len(order.unique())
    for length in range(1, len(order) + 1):
        counts = torch.bincount(labels[order[:length] % len(labels)], minlength=4)[[0, 2, 3]]
        assert counts.max() - counts.min() <= 1


def test_the_weights_of_classes() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_shards_cannot_be_balanced() -> None:
    class Shards(Batches):
        skipped = ()

        def training(self, *_, **__):
            raise AssertionError

        scoring = numbered = training

    with pytest.raises(ValueError, match="--balance need images in files or arrays, but --data contains tar shards"):
        Shards().train_labels()
