"""Batches from arrays are a function of (seed, epoch, step), and the same for any number of processes."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from mnas.data.arrays import ArrayBatches
from mnas.data.augment import erase, generator_of, random_resized_crops
from mnas.data.augmentation import Augmentation
from mnas.data.dataset import Dataset, ImageArrays

SHIFT = Augmentation()
INCEPTION = Augmentation(kind="inception", random_erasing=0.5)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    part = ImageArrays(images=rng.integers(0, 256, (50, 16, 16, 3), dtype=np.uint8), labels=np.arange(50) % 5)
    return Dataset(
        name="noise", classes=tuple("abcde"), train=part, val=part, test=None, mean=(0.5,) * 3, std=(0.3,) * 3,
        input_size=16, flip=True, fingerprint="f", content="c", key="k", skipped=(),
    )  # fmt: skip


def stacked(batches) -> Tensor:
    return torch.stack([images for images, _ in batches])


def test_an_epoch_shows_each_image_at_most_once(dataset: Dataset) -> None:
    plain = dataclasses.replace(dataset, flip=False)
    batches = ArrayBatches(plain, dataclasses.replace(SHIFT, kind="inception", scale_low=1.0), 0)
    assert (batches.counts, batches.steps(8)) == ({"train": 50, "val": 50}, 6)
    seen = [(int(i.sum()), int(label)) for x, y in batches.training(3, 8) for i, label in zip(x, y, strict=True)]
    known = {(int(i.sum()), int(label)) for i, label in zip(dataset.train.images, dataset.train.labels, strict=True)}
    # about a third of the aspect ratios fit into the whole area after rounding; they leave the image unchanged
    assert len(seen) == 48
    assert len(set(seen)) == 48
    assert len(set(seen) & known) > 8


@pytest.mark.parametrize("augmentation", [SHIFT, INCEPTION], ids=["shift", "inception"])
def test_any_step_can_be_the_first(dataset: Dataset, augmentation: Augmentation) -> None:
    batches = ArrayBatches(dataset, augmentation, 7)
    whole = list(batches.training(2, 8))
    rest = list(batches.training(2, 8, start=4))
    assert len(rest) == 2
    for (images, labels), (again, same) in zip(whole[4:], rest, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)
    for other in (batches.training(3, 8), ArrayBatches(dataset, augmentation, 8).training(2, 8)):
        assert not torch.equal(next(other)[0], whole[0][0])


@pytest.mark.parametrize("augmentation", [SHIFT, INCEPTION], ids=["shift", "inception"])
@pytest.mark.parametrize("world", [2, 4])
def test_all_processes_together_see_what_one_would(dataset: Dataset, augmentation: Augmentation, world: int) -> None:
    batches = ArrayBatches(dataset, augmentation, 7)
    ranks = [batches.training(1, 8, rank=rank, world=world) for rank in range(world)]
    parts = zip(*ranks, strict=True)
    for (images, labels), shares in zip(batches.training(1, 8), parts, strict=True):
        assert torch.equal(images, torch.cat([x for x, _ in shares]))
        assert torch.equal(labels, torch.cat([y for _, y in shares]))


def test_scoring_is_all_images_in_order(dataset: Dataset) -> None:
    found = list(ArrayBatches(dataset, INCEPTION, 0).scoring("val", 16))
    assert [len(y) for _, y in found] == [16, 16, 16, 2]
    assert np.array_equal(torch.cat([x for x, _ in found]).numpy(), dataset.val.images)
    assert np.array_equal(torch.cat([y for _, y in found]).numpy(), dataset.val.labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"augmentation": Augmentation(auto_augment="rand-m9")}, "--loader files"), ({"crop": 0.875}, "--crop 1")],
)
def test_what_arrays_cannot_give_is_refused(dataset: Dataset, changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArrayBatches(dataset, **{"augmentation": SHIFT, "seed": 0, **changes})


def boxes_of(images: Tensor, crops: Tensor, size: int) -> list[tuple[int, int, int, int] | None]:
    """Return the (top, left, height, width) whose resized crop each result is, by trying all; None if no crop fits."""
    found = []
    sides = range(1, size + 1)
    candidates = [
        b for b in itertools.product(range(size), range(size), sides, sides) if b[0] + b[2] <= size >= b[1] + b[3]
    ]
    for image, crop in zip(images, crops, strict=True):
        x = image.permute(2, 0, 1).float()
        fits = None
        for top, left, height, width in candidates:
            part = x[:, top : top + height, left : left + width]
            whole = torch.nn.functional.interpolate(part[None], (size, size), mode="bilinear")[0].permute(1, 2, 0)
            if (whole - crop).abs().max() <= 0.51:  # rounding
                fits = (top, left, height, width)
                break
        found.append(fits)
    return found


def test_crops_are_resized_parts_of_the_image_of_the_right_area_and_aspect() -> None:
    size, count = 8, 24
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator_of(0))
    crops = random_resized_crops(images, torch.arange(count), generator_of(1), scale_low=0.3, flip=False)
    assert crops.dtype == torch.uint8
    boxes = boxes_of(images, crops.float(), size)
    assert None not in boxes
    assert len(set(boxes)) > 15
    for _, _, height, width in boxes:
        # the drawn box, before its sides were rounded to whole pixels
        assert (height + 0.5) * (width + 0.5) >= 0.3 * size * size
        assert (width + 0.5) / (height - 0.5) >= 3 / 4
        assert (width - 0.5) / (height + 0.5) <= 4 / 3


def test_flipped_crops_are_mirrored_and_agree_with_torchvision() -> None:
    size = 32
    images = torch.randint(0, 256, (40, size, size, 3), dtype=torch.uint8, generator=generator_of(0))
    plain = random_resized_crops(images, torch.arange(40), generator_of(1), scale_low=0.08, flip=False)
    flipped = random_resized_crops(images, torch.arange(40), generator_of(1), scale_low=0.08, flip=True)
    mirrored = [not torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert 8 < sum(mirrored) < 32
    for a, b, turned in zip(plain, flipped, mirrored, strict=True):
        assert torch.equal(b, a.flip(1) if turned else a)
    whole = random_resized_crops(images, torch.arange(40), generator_of(3), scale_low=1.0, flip=False)
    as_it_is = [i for i in range(40) if torch.equal(whole[i], images[i])]
    resized = tv.resize(images[as_it_is].permute(0, 3, 1, 2), [size, size], antialias=False)
    assert torch.equal(resized.permute(0, 2, 3, 1), whole[as_it_is])


def test_erasing_replaces_a_rectangle_in_the_asked_share_of_images() -> None:
    images = torch.zeros(400, 16, 16, 3, dtype=torch.uint8)
    erased = (erase(images.clone(), 0.25, generator_of(0)) != 0).any(-1)
    changed = erased.flatten(1).any(1)
    assert 70 < int(changed.sum()) < 130  # 100 +- 3.5 deviations
    for mask in erased[changed][:20]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        height, width = (int(x.max() - x.min()) + 1 for x in (rows, columns))
        assert 1 <= height * width <= 16 * 16 / 3 + 16
