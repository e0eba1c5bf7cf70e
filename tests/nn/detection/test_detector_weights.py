"""A detector's file is sufficient for prediction, and any other file is an error of one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mnas.arch import Arch
from mnas.detector import Detector, DetectorMetadata, detector_json, paper_boxes
from mnas.digests import ChangedFileError
from mnas.metadata import ModelMetadata
from mnas.nn.detection.network import DetectorNetwork, build_detector
from mnas.nn.detection.weights import detector_bytes, load_detector, save_detector
from mnas.nn.detection.weights_info import is_detector_file, read_detector
from mnas.nn.network import build_network
from mnas.nn.pretrained import load_pretrained
from mnas.nn.weights import load_weights, save_weights
from mnas.nn.weights_info import is_weights_file

ARCH = replace(
    Arch.from_block_strings("r1_k3_s22_e1_i8_o8,r1_k3_s22_e2_o8,r1_k3_s22_e3_o12,r1_k3_s22_e4_o16"), head_filters=24
)
DETECTOR = Detector(arch=ARCH, boxes=paper_boxes(), input_size=64, extra_filters=(8, 6, 6, 4))
METADATA = DetectorMetadata(
    detector=DETECTOR, classes=("cell", "plätelet"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), mean_precision=0.25
)


def trained() -> DetectorNetwork:
    torch.manual_seed(0)
    network = build_detector(DETECTOR, 2).to(memory_format=torch.channels_last)
    network(torch.randn(4, 3, 64, 64))  # statistics other than those of a fresh network
    return network.eval()


def test_round_trip(tmp_path: Path) -> None:
    network = trained()
    save_detector(tmp_path / "d.safetensors", network, METADATA)
    loaded, metadata = load_detector(tmp_path / "d.safetensors")
    assert metadata == METADATA == read_detector(tmp_path / "d.safetensors")[1]
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    x = torch.randn(2, 3, 64, 64)
    for here, there in zip(loaded(x), network(x), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    assert detector_bytes(loaded, metadata) == (tmp_path / "d.safetensors").read_bytes()


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    content = bytearray(detector_bytes(trained(), METADATA))
    content[-100] ^= 1
    (tmp_path / "d").write_bytes(content)
    with pytest.raises(ChangedFileError, match="was changed after mnas wrote it"):
        load_detector(tmp_path / "d")
    # without its digest, it is a changed file too
    tensors = {name: tensor.contiguous() for name, tensor in trained().state_dict().items()}
    (tmp_path / "unsealed").write_bytes(safetensors.torch.save(tensors, {"mnas": json.dumps(detector_json(METADATA))}))
    with pytest.raises(ChangedFileError, match="was changed after mnas wrote it"):
        load_detector(tmp_path / "unsealed")


def test_classifiers_and_detectors_are_told_apart(tmp_path: Path) -> None:
    classifier, detector = tmp_path / "c.safetensors", tmp_path / "d.safetensors"
    info = ModelMetadata(arch=ARCH, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, input_size=32)
    save_weights(classifier, build_network(ARCH, 2), info)
    save_detector(detector, trained(), METADATA)
    with pytest.raises(ValueError, match=r"got '.*c.safetensors' \(it is a classifier, and a detector is required; .*"):
        load_detector(classifier)
    with pytest.raises(ValueError, match=r"got '.*d.safetensors' \(it is a detector, and a classifier is required; .*"):
        load_weights(detector)
    with pytest.raises(ValueError, match="it is a detector, and a classifier is required"):
        load_pretrained(str(detector), ARCH, None, name="arch")
    assert (is_weights_file(detector), is_detector_file(detector)) == (True, True)
    assert (is_weights_file(classifier), is_detector_file(classifier)) == (True, False)
    assert not is_detector_file(tmp_path / "nothing")


def test_what_is_no_detectors_file_has_its_line(tmp_path: Path) -> None:
    save_detector(tmp_path / "whole", trained(), METADATA)
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:500])
    (tmp_path / "text").write_text("hello")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for name in ("cut", "text", "foreign", "missing"):
        with pytest.raises(
            ValueError, match=r"weights of a detector must be a .safetensors file written by mnas"
        ) as error:
            load_detector(tmp_path / name)
        assert "\n" not in str(error.value)
        assert not is_detector_file(tmp_path / name)
    network = trained()
    network.predict[0]["classes"].output.conv.bias = torch.nn.Parameter(torch.zeros(2))
    save_detector(tmp_path / "other", network, METADATA)
    with pytest.raises(ValueError, match=r"the tensors in '.*other' must fit its detector") as error:
        load_detector(tmp_path / "other")
    assert "\n" not in str(error.value)


def test_metadata_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="classes must have 2 names, but got 1"):
        detector_bytes(trained(), replace(METADATA, classes=("a",)))
    with pytest.raises(ValueError, match=f"must describe detector {DETECTOR.fingerprint}, but got "):
        detector_bytes(trained(), replace(METADATA, detector=replace(DETECTOR, input_size=96)))
