"""ONNX files of detectors: all boxes at any batch size, or the selected ones, equal to torch, with their metadata."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mnas.detection.exported import load_exported
from mnas.detector import Suppression, detector_from_json, suppression_from_json
from mnas.digests import ChangedFileError
from mnas.export.detector.onnx import detector_onnx
from mnas.nn.detection.decoding import CODER, corner_boxes
from tests.detectors import decisive, detector_of, metadata_of, normalised, pixels_of, torch_detections, torch_outputs

DETECTOR = detector_of()
NETWORK, METADATA = decisive(DETECTOR), metadata_of(DETECTOR, mean_precision=0.125)
RULES = Suppression(score_threshold=0.2, most=60)
PIXELS = pixels_of(DETECTOR, 3)
A = len(DETECTOR.default_boxes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Suppression | None, Path]:
    """The file of all boxes, and that of the selected ones."""
    folder = tmp_path_factory.mktemp("onnx")
    paths = {None: folder / "all.onnx", RULES: folder / "selected.onnx"}
    for rules, path in paths.items():
        path.write_bytes(detector_onnx(NETWORK, METADATA, rules))
    return paths


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def inputs() -> np.ndarray:
    return np.ascontiguousarray(normalised(PIXELS, METADATA).transpose(0, 3, 1, 2))


def test_all_boxes_at_any_batch_size(files: dict[Suppression | None, Path]) -> None:
    session = session_of(files[None])
    logits, offsets = torch_outputs(NETWORK, METADATA, PIXELS)
    corners = corner_boxes(NETWORK.default_boxes)
    expected = np.stack([CODER.decode_single(each, corners).clamp(0, 1).numpy() for each in offsets])
    for count in (3, 1):
        boxes, scores = session.run(["boxes", "scores"], {"image": inputs()[:count]})
        assert (boxes.shape, scores.shape) == ((count, A, 4), (count, A, 3))
        np.testing.assert_allclose(boxes, expected[:count], atol=1e-4)
        np.testing.assert_allclose(scores, logits[:count].softmax(-1)[..., 1:].numpy(), atol=1e-4)


def test_selected_boxes(files: dict[Suppression | None, Path]) -> None:
    session = session_of(files[RULES])
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        *(("boxes", [1, 60, 4]), ("labels", [1, 60]), ("scores", [1, 60]), ("count", [1]))
    ]
    for image, wanted in zip(inputs(), torch_detections(NETWORK, METADATA, PIXELS, 0.2), strict=True):
        boxes, labels, scores, count = session.run(None, {"image": image[None]})
        assert count.tolist() == [min(60, len(wanted.boxes))]
        n = int(count[0])
        assert n > 5
        np.testing.assert_allclose(boxes[0, :n], wanted.boxes[:n].numpy(), atol=2e-4)
        np.testing.assert_allclose(scores[0, :n], wanted.scores[:n].numpy(), atol=1e-4)
        assert labels[0, :n].tolist() == [label - 1 for label in wanted.labels[:n].tolist()]
        assert not boxes[0, n:].any()
        assert not scores[0, n:].any()
    blank, rest = session.run(["scores", "count"], {"image": np.zeros((1, 3, 64, 64), np.float32)})
    assert (blank > 0.2).sum() == rest[0]
    assert (blank[0, rest[0] :] == 0).all()


@pytest.mark.parametrize("rules", [None, RULES])
def test_files_are_read_back(files: dict[Suppression | None, Path], rules: Suppression | None, tmp_path: Path) -> None:
    detector = load_exported(files[rules])
    assert (detector.metadata, detector.suppression) == (METADATA, rules)
    for (boxes, scores, labels), wanted in zip(
        detector.detect(PIXELS, 0.4), torch_detections(NETWORK, METADATA, PIXELS, 0.4), strict=True
    ):
        n = min(len(wanted.boxes), 60)
        assert len(labels) >= n > 2
        np.testing.assert_allclose(boxes[:n], wanted.boxes[:n].numpy(), atol=2e-4)
        np.testing.assert_allclose(scores[:n], wanted.scores[:n].numpy(), atol=1e-4)
        assert labels[:n].tolist() == [label - 1 for label in wanted.labels[:n].tolist()]
    content = files[rules].read_bytes()
    model = onnx.load_from_string(content)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert sum(node.op_type == "NonMaxSuppression" for node in model.graph.node) == (rules is not None)
    assert b"site-packages" not in content  # paths of this machine must not be in the file
    [entry] = model.metadata_props
    values = json.loads(entry.value)
    assert (detector_from_json(values), suppression_from_json(values)) == (METADATA, rules)
    changed = bytearray(content)
    changed[changed.index(b"0.125")] ^= 1
    (tmp_path / "changed.onnx").write_bytes(changed)
    with pytest.raises(ChangedFileError):
        load_exported(tmp_path / "changed.onnx")


def test_other_metadata_are_refused() -> None:
    with pytest.raises(ValueError, match="classes must have 3 names, but got 1"):
        detector_onnx(NETWORK, metadata_of(DETECTOR, ("a",)))
