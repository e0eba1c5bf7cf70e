"""Distillation: its loss, its targets through mixing and unlabelled images, its cache, and real trainings."""

import dataclasses
import io
import math
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from train_toy import ARCH, CONFIG, Killing, toy_batches, values

from mnas.data.arrays import ArrayBatches
from mnas.data.augmentation import Augmentation
from mnas.data.open_batches import open_batches
from mnas.nn.weights import load_weights
from mnas.train.distillation import TaughtBatches, Teaching, as_logits, cached_logits
from mnas.train.loop import train
from mnas.train.process import TrainingStopped
from mnas.train.scoring import moments, score


def teaching(logits: np.ndarray, **changes) -> Teaching:
    fields = {"teacher": "f" * 16, "logits": logits.astype(np.float32), "weight": 0.9, "temperature": 4.0}
    return Teaching(**{**fields, **changes})


def taught(
    config=CONFIG, *, extra: int = 0, logits: np.ndarray | None = None, world: int = 1, **changes
) -> TaughtBatches:
    """Toy images, of which `extra` more have no labels, with a teacher of random outputs."""
    labelled = toy_batches(config)
    unlabelled: ArrayBatches | None = toy_batches(config, images=extra, fingerprint="e" * 16) if extra else None
    if logits is None:
        logits = np.random.default_rng(3).normal(size=(100 + extra, 3))
    return TaughtBatches(labelled, unlabelled, teaching(logits, **changes), config, world)


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def test_the_loss_is_the_one_computed_by_hand() -> None:
    config = dataclasses.replace(CONFIG, label_smoothing=0.1)
    teacher = [[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]] + [[0.0, 0.0, 0.0]] * 108
    batches = taught(config, extra=10, logits=np.array(teacher), weight=0.7, temperature=2.0)
    student = [[0.3, 0.1, -0.7], [1.5, -0.5, 0.2]]
    found = float(batches.loss(torch.tensor(student), batches.targets(torch.tensor([0, 1]))))
    expected = 0.0
    for row, label in enumerate((0, 1)):
        logs = log_softmax(student[row])
        own = -sum((0.9 * (number == label) + 0.1 / 3) * logs[number] for number in range(3))
        target = [math.exp(value) for value in log_softmax([value / 2 for value in teacher[row]])]
        logs = log_softmax([value / 2 for value in student[row]])
        divergence = sum(p * (math.log(p) - log) for p, log in zip(target, logs, strict=True))
        expected += (0.3 * own + 0.7 * 2.0**2 * divergence) / 2
    assert found == pytest.approx(expected, rel=1e-5)
    uniform = batches.targets(torch.tensor([105]))  # unlabelled: no label, and only the teacher's term
    assert torch.equal(uniform, torch.tensor([[0.0, 0.0, 0.0, 1 / 3, 1 / 3, 1 / 3]]))
    divergence = -math.log(3) - sum(log_softmax([value / 2 for value in student[0]])) / 3
    assert float(batches.loss(torch.tensor(student[:1]), uniform)) == pytest.approx(0.7 * 4 * divergence, rel=1e-5)


def test_balance_weighs_the_labels_term_and_not_the_teachers() -> None:
    """The toy images are 34, 33 and 33 of each class."""
    plain, balanced = taught(weight=0.0), taught(dataclasses.replace(CONFIG, balance="loss"), weight=0.0)
    logits, rows = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    losses = [float(plain.loss(logits[i : i + 1], plain.targets(rows[i : i + 1]))) for i in range(3)]
    smoothing = CONFIG.label_smoothing
    weights = [100 / 3 / count * (1 - smoothing) + smoothing * 100 / 9 * (1 / 34 + 2 / 33) for count in (34, 33, 33)]
    expected = sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / 3
    assert float(balanced.loss(logits, balanced.targets(rows))) == pytest.approx(expected, rel=1e-5)
    config = dataclasses.replace(CONFIG, balance="loss")
    only = [float(b.loss(logits, b.targets(rows))) for b in (taught(weight=1.0), taught(config, weight=1.0))]
    assert only[0] == only[1]


