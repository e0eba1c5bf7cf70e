"""Default boxes that fit the data: what they match on real and on simple boxes."""

import numpy as np
import pytest

from mnas.boxes import matched
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import BoxedImage
from mnas.detection.fitted import box_shares, fitted_boxes, matched_by
from mnas.detector import DefaultBoxes, map_sides, paper_boxes
from tests.data.detection.box_folders import shared_boxes


def images_of(sides: list[tuple[float, float]], labels: list[int], seed: int = 0, crowd: bool = False):
    """One image of 320 x 320 for each box, whose place is random."""
    rng = np.random.default_rng(seed)
    images = []
    for (width, height), label in zip(sides, labels, strict=True):
        x, y = rng.uniform(0, (320 - width, 320 - height))
        images.append(
            BoxedImage(
                path=None, name="x", image_id=len(images), width=320, height=320, size_bytes=1,
                boxes=np.array([[x, y, x + width, y + height]], np.float32), labels=np.array([label]),
                crowd=np.array([crowd]), areas=np.array([width * height], np.float32),
            )
        )  # fmt: skip
    return images


def shares(images, boxes: DefaultBoxes, size: int = 320) -> dict[int, float]:
    """Class -> matched share."""
    array, labels = box_shares(images)
    match = matched(array, boxes.boxes(map_sides(size, len(boxes.shapes))))
    return {int(label): float(match[labels == label].mean()) for label in np.unique(labels)}


def test_blood_cells(tmp_path):
    data = load_detection(shared_boxes("bccd", tmp_path))
    boxes = fitted_boxes(data.train, 3, 320)
    assert boxes.counts == (1, 2, 1, 1, 1, 1, 1)
    assert boxes == fitted_boxes(data.train, 3, 320)
    assert min(shares(data.train, boxes).values()) > 0.95
    assert min(shares(data.val, boxes).values()) > 0.93
    assert shares(data.train, paper_boxes())[0] == pytest.approx(62 / 209)
    assert shares(data.train, paper_boxes(reduced=False))[0] == pytest.approx(1 / 209)
    assert len(boxes.boxes(map_sides(320, 7))) == 2539


@pytest.mark.parametrize("size", [224, 320, 512])
def test_large_boxes_need_no_finer_map(size):
    rng = np.random.default_rng(1)
    images = images_of(rng.uniform(90, 300, (200, 2)).tolist(), [0] * 200)
    boxes = fitted_boxes(images, 1, size)
    assert len(boxes.shapes) == 6
    assert shares(images, boxes, size)[0] >= 0.95
    assert sum(boxes.counts) <= 16


def test_small_boxes_get_a_finer_map():
    rng = np.random.default_rng(2)
    sides = [*rng.uniform(16, 22, (300, 2)).tolist(), *rng.uniform(100, 200, (300, 2)).tolist()]
    images = images_of(sides, [0] * 300 + [1] * 300)
    boxes = fitted_boxes(images, 2, 320)
    assert len(boxes.shapes) == 7
    assert 1 <= boxes.counts[0] <= 3
    assert max(boxes.counts) <= 6
    assert min(shares(images, boxes).values()) >= 0.95
    others = images_of(sides, [0] * 300 + [1] * 300, seed=9)  # the same sizes at other places
    assert min(shares(others, boxes).values()) >= 0.93


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    images = images_of([(60, 60)] * 2000 + [(200, 50)] * 5, [0] * 2000 + [1] * 5)
    boxes = fitted_boxes(images, 3, 320)  # the third class has no boxes
    assert shares(images, boxes)[1] == 1
    assert shares(images, boxes)[0] >= 0.95


def test_boxes_that_no_map_reaches_do_no_harm():
    images = images_of([(3, 3)] * 50 + [(150, 150)] * 50, [0] * 50 + [1] * 50)
    boxes = fitted_boxes(images, 2, 320)
    assert shares(images, boxes)[1] >= 0.95
    assert shares(images, boxes)[0] < 0.95


def test_boxes_that_are_all_too_small_get_the_squares_of_the_paper():
    images = images_of([(0.5, 0.5)] * 20, [0] * 20)
    boxes = fitted_boxes(images, 1, 320)
    assert boxes.shapes == tuple((of_map[0],) for of_map in paper_boxes(reduced=False).shapes)
    assert shares(images, boxes)[0] == 0


def test_without_boxes_there_is_an_error():
    for images in ([], images_of([(50, 50)], [0], crowd=True)):
        with pytest.raises(ValueError, match="the training images must have boxes to fit default boxes to"):
            fitted_boxes(images, 1, 320)


def test_many_boxes_are_sampled():
    rng = np.random.default_rng(3)
    images = images_of(rng.uniform(60, 120, (9000, 2)).tolist(), [0] * 9000)
    assert shares(images, fitted_boxes(images, 1, 320))[0] >= 0.95


def test_the_nearest_default_boxes_match_as_all_of_them_do(tmp_path):
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 0.95, (3000, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.01, 1, (3000, 2)) * (1 - low)], axis=1).astype(np.float32)
    for reduced, sides in ((True, map_sides(320, 6)), (False, map_sides(224, 6))):
        paper = paper_boxes(reduced=reduced)
        expected = matched(boxes, paper.boxes(sides))
        assert matched_by(boxes, paper, sides).tolist() == expected.tolist()
        assert 500 < expected.sum() < 2900
    data = load_detection(shared_boxes("bccd", tmp_path))
    array, _ = box_shares(data.train)
    fitted = fitted_boxes(data.train, 3, 320)
    sides = map_sides(320, len(fitted.shapes))
    assert matched_by(array, fitted, sides).tolist() == matched(array, fitted.boxes(sides)).tolist()
