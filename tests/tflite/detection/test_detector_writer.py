"""LiteRT files of detectors: equal to torch, delegated in full, and with their metadata."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mnas.detector import Suppression, detector_from_json, suppression_from_json
from mnas.names import resolve_arch
from mnas.nn.detection.decoding import CODER, corner_boxes
from mnas.nn.detection.parts import detector_visits
from mnas.predict.model import load_model
from mnas.tflite.detection.writer import detector_graph, write_detector
from mnas.tflite.metadata import read_values_of, state_of_model
from mnas.zoo.architectures import named_arch
from tests.detectors import (
    CLASSES,
    FINE,
    STRINGS,
    assert_delegated_up_to,
    decisive,
    detector_of,
    metadata_of,
    normalised,
    pixels_of,
    run_litert,
    torch_detections,
    torch_outputs,
)

SUPPRESSION = Suppression(score_threshold=0.2, nms_iou=0.45, most=40)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride 8": {"boxes": FINE},
    "96 px": {"input_size": 96},
    "sepconv": {"strings": STRINGS.replace("r2_k3_s22_e4_o16", "r2_k3_s22_e1_o16")},
    "A1": {"arch": named_arch("mnasnet-a1@0.35")},
    "MobileNetV3": {"arch": replace(named_arch("mobilenetv3-small@0.25"), padding="symmetric"), "boxes": FINE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_raw_outputs_are_torchs_boxes_and_scores(kind: str) -> None:
    detector = detector_of(**KINDS[kind])
    network, metadata, pixels = decisive(detector), metadata_of(detector), pixels_of(detector)
    logits, offsets = torch_outputs(network, metadata, pixels)
    corners = CODER.decode_single(offsets[0], corner_boxes(network.default_boxes))
    boxes, scores = corners.clamp(0, 1), logits[0].softmax(-1)[:, 1:]
    assert (corners != boxes).any()  # some must be clipped
    model = write_detector(network, metadata)
    got = run_litert(model, normalised(pixels, metadata)[0])
    assert list(got) == ["boxes", "scores"]
    assert got["boxes"].shape == (1, len(detector.default_boxes), 4)
    assert np.abs(got["boxes"][0] - boxes.numpy()).max() < 1e-4
    assert np.abs(got["scores"][0] - scores.numpy()).max() < 1e-4
    assert_delegated_up_to(model, {"boxes", "scores"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grey", [False, True])
def test_selected_boxes_are_those_of_torch(kind: str, grey: bool) -> None:
    """MediaPipe scales all channels alike, so a file with other metadata takes pixels from -1 to 1."""
    detector = detector_of(**KINDS[kind])
    network, pixels = decisive(detector, seed=1), pixels_of(detector, seed=1)
    metadata = metadata_of(detector, **({"mean": (0.4,) * 3, "std": (0.2,) * 3} if grey else {}))
    settings = replace(SUPPRESSION, nms_iou=0.55)
    model = write_detector(network, metadata, settings)
    inputs = replace(metadata, **({} if grey else {"mean": (0.5,) * 3, "std": (0.5,) * 3}))
    assert detector_from_json(read_values_of(model)) == inputs
    (expected,) = torch_detections(network, metadata, pixels, settings.score_threshold)
    assert len(expected.boxes) > 5
    got = run_litert(model, normalised(pixels, inputs)[0])
    assert list(got) == ["location", "category", "score", "count"]
    (count,) = got["count"].astype(int)
    assert count == min(settings.most, len(expected.boxes))
    assert np.abs(got["location"][0, :count][:, [1, 0, 3, 2]] - expected.boxes[:count].numpy()).max() < 2e-4
    assert np.abs(got["score"][0, :count] - expected.scores[:count].numpy()).max() < 1e-4
    assert (got["category"][0, :count] == expected.labels[:count].numpy() - 1).all()
    assert len(set(got["category"][0, :count])) > 1
    for rest in ("location", "category", "score"):
        assert not got[rest][0, count:].any()
    names = {"decode.encodings", "decode.probabilities"}
    assert_delegated_up_to(model, names)


def test_the_operator_gets_our_rules() -> None:
    detector = detector_of()
    model = schema.ModelT.InitFromPackedBuf(write_detector(decisive(detector), metadata_of(detector), SUPPRESSION))
    (graph,) = model.subgraphs
    last = graph.operators[-1]
    code = model.operatorCodes[last.opcodeIndex]
    assert (code.builtinCode, code.customCode) == (schema.BuiltinOperator.CUSTOM, b"TFLite_Detection_PostProcess")
    assert [graph.tensors[i].name.decode() for i in last.outputs] == ["location", "category", "score", "count"]
    assert graph.operators[-1].outputs.tolist() == graph.outputs.tolist()
    options = flexbuffers.Loads(bytes(last.customOptions))
    for name in ("nms_score_threshold", "nms_iou_threshold"):
        options[name] = round(options[name], 6)
    assert options == {
        "max_detections": 40,
        "detections_per_class": 40,
        "max_classes_per_detection": 1,
        "num_classes": 3,
        "use_regular_nms": True,
        "nms_score_threshold": 0.2,
        "nms_iou_threshold": 0.45,
        "y_scale": 1.0,
        "x_scale": 1.0,
        "h_scale": 1.0,
        "w_scale": 1.0,
    }


@pytest.mark.parametrize("suppression", [None, SUPPRESSION])
def test_what_the_file_tells(suppression: Suppression | None) -> None:
    detector = detector_of()
    network = decisive(detector)
    metadata = metadata_of(detector, mean=(0.5,) * 3, std=(0.25,) * 3, mean_precision=0.5)
    model = write_detector(network, metadata, suppression)
    values = read_values_of(model)
    assert detector_from_json(values) == metadata
    assert suppression_from_json(values) == suppression
    assert values["fingerprint"] == detector.fingerprint
    assert state_of_model(model) == "intact"
    assert write_detector(network, metadata, suppression) == model
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert archive.read("labels.txt").decode().split("\n") == list(CLASSES)
    changed = bytearray(model)
    changed[model.index(b"a b")] ^= 1
    assert state_of_model(bytes(changed)) == "changed"


def test_the_graph_of_random_weights_is_that_of_the_network() -> None:
    """All tensors but the values of weights and labels are the same."""
    detector = detector_of()
    metadata = metadata_of(detector, mean=(0.5,) * 3, std=(0.5,) * 3)
    for suppression in (None, SUPPRESSION):
        random = detector_graph(detector, len(CLASSES), suppression)
        assert detector_graph(detector, len(CLASSES), suppression) == random
        here, there = (
            schema.ModelT.InitFromPackedBuf(model).subgraphs[0]
            for model in (random, write_detector(decisive(detector), metadata, suppression))
        )
        assert [(t.name, t.shape.tolist()) for t in here.tensors] == [(t.name, t.shape.tolist()) for t in there.tensors]
        assert [o.inputs.tolist() for o in here.operators] == [o.inputs.tolist() for o in there.operators]


def test_every_weight_is_in_the_file_once() -> None:
    detector = detector_of(boxes=FINE)
    graph = schema.ModelT.InitFromPackedBuf(write_detector(decisive(detector), metadata_of(detector))).subgraphs[0]
    kernels = [t.name.decode() for t in graph.tensors if t.name.endswith(b"/kernel")]
    visits = [v.name for v in detector_visits(detector, len(CLASSES)) if hasattr(v.part, "kernel")]
    assert sorted(k for k in kernels if ".se." not in k) == sorted(f"{name}/kernel" for name in visits)


def test_bad_input_has_its_line() -> None:
    detector = detector_of()
    network = decisive(detector)
    with pytest.raises(ValueError, match="classes must have 3 names, but got 2"):
        write_detector(network, metadata_of(detector, ("a", "b")))
    with pytest.raises(ValueError, match="metadata must describe detector"):
        write_detector(network, metadata_of(detector_of(input_size=96)))
    with torch.no_grad():
        network.predict[0]["offsets"].output.conv.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity in predict.1.offsets.output; did the training diverge\?"):
        write_detector(network, metadata_of(detector))
    for fields, line in (
        ({"most": 0}, "most must be"),
        ({"score_threshold": 2}, "score_threshold must be"),
        ({"nms_iou": 0}, "nms_iou must be"),
    ):
        with pytest.raises(ValueError, match=line):
            Suppression(**fields)  # type: ignore[arg-type]


def test_a_detector_is_no_classifier(tmp_path: Path) -> None:
    detector = detector_of()
    path = tmp_path / "d.tflite"
    path.write_bytes(write_detector(decisive(detector), metadata_of(detector)))
    line = "it is a detector, and a classifier is required; mnas detect predict, eval and export take detectors"
    for use in (load_model, resolve_arch):
        with pytest.raises(ValueError, match=rf"d.tflite': {line}$"):
            use(str(path))