def test_mixing_mixes_labels_and_outputs_by_the_same_share() -> None:
    config = dataclasses.replace(CONFIG, mixup=1.0)
    batches = taught(config)
    mix = batches.mix(4)
    assert mix is not None
    targets = batches.targets(torch.tensor([0, 1, 2, 5]))
    black_and_white = torch.stack([torch.full((3, 8, 8), value) for value in (0.0, 0.0, 1.0, 1.0)])
    images, mixed = mix(black_and_white.clone(), targets, 7)
    share = 1 - float(images[0, 0, 0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * targets + (1 - share) * targets.flip(0))
    assert taught().mix(4) is None


def test_a_step_has_the_share_of_unlabelled_images_and_each_row_its_own_target() -> None:
    batches = taught(extra=50)
    assert batches.counts == {"train": 150, "val": 50, "test": 50}
    assert batches.steps(15) == 10
    rows = torch.cat([rows for _, rows in batches.training(2, 15, numbered=True)])
    assert sorted(rows.tolist()) == list(range(150))  # each image once
    assert all((rows[i : i + 15] < 100).sum() == 10 for i in range(0, 150, 15))
    steps = list(batches.training(2, 15))
    assert torch.equal(steps[3][1], batches.targets(rows[45:60]))
    for first, other in zip(steps[3:], batches.training(2, 15, start=3), strict=True):
        assert all(map(torch.equal, first, other))
    for size in (30, 26, 20):
        both = taught(extra=50, world=2)
        shares = [list(both.training(2, size, rank=rank, world=2)) for rank in (0, 1)]
        assert len(shares[0]) == both.steps(size)
        assert [len(images) for images, _ in shares[1]] == [size // 2] * both.steps(size)
        whole = {row for _, rows in both.training(2, size, numbered=True) for row in rows.tolist()}
        parts = {
            row
            for r in (0, 1)
            for _, rows in both.training(2, size, rank=r, world=2, numbered=True)
            for row in rows.tolist()
        }
        assert parts == whole
    few = taught(extra=3)  # they begin again within an epoch
    assert few.steps(10) == 11
    rows = torch.cat([rows for _, rows in few.training(0, 10, numbered=True)])
    assert (rows >= 100).sum() == 11
    later = torch.cat([rows for _, rows in few.training(0, 10, start=7, numbered=True)])
    assert torch.equal(later, rows[70:])


def test_a_student_learns_the_teacher_and_not_the_labels(tmp_path: Path) -> None:
    """The teacher calls each class by the next one's name; chance is 1/3."""
    config = dataclasses.replace(CONFIG, epochs=20)
    labels = np.arange(100) % 3
    batches = taught(config, logits=8 * np.eye(3)[(labels + 1) % 3], weight=1.0, temperature=1.0)
    trained = train(ARCH, batches, config, tmp_path / "t")
    assert trained.accuracy < 0.2
    network = load_weights(trained.weights)
    permuted = ((images, (labels + 1) % 3) for images, labels in batches.scoring("val", 50))
    assert score(network, permuted, *moments(batches.mean, batches.std, torch.device("cpu"))).accuracy > 0.8


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.2, "cutmix": 1.0}])
def test_it_resumes_to_the_bit(tmp_path: Path, changes: dict) -> None:
    config = dataclasses.replace(CONFIG, epochs=2, **changes)
    train(ARCH, taught(config, extra=40), config, tmp_path / "whole")
    for step in (2, 7):
        watcher = Killing(signal.SIGTERM, step)
        with pytest.raises(TrainingStopped):
            train(ARCH, taught(config, extra=40), config, tmp_path / "t", resume=True, watcher=watcher)
    train(ARCH, taught(config, extra=40), config, tmp_path / "t", resume=True)
    assert values(tmp_path / "whole") == values(tmp_path / "t")
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "t"))
    assert one == other


