"""float16 and int8 files of detectors: close to torch, with the operator that selects boxes, and their metadata."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mnas.detection.exported import load_exported
from mnas.detector import Suppression
from mnas.export.detector.litert import detector_int8
from mnas.export.litert import litert_fp16
from mnas.tflite.detection.writer import write_detector
from mnas.tflite.metadata import state_of_model
from tests.detectors import (
    CLASSES,
    FINE,
    assert_delegated_up_to,
    decisive,
    detector_of,
    metadata_of,
    normalised,
    pixels_of,
    run_litert,
    torch_outputs,
)

DETECTOR = detector_of(boxes=FINE)
NETWORK = decisive(DETECTOR)
METADATA = metadata_of(DETECTOR, mean=(0.5,) * 3, std=(0.25,) * 3)
RULES = Suppression(score_threshold=0.3, most=40)
PIXELS = pixels_of(DETECTOR, 12)
LIMITS = {"fp16": 0.01, "int8": 0.12}


def files(kind: str, rules: Suppression | None) -> tuple[bytes, bytes]:
    """The fp32 file, and that of a kind."""
    model = write_detector(NETWORK, METADATA, rules)
    return model, litert_fp16(model) if kind == "fp16" else detector_int8(model, PIXELS)


@pytest.mark.parametrize("kind", LIMITS)
def test_all_boxes(kind: str) -> None:
    fp32, model = files(kind, None)
    assert len(model) < len(fp32)
    logits, _ = torch_outputs(NETWORK, METADATA, PIXELS)
    scores, differences = logits.softmax(-1)[..., 1:].numpy(), []
    for image, wanted in zip(normalised(PIXELS, METADATA), scores, strict=True):
        here, there = run_litert(model, image), run_litert(fp32, image)
        assert list(here) == ["boxes", "scores"]
        assert here["boxes"].dtype == here["scores"].dtype == np.float32
        differences.append(np.abs(here["scores"][0] - wanted).mean())
        assert np.abs(here["boxes"] - there["boxes"]).mean() < LIMITS[kind]
    assert 0 < np.mean(differences) < LIMITS[kind] / 2
    assert_delegated_up_to(model, {"boxes", "scores"})
    assert state_of_model(model) == "intact"
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert archive.read("labels.txt").decode().split("\n") == list(CLASSES)


@pytest.mark.parametrize("kind", LIMITS)
def test_selected_boxes(kind: str, tmp_path: Path) -> None:
    fp32, model = files(kind, RULES)
    found = []
    for name, content in (("a", fp32), ("b", model)):
        (tmp_path / f"{name}.tflite").write_bytes(content)
        detector = load_exported(tmp_path / f"{name}.tflite")
        assert (detector.metadata, detector.suppression) == (METADATA, RULES)
        found.append(detector.detect(PIXELS, 0.3))
    counts = np.array([[len(scores) for _, scores, _ in each] for each in found])
    assert counts.min() > 5
    assert np.abs(counts[0] - counts[1]).max() <= {"fp16": 2, "int8": 15}[kind]
    for (_, here, _), (_, there, _) in zip(*found, strict=True):
        assert np.abs(here[:5] - there[:5]).max() < LIMITS[kind]
    assert_delegated_up_to(model, {"decode.encodings", "decode.probabilities"})
    parsed = schema.ModelT.InitFromPackedBuf(model)
    assert [code.customCode for code in parsed.operatorCodes if code.customCode] == [b"TFLite_Detection_PostProcess"]


def test_an_int8_file_computes_the_network_in_integers() -> None:
    _, model = files("int8", None)
    (graph,) = schema.ModelT.InitFromPackedBuf(model).subgraphs
    kinds = {tensor.name.decode(): tensor.type for tensor in graph.tensors}
    ints = {name for name, kind in kinds.items() if kind == schema.TensorType.INT8}
    assert {"block1.0.depthwise", "head", "predict.1.classes.output/kernel", "predict.7.offsets.output"} <= ints
    assert not [name for name in ints if name.startswith(("decode", "boxes", "scores"))]


def test_no_images_to_calibrate_on() -> None:
    with pytest.raises(ValueError, match="int8 needs at least one image to calibrate on, but got none"):
        detector_int8(write_detector(NETWORK, METADATA), PIXELS[:0])
