"""Files decoded on the fly: timm's augmentation, drawn for each image; workers; unreadable images; identity."""

import json
import multiprocessing
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor

from mnas.data.augment import seed_of
from mnas.data.augmentation import Augmentation
from mnas.data.files import FolderBatches
from mnas.data.image import read_image
from mnas.data.load import open_source, split_parts
from mnas.data.named import imagenet_folder
from mnas.data.view import ImageView
from tests.data.test_load import make_folder

INCEPTION = Augmentation(kind="inception")
EVERYTHING = Augmentation(kind="inception", auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)


def photograph(width: int = 320, height: int = 240) -> Image.Image:
    return Image.fromarray(load_sample_images().images[0]).resize((width, height))


def opened(folder: Path, cache: Path, **changed: object) -> FolderBatches:
    options: dict[str, object] = {
        "input_size": 16, "seed": 0, "crop": 1.0, "augmentation": INCEPTION, "workers": 0, "cache_dir": cache,
    }  # fmt: skip
    return FolderBatches(open_source(str(folder), folder, False), **(options | changed))  # type: ignore[arg-type]


def view(**changed: object) -> ImageView:
    options: dict[str, object] = {"size": 64, "crop": 1.0, "augmentation": INCEPTION, "flip": True, "seed": 3}
    return ImageView(**(options | changed))  # type: ignore[arg-type]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Make 2 x 12 JPEGs of several sizes, cut from a photograph."""
    photo = photograph()
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(12):
            left, top = 10 * index, 40 * label
            box = (left, top, left + 60 + 5 * index, top + 100)
            photo.crop(box).save(tmp_path / "pets" / name / f"{index}.jpg")
    return tmp_path / "pets"


# One image


@pytest.mark.parametrize("kind", ["pixels", "file", "bytes"])
def test_a_varied_image_is_what_timms_transforms_make_of_it(tmp_path: Path, kind: str) -> None:
    photo = photograph()
    photo.save(tmp_path / "photo.png")
    content = {"pixels": np.asarray(photo), "file": tmp_path / "photo.png"}.get(
        kind, (tmp_path / "photo.png").read_bytes()
    )
    policy = "rand-m9-mstd0.5-inc1"
    ours = view(augmentation=Augmentation(kind="inception", scale_low=0.2, auto_augment=policy))
    crop = RandomResizedCropAndInterpolation(64, scale=(0.2, 1), ratio=(3 / 4, 4 / 3), interpolation="bilinear")
    mirrored = 0
    for image in range(10):
        seed = seed_of(16, 3, 5, image)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        expected = crop(photo)
        if random.random() < 0.5:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mirrored += 1
        expected = rand_augment_transform(policy, {"translate_const": int(64 * 0.45)})(expected)
        assert np.array_equal(ours.varied(content, 5, image), np.asarray(expected))
    assert 1 <= mirrored <= 9


def test_large_photographs_are_decoded_small_with_hardly_a_difference(tmp_path: Path) -> None:
    photo = photograph(1280, 960)
    photo.save(tmp_path / "photo.jpg", quality=95)
    decoded = np.asarray(Image.open(tmp_path / "photo.jpg"))
    small = view(size=32)
    differences = []
    for image in range(8):
        pair = (small.varied(content, 0, image).astype(int) for content in (tmp_path / "photo.jpg", decoded))
        left, right = pair
        assert np.abs(left - right).mean() < 2.5
        differences.append(np.abs(left - right).max())
    assert max(differences) > 0  # otherwise nothing was decoded at a smaller size


def test_rotation_by_exif_is_applied_before_the_crop_is_drawn(tmp_path: Path) -> None:
    photo = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    for image in range(5):
        expected = view().varied(np.asarray(photo), 0, image)
        assert np.array_equal(view().varied(tmp_path / "turned.png", 0, image), expected)


def test_without_a_right_to_mirror_nothing_is_mirrored() -> None:
    gradient = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], (100, 100, 3)).copy()
    for augmentation in (INCEPTION, Augmentation()):
        rising = [
            bool(pixels[0, 0, 0] < pixels[0, -1, 0])
            for pixels in (view(augmentation=augmentation, flip=False).varied(gradient, 0, i) for i in range(20))
        ]
        both = [
            bool(pixels[0, 0, 0] < pixels[0, -1, 0])
            for pixels in (view(augmentation=augmentation).varied(gradient, 0, i) for i in range(20))
        ]
        assert all(rising)
        assert 1 <= sum(both) <= 19