def test_another_teacher_is_another_training(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    train(ARCH, taught(config, extra=40), config, tmp_path / "t")
    for other, words in (
        (taught(config, extra=40, teacher="e" * 16), "teacher: f{16} before, e{16} now"),
        (taught(config, extra=40, weight=0.5), "distillation_weight: 0.9 before, 0.5 now"),
        (taught(config, extra=40, temperature=2.0), "temperature: 4.0 before, 2.0 now"),
        (taught(config), "unlabelled: e{16} before, None now"),
        (toy_batches(config), "teacher: f{16} before, None now"),
    ):
        with pytest.raises(ValueError, match=words):
            train(ARCH, other, config, tmp_path / "t", resume=True)


def test_probabilities_become_logits() -> None:
    rows = np.array([[0.75, 0.25, 0.0]], np.float32)
    found = as_logits(rows, probabilities=True)
    np.testing.assert_allclose(found, np.log([[0.75, 0.25, 1e-5]]), rtol=1e-6)
    assert as_logits(rows, probabilities=False) is rows


def test_outputs_are_cached_and_damaged_ones_made_again(tmp_path: Path) -> None:
    runs = []

    def outputs():
        runs.append(1)
        yield np.array([2, 0]), np.array([[1, 2], [3, 4]], np.float32)

    for _ in range(2):
        found = cached_logits(tmp_path, ["a"], (3, 2), outputs)
        assert isinstance(found, np.memmap)
        assert found.tolist() == [[3, 4], [0, 0], [1, 2]]
    assert len(runs) == 1
    cached_logits(tmp_path, ["b"], (3, 2), outputs)
    assert len(runs) == 2
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4])
    assert cached_logits(tmp_path, ["a"], (3, 2), outputs).tolist() == [[3, 4], [0, 0], [1, 2]]
    assert len(runs) == 3

    def failing():
        yield np.array([0]), np.array([[1, 2]], np.float32)
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        cached_logits(tmp_path, ["c"], (3, 2), failing)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert not list(tmp_path.glob("*.tmp"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images whose first pixel is their number, in two classes."""
    for number in range(120):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, number % 2, 0)).save(folder / f"{number:03}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("loader", ["array", "files"])
def test_numbers_of_images_are_those_of_scoring(photos: Path, tmp_path: Path, loader) -> None:
    batches = open_batches(
        str(photos), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), loader=loader, workers=0,
        data_dir=None, download=False, max_images_per_class=0, on_progress=None, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    seen = torch.zeros(len(batches.train_labels()), dtype=torch.uint8)
    for images, _, numbers in batches.numbered("train", 7):
        seen[numbers] = images[:, 4, 4, 0]
    for images, numbers in batches.training(1, 8, numbered=True):
        assert torch.equal(images[:, 4, 4, 0], seen[numbers])
        assert torch.equal(images[:, 4, 4, 1].long(), batches.train_labels()[numbers])
    plain = torch.cat([labels for _, labels in batches.training(1, 8)])
    numbered = torch.cat([numbers for _, numbers in batches.training(1, 8, numbered=True)])
    assert torch.equal(plain, batches.train_labels()[numbered])


@pytest.mark.parametrize("loader", ["array", "files"])
def test_a_folder_without_labels(photos: Path, tmp_path: Path, loader) -> None:
    (photos / "a" / "bad.png").write_bytes(b"no image")
    batches = open_batches(
        str(photos), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), loader=loader, workers=0,
        cache_dir=tmp_path / "cache", unlabelled=True,
    )  # fmt: skip
    images = torch.cat([images for images, _ in batches.scoring("train", 50)])
    assert sorted(images[:, 4, 4, 0].tolist()) == list(range(120))
    [line] = batches.skipped
    assert "bad.png" in line
    for wrong, words in ((photos / "none", "no such folder"), (photos / "a" / "bad.png", "a file")):
        with pytest.raises(ValueError, match=f"--unlabelled must be a folder of images, but got .*{words}"):
            open_batches(
                str(wrong), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), loader=loader, workers=0,
                unlabelled=True,
            )  # fmt: skip


def write_tars(folder: Path, contents: list[bytes], each: int) -> None:
    """Write images without labels as folder/photos-N.tar."""
    folder.mkdir()
    for number, start in enumerate(range(0, len(contents), each)):
        with tarfile.open(folder / f"photos-{number}.tar", "w") as tar:
            for index, content in enumerate(contents[start : start + each], start):
                info = tarfile.TarInfo(f"{index:04d}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_tar_shards_without_labels(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    contents = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    contents[5] = b"no image"
    folder = tmp_path / "tars"
    write_tars(folder, contents, 30)

    def opened(data: str, **changes):
        options = {"crop": 1.0, "augmentation": Augmentation(), "loader": "auto", "workers": 2, **changes}
        return open_batches(data, input_size=8, seed=0, cache_dir=tmp_path / "cache", unlabelled=True, **options)

    batches = opened(str(folder))
    assert batches.counts == {"train": 120, "val": 0}
    assert batches.train_labels().tolist() == [0] * 120
    seen = {}
    for images, labels, numbers in batches.numbered("train", 16):
        assert not labels.any()
        seen |= dict(zip(numbers.tolist(), images[:, 4, 4, 0].tolist(), strict=True))
    assert set(seen) == set(range(120)) - {5}
    [line] = batches.skipped
    assert "photos-0.tar: 0005.png" in line
    assert batches.image_name("train", 31) == "photos-1.tar: 0031.png"
    pixels = {path.read_bytes(): int(np.asarray(Image.open(path))[4, 4, 0]) for path in photos.rglob("*.png")}
    assert seen == {number: pixels[content] for number, content in enumerate(contents) if number != 5}
    for images, numbers in batches.training(1, 8, numbered=True):
        assert images[:, 4, 4, 0].tolist() == [seen[number] for number in numbers.tolist()]

    pattern = opened(str(folder / "photos-{1..2}.tar"), loader="array")  # the loader is that of the labelled images
    assert pattern.counts["train"] == 60
    (folder / "more").mkdir()
    (folder / "more" / "one.png").write_bytes(contents[0])
    assert opened(str(folder), workers=0).counts["train"] == 1  # a folder of images, with tar files beside them


def test_a_student_learns_from_tar_shards_and_resumes_to_the_bit(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    write_tars(tmp_path / "tars", [path.read_bytes() for path in sorted(photos.rglob("*.png"))], 30)
    unlabelled = open_batches(
        str(tmp_path / "tars"), input_size=8, seed=0, crop=1.0, augmentation=Augmentation(), loader="auto", workers=0,
        cache_dir=tmp_path / "cache", unlabelled=True,
    )  # fmt: skip
    logits = np.random.default_rng(3).normal(size=(220, 3))

    def batches() -> TaughtBatches:
        return TaughtBatches(toy_batches(), unlabelled, teaching(logits), CONFIG)

    train(ARCH, batches(), CONFIG, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train(ARCH, batches(), CONFIG, tmp_path / "stopped", watcher=Killing(signal.SIGTERM, 9))
    train(ARCH, batches(), CONFIG, tmp_path / "stopped", resume=True)
    assert values(tmp_path / "whole") == values(tmp_path / "stopped")
    one, other = (load_weights(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
