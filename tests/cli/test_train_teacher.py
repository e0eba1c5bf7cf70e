"""`mnas train --teacher`: models of every format teach, run once for each data set, and other classes are refused."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from foreign_models import onnx_model
from PIL import Image

from mnas.cli.main import run
from mnas.full_training import teacher as opening
from mnas.predict.model import Model
from tests.cli.test_train_command import ARCH

QUICK = ("--data", "photos", "--epochs", "2", "--batch-size", "16", "--fewest-steps", "0", "--threads", "1")
TEACHER = "teachers/tiny-16px"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder with photos of three colours, further ones, and a teacher at 16 px in three formats."""
    folder = tmp_path_factory.mktemp("teaching")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        Path("tiny.json").write_text(ARCH.to_json())
        draw = np.random.default_rng(0)
        for number in range(240):
            colour = number % 3
            pixels = draw.integers(0, 160, (20, 20, 3), np.uint8)
            pixels[..., colour] += 90
            place = Path("photos", ("red", "green", "blue")[colour]) if number < 120 else Path("more")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}.png")
        assert run(["train", "tiny.json", *QUICK, "--epochs", "6", "--input-size", "16", "--out", "teachers"]) == 0
        Path("exported").mkdir()
        assert run(["export", TEACHER, "--to", "litert,onnx", "--out", "exported"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workspace / "cache"))


def student(teacher: str, out: Path, *options: str) -> list[str]:
    return ["train", "tiny.json", *QUICK, "--input-size", "8", "--teacher", teacher, "--out", str(out), *options]


def complaint(capsys, *arguments: str) -> str:
    code = run(list(arguments))
    printed = capsys.readouterr()
    assert code == 2, printed
    [line] = printed.err.strip().splitlines()
    return line


def exported(suffix: str) -> str:
    [file] = Path("exported").rglob(f"*{suffix}")
    return str(file)


def test_formats_teach_alike_and_run_once(tmp_path, capsys, monkeypatch):
    images = []
    real = Model.run

    def counted(self, pixels):
        images.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Model, "run", counted)
    losses = []
    for name in (TEACHER, exported(".tflite"), exported(".onnx")):
        for turn in range(2):
            out = tmp_path / f"{Path(name).name}{turn}"
            images.clear()
            assert run(student(name, out)) == 0
            assert sum(images) == (0 if turn else 96)
            printed = capsys.readouterr().out
            assert f"teacher {name}: 16 px, " in printed
            assert "of the training images right; weight 0.9, temperature 4" in printed
            losses.append(float((out / "tiny-8px" / "metrics.csv").read_text().splitlines()[-1].split(",")[3]))
            identity = json.loads((out / "tiny-8px" / "config.json").read_text())["identity"]
            assert (identity["distillation_weight"], identity["temperature"]) == (0.9, 4.0)
            assert identity["unlabelled"] is None
    assert losses[0] == losses[1]
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-3)


def test_unlabelled_images_are_counted(tmp_path, capsys):
    bad = Path("more", "bad.png")
    bad.write_bytes(b"no image")
    try:
        assert run(student(TEACHER, tmp_path / "u", "--unlabelled", "more")) == 0
    finally:
        bad.unlink()
    printed = capsys.readouterr().out
    assert "data photos: 3 classes, images 96 train, 24 val, 120 unlabelled, 8 px" in printed
    assert "skipped 1 unreadable image: " in printed
    assert "2 epochs of 13 steps of 16 images" in printed  # 7 of 16 images are labelled
    stored = json.loads((tmp_path / "u" / "tiny-8px" / "config.json").read_text())["identity"]
    assert stored["unlabelled"]
    again = student(TEACHER, tmp_path / "u", "--resume")
    assert "unlabelled: " in complaint(capsys, *again)


def test_files_without_an_array_teach_too(tmp_path, capsys):
    options = ("--loader", "files", "--workers", "0", "--unlabelled", "more", "--mixup", "0.2")
    assert run(student(exported(".tflite"), tmp_path / "f", *options)) == 0
    assert "120 unlabelled" in capsys.readouterr().out


def test_unlabelled_tar_shards_teach_as_their_folder(tmp_path, capsys):
    pytest.importorskip("webdataset")
    tars = tmp_path / "tars"
    tars.mkdir()
    files = sorted(Path("more").iterdir())
    for number in range(2):
        with tarfile.open(tars / f"{number}.tar", "w") as tar:
            for file in files[number * 60 : number * 60 + 60]:
                tar.add(file, file.name)
    assert run(student(TEACHER, tmp_path / "t", "--unlabelled", str(tars))) == 0
    assert "data photos: 3 classes, images 96 train, 24 val, 120 unlabelled, 8 px" in capsys.readouterr().out
    assert json.loads((tmp_path / "t" / "tiny-8px" / "config.json").read_text())["identity"]["unlabelled"]
    line = complaint(capsys, *student(TEACHER, tmp_path / "n", "--unlabelled", str(tmp_path / "none.tar")))
    assert "(no such file)" in line
    line = complaint(capsys, *student(TEACHER, tmp_path / "n", "--data", str(tmp_path / "none.tar")))
    assert "none.tar" in line


