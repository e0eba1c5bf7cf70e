"""One network in every format: the same predictions, options that override a file, and class names."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from foreign_models import images
from own_models import ARCH, CLASSES, INFO, SIZE, own_network, save_own, save_own_litert
from PIL import Image

import mnas
from mnas.data.augment import normalised
from mnas.data.image import square
from mnas.export.executorch import executorch_fp32
from mnas.export.litert import litert_int8
from mnas.export.onnx import onnx_fp32
from mnas.foreign.sidecar import sidecar
from mnas.nn.weights import load_weights
from mnas.predict.info import Wanted, class_names
from mnas.predict.model import load_model, read_class_names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network in all formats."""
    path = tmp_path_factory.mktemp("models")
    save_own(path)
    save_own_litert(path)
    network = own_network()
    (path / "model.onnx").write_bytes(onnx_fp32(network, INFO))
    program = executorch_fp32(network, INFO)
    (path / "model.pte").write_bytes(program)
    (path / "model.pte.json").write_text(sidecar(INFO, program))
    return path


def expected(pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        inputs = normalised(torch.tensor(pixels), torch.tensor(INFO.mean), torch.tensor(INFO.std))
        return own_network()(inputs).numpy()


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [("safetensors", "mnas", 1e-6), ("tflite", "litert", 2e-4), ("onnx", "onnx", 2e-4), ("pte", "executorch", 2e-4)],
)
def test_every_format_is_the_same_network(folder, name, kind, tolerance):
    model = mnas.load(folder / f"model.{name}")
    info = model.info
    assert (info.format, info.classes, info.outputs, info.input_size) == (kind, CLASSES, 4, SIZE)
    assert (info.mean, info.std) == (pytest.approx(INFO.mean), pytest.approx(INFO.std))
    assert (info.crop, info.arch, info.probabilities, info.notes) == (0.875, ARCH, False, ())
    assert info.size_bytes == (folder / f"model.{name}").stat().st_size
    pixels = images(20, SIZE)
    outputs = model.run(pixels)
    assert outputs.dtype == np.float32
    logits = expected(pixels)
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(outputs, logits, rtol=0, atol=tolerance * np.abs(logits).max())
    assert model.run(pixels[:0]).shape == (0, 4)
    photograph = Image.fromarray(images(1, 61)[0])
    first = model.predict(photograph, top=2)
    probabilities = torch.softmax(torch.from_numpy(expected(square(photograph, SIZE, 0.875)[None])), 1)[0]
    best = probabilities.argsort(descending=True)[:2].tolist()
    assert [p.index for p in first] == best
    assert [p.label for p in first] == [CLASSES[i] for i in best]
    assert [p.probability for p in first] == pytest.approx(probabilities[best].tolist(), abs=1e-3)


def test_int8_in_and_out_by_its_own_scales(folder, tmp_path):
    calibration = (images(64, SIZE) / 255 - np.array(INFO.mean)) / np.array(INFO.std)
    content = litert_int8((folder / "model.tflite").read_bytes(), calibration.astype(np.float32), integer_io=True)
    (tmp_path / "int8.tflite").write_bytes(content)
    model = load_model(tmp_path / "int8.tflite")
    assert (model.info.classes, model.info.crop, model.info.arch) == (CLASSES, 0.875, ARCH)
    pixels = images(64, SIZE)
    logits, outputs = expected(pixels), model.run(pixels)
    assert np.abs(outputs - logits).mean() < 0.05 * np.ptp(logits)
    assert (outputs.argmax(1) == logits.argmax(1)).mean() > 0.9


