"""The page of a detector's training: its numbers are those of the detections, and its pictures those of the images."""

import base64
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import CLASSES, write_shapes

from mnas.data.detection.batches import BoxBatches, open_box_batches
from mnas.data.detection.load import load_detection
from mnas.detection.coco import DetectionScores, coco_scores
from mnas.detection.detections import ImageDetections
from mnas.detection.draw import TRUE, WRONG
from mnas.detection.metrics import DetectionMetrics
from mnas.detection.page import write_detector_page
from mnas.detection.score import coco_truth
from tests.pages.test_scored_page import Parsed

Results = dict[int, ImageDetections]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> BoxBatches:
    folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes")
    data = load_detection(folder)
    return open_box_batches(
        data, input_size=64, augmentation="none", seed=0, workers=0, cache_dir=folder.parent / "cache"
    )


def rows(*precisions: float) -> list[DetectionMetrics]:
    return [
        DetectionMetrics(
            epoch=epoch, steps=2 * epoch, learning_rate=0.1, train_loss=8 / epoch, val_precision=precision,
            val_ap50=precision, images_per_s=1, waiting=0, train_s=1, score_s=1,
        )
        for epoch, precision in enumerate(precisions, 1)
    ]  # fmt: skip


def detected(batches: BoxBatches) -> tuple[DetectionScores, Results]:
    """Detections that equal the truth of the validation images, but all of the first image have the other class."""
    images = batches.images("val")
    results = {
        image.image_id: ImageDetections(
            boxes=image.boxes,
            scores=np.full(len(image.boxes), 0.9, np.float32),
            labels=1 - image.labels if image is images[0] else image.labels,
            width=image.width,
            height=image.height,
        )
        for image in images
    }
    data = batches.data
    return coco_scores(coco_truth(images, data.classes, data.category_ids), results), results


def parsed(path: Path, batches: BoxBatches, precisions: tuple[float, ...] = (math.nan, 0.5)) -> Parsed:
    path.mkdir(exist_ok=True)
    write_detector_page(path, rows(*precisions), batches, "val", *detected(batches))
    return Parsed((path / "report.html").read_text())


def test_its_numbers_are_those_of_the_detections(batches: BoxBatches, tmp_path: Path) -> None:
    page = parsed(tmp_path / "lite0-64px", batches)
    scores, _ = detected(batches)
    images = batches.images("val")
    first = images[0].labels
    _, *table = page.tables["numbers detected"]
    for label, (name, row) in enumerate(zip(CLASSES, table, strict=True)):
        of_class = scores.classes[name]
        assert of_class is not None
        assert row == [
            name,
            str(sum(int((image.labels == label).sum()) for image in batches.data.train)),
            str(sum(int((image.labels == label).sum()) for image in images)),
            f"{of_class.mean_precision:.1%}",
            f"{of_class.ap50:.1%}",
            str(int((first == label).sum())),
            str(int((first != label).sum())),
        ]
    assert f"{len(first)} of {scores.objects}" in page.text
    for words in ("lite0-64px", "validation part of shapes", "2 classes", "trained on 16 images, 2 epochs"):
        assert words in page.text
    assert f"{scores.ap50:.1%}AP50: at IoU .5" in page.text


def test_its_pictures_show_errors_in_red_and_true_boxes(batches: BoxBatches, tmp_path: Path) -> None:
    page = parsed(tmp_path / "t", batches)
    count = len(batches.images("val")[0].boxes)
    worst, *samples = page.images
    assert worst["alt"] == f"val/1.png: {count} missed, {count} wrong"
    assert len(samples) == 12
    assert all(str(sample["alt"]).startswith("train/") for sample in samples)
    assert len({sample["alt"] for sample in samples}) == 12
    with Image.open(io.BytesIO(base64.b64decode(str(worst["src"]).split(",")[1]))) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int64)
    assert pixels.shape == (480, 480, 3)
    # the left edge of a missed object, where JPEG leaves most of the line's colour
    x, y, _, bottom = (batches.images("val")[0].boxes[0] * 5).astype(int)
    edge = pixels[y + 20 : bottom - 5, x : x + 2].reshape(-1, 3)
    assert np.abs(np.median(edge, 0) - WRONG).max() < 60
    assert np.abs(np.median(edge, 0) - TRUE).max() > 100


def test_an_image_that_has_become_unreadable_is_left_out(batches: BoxBatches, tmp_path: Path) -> None:
    path = batches.images("val")[0].path
    content = path.read_bytes()
    try:
        path.write_bytes(b"no image")
        page = parsed(tmp_path / "t", batches)
    finally:
        path.write_bytes(content)
    assert len(page.images) == 12
    assert "val/1.png" not in page.text


def test_epochs_without_a_score_have_no_point(batches: BoxBatches, tmp_path: Path) -> None:
    parsed(tmp_path / "t", batches, (0.25, math.nan, 0.5))
    text = (tmp_path / "t" / "report.html").read_text()
    curves = [part.split(' d="')[1].split('"')[0].count("L") + 1 for part in text.split('<path class="curve ')[1:]]
    assert curves == [3, 2, 2]
    assert "nan" not in text.split("<body>")[1].split("data:")[0]
