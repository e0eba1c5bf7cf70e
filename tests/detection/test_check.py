"""The check of a detection data set: its numbers and lines."""

import json

import pytest

from mnas.cli.main import run
from mnas.data.detection.load import load_detection
from mnas.detection.check import box_lines, check_boxes, check_lines, chosen_boxes
from mnas.detector import Detector, paper_boxes
from mnas.zoo.architectures import named_arch
from tests.data.detection.box_folders import box, coco_folder, shared_boxes


def test_blood_cells(tmp_path):
    data = load_detection(shared_boxes("bccd", tmp_path))
    checked = check_boxes(data, paper_boxes(), 320)
    platelets = checked.classes[0]
    assert platelets.boxes == {"train": 209, "val": 83, "test": 69}
    assert (platelets.median_px, platelets.smallest_px, platelets.largest_px) == (22.8, 12.1, 80.4)
    assert platelets.matched["train"] == pytest.approx(62 / 209)
    assert (checked.images, checked.empty) == ({"train": 205, "val": 87, "test": 72}, dict.fromkeys(checked.images, 0))
    assert check_lines(checked) == [
        "  class          train    val  test  median side      range  matched train  matched val",
        "  Platelets        209     83    69        23 px   12 to 80         29.7 %       36.1 %",
        "  RBC            2,381    967   805        59 px   36 to 89         96.4 %       95.9 %",
        "  WBC              214     87    71       109 px  17 to 168         99.5 %      100.0 %",
        "  all 3 classes  2,804  1,137   945                                 91.7 %       91.8 %",
        "images: 205 train, 87 val, 72 test; 0 without boxes",
        "default boxes: 2,034 on maps of 20, 10, 5, 3, 2, 1 pixels at input size 320",
        "warning: the default boxes match fewer than 95 % of the training boxes of Platelets (30 %; the others have a "
        "median side of 21 px); a detector hardly learns boxes that match none. Use --boxes fitted or a larger "
        "--input-size.",
    ]
    fitted = check_lines(check_boxes(data, chosen_boxes("fitted", data, 320), 320))
    assert not any("warning" in line for line in fitted)
    detector = Detector(arch=named_arch("mnasnet-a1"), boxes=paper_boxes())
    assert box_lines(data, detector) == check_lines(checked)


def small(root):
    rows = [
        box(1, 1, [4, 5, 10, 12]),
        box(2, 2, [4, 5, 10, 12], 7),
        box(3, 2, [1, 1, 0, 0]),
        box(4, 1, [0, 0, 9, 9], iscrowd=1),
    ]
    return coco_folder(root, rows)


def test_faults_crowds_and_empty_images(tmp_path):
    data = load_detection(small(tmp_path))
    checked = check_boxes(data, chosen_boxes("fitted", data, 320), 320)
    lines = check_lines(checked)
    assert sum(checked.images.values()) == 3
    assert sum(checked.empty.values()) == 1
    assert any(line.endswith("1 without boxes, 1 crowd") for line in lines)
    assert "faults in the annotations: boxes have no area (dropped): 1 (first train/2.jpg)" in lines
    assert sum(count for one in checked.classes for count in one.boxes.values()) == 2


def test_a_long_table_shows_the_largest_and_the_least_matched_classes(tmp_path):
    data = load_detection(shared_boxes("coco-tiny", tmp_path))
    lines = check_lines(check_boxes(data, paper_boxes(), 320))
    names = [line.split("  ")[1].strip() for line in lines[:20] if line.startswith("  ")]
    assert names[:3] == ["class", "person", "bottle"]
    assert names[9] == "... 64 more"
    assert names[-1] == "all 80 classes"
    assert len(names) == 1 + 8 + 1 + 8 + 1
    assert any("17 crowds" in line for line in lines)


def test_the_command(tmp_path, capsys):
    root = small(tmp_path)
    assert run(["detect", "check", "--data", str(root), "--boxes", "paper", "--input-size", "224"]) == 0
    out = capsys.readouterr().out
    assert "default boxes: 1,014 on maps of 14, 7, 4, 2, 1, 1 pixels at input size 224" in out
    assert run(["detect", "check", "--data", str(root), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["boxes"], values["layout"], values["input_size"]) == ("fitted", "coco", 320)
    assert [one["name"] for one in values["classes"]] == ["cat", "dog"]
    assert values["faults"] == [{"what": "boxes have no area (dropped)", "count": 1, "example": "train/2.jpg"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nothing"], "--data must be a folder of images with boxes, but got 'nothing' (no such folder)"),
        (["--data", ".", "--input-size", "300"], "--input-size must be a multiple of 32, but got 300"),
        (["--data", ".", "--boxes", "mine"], "--boxes must be one of fitted, paper"),
        (["--data", ".", "--seed", "-1"], "--seed must be an integer from 0"),
        (["--data", "."], "--data must be a folder in COCO's layout"),
        ([], "--data"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run(["detect", "check", *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