def test_shifts_are_of_the_evaluated_square_and_random_erasing_makes_noise() -> None:
    flat = np.full((50, 70, 3), 77, np.uint8)
    assert (view(augmentation=Augmentation()).varied(flat, 0, 0) == 77).all()
    erased = view(augmentation=Augmentation(random_erasing=1.0)).varied(flat, 0, 0)
    assert 0.01 < (erased != 77).mean() < 0.4
    square = view().scored(np.asarray(photograph()))
    shifted = view(augmentation=Augmentation(), flip=False).varied(np.asarray(photograph()), 0, 1)
    padded = np.pad(square, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    assert any(np.array_equal(padded[y : y + 64, x : x + 64], shifted) for y in range(9) for x in range(9))


def test_the_centre_crop_is_that_of_an_evaluation(pets: Path, tmp_path: Path) -> None:
    batches = opened(pets, tmp_path / "cache", crop=0.5)
    ((images, _),) = batches.scoring("val", 100)
    _, items = split_parts(open_source(str(pets), pets, False), 0, 0, tmp_path)
    assert batches.crop == 0.5
    for pixels, item in zip(images.numpy(), items["val"], strict=True):
        assert isinstance(item.content, Path)
        assert np.array_equal(pixels, read_image(item.content, 16, 0.5))


# Workers


def test_any_number_of_workers_and_any_resume_give_the_same_bits(pets: Path, tmp_path: Path) -> None:
    def steps(workers: int, start: int = 0) -> list[tuple[Tensor, Tensor]]:
        return list(opened(pets, tmp_path, augmentation=EVERYTHING, workers=workers).training(2, 4, start=start))

    alone = steps(0)
    assert len(alone) == 5
    for found, expected in ((steps(1), alone), (steps(2), alone), (steps(2, 3), alone[3:])):
        for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
            assert torch.equal(images, expected_images)
            assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_trainings_own_random_state_is_left_alone(pets: Path, tmp_path: Path, workers: int) -> None:
    torch.manual_seed(1)
    before = random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state()
    batches = opened(pets, tmp_path, augmentation=EVERYTHING, workers=workers)
    assert len(list(batches.training(0, 4))) == 5
    assert len(list(batches.scoring("val", 4))) == 1
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_signals_are_the_parents_business_and_workers_end_with_their_batches(pets: Path, tmp_path: Path) -> None:
    batches = opened(pets, tmp_path, workers=2)
    steps = batches.training(0, 2)
    next(steps), next(steps)  # one from each worker: both have started
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for name in ("-INT", "-TERM"):  # from another process; from the parent, SIGTERM ends the worker
        subprocess.run(["kill", name, *(str(worker.pid) for worker in workers)], check=True)
    assert len(list(steps)) == 8
    unfinished = batches.training(1, 2)
    next(unfinished)
    del unfinished
    assert multiprocessing.active_children() == []


def test_a_million_names_cost_what_their_letters_cost(pets: Path, tmp_path: Path) -> None:
    """Workers receive (or share) the listing as bytes, not as a million Python objects."""
    batches = opened(pets, tmp_path)
    letters = sum(len(str(path)) for path in pets.glob("*/*.jpg"))
    listing = len(pickle.dumps(batches._parts))
    assert listing < letters + 24 * (8 + 8) + 2000


# Unreadable images


@pytest.mark.parametrize("workers", [0, 2])
def test_one_percent_may_be_unreadable_and_is_named(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "gray", {"train": 90, "val": 30})
    for path in (folder / "train" / "cat" / "7.png", folder / "val" / "dog" / "3.png"):
        path.write_bytes(path.read_bytes()[:40])
    batches = opened(folder, tmp_path / "cache", workers=workers, augmentation=Augmentation())
    steps = list(batches.training(0, 20))
    assert [len(labels) for _, labels in steps] == [20] * 9
    seen = [int(level) for images, _ in steps for level in images[:, 0, 0, 0]]
    assert 7 not in seen
    assert len(set(seen)) == 179
    assert [level // 90 for level in seen] == [int(label) for _, labels in steps for label in labels]
    (skipped,) = batches.skipped
    assert f"{folder}/train/cat/7.png: " in skipped
    assert sum(len(labels) for _, labels in batches.scoring("val", 20)) == 59
    assert len(batches.skipped) == 2
    again = list(opened(folder, tmp_path / "cache", augmentation=Augmentation()).training(0, 20, start=4))
    assert all(torch.equal(left[0], right[0]) for left, right in zip(again, steps[4:], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_more_is_an_error_of_one_line(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "gray", {"train": 20, "val": 20})
    batches = opened(folder, tmp_path / "cache", workers=workers)
    for index in range(3):
        (folder / "train" / "dog" / f"{index}.png").write_text("broken")
    with pytest.raises(
        ValueError, match=r"at most 1 % of the images may be unreadable, but \d of 80 are \(.*dog"
    ) as error:
        list(batches.training(0, 8))
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []  # they ended immediately
    shutil.rmtree(folder / "train")
    with pytest.raises(ValueError, match=r"at most 1 %.*there is no such file"):
        list(batches.training(0, 8))
    with pytest.raises(ValueError, match="at most 1 %"):
        list(batches.scoring("train", 8))


# Identity and moments


def test_equal_folders_have_equal_fingerprints_wherever_they_lie(pets: Path, tmp_path: Path) -> None:
    first = opened(pets, tmp_path / "cache")
    moved = Path(shutil.copytree(pets, tmp_path / "elsewhere" / "pets"))
    assert opened(moved, tmp_path / "cache").fingerprint == first.fingerprint
    assert opened(pets, tmp_path / "cache", seed=1).fingerprint != first.fingerprint  # another split
    photograph(90, 80).save(moved / "cat" / "0.jpg")
    changed = opened(moved, tmp_path / "cache").fingerprint
    assert changed != first.fingerprint
    (moved / "cat" / "0.jpg").rename(moved / "dog" / "20.jpg")
    assert opened(moved, tmp_path / "cache").fingerprint not in (first.fingerprint, changed)


def test_moments_are_those_of_the_training_images_and_cached(pets: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    batches = opened(pets, tmp_path / "cache", on_progress=lambda done, total: seen.append((done, total)))
    pixels = torch.cat([images for images, _ in batches.scoring("train", 8)]).numpy() / 255
    assert np.allclose(batches.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(batches.std, pixels.std((0, 1, 2)), atol=1e-6)
    assert seen == [(20, 20)]
    again = opened(pets, tmp_path / "cache", on_progress=lambda done, total: seen.append((done, total)))
    assert (again.mean, again.std, len(seen)) == (batches.mean, batches.std, 1)
    (memory,) = (tmp_path / "cache").glob("moments-*.json")
    whole = json.loads(memory.read_text())
    nan, third = float("nan"), batches.mean[2]
    others = [
        "{", "null", "[]", "{}", '{"mean": 1}', "[" * 100_000, json.dumps({**whole, "mean": [0.5, 0.5, 0.5]}),
        json.dumps({**whole, "mean": [nan] * 3}), json.dumps({**whole, "std": [0, 0, 0]}),
        json.dumps({**whole, "mean": [*batches.mean, third]}), json.dumps({**whole, "std": ["a", "b", "c"]}),
    ]  # fmt: skip
    for damaged in others:
        memory.write_text(damaged)
        found = opened(pets, tmp_path / "cache")
        assert (found.mean, found.std) == (batches.mean, batches.std), damaged
        assert json.loads(memory.read_text()) == whole
    other_size = opened(pets, tmp_path / "cache", input_size=8)
    assert other_size.mean != batches.mean


def test_imagenet_has_the_published_moments(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "ilsvrc", {"train": 5, "val": 3})
    batches = FolderBatches(
        imagenet_folder(root), input_size=8, seed=0, crop=0.875, augmentation=INCEPTION, workers=0, cache_dir=tmp_path
    )
    assert (batches.mean, batches.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert batches.counts == {"train": 8, "val": 2, "test": 6}


@pytest.mark.slow  # a separate interpreter, which imports everything
def test_a_process_that_leaves_its_batches_behind_ends(pets: Path, tmp_path: Path) -> None:
    """Multiprocessing ends workers by SIGTERM and waits for them, so they must not ignore its signal."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.data.test_files import opened\n"
        "steps = opened(Path(sys.argv[1]), Path(sys.argv[2]), workers=2).training(0, 2)\nnext(steps)\n"
        "import builtins; builtins.kept = steps\n"
    )
    command = [sys.executable, "-c", script, str(pets), str(tmp_path)]
    assert subprocess.run(command, timeout=60, cwd=Path(__file__).parents[2]).returncode == 0
