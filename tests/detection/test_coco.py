"""COCO's metrics are those of pycocotools on the same detections."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mnas.detection.coco import coco_scores
from mnas.detection.detections import ImageDetections, coco_results

IDS = (3, 7, 90)
NAMES = ("cell", "platelet", "dust")


def truth_and_results(seed: int = 0) -> tuple[dict[str, Any], dict[int, ImageDetections]]:
    """Twenty images with boxes of two classes (none of the third), crowds, and detections near and far from them."""
    rng = np.random.default_rng(seed)
    annotations, results = [], {}
    for image in range(1, 21):
        boxes, labels, scores = [], [], []
        for _ in range(rng.integers(0, 9)):
            x, y, w, h = rng.uniform(0, 300), rng.uniform(0, 300), *np.exp(rng.uniform(2, 5.3, 2))
            label = int(rng.integers(0, 2))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": IDS[label], "bbox": [x, y, w, h],
                "area": w * h, "iscrowd": int(rng.random() < 0.1),
            })  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                near = np.array([x, y, x + w, y + h]) + rng.normal(0, 0.1, 4) * [w, h, w, h]
                boxes.append([*np.minimum(near[:2], near[2:] - 1), *near[2:]])
                labels.append(label if rng.random() < 0.8 else int(rng.integers(0, 3)))
                scores.append(rng.random())
        order = np.argsort(scores)[::-1]
        results[image] = ImageDetections(
            boxes=np.array(boxes, np.float32).reshape(-1, 4)[order],
            scores=np.array(scores, np.float32)[order],
            labels=np.array(labels, np.int64)[order],
            width=640,
            height=480,
        )
    images = [{"id": image, "width": 640, "height": 480, "file_name": f"{image}.jpg"} for image in range(1, 21)]
    categories = [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("seed", [0, 1])
def test_the_scores_are_those_of_pycocotools(seed: int) -> None:
    truth, results = truth_and_results(seed)
    scores = coco_scores(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = truth
        ground.createIndex()
        entries = [entry for image, found in results.items() for entry in coco_results(image, found, IDS)]
        reference = COCOeval(ground, ground.loadRes(entries), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    ours = (scores.mean_precision, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large, scores.recall)
    np.testing.assert_allclose(np.array(ours, float), reference.stats[[0, 1, 2, 3, 4, 5, 8]], atol=1e-9)
    of_first = reference.eval["precision"][:, :, 0, 0, 2]
    cell = scores.classes["cell"]
    assert cell is not None
    assert cell.mean_precision == pytest.approx(of_first.mean(), abs=1e-9)
    assert cell.ap50 == pytest.approx(of_first[0].mean(), abs=1e-9)
    assert scores.classes["dust"] is None
    assert (scores.images, scores.objects) == (20, sum(not a["iscrowd"] for a in truth["annotations"]))


def test_no_detections_score_0_and_no_objects_are_refused() -> None:
    truth, _ = truth_and_results()
    assert coco_scores(truth, {}).mean_precision == 0
    with pytest.raises(ValueError, match="need images with objects, but none of 20 has one"):
        coco_scores({**truth, "annotations": []}, {})