def test_classes_are_matched_by_name(tmp_path, capsys):
    if not Path("other").exists():
        Path("other").mkdir()
        for name in ("blue", "green"):
            Path("other", name).symlink_to(Path("photos", name).resolve())
        Path("strange").mkdir()
        for old, new in (("blue", "sky"), ("green", "green")):
            Path("strange", new).symlink_to(Path("photos", old).resolve())
    assert run(student(TEACHER, tmp_path / "o", "--data", "other")) == 0
    line = complaint(capsys, *student(TEACHER, tmp_path / "s", "--data", "strange"))
    assert line == (
        f"mnas: --teacher must have the data's classes (green, sky), but {TEACHER!r} has blue, green, red; train a "
        "teacher on this data (mnas train), or name its outputs with --teacher-class-file"
    )
    assert not (tmp_path / "s").exists()


def test_probabilities_teach(tmp_path, monkeypatch, capsys):
    """A softmax in the file changes nothing but rounding."""
    assert run(student(TEACHER, tmp_path / "logits")) == 0
    real = opening.open_teacher

    def softmaxed(settings):
        import dataclasses

        model = real(settings)
        info = dataclasses.replace(model.info, probabilities=True)
        return Model(info, lambda pixels: model.probabilities(pixels))

    monkeypatch.setattr(opening, "open_teacher", softmaxed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(student(TEACHER, tmp_path / "softmax")) == 0
    capsys.readouterr()
    rows = [
        (tmp_path / name / "tiny-8px" / "metrics.csv").read_text().splitlines()[-1].split(",")
        for name in ("logits", "softmax")
    ]
    assert float(rows[0][3]) == pytest.approx(float(rows[1][3]), rel=1e-4)


def test_the_teachers_held_out_images_stay_held_out(tmp_path, capsys):
    assert run(student(TEACHER, tmp_path / "seed", "--seed", "5")) == 0
    line = f"validation images: the held-out images of the training of {TEACHER} (seed 0)"
    assert line in capsys.readouterr().out
    assert run(student(TEACHER, tmp_path / "few", "--max-images-per-class", "20")) == 0
    assert f"{TEACHER} was trained with another --max-images-per-class, so validation" in capsys.readouterr().out


def test_a_file_of_another_program_teaches(tmp_path, capsys):
    """Its outputs are the means of red, green and blue, so it is right on these photos."""
    Path("means.onnx").write_bytes(onnx_model(size=8))
    Path("names.txt").write_text("red\ngreen\nblue\n")
    line = complaint(capsys, *student("means.onnx", tmp_path / "m"))
    assert "--teacher 'means.onnx' cannot be opened: --teacher-mean and --teacher-std must be given" in line
    moments = ("--teacher-mean", "0.5", "--teacher-std", "0.25")
    line = complaint(capsys, *student("means.onnx", tmp_path / "m", *moments))
    assert "'means.onnx' has 3 outputs without names; " in line
    line = complaint(capsys, *student("means.onnx", tmp_path / "m", "--teacher-mean", "half"))
    assert "--teacher-mean must be one number or three (0.5,0.5,0.5), but got 'half'" in line
    assert run(student("means.onnx", tmp_path / "m", *moments, "--teacher-class-file", "names.txt")) == 0
    assert "8 px, 100.0% of the training images right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--unlabelled", "more"), "--unlabelled needs a teacher; name one with --teacher"),
        (("--teacher-mean", "0.5"), "--teacher-mean needs a teacher; name one with --teacher"),
        (("--temperature", "2"), "--temperature needs a teacher; name one with --teacher"),
        (("--teacher", TEACHER, "--temperature", "0"), "--temperature must be a number from 0.1 to 100, but got 0.0"),
        (
            ("--teacher", TEACHER, "--distillation-weight", "2"),
            "--distillation-weight must be a number from 0 to 1, but got 2.0",
        ),
        (("--teacher", "nowhere.onnx"), "'nowhere.onnx' does not exist"),
        (("--teacher", TEACHER, "--unlabelled", "none"), "--unlabelled must be a folder of images, but got 'none'"),
    ],
)
def test_bad_options_get_one_line(tmp_path, capsys, options, words):
    line = complaint(capsys, "train", "tiny.json", *QUICK, "--input-size", "8", "--out", str(tmp_path / "x"), *options)
    assert words in line
