"""Exported detectors are read back: the same objects as torch's, or one line that says what a file is instead."""

from pathlib import Path

import numpy as np
import pytest

from mnas.detection.exported import load_exported
from mnas.detector import Suppression
from mnas.digests import ChangedFileError
from mnas.metadata import ModelMetadata
from mnas.nn.network import build_network
from mnas.tflite.detection.writer import write_detector
from mnas.tflite.writer import write_tflite
from tests.detectors import decisive, detector_of, metadata_of, pixels_of, torch_detections

DETECTOR = detector_of()
NETWORK, METADATA = decisive(DETECTOR), metadata_of(DETECTOR, mean_precision=0.25)
RULES = Suppression(score_threshold=0.2, most=50)


def written(folder: Path, suppression: Suppression | None) -> Path:
    path = folder / "detector.tflite"
    path.write_bytes(write_detector(NETWORK, METADATA, suppression))
    return path


@pytest.mark.parametrize("suppression", [None, RULES])
def test_the_objects_are_those_of_torch(tmp_path: Path, suppression: Suppression | None) -> None:
    pixels = pixels_of(DETECTOR, 3)
    detector = load_exported(written(tmp_path, suppression))
    assert detector.suppression == suppression
    assert detector.metadata.classes == METADATA.classes
    assert detector.metadata.mean_precision == 0.25
    assert detector.size_bytes == (tmp_path / "detector.tflite").stat().st_size
    if suppression is None:
        assert detector.metadata == METADATA
    for threshold in (0.2, 0.6):
        expected = torch_detections(NETWORK, METADATA, pixels, threshold)
        results = detector.detect(pixels, threshold)
        assert len(results) == 3
        for (boxes, scores, labels), wanted in zip(results, expected, strict=True):
            count = min(len(wanted.boxes), 300 if suppression is None else RULES.most)
            assert len(scores) == count > 2
            np.testing.assert_allclose(boxes, wanted.boxes.numpy()[:count], atol=2e-4)
            np.testing.assert_allclose(scores, wanted.scores.numpy()[:count], atol=1e-4)
            assert labels.tolist() == [label - 1 for label in wanted.labels.tolist()[:count]]
            assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
            assert 0 <= boxes.min() <= boxes.max() <= 1
    assert [len(scores) for _, scores, _ in detector.detect(pixels, 0.2, most=2)] == [2, 2, 2]
    assert len(detector.detect(pixels[:1], 0.99999)[0][1]) == 0
    assert detector.detect(pixels[:0]) == []
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(N, 64, 64, 3\), but got uint8 \(1, 32, 32, 3\)"):
        detector.detect(np.zeros((1, 32, 32, 3), np.uint8))
    detector.close()
    with pytest.raises(ValueError, match="cannot run because it was closed"):
        detector.detect(pixels)


def test_what_is_no_detector_has_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, None)
    changed = bytearray(path.read_bytes())
    changed[changed.index(b"pl\xc3\xa4t")] ^= 1
    (tmp_path / "changed.tflite").write_bytes(changed)
    (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:2000])
    info = ModelMetadata(arch=DETECTOR.arch, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, input_size=32)
    (tmp_path / "classifier.tflite").write_bytes(write_tflite(build_network(info.arch, 2), 32, labels=info.classes))
    (tmp_path / "text.tflite").write_text("hello")
    for name, line in (
        ("changed", r"'.*changed.tflite' was changed after mnas wrote it"),
        ("cut", "must be a detector that mnas exported, but is another program's file"),
        ("classifier", "must be a detector that mnas exported, but is a classifier"),
        ("text", "must be a detector that mnas exported, but is another program's file"),
    ):
        with pytest.raises(ValueError, match=line) as error:
            load_exported(tmp_path / f"{name}.tflite")
        assert "\n" not in str(error.value)
    with pytest.raises(ChangedFileError):
        load_exported(tmp_path / "changed.tflite")
    assert load_exported(tmp_path / "changed.tflite", allow_changed=True).metadata.classes[1] != "plätelet"
    with pytest.raises(ValueError, match=r"an exported detector must be a .tflite or .onnx file, but got '.*d.pte'"):
        load_exported(tmp_path / "d.pte")
    with pytest.raises(OSError, match="missing"):
        load_exported(tmp_path / "missing.tflite")
