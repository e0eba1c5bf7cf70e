"""MediaPipe's own ObjectDetector loads a file of mnas unchanged and finds the boxes that torch finds."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from mnas.detector import DetectorMetadata, Suppression
from mnas.nn.detection.network import DetectorNetwork
from mnas.tflite.detection.writer import write_detector
from tests.detectors import CLASSES, FINE, decisive, detector_of, metadata_of, torch_detections

THRESHOLD = 0.3
RULES = Suppression(score_threshold=THRESHOLD, most=60)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectorNetwork, DetectorMetadata, Path]:
    shape = detector_of(boxes=FINE, input_size=96)
    network, metadata = decisive(shape), metadata_of(shape)
    path = tmp_path_factory.mktemp("m") / "detector.tflite"
    path.write_bytes(write_detector(network, metadata, RULES))
    return network, metadata, path


def found_by_mediapipe(
    path: Path, image: NDArray[np.uint8], **options: object
) -> list[tuple[NDArray[np.float64], str, float]]:
    """Return box (left, top, right, bottom) in pixels, class and score of each object."""
    import mediapipe  # takes seconds, which every worker would spend when it collects the tests
    from mediapipe.tasks.python import BaseOptions, vision

    base = BaseOptions(model_asset_path=str(path))
    with vision.ObjectDetector.create_from_options(vision.ObjectDetectorOptions(base_options=base, **options)) as task:
        result = task.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image))
    objects = []
    for each in result.detections:
        box, (category,) = each.bounding_box, each.categories
        left, top = box.origin_x, box.origin_y
        edges = np.array([left, top, left + box.width, top + box.height], float)
        objects.append((edges, category.category_name, category.score))
    return objects


@pytest.mark.parametrize("photo", [0, 1])
def test_the_same_boxes_classes_and_scores(
    detector: tuple[DetectorNetwork, DetectorMetadata, Path], photo: int
) -> None:
    network, metadata, path = detector
    picture = Image.fromarray(load_sample_images().images[photo])
    pixels = np.asarray(picture.resize((96, 96), Image.Resampling.BILINEAR))
    (expected,) = torch_detections(network, metadata, pixels[None], THRESHOLD)
    got = found_by_mediapipe(path, pixels)
    assert 10 < len(got) == min(RULES.most, len(expected.boxes))
    assert len({name for _, name, _ in got}) > 1
    rows = zip(got, 96 * expected.boxes.numpy(), expected.labels, expected.scores, strict=False)
    for (edges, name, score), box, label, wanted in rows:
        for ours, theirs in ((box[:2], edges[:2]), (box[2:] - box[:2], edges[2:] - edges[:2])):
            assert ((ours - theirs > -1e-3) & (ours - theirs < 1)).all()  # MediaPipe gives whole pixels, rounded down
        assert name == CLASSES[label - 1]
        assert abs(score - wanted) < 1e-3


def test_boxes_are_in_pixels_of_the_whole_photograph(
    detector: tuple[DetectorNetwork, DetectorMetadata, Path],
) -> None:
    """MediaPipe stretches a photograph to the input's square, as training does, but without smoothing."""
    network, metadata, path = detector
    small = Image.fromarray(load_sample_images().images[0]).resize((24, 24), Image.Resampling.BOX)
    wide, square = (np.asarray(small.resize(size, Image.Resampling.BICUBIC)) for size in ((960, 384), (96, 96)))
    (expected,) = torch_detections(network, metadata, square[None], THRESHOLD)
    got = found_by_mediapipe(path, wide, max_results=3)
    assert len(got) == 3
    scale = np.array([960, 384, 960, 384])
    for edges, name, score in got:
        alike = [
            (box * scale, wanted)
            for box, label, wanted in zip(expected.boxes.numpy(), expected.labels, expected.scores, strict=True)
            if CLASSES[label - 1] == name and abs(wanted - score) < 0.02
        ]
        assert min(np.abs((edges - box) / scale).max() for box, _ in alike) < 0.01
    assert found_by_mediapipe(path, wide, category_allowlist=["a b"], max_results=1)[0][1] == "a b"


def test_mediapipe_needs_selected_boxes(tmp_path: Path) -> None:
    """It refuses a file of raw boxes with a message about their decoding."""
    shape = detector_of()
    (tmp_path / "raw.tflite").write_bytes(
        write_detector(decisive(shape), metadata_of(shape, mean=(0.5,) * 3, std=(0.5,) * 3))
    )
    with pytest.raises(ValueError, match="TensorsDecodingOptions is not found"):
        found_by_mediapipe(tmp_path / "raw.tflite", np.zeros((64, 64, 3), np.uint8))