def test_a_path_a_picture_and_pixels_are_one(folder, tmp_path):
    model = load_model(folder)  # the folder of a training
    assert model.info.format == "mnas"
    pixels = images(1, 40)[0]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    by_path = model.predict(tmp_path / "image.png", top=9)
    assert by_path == model.predict(str(tmp_path / "image.png"), top=9)
    assert by_path == model.predict(Image.fromarray(pixels), top=9) == model.predict(pixels, top=9)
    assert len(by_path) == 4
    with pytest.raises(ValueError, match=r"nothing.png': there is no such file$"):
        model.predict(tmp_path / "nothing.png")
    assert sum(p.probability for p in by_path) == pytest.approx(1, abs=1e-6)
    assert [p.probability for p in by_path] == sorted((p.probability for p in by_path), reverse=True)


def test_what_the_user_says_goes_first(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("Katze\nHund\nAal\nFuchs\n")
    for name in ("safetensors", "tflite", "onnx", "pte"):
        model = load_model(folder / f"model.{name}", class_file=names, mean=[0.1], std=[0.2], crop=1)
        assert model.info.classes == ("Katze", "Hund", "Aal", "Fuchs")
        assert (model.info.mean, model.info.std, model.info.crop) == ((0.1,) * 3, (0.2,) * 3, 1.0)
        pixels = images(3, SIZE)
        with torch.inference_mode():
            inputs = normalised(torch.from_numpy(pixels), torch.tensor([0.1] * 3), torch.tensor([0.2] * 3))
            np.testing.assert_allclose(model.run(pixels), own_network()(inputs).numpy(), atol=5e-3)
    larger = load_model(folder / "model.safetensors", input_size=24)
    assert larger.run(images(2, 24)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"--input-size must be 16 for .*model.tflite', but got 24"):
        load_model(folder / "model.tflite", input_size=24)


def test_an_architecture_with_weights(folder, tmp_path):
    file = str(folder / "model.safetensors")
    model = load_model(ARCH, weights=file, name="mine")
    assert (model.info.classes, model.info.crop, model.info.notes) == (CLASSES, 0.875, ())
    pixels = images(3, SIZE)
    np.testing.assert_array_equal(model.run(pixels), load_model(file).run(pixels))
    torch.save(load_weights(folder / "model.safetensors").state_dict(), tmp_path / "theirs.pth")
    (tmp_path / "names.json").write_text(json.dumps(CLASSES))
    theirs = load_model(ARCH, weights=str(tmp_path / "theirs.pth"), name="mine", class_file=tmp_path / "names.json")
    assert theirs.info.classes == CLASSES
    assert "does not record how to prepare images" in theirs.info.notes[0]
    with pytest.raises(ValueError, match="an architecture needs weights"):
        load_model(ARCH)


def test_pixels_of_another_shape(folder):
    model = load_model(folder / "model.tflite")
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(N, 16, 16, 3\), but got uint8 \(1, 8, 8, 3\)"):
        model.run(images(1, 8))
    with pytest.raises(ValueError, match="but got float32"):
        model.run(images(1, 16).astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"an array must be uint8 \(H, W, 3\), but got uint8 \(16, 16\)"):
        model.predict(images(1, 16)[0, :, :, 0])
    with pytest.raises(ValueError, match="top must be 1 or more, but got 0"):
        model.predict(images(1, 16)[0], top=0)


@pytest.mark.slow  # each change is tried in a separate process
def test_a_pte_with_a_changed_byte_never_ends_the_process(folder, tmp_path):
    """Loaded in this process, most of these files would crash it (ExecuTorch aborts)."""
    path = tmp_path / "model.pte"
    whole = (folder / "model.pte").read_bytes()
    said = ""
    for at in (6386, 7090, 7174, 6219, 7530):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            load_model(path, input_size=SIZE, mean=[0.5], std=[0.5])
        except ValueError as error:
            said = str(error)
        if "its process ended with signal" in said:
            break
    assert "which is damaged or too large: its process ended with signal" in said
    (tmp_path / "model.pte.json").write_bytes((folder / "model.pte.json").read_bytes())
    with pytest.raises(ValueError, match=r"model\.pte' was changed after mnas wrote it"):
        load_model(path)


@pytest.mark.parametrize("name", ["safetensors", "tflite", "onnx", "pte"])
@pytest.mark.parametrize("damage", ["half", "text", "empty"])
def test_damaged_files(folder, tmp_path, name, damage):
    whole = (folder / f"model.{name}").read_bytes()
    path = tmp_path / f"model.{name}"
    content = {"half": whole[: len(whole) // 2], "text": b"this is no model at all", "empty": b""}[damage]
    path.write_bytes(content)
    if name == "pte":  # without a digest, so that the changed byte reaches the child process
        (tmp_path / "model.pte.json").write_text(sidecar(INFO, content))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each runtime has its words)
        load_model(path)
    assert f"model.{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_model(tmp_path):
    with pytest.raises(
        ValueError, match=r"a file of type .safetensors, .tflite, .onnx, .pte, but got .*model.pth'; .*--weights"
    ):
        load_model(tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"but .*nothing.tflite.* does not exist"):
        load_model(tmp_path / "nothing.tflite")
    with pytest.raises(ValueError, match=r"but .*model.safetensors.* does not exist"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.5]}, "--mean and --std must be given together"),
        ({"mean": [0.5, 0.5], "std": [1]}, "--mean must be one finite number or three"),
        ({"mean": [0.5], "std": [0]}, "--std must be three finite numbers above 0"),
        ({"mean": [0.5], "std": [float("nan")]}, "--std must be one finite number"),
        ({"crop": 0}, "--crop must be above 0 and at most 1, but got 0"),
        ({"threads": 0}, "--threads must be 1 or more, but got 0"),
        ({"input_size": 0}, "--input-size must be an integer from 1 to 8192, but got 0"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load_model(folder / "model.tflite", **options)


def test_class_files(folder, tmp_path):
    path = tmp_path / "classes"
    path.write_text("a\nb b\n\tc \n\n")
    assert read_class_names(path) == ("a", "b b", "c")
    path.write_text('["a", "b"]')
    assert read_class_names(path) == ("a", "b")
    path.write_text('{"1": "b", "0": "a", "2": ["n0", "c"]}')
    assert read_class_names(path) == ("a", "b", "c")
    path.write_text("0\n1\n2\n")
    assert read_class_names(path) == ("0", "1", "2")
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert read_class_names(path) == ("a", "b")
    for text, message in (
        ("", "must contain one name per line"),
        ("a\n\nb\n", "must contain one name per line"),
        ('{"0": "a", "2": "b"}', "keys of --class-file .* must be 0 to 1"),
        ("[1, 2]", "must contain one name per line"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_class_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be text in UTF-8 or UTF-16"):
        read_class_names(path)
    path.write_text("a\nb\nc\n")
    with pytest.raises(
        ValueError, match=r"--class-file must name each of the 4 outputs of .*model.tflite', but got 3 names"
    ):
        load_model(folder / "model.tflite", class_file=path)
    path.write_text("background\na\nb\nc\nd\n")  # one name too many, of which none is the obvious one to drop
    with pytest.raises(
        ValueError, match=r"--class-file must name each of the 4 outputs of .*model.tflite', but got 5 names"
    ):
        load_model(folder / "model.tflite", class_file=path)


def test_background_is_left_out_or_put_before_imagenets_names_only():
    names = tuple(f"n{i}" for i in range(1000))
    with_background = ("background", *names)
    assert class_names(Wanted(classes=with_background), None, 1000, "x") == names
    assert class_names(Wanted(classes=names), None, 1001, "x") == with_background
    for given, outputs in ((("background", *with_background), 1001), (names[:999], 1000), (with_background[:-1], 999)):
        with pytest.raises(ValueError, match=rf"each of the {outputs} outputs of 'x', but got {len(given)}"):
            class_names(Wanted(classes=given), None, outputs, "x")


def test_import_and_load_take_no_torch(folder):
    code = (
        "import sys, mnas; assert 'mnas.predict' not in sys.modules; mnas.load; "
        f"mnas.load({str(folder / 'model.tflite')!r}); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        mnas.lode  # noqa: B018
