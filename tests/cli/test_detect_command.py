"""`mnas detect` as people type it: train, eval, predict on images and videos, and their mistakes."""

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mnas
from mnas.cli.main import run
from mnas.predict.video import VideoFile

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
from shapes import BACKBONE, CLASSES, write_shapes

QUICK = ("--input-size", "64", "--epochs", "60", "--batch-size", "8", "--learning-rate", "0.5", "--bn-momentum", "0.1",
         "--ema-decay", "0.9", "--augmentation", "none", "--score-every", "60", "--threads", "1", "--workers", "0",
         "--boxes", "paper")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shapes/ and a detector in detectors/."""
    place = tmp_path_factory.mktemp("place")
    write_shapes(place / "shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(["detect", "train", BACKBONE, "--data", "shapes", *QUICK]) == 0
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def model() -> str:
    [folder] = Path("detectors").iterdir()
    return str(folder)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["detect", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def values(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert run(["detect", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_finished_training_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((Path(model()) / "result.json").read_text())
    assert run(["detect", "train", BACKBONE, "--data", "shapes", *QUICK, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert f"validation mAP {result['mean_precision']:.1%}" in printed
    assert printed.rstrip().endswith(f"{model()}/model.safetensors; report: {model()}/report.html")
    assert "test part of shapes" in Path(model(), "report.html").read_text()
    assert "already contains a training" in complaint(capsys, "train", BACKBONE, "--data", "shapes", *QUICK)
    assert QUICK[-2:] == ("--boxes", "paper")
    other = complaint(capsys, "train", BACKBONE, "--data", "shapes", *QUICK[:-1], "fitted", "--resume")
    assert f"{model()} contains a training with other settings (boxes: paper before, fitted now). Use the same" in other


def test_eval_gives_the_scores_of_the_training_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((Path(model()) / "result.json").read_text())
    [tested] = values(capsys, "eval", model(), "--data", "shapes", "--save", "misses.jpg")
    assert tested["part"] == "test"
    assert tested["mean_precision"] == pytest.approx(result["test_precision"])
    assert set(tested["classes"]) == set(CLASSES)
    [validated] = values(capsys, "eval", model(), "--data", "shapes", "--part", "val")
    assert validated["mean_precision"] == pytest.approx(result["mean_precision"])
    with Image.open("misses.jpg") as picture:
        assert picture.size[0] >= 480
    again = mnas.detect.evaluate(model(), data="shapes")
    assert again.scores.mean_precision == pytest.approx(result["test_precision"])


def test_predictions_are_printed_drawn_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    images = sorted(map(str, Path("shapes/val").iterdir()))
    rows = values(capsys, "predict", model(), "shapes/val", "--score", "0.2", "--save", "drawn", "--coco", "out.json")
    assert [row["image"] for row in rows] == images
    assert sum(len(row["detections"]) for row in rows) > 4
    for row in rows:
        scores = [one["score"] for one in row["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert all(
            score >= 0.2 and one["label"] in CLASSES for score, one in zip(scores, row["detections"], strict=True)
        )
        assert all(0 <= side <= 96 for one in row["detections"] for side in one["box"])
    assert sorted(path.stem for path in Path("drawn").iterdir()) == sorted(Path(name).stem for name in images)
    stored = json.loads(Path("out.json").read_text())
    assert len(stored["annotations"]) == sum(len(row["detections"]) for row in rows)
    assert [category["name"] for category in stored["categories"]] == list(CLASSES)
    detector = mnas.detect.load(model(), score=0.2)
    [first] = detector.detect_files([images[0]])
    assert first.scores.tolist() == pytest.approx([one["score"] for one in rows[0]["detections"]], abs=1e-5)


def test_videos_are_read_frame_by_frame_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    file = VideoFile(Path("film.mp4"), Fraction(10))
    for path in sorted(Path("shapes/val").iterdir()):
        with Image.open(path) as picture:
            file.add(picture.convert("RGB"))
    file.close()
    rows = values(capsys, "predict", model(), "film.mp4", "--every", "3", "--save", "films")
    assert [(row["video"], row["frame"], row["time_s"]) for row in rows] == [("film.mp4", n, n / 10) for n in (0, 3, 6)]
    assert [path.name for path in Path("films").iterdir()] == ["film.mp4"]


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "must be a folder of images with boxes" in complaint(capsys, "train", "mnasnet-a1", "--data", "nowhere")
    size = complaint(capsys, "train", "mnasnet-a1", "--data", "shapes", "--input-size", "300")
    assert size.endswith("--input-size must be a multiple of 32, but got 300")
    for command in (("train", "mnasnet-a1"), ("check",)):  # refused before the folder is looked for
        large = complaint(capsys, *command, "--data", "nowhere", "--input-size", "4128")
        assert "--input-size must be an integer from 32 to 4096, but got 4128" in large
    assert "output stride 32, but got 8" in complaint(capsys, "train", "mnasnet-a1/s8", "--data", "shapes")
    assert "consists of cells" in complaint(capsys, "train", "darts-v2", "--data", "shapes")
    assert "does not exist" in complaint(capsys, "eval", "nothing", "--data", "shapes")
    assert "--score must be a number from 0 to 1" in complaint(capsys, "predict", model(), "shapes", "--score", "7")
    where = complaint(capsys, "predict", model(), "shapes", "--coco", "nowhere/x.json")
    assert "--coco must name a .json file to write, but 'nowhere/x.json' is in a folder that does not exist" in where
    Path("taken").touch()
    assert "--save must be a folder, but got 'taken'" in complaint(
        capsys, "predict", model(), "shapes", "--save", "taken"
    )
    weights = ("--out", "other", "--weights", f"{model()}/model.safetensors")
    assert "and a classifier is required" in complaint(capsys, "train", BACKBONE, "--data", "shapes", *weights)
    untrained = complaint(capsys, "predict", "mnasnet-a1", "shapes")
    assert "train it with `mnas detect train mnasnet-a1 --data DIR`, then name the folder of the training" in untrained
    assert "--weights" not in untrained
    with pytest.raises(ValueError, match="score must be a number from 0 to 1, but got 7"):
        mnas.detect.load(model(), score=7)
    shutil.copy("shapes/val/1.png", tmp_path / "cut.mp4")
    assert run(["detect", "predict", model(), str(tmp_path / "cut.mp4")]) == 2
    cut = capsys.readouterr().err.splitlines()
    assert "it is not a readable video" in cut[0]
    assert cut[1] == "mnas: 1 of 1 video could not be read"
    assert run(["detect", "predict", model(), str(tmp_path / "cut.mp4"), "http://films.example/a.MP4?x", "no.png"]) == 2
    far = capsys.readouterr().err.splitlines()
    assert "mnas: 'http://films.example/a.MP4?x': mnas reads videos only from files; download it, and name" in far[0]
    assert far[-1] == "mnas: 3 of 3 images and videos could not be read"
    with pytest.raises(ValueError, match=r"images must be files, but got the URL 'https://a\.example/b\.jpg'; dow"):
        mnas.detect.predict(model(), "https://a.example/b.jpg")
    url = complaint(capsys, "check", "--data", "https://a.example/boxes.zip")
    assert "but got the URL 'https://a.example/boxes.zip'; download and unpack it" in url
    other = write_shapes(tmp_path / "other", train=2, val=1, test=0)
    for path in (other / "annotations").iterdir():
        path.write_text(path.read_text().replace('"disc"', '"moon"'))
    unknown = complaint(capsys, "eval", model(), "--data", str(other))
    assert "it does not know 'moon'; its classes are 'disc', 'square'" in unknown


def without_boxes(folder: Path, part: str) -> Path:
    path = folder / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    return folder


def test_test_images_without_objects_are_not_scored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = without_boxes(write_shapes(tmp_path / "shapes", train=2, val=1, test=1), "test")
    out = tmp_path / "out"
    assert run(["detect", "train", BACKBONE, "--data", str(data), *QUICK, "--epochs", "1", "--out", str(out)]) == 0
    assert "the test images have no objects, so they are not scored" in (printed := capsys.readouterr().out)
    assert ": 1 epoch of 1 step of 2 images, peak" in printed
    assert "; 1 epoch in " in printed
    [result] = out.glob("*/result.json")
    assert json.loads(result.read_text())["test_precision"] is None


def lonely_object(folder: Path) -> Path:
    """A folder of four images, of which only the first has boxes."""
    path = write_shapes(folder, train=4, val=0, test=0) / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] == 1]
    path.write_text(json.dumps(content))
    return folder


def test_data_that_cannot_be_scored_is_refused_before_the_first_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    unscored = without_boxes(write_shapes(tmp_path / "unscored", train=2, val=3, test=0), "val")
    for data, words in (
        (unscored, "--data must have objects in its validation images, but none of 3 in 'unscored' has one; add boxes"),
        (write_shapes(tmp_path / "two", train=2, val=0, test=0), "at least 2 training images beside those for valid"),
        (lonely_object(tmp_path / "lonely"), "none of 1 in 'lonely' has one; add boxes to more images"),
    ):
        assert words in complaint(capsys, "train", BACKBONE, "--data", str(data), *QUICK, "--out", str(out))
    lonely = complaint(capsys, "train", BACKBONE, "--data", "shapes", *QUICK, "--batch-size", "1", "--out", str(out))
    assert "--batch-size must be a multiple of the number of processes, and at least 2 per process" in lonely
    assert not list(out.glob("*/checkpoint.pt"))


def test_other_images_without_parts_are_scored_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = write_shapes(tmp_path / "other", train=6, val=0, test=0)
    assert "use --part all" in complaint(capsys, "eval", model(), "--data", str(other))
    export = complaint(capsys, "export", model(), "--to", "litert", "--data", str(other))
    assert export.endswith("other images in 'other'. Give those, or name a folder with a validation part of its own.")
    [scores] = values(capsys, "eval", model(), "--data", str(other), "--part", "all")
    content = json.loads((other / "annotations" / "instances_train.json").read_text())
    assert (scores["part"], scores["images"], scores["objects"]) == ("all", 6, len(content["annotations"]))


def test_python_checks_and_predicts_as_the_commands_do(capsys: pytest.CaptureFixture[str]) -> None:
    [printed] = values(capsys, "check", "--data", "shapes", "--input-size", "64")
    assert (
        json.loads(json.dumps({**mnas.detect.check("shapes", input_size=64).to_dict(), "boxes": "fitted"})) == printed
    )
    [row] = values(capsys, "predict", model(), "shapes/val/1.png", "--score", "0.2")
    [one], [same] = (
        mnas.detect.predict(model(), images, score=0.2) for images in ("shapes/val/1.png", ["shapes/val/1.png"])
    )
    assert [CLASSES[label] for label in one.labels] == [each["label"] for each in row["detections"]] != []
    assert one.boxes.tolist() == same.boxes.tolist()
    detector = mnas.detect.load(model())
    assert detector.detect(np.zeros((0, 64, 64, 3), np.uint8)) == []
    for wrong in (
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((1, 32, 64, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"pixels must be uint8 \(N, 64, 64, 3\), but got"):
            detector.detect(wrong)
    for options, words in (
        ({"part": "foo"}, "part must be one of train, val"),
        ({"seed": "x"}, "seed must be an integer"),
    ):
        with pytest.raises(ValueError, match=words):
            mnas.detect.evaluate(model(), data="shapes", **options)
    with pytest.raises(ValueError, match="boxes must be one of fitted, paper, but got 'x'"):
        mnas.detect.check("shapes", boxes="x")  # type: ignore[arg-type]
