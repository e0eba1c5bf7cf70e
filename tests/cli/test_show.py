"""The command `mnas show`."""

import xml.etree.ElementTree as ElementTree

import pytest
from detectors import CLASSES, FINE, detector_of, metadata_of

from mnas.cli.main import run
from mnas.nn.detection.cost import by_detector_part, detector_cost
from mnas.nn.detection.network import build_detector
from mnas.nn.detection.weights import save_detector
from mnas.zoo.architectures import named_arch


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def test_layers_shapes_params_and_macs(capsys):
    assert run(["show", "mnasnet-a1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["stem", "conv", "112x112x32", "928", "10,838,016"] in lines
    macs = 3_763_200 + 2_352_000 + 2_400 + 3_763_200  # expand, depthwise, squeeze and excite, project
    assert ["block3.1", "mbconv3", "k5", "se10", "identity", "28x28x40", "15,690", f"{macs:,}"] in lines
    assert ["classifier", "linear", "1x1x1000", "1,281,000", "1,280,000"] in lines
    assert ["total", "input", "224x224x3", "3,887,038", "311,579,072"] in lines
    assert ["r3_k5_s22_e3_i24_o40_se0.25"] in lines


def test_fields_that_the_block_strings_leave_out(capsys):
    for name, line in [
        ("mobilenetv3-small", "head_filters 1024, activation hardswish, head_pooled true, head_norm false"),
        ("efficientnet-lite0", "activation relu6"),
        ("mnasnet-a1/s16", "stem_stride 1"),
    ]:
        assert run(["show", name]) == 0
        assert f"  not in the block strings: {line}" in capsys.readouterr().out.splitlines()
    assert run(["show", "mnasnet-a1"]) == 0
    assert "not in the block strings" not in capsys.readouterr().out


def test_cells(capsys, tmp_path):
    file = tmp_path / "nasnet.svg"
    assert run(["show", "nasnet-a", "--save", str(file)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["stem", "conv", "112x112x32", "928", "10,838,016"] in lines
    assert ["cell16", "normal", "176", "7x7x1056", "712,800", "34,720,224"] in lines
    assert ["total", "input", "224x224x3", "5,289,978", "563,909,984"] in lines
    assert [
        "stem",
        "convolutions",
        "32/2,",
        "stem",
        "cells",
        "2,",
        "cells",
        "4+4+4",
        "from",
        "44",
        "filters",
        "on",
    ] in lines
    assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_file_of_cells(capsys, tmp_path):
    file = tmp_path / "arch.json"
    file.write_text(named_arch("darts-v2").to_json())
    assert run(["show", str(file)]) == 0
    out = capsys.readouterr().out
    assert "529,911,552" in out
    assert "fingerprint 257d3a3061738934" in out


def test_input_size_and_classes(capsys):
    assert run(["show", "mnasnet-small/s8", "--input-size", "32", "--classes", "10"]) == 0
    out = capsys.readouterr().out
    assert "output stride 8" in out
    assert "12,810" in out  # 1280 * 10 + 10


def test_a_detector(capsys):
    assert run(["show", "mnasnet-a1", "--head", "ssdlite", "--classes", "90"]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert ["head", "conv", "10x10x1280", "412,160", "40,960,000"] in lines
    assert ["extra.1", "extra", "s2", "5x5x512", "463,104", "36,102,400"] in lines
    assert ["predict.6", "6", "boxes", "1x1x570", "76,346", "75,264"] in lines
    assert ["total", "input", "320x320x3", "4,912,181", "837,819,232"] in lines
    assert "  backbone: 2,606,038 params, 632,999,328 MACs\n" in output
    assert "  90 classes and the background, 2,034 default boxes on maps of sides 20, 10, 5, 3, 2, 1\n" in output
    assert run(["show", "mnasnet-a1", "--head", "ssdlite"]) == 0
    assert "80 classes and the background" in capsys.readouterr().out
    assert run(["show", "mobilenetv2", "--head", "ssdlite", "--input-size", "224,320"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mobilenetv2", "320", "4,337,013", "788,830,144"] in lines


def test_the_file_of_a_detector(capsys, tmp_path):
    detector = detector_of(boxes=FINE)
    network = build_detector(detector, len(CLASSES))
    file = tmp_path / "model.safetensors"
    save_detector(file, network, metadata_of(detector, mean_precision=0.123))
    whole = detector_cost(detector, len(CLASSES))
    params = sum(p.numel() for p in network.parameters())
    for arguments in ([str(file)], [str(tmp_path)], [str(file), "--head", "ssdlite"]):
        assert run(["show", *arguments]) == 0
        output = capsys.readouterr().out
        assert ["total", "input", "64x64x3", f"{params:,}", f"{whole.macs:,}"] in [
            line.split() for line in output.split("\n")
        ]
        for title, (of_part, macs) in zip(
            ("backbone", "extra layers", "predictions"), by_detector_part(whole).values(), strict=True
        ):
            assert f"  {title}: {of_part:,} params, {macs:,} MACs\n" in output
        assert "  3 classes and the background, 160 default boxes on maps of sides 8, 4, 2, 1, 1, 1, 1\n" in output
        assert f"  fingerprint {detector.fingerprint}\n" in output
        assert "  names of the classes: cell, plätelet, a b\n" in output
        assert "  mAP on the validation images: 12.3 %\n" in output
    for option, value in (
        ("--input-size", "96"),
        ("--classes", "4"),
        ("--width-multiplier", "0.5"),
        ("--save", "a.svg"),
    ):
        assert run(["show", str(file), option, value]) == 2
        assert f"{option} must not be used with the file of a detector, but got '{value}'" in capsys.readouterr().err


def test_the_names_of_many_classes_are_shortened(capsys, tmp_path):
    detector = detector_of()
    names = tuple(f"class {i}" for i in range(12))
    save_detector(tmp_path / "d.safetensors", build_detector(detector, 12), metadata_of(detector, names))
    assert run(["show", str(tmp_path / "d.safetensors")]) == 0
    output = capsys.readouterr().out
    assert "class 8, class 9 and 2 more\n" in output
    assert "  mAP on the validation images: not scored\n" in output


def test_a_changed_file_of_a_detector(capsys, tmp_path):
    detector = detector_of()
    file = tmp_path / "d.safetensors"
    save_detector(file, build_detector(detector, len(CLASSES)), metadata_of(detector))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    assert run(["show", str(file)]) == 2
    complaint = capsys.readouterr().err
    assert "was changed after mnas wrote it" in complaint
    assert complaint.count("\n") == 1


def test_drawing(tmp_path, capsys):
    file = tmp_path / "a1.svg"
    assert run(["show", "mnasnet-a1", "--save", str(file)]) == 0
    assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert str(file) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnasnet-a9"], "did you mean mnasnet-a1?"),
        (["mnasnet-a1", "--input-size", "16"], "--input-size must be at least the output stride 32, but got 16"),
        (["nasnet-a", "--input-size", "16"], "--input-size must be at least the output stride 32, but got 16"),
        (["nasnet-a/s2"], "output stride must be at least 4 with 2 reduction cells between the stages, but got 2"),
        (["mnasnet-a1", "--classes", "0"], "--classes must be auto, or 1 or more, but got 0"),
        (["mnasnet-a1", "--head", "yolo"], "--head must be one of none, ssdlite, but got 'yolo'"),
        (["mnasnet-a1", "--head", "ssdlite", "--input-size", "300"], "--input-size must be a multiple of 32, but got"),
        (["mnasnet-small/s8", "--head", "ssdlite"], "must have output stride 32, but got 8; choose a network whose"),
        (
            ["nasnet-a", "--head", "ssdlite"],
            "the backbone of a detector must be a network of blocks, but got one of cells",
        ),
        (["mnasnet-a1", "--head", "ssdlite", "--save", "a.svg"], "--save must be used without --head"),
        (["mnasnet-a1", "--save", "/nowhere/a.svg"], "No such folder: /nowhere"),
        (["r1_k4_s11_e1_o16"], "kernel must be one of 3, 5, 7 for op sepconv, but got 4"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(capsys, arguments, message):
    assert run(["show", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
