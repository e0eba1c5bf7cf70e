"""The page of `mnas eval --report` and of `mnas train`: the counts, images and names that a model really saw."""

import base64
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from foreign_models import onnx_model
from PIL import Image

import mnas
from mnas.cli.main import run
from tests.cli.test_train_command import ARCH
from tests.pages.test_scored_page import Parsed

NAMES = ("blue", "<img src=x onerror=window.hit=1>", "red")
MOMENTS = ("--mean", "0.5", "--std", "0.25", "--class-order", "data")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder with photos in train/ and test/, grey ones too, a model of another program, and the class names.

    The model's outputs are the means of red, green and blue, so the predictions follow from the files.
    """
    folder = tmp_path_factory.mktemp("scored")
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 25)):
        for label, name in enumerate(NAMES):
            (folder / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 200, (8, 8, 3)).astype(np.int64)
                pixels[..., (2, 1, 0)[label]] += 12
                file = folder / "photos" / part / name / f"{number:03d} & <b>.png"
                if number == 7:
                    Image.fromarray(pixels[..., 0].astype(np.uint8)).save(file)  # grey
                else:
                    Image.fromarray(pixels.astype(np.uint8)).save(file)
    (folder / "means.onnx").write_bytes(onnx_model(size=8))
    (folder / "names.txt").write_text("\n".join(reversed(NAMES)) + "\n")  # red, green, blue
    (folder / "tiny.json").write_text(ARCH.to_json())
    return folder


@pytest.fixture(autouse=True)
def _there(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))


def by_hand(part: str) -> tuple[np.ndarray, list[tuple[float, str, int, int]]]:
    """Counts by true and predicted class, and (confidence, name, true, predicted) of each mistake, both by file."""
    counts = np.zeros((3, 3), int)
    mistakes = []
    for label, name in sorted(enumerate(NAMES), key=lambda pair: pair[1]):  # the order of scoring
        for file in sorted(Path("photos", part, name).iterdir()):
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"), np.float64)
            logits = ((pixels / 255 - 0.5) / 0.25).mean((0, 1))[::-1]  # blue, green, red
            powers = np.exp(logits - logits.max())
            best = int(np.argmax(logits[::-1]))  # the first of equal outputs, in the model's order
            best = 2 - best
            counts[label, best] += 1
            if best != label:
                mistakes.append((float(powers[best] / powers.sum()), f"{part}/{name}/{file.name}", label, best))
    return counts, sorted(
        mistakes, key=lambda mistake: -round(mistake[0], 6)
    )  # grey images are as likely as each other


def matrix(page: Parsed) -> list[list[int]]:
    return [[int(cell or 0) for cell in row[1:-1]] for row in page.tables["matrix"][1:]]


def evaluated(report: Path, *options: str, model: str = "means.onnx") -> Parsed:
    named = ("--class-file", "names.txt") if model == "means.onnx" else ()
    moments = MOMENTS[:4] if model == "means.onnx" else ()
    assert run(["eval", model, "--data", "photos", *moments, *named, "--report", str(report), *options]) == 0
    return Parsed(report.read_text())


@pytest.mark.parametrize("loader", ["array", "files"])
def test_the_page_of_a_foreign_model_is_the_one_computed_by_hand(tmp_path, monkeypatch, capsys, loader):
    if loader == "files":
        monkeypatch.setattr("mnas.data.scored.MOST_ARRAY_BYTES", 0)
    page = evaluated(tmp_path / "report.html")
    assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().out
    counts, mistakes = by_hand("test")
    assert counts.trace() > 40
    assert len(mistakes) > 3
    # the page has the order of the model's outputs: red, green, blue
    assert matrix(page) == counts[::-1, ::-1].tolist()
    shown = page.images[: min(24, len(mistakes))]
    for image, (confidence, name, truth, prediction) in zip(shown, mistakes, strict=False):
        assert image["alt"] == (
            f"{name}: true class {NAMES[truth]}, predicted {NAMES[prediction]} with {confidence:.1%} confidence"
        )
        with (
            Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as seen,
            Image.open(Path("photos", name)) as file,
        ):
            np.testing.assert_array_equal(np.asarray(seen.convert("RGB")), np.asarray(file.convert("RGB")))
    assert "script" not in page.tags


def test_all_parts_and_unreadable_images_keep_their_names(tmp_path, capsys):
    bad = Path("photos", "test", "blue", "000 & <b>.png")
    content = bad.read_bytes()
    bad.write_bytes(b"no image")
    try:
        page = evaluated(tmp_path / "report.html", "--part", "all")
    finally:
        bad.write_bytes(content)
    capsys.readouterr()
    _, mistakes = by_hand("test")
    _, more = by_hand("train")
    names = {name for _, name, *_ in [*mistakes, *more]} - {f"test/blue/{bad.name}"}
    alts = [image["alt"].partition(": true class")[0] for image in page.images if ": true class" in image["alt"]]
    expected = sorted([m for m in [*more, *mistakes] if m[1] in names], key=lambda m: -round(m[0], 6))[:24]
    assert alts == [name for _, name, *_ in expected]


def test_shards_are_named_by_tar_and_member(tmp_path, capsys):
    pytest.importorskip("webdataset")
    from mnas.data.shards import write_shards

    write_shards(Path("photos"), tmp_path / "shards", 20)
    folders = evaluated(tmp_path / "folders.html", "--part", "test")
    report = tmp_path / "shards.html"
    options = ("--class-file", "names.txt", "--report", str(report), "--part", "test")
    assert run(["eval", "means.onnx", "--data", str(tmp_path / "shards"), *MOMENTS[:4], *options]) == 0
    capsys.readouterr()
    page = Parsed(report.read_text())
    assert matrix(page) == matrix(folders)
    for image, other in zip(page.images[:5], folders.images[:5], strict=True):
        assert image["src"] == other["src"]
        tar, _, member = image["alt"].partition(": true class")[0].partition(": ")
        with tarfile.open(tmp_path / "shards" / tar) as file:
            content = file.extractfile(member).read()
        assert content == Path("photos", other["alt"].partition(": true class")[0]).read_bytes()


def test_bad_names_of_a_report_are_refused_before_scoring(tmp_path, capsys):
    for name, words in (
        ("report.txt", "--report must name a .html file, but got"),
        ("no/report.html", "is in a folder that does not exist"),
        ("there.html", "'there.html' already exists"),
    ):
        Path("there.html").touch()
        assert run(["eval", "means.onnx", "--data", "photos", "--report", name]) == 2
        assert words in capsys.readouterr().err


def test_a_training_ends_with_its_page(tmp_path, capsys):
    quick = ("--epochs", "2", "--batch-size", "16", "--fewest-steps", "0", "--threads", "1", "--input-size", "8")
    options = ("--data", "photos", *quick, "--out", str(tmp_path))
    assert run(["train", "tiny.json", *options]) == 0
    folder = tmp_path / "tiny-8px"
    printed = capsys.readouterr().out
    assert f"report: {folder / 'report.html'}" in printed
    page = Parsed((folder / "report.html").read_text())
    tested = json.loads((folder / "result.json").read_text())["test_accuracy"]
    counts = matrix(page)
    assert np.trace(counts) / 75 == pytest.approx(tested)
    assert f"{tested:.2%}" in page.text
    # the same model scored again has the same page, apart from words
    again = evaluated(tmp_path / "again.html", "--part", "test", model=str(folder))
    assert matrix(again) == counts
    assert [image["src"] for image in again.images] == [image["src"] for image in page.images]
    before = (folder / "report.html").read_bytes()
    assert run(["train", "tiny.json", *options, "--resume"]) == 0
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    assert (folder / "report.html").read_bytes() == before


def test_without_test_images_the_page_shows_the_validation_images(tmp_path):
    trained = mnas.train(
        "tiny.json", data="photos/train", input_size=8, epochs=1, batch_size=16, fewest_steps=0, out=tmp_path
    )
    page = Parsed(trained.report.read_text())
    assert "validation part of train" in page.text
    assert np.trace(matrix(page)) / np.sum(matrix(page)) == pytest.approx(trained.accuracy)


def test_named_data_sets_have_numbers(tmp_path):
    trained = mnas.train("tiny.json", data="digits", input_size=8, epochs=1, fewest_steps=0, out=tmp_path)
    page = Parsed(trained.report.read_text())
    assert len(page.tables["matrix"]) == 11
    assert all(image["alt"].startswith("test image ") for image in page.images)
