"""Batches of boxes: bitwise repeats, boxes that move with their pixels, the cache, and unreadable images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from mnas.data.detection import augmentation as strengths
from mnas.data.detection.batches import open_box_batches
from mnas.data.detection.load import load_detection
from mnas.data.detection.pixels import read_stretched
from mnas.data.detection.view import BoxView, Objects, Window, drawn_crop
from tests.data.detection.box_folders import box, coco_folder, entry, write_image

SIZE = 32


def data_of(root, count: int = 12, width: int = 40, height: int = 30, names: tuple[str, str] = ("cat", "dog")):
    """Images of two sizes, some without a box, and one with a crowd."""
    images = [entry(n, f"{n}.jpg", *((width, height) if n % 2 else (height, width))) for n in range(count)]
    for n, row in enumerate(images):
        write_image(root / "train" / row["file_name"], row["width"], row["height"], seed=n)
    rows = [box(10 * n + k, n, [2 + k, 3, 10 + n % 5, 12], 3 + 4 * (k % 2)) for n in range(count) for k in range(n % 4)]
    rows.append(box(1000, 1, [5, 5, 20, 20], iscrowd=1))
    categories = [{"id": 3, "name": names[0]}, {"id": 7, "name": names[1]}]
    return load_detection(coco_folder(root, rows, images=images, categories=categories))


def batches_of(data, tmp_path, **options):
    defaults = {"input_size": SIZE, "augmentation": "ssd", "seed": 3, "workers": 0, "cache_dir": tmp_path / "cache"}
    return open_box_batches(data, **{**defaults, **options})


def flat(batches) -> list[tuple]:
    """Return everything in some training batches as bytes."""
    return [
        (
            images.numpy().tobytes(),
            *(
                (t.boxes.numpy().tobytes(), t.labels.tolist(), t.crowds is not None and t.crowds.tolist())
                for t in targets
            ),
        )
        for images, targets in batches
    ]


@pytest.mark.parametrize("augmentation", ["ssd", "small", "none"])
def test_batches_repeat_for_any_workers_start_and_cache(tmp_path, augmentation):
    data = data_of(tmp_path / "data", 22)
    batches = batches_of(data, tmp_path, augmentation=augmentation)
    whole = flat(batches.training(0, 4))
    assert len(whole) == batches.steps(4) == len(data.train) // 4
    assert flat(batches.training(0, 4)) == whole
    assert flat(batches.training(0, 4, start=2)) == whole[2:]
    assert flat(batches.training(1, 4)) != whole
    assert flat(batches_of(data, tmp_path, augmentation=augmentation, seed=4).training(0, 4)) != whole
    assert flat(batches_of(data, tmp_path, augmentation=augmentation, workers=2).training(0, 4)) == whole
    uncached = batches_of(data, tmp_path, augmentation=augmentation, most_cached_bytes=0)
    assert flat(uncached.training(0, 4)) == whole
    state = torch.random.get_rng_state()
    next(batches.training(0, 4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_processes_share_a_batch(tmp_path):
    batches = batches_of(data_of(tmp_path / "data"), tmp_path)
    for (images, targets), first, second in zip(
        batches.training(2, 4), batches.training(2, 4, world=2), batches.training(2, 4, rank=1, world=2), strict=True
    ):
        assert torch.equal(torch.cat([first[0], second[0]]), images)
        together = [*first[1], *second[1]]
        assert len(together) == len(targets)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(together, targets, strict=True))


def test_without_augmentation_images_are_resized_and_boxes_are_shares(tmp_path):
    data = data_of(tmp_path / "data")
    batches = batches_of(data, tmp_path, augmentation="none", mirror="no")
    by_pixels = {}
    for image in data.train:
        with Image.open(image.path) as file:
            by_pixels[image.name] = np.asarray(file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), int)
    seen = 0
    for images, targets in batches.training(0, 1):
        assert (images.shape, images.dtype) == ((1, SIZE, SIZE, 3), torch.uint8)
        [image] = [i for i in data.train if np.abs(by_pixels[i.name] - images[0].numpy()).max() <= 1]
        sides = np.array([image.width, image.height] * 2, np.float32)
        np.testing.assert_allclose(targets[0].boxes, (image.boxes / sides)[~image.crowd], atol=1e-6)
        assert targets[0].labels.tolist() == (image.labels[~image.crowd] + 1).tolist()
        assert (targets[0].crowds is not None) == image.crowd.any()
        assert targets[0].boxes.shape == (len(targets[0].labels), 4)
        seen += 1
    assert seen == len(data.train)


def test_evaluation_has_all_images_in_order(tmp_path):
    data = data_of(tmp_path / "data")
    batches = batches_of(data, tmp_path)
    for part in ("train", "val"):
        scored = list(batches.scoring(part, 4))
        assert [image.name for images, _ in scored for image in images] == [i.name for i in data.parts[part]]
        for images, pixels in scored:
            assert (pixels.shape, pixels.dtype) == ((len(images), SIZE, SIZE, 3), np.uint8)
            for image, row in zip(images, pixels, strict=True):
                expected, size = read_stretched(image.path, SIZE)
                assert size == (image.width, image.height)
                np.testing.assert_array_equal(row, expected)
                with Image.open(image.path) as file:
                    plain = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                np.testing.assert_array_equal(row, np.asarray(plain))
    assert batches.images("test") == ()


def test_mirroring(tmp_path):
    data = data_of(tmp_path / "data")
    mirrored = batches_of(data, tmp_path, augmentation="none")
    plain = batches_of(data, tmp_path, augmentation="none", mirror="no")
    assert (mirrored.mirrored, plain.mirrored) == (True, False)
    flips = 0
    for (images, targets), (others, unflipped) in zip(mirrored.training(0, 1), plain.training(0, 1), strict=True):
        if torch.equal(images, others):
            assert torch.equal(targets[0].boxes, unflipped[0].boxes)
        else:
            flips += 1
            assert torch.equal(images, others.flip(2))
            x1, y1, x2, y2 = unflipped[0].boxes.T
            torch.testing.assert_close(targets[0].boxes, torch.stack([1 - x2, y1, 1 - x1, y2], 1))
    assert 0 < flips < len(data.train)
    names = data_of(tmp_path / "sides", names=("left hand", "right hand"))
    assert not batches_of(names, tmp_path).mirrored
    assert batches_of(names, tmp_path, mirror="yes").mirrored


@pytest.mark.parametrize("augmentation", ["ssd", "small"])
def test_a_box_stays_around_its_pixels(augmentation, monkeypatch):
    """A white rectangle on black: after any draw, its box contains just the white pixels that are visible."""
    still = replace(strengths.STRENGTHS[augmentation], hue=0.0)
    monkeypatch.setitem(strengths.STRENGTHS, augmentation, still)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[30:70, 20:80] = 255
    share = np.array([[20 / 120, 30 / 90, 80 / 120, 70 / 90]], np.float32)
    objects = Objects(boxes=share, labels=np.array([4]), crowd=np.array([False]))
    view = BoxView(size=64, augmentation=augmentation, flip=True, seed=0)
    windows = set()
    for epoch in range(200):
        image, moved = view.varied(pixels, objects, epoch, 0)
        assert image.shape == (64, 64, 3)
        rows, columns = np.nonzero(image[..., 0] > 200)
        assert moved.labels.tolist() == [4]
        x1, y1, x2, y2 = moved.boxes[0] * 64
        np.testing.assert_allclose(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x1, y1, x2, y2], atol=1
        )
        windows.add(tuple(moved.boxes[0].tolist()))
    assert len(windows) > 100


def test_crops_follow_torchvisions_distribution():
    boxes = np.array([[10, 10, 40, 60], [100, 50, 220, 180], [0, 0, 300, 200]], np.float32)
    torch.manual_seed(0)
    crop = v2.RandomIoUCrop()
    theirs = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(200, 300))
    draws = [crop.make_params([theirs]) for _ in range(500)]
    expected = np.array([[d["left"], d["top"], d["width"], d["height"]] if d else [0, 0, 300, 200] for d in draws])
    windows = [drawn_crop(Window(0, 0, 300, 200), boxes, 0.3) for _ in range(500)]
    ours = np.array([[w.x, w.y, w.width, w.height] for w in windows])
    error = np.sqrt(expected.var(0) / 500 + ours.var(0) / 500)
    assert (np.abs(expected.mean(0) - ours.mean(0)) < 4 * error).all()
    for share in (10, 50, 90):
        np.testing.assert_allclose(np.percentile(ours, share, axis=0), np.percentile(expected, share, axis=0), atol=20)
    whole = np.array([(each[:, 2:] == [300, 200]).all(1).mean() for each in (expected, ours)])
    assert abs(whole[0] - whole[1]) < 0.08


def test_boxes_of_a_pixel_are_dropped_and_crowds_stay():
    pixels = np.zeros((64, 64, 3), np.uint8)
    boxes = np.array([[0, 0, 0.01, 1], [0.2, 0.2, 0.8, 0.8], [0.7, 0, 1, 1]], np.float32)
    objects = Objects(boxes=boxes, labels=np.array([0, 1, 2]), crowd=np.array([False, False, True]))
    view = BoxView(size=32, augmentation="none", flip=False, seed=0)
    _, moved = view.varied(pixels, objects, 0, 0)
    assert moved.labels.tolist() == [1, 2]
    _, empty = view.varied(pixels, objects.chosen(np.zeros(3, bool), boxes), 0, 0)
    assert empty.boxes.shape == (0, 4)
    ssd = BoxView(size=32, augmentation="ssd", flip=False, seed=0)
    only_crowd = objects.chosen(objects.crowd, boxes)
    assert ssd.varied(pixels, only_crowd, 0, 0)[1].crowd.tolist() == [True]


def test_images_are_decoded_once(tmp_path, caplog):
    data = data_of(tmp_path / "data")
    calls = []
    first = batches_of(data, tmp_path, on_progress=lambda *call: calls.append(call))
    assert calls == [(n, 12) for n in range(1, 13)]
    whole = flat(first.training(0, 4))
    again = batches_of(data, tmp_path, on_progress=lambda *call: calls.append(call))
    assert len(calls) == 12
    assert flat(again.training(0, 4)) == whole
    [train] = (tmp_path / "cache").glob("*-64px-bounded-*/images.u8")
    content = bytearray(train.read_bytes())
    assert len(content) == len(data.train) * 40 * 30 * 3
    content[100] ^= 255
    train.write_bytes(content)
    repaired = batches_of(data, tmp_path, on_progress=lambda *call: calls.append(call))
    assert len(calls) == 12 + len(data.train)
    assert "images.u8 was changed" in caplog.text
    assert flat(repaired.training(0, 4)) == whole
    write_image(data.train[0].path, data.train[0].width, data.train[0].height, seed=99)
    batches_of(load_detection(tmp_path / "data"), tmp_path, on_progress=lambda *call: calls.append(call))
    assert len(calls) == 12 + 2 * len(data.train)


def test_large_images_are_cached_at_twice_the_input_size(tmp_path):
    data = data_of(tmp_path / "data", 2, 400, 300)
    batches = batches_of(data, tmp_path)
    assert [source.shape(0) for source in batches._pixels.values()] in (
        [(64, 48, 3), (32, 32, 3)],
        [(48, 64, 3), (32, 32, 3)],
    )
    assert next(batches.training(0, 1))[0].shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize("most_cached_bytes", [10**9, 0])
def test_images_that_fail_to_decode_are_replaced_and_counted(tmp_path, most_cached_bytes):
    root = tmp_path / "data"
    data = data_of(root, 100)
    path = data.train[3].path
    path.write_bytes(path.read_bytes()[:-200])  # the header is intact
    data = load_detection(root)
    assert data.unreadable == ()
    batches = batches_of(data, tmp_path, most_cached_bytes=most_cached_bytes, augmentation="none", mirror="no")
    images = [row for images, _ in batches.training(0, 10) for row in images]
    assert len(images) == 10 * (len(data.train) // 10)
    [line] = {*batches.skipped}
    assert line.startswith(f"{data.train[3].name}: it is damaged or cut off")
    other = data.train[4].path
    other.write_bytes(other.read_bytes()[:-200])
    with pytest.raises(ValueError, match="at most 1 % of the images may be unreadable, but 2 of 100 are"):
        list(batches_of(load_detection(root), tmp_path, most_cached_bytes=most_cached_bytes).training(0, 1))


def test_an_unreadable_image_is_left_out_of_scoring(tmp_path):
    root = tmp_path / "data"
    data = data_of(root, 100)
    path = data.val[0].path
    path.write_bytes(path.read_bytes()[:-200])
    batches = batches_of(load_detection(root), tmp_path)
    names = [image.name for images, _ in batches.scoring("val", 7) for image in images]
    assert names == [image.name for image in data.val[1:]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 4}, "--input-size must be an integer from 8 to 4096, but got 4"),
        ({"workers": -1}, "--workers must be an integer from 0"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        batches_of(data_of(tmp_path / "data", 2), tmp_path, **options)


def test_the_record_of_the_data(tmp_path):
    data = data_of(tmp_path / "data")
    batches = batches_of(data, tmp_path)
    assert batches.content == data.content(None)
    assert batches.counts == {"train": len(data.train), "val": len(data.val)}
    assert data.training_data(batches.content).images == 12
