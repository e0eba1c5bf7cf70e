"""The fuzzed targets: each reader of foreign data with valid inputs, its call, and the words of its format."""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from engine import Target
from mutations import HOSTILE, mutated_json, mutated_text
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block

ARCH = Arch(blocks=(Block(op="sepconv", kernel=3, stride=1, filters=8),), stem_filters=8, head_filters=16)
BLOCKS = "r1_k3_s11_e1_i32_o16_noskip,r2_k5_s22_e3_i16_o24_se0.25,r1_k3_s11_e6_i24_o40"
SAVED = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def once(make: Callable[[], Sequence[bytes]]) -> Callable[[], Sequence[bytes]]:
    """A corpus that is made at its first use."""
    return functools.cache(make)


# Images


def _images(kind: str) -> Sequence[bytes]:
    rng = np.random.default_rng(1)
    modes = {"PNG": ("RGB", "P", "LA", "I;16", "1"), "TIFF": ("RGB", "L", "F"), "GIF": ("P",), "JPEG": ("RGB", "CMYK")}
    files = []
    for mode in modes.get(kind, ("RGB",)):
        grey = rng.integers(0, 256, (12, 10), dtype=np.uint8)
        if mode == "I;16":
            image = Image.fromarray(grey.astype(np.uint16) * 257)
        elif mode == "F":
            image = Image.fromarray(grey.astype(np.float32) / 255)
        else:
            image = Image.fromarray(grey).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        files.append(buffer.getvalue())
    return files


def _read_image(content: bytes, work: Path) -> object:
    from mnas.predict.images import read_pixels

    pixels = read_pixels(content, 16, 1.0)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    return pixels


# Models


def _tflite() -> Sequence[bytes]:
    from mnas.nn.network import build_network
    from mnas.tflite.writer import graph_bytes, write_tflite

    own = write_tflite(
        build_network(ARCH, 3).eval(), 16, labels=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
    )  # fmt: skip
    return [own, graph_bytes(ARCH, 16, 3)]


def _onnx() -> Sequence[bytes]:
    from foreign_models import onnx_model

    return [onnx_model(), onnx_model(channels_first=False, softmax=True), onnx_model(batch=1, size="S")]


def _safetensors() -> Sequence[bytes]:
    from mnas.metadata import ModelMetadata
    from mnas.nn.network import build_network
    from mnas.nn.weights import weights_bytes

    info = ModelMetadata(
        arch=ARCH, classes=("a", "b", "c"), mean=(0.5,) * 3, std=(0.2,) * 3, input_size=16, accuracy=0.5
    )
    network = build_network(ARCH, 3)
    return [weights_bytes(network, info), weights_bytes(network, info, seal=False)]


def _detectors() -> Sequence[bytes]:
    from mnas.arch import Arch
    from mnas.detector import Detector, DetectorMetadata, paper_boxes
    from mnas.nn.detection.network import build_detector
    from mnas.nn.detection.weights import detector_bytes

    arch = Arch.from_block_strings("r1_k3_s22_e1_i8_o8" + ",r1_k3_s22_e1_o8" * 3)
    detector = Detector(arch=arch, boxes=paper_boxes(3), input_size=32, extra_filters=(4,))
    metadata = DetectorMetadata(detector=detector, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3)
    return [detector_bytes(build_detector(detector, 2), metadata)]


def _tflite_detectors() -> Sequence[bytes]:
    from mnas.arch import Arch
    from mnas.detector import Detector, DetectorMetadata, Suppression, paper_boxes
    from mnas.nn.detection.network import build_detector
    from mnas.tflite.detection.writer import write_detector

    arch = Arch.from_block_strings("r1_k3_s22_e1_i8_o8" + ",r1_k3_s22_e1_o8" * 3)
    detector = Detector(arch=arch, boxes=paper_boxes(3), input_size=32, extra_filters=(4,))
    metadata = DetectorMetadata(detector=detector, classes=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3)
    network = build_detector(detector, 2).eval()
    return [write_detector(network, metadata), write_detector(network, metadata, Suppression(most=5))]


def _pth() -> Sequence[bytes]:
    import torch

    from mnas.nn.network import build_network

    state = build_network(ARCH, 3).state_dict()
    nested = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3, "best": 0.5}
    files = []
    for saved in (state, nested):
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(saved, buffer, _use_new_zipfile_serialization=zipped)
            files.append(buffer.getvalue())
    return files


def _load_model(suffix: str) -> Callable[[bytes, Path], object]:
    def call(content: bytes, work: Path) -> object:
        from mnas.predict.model import load_model

        path = work / f"model{suffix}"
        path.write_bytes(content)
        model = load_model(path, mean=[0.0], std=[1.0], allow_changed=True)
        size = min(model.info.input_size, 64)
        return model.predict(np.zeros((size, size, 3), np.uint8))

    return call


def _load_weights(content: bytes, work: Path) -> object:
    from mnas.nn.weights import load_weights, network_of_bytes
    from mnas.nn.weights_info import read_weights_info

    path = work / "model.safetensors"
    path.write_bytes(content)
    first: Exception | None = None
    for read in (read_weights_info, load_weights):
        try:
            read(path)
        except ValueError as error:
            first = error
    network_of_bytes(content)
    if first is not None:
        raise first
    return None


def _load_detector(content: bytes, work: Path) -> object:
    from mnas.nn.detection.weights import load_detector
    from mnas.nn.detection.weights_info import is_detector_file

    path = work / "detector.safetensors"
    path.write_bytes(content)
    is_detector_file(path)
    return load_detector(path)


def _detect(content: bytes, work: Path) -> object:
    from mnas.detection.exported import load_exported

    path = work / "detector.tflite"
    path.write_bytes(content)
    with contextlib.closing(load_exported(path, allow_changed=True)) as detector:
        size = detector.metadata.detector.input_size
        return detector.detect(np.zeros((1, size, size, 3), np.uint8)) if size <= 64 else None


def _load_pth(content: bytes, work: Path) -> object:
    from mnas.nn.pretrained import load_pretrained

    path = work / "weights.pth"
    path.write_bytes(content)
    return load_pretrained(str(path), ARCH, None, name="arch")


def _tflite_metadata(content: bytes, work: Path) -> object:
    from mnas.tflite.metadata import image_side, read_metadata

    image_side(content)
    return read_metadata(content)


# Settings and records


def _toml_space() -> Sequence[bytes]:
    return [
        b'name = "small"\n[skeleton]\nfilters = [16, 24, 40]\nlayers = [1, 2, 2]\nstrides = [1, 2, 2]\n'
        b"[choices]\nkernel = [3, 5]\nse_ratio = [0.0, 0.25]\n[block.2]\nexpansion = [3, 6]\n",
        b'name = "cells"\nkind = "cell"\npairs = 3\n[skeleton]\nfilters = 8\n',
        b'name = "flat"\nkind = "per-layer"\n',
        b'name = "uib"\n[skeleton]\nhead_pooled = true\n[choices]\nop = ["uib4", "uib2.5"]\nkernel = [0, 3]\n'
        b'start_kernel = [0, 5]\nse_gate = ["hardsigmoid"]\nactivation = ["network", "silu"]\n',
    ]


def _load_space(content: bytes, work: Path) -> object:
    from mnas.space.named import load_space

    path = work / "space.toml"
    path.write_bytes(content)
    space = load_space(str(path))
    return space.size, space.decode([0] * len(space.decisions)), space.to_dict()


def _toml_devices() -> Sequence[bytes]:
    return [
        b'[pixel]\nkind = "adb"\naddress = "28291FDH200ABC"\nmax_mhz = 1800\n[pi]\nkind = "ssh"\n'
        b'address = ["pi@shelf-1.local", "pi@shelf-2.local"]\nthreads = 1\npython = "~/venv/bin/python"\n',
        b'[here]\nkind = "host"\ncore = 1\nbatch = 2\nruntime = "litert"\n',
    ]


def _read_devices(content: bytes, work: Path) -> object:
    path = work / "devices.toml"
    path.write_bytes(content)
    return _command("devices", "list", "--devices", str(path))


def _json_of(values: object) -> Callable[[], Sequence[bytes]]:
    return lambda: [json.dumps(values).encode()]


def _architecture(content: bytes, work: Path) -> object:
    path = work / "arch.json"
    path.write_bytes(content)
    return _command("show", str(path), "--input-size", "32", "--classes", "3")


def _architectures() -> Sequence[bytes]:
    from mnas.zoo.architectures import named_arch

    return [ARCH.to_json().encode(), named_arch("mnasnet-a1").to_json().encode()]


def _class_names(content: bytes, work: Path) -> object:
    from mnas.predict.model import read_class_names

    path = work / "labels.txt"
    path.write_bytes(content)
    return read_class_names(path)


def _result(content: bytes, work: Path) -> object:
    from mnas.train.folder import read_result

    (work / "result.json").write_bytes(content)
    return read_result(work)


def _journal(content: bytes, work: Path) -> object:
    from mnas.latency.prediction.journal import Journal

    (work / "fit.journal").write_bytes(content)
    return Journal(work / "fit.journal", {"a": 1})


def _proxy_results(content: bytes, work: Path) -> object:
    from mnas.proxycheck.results import FILE_NAME, open_results

    (work / "proxy").mkdir(exist_ok=True)
    (work / "proxy" / FILE_NAME).write_bytes(content)
    with open_results(work / "proxy", {"a": 1}) as results:
        return dict(results.trainings)


def _predictor(content: bytes, work: Path) -> object:
    from mnas.latency.prediction.predictor import load_predictor

    path = work / "predictor.json"
    path.write_bytes(content)
    return load_predictor(path)


@functools.cache
def _predictors() -> Sequence[bytes]:
    import tempfile

    from synthetic import CALIBRATION, CLASSES, SPACE, samples_of

    from mnas.latency.prediction.predictor import fit_predictor

    rng = random.Random(0)
    members = [tuple(rng.randrange(len(d.choices)) for d in SPACE.decisions) for _ in range(24)]
    samples = samples_of(members, 0)
    made = fit_predictor(samples, space=SPACE, num_classes=CLASSES, calibration=CALIBRATION, date="2026-01-01", folds=2)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "predictor.json")
        sealed = (Path(folder) / "predictor.json").read_bytes()
    values = json.loads(sealed)
    del values["digest"]  # so that changes reach the readers of the values
    return [sealed, json.dumps(values).encode()]


def _replies() -> Sequence[bytes]:
    return [
        b'{"ok": {"processor": "Cortex-A76", "cores": 4, "system": "Linux 6.1", "runtime": "litert 2.3"}}',
        b'{"error": "no such runtime", "of": "setup"}',
        b'{"ok": {"cores": [{"number": 0, "mhz": 1800}], "load": 0.1}}',
    ]


def _device_reply(content: bytes, work: Path) -> object:
    from mnas.latency.devices.scripted import ScriptUnit
    from mnas.latency.latency import Setup

    class Told:
        def ask(self, line: str, timeout_s: float) -> str:
            return content.decode(errors="replace").strip()

        def close(self) -> None:
            pass

    unit = ScriptUnit("pi", Told)  # type: ignore[arg-type]
    unit.fingerprint(Setup())
    return unit.condition()


# Tables and archives


def _csv() -> Sequence[bytes]:
    rows = [f"{a},{b},{0.5 + a / 10 + len(b) / 100},{1 + a}" for a in (1, 2) for b in ("x", "yy")]
    return ["\n".join(["a,b,accuracy,cost", *rows]).encode(), "\r\n".join(['"a","b",accuracy,cost', *rows]).encode()]


def _parquet() -> Sequence[bytes]:
    import pyarrow
    from pyarrow import parquet

    files = []
    for options in ({}, {"compression": "zstd"}, {"use_dictionary": False, "data_page_version": "2.0"}):
        table = {
            "a": [1, 1, 2, 2],
            "b": ["x", "yy"] * 2,
            "accuracy": [0.5, 0.6, 0.7, 0.8],
            "cost": [1.0, 2.0, 3.0, 4.0],
        }
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table(table), buffer, **options)
        files.append(buffer.getvalue())
    return files


def _read_table(suffix: str) -> Callable[[bytes, Path], object]:
    def call(content: bytes, work: Path) -> object:
        from mnas.evaluate.table import read_table

        path = work / f"table{suffix}"
        path.write_bytes(content)
        return read_table(path)

    return call


def _archives() -> Sequence[bytes]:
    from mnas.evaluate.accel_nasbench import DEVICES

    row = {
        "architecture": {f"block{b}_{n}": v for b in range(7) for n, v in (("e", 1), ("k", 3), ("se", True), ("l", 1))},
        "metrics": {"val_top1": 61.5},
        "platform_perf": {d: {f"{d.split('_')[0]}_mean": 3.5} for d in DEVICES},
    }
    files = []
    for mode in ("w", "w:gz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as file:
            member = tarfile.TarInfo("jsons/1.json")
            content = json.dumps(row).encode()
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        files.append(buffer.getvalue())
    return files


def _read_archive(content: bytes, work: Path) -> object:
    from mnas.evaluate.accel_nasbench import DEVICES, _read_rows

    path = work / "anb_dataset_jsons.tar.gz"
    path.write_bytes(content)
    return _read_rows(path, next(iter(DEVICES)))


# Boxes


def _coco_json() -> Sequence[bytes]:
    images = [{"id": n, "file_name": f"{n}.bmp", "width": 10, "height": 12} for n in range(4)]
    boxes = [
        {"id": n, "image_id": n % 4, "category_id": 1 + n % 2, "bbox": [n, 1.5, 4, 5], "area": 20, "iscrowd": n % 2}
        for n in range(5)
    ]
    categories = [{"id": 1, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog", "supercategory": "pet"}]
    plain = json.dumps({"images": images, "annotations": boxes, "categories": categories}).encode()
    return [plain, plain.replace(b"1.5", b"NaN").replace(b"3.bmp", b".\\\\3.bmp")]


def _voc_xml() -> Sequence[bytes]:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{place}</difficult><bndbox><xmin>{place + 1}</xmin><ymin>1</ymin>"
        f"<xmax>8</xmax><ymax>{place + 9}</ymax></bndbox></object>"
        for place, name in enumerate(("cat", "dog"))
    )
    size = "<size><width>10</width><height>12</height></size>"
    text = f"<annotation><filename>0.bmp</filename>{size}{objects}</annotation>"
    return [text.encode(), f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16")]


def _with_images(work: Path, folder: str) -> Path:
    """Return an empty data set with four images in an inner folder."""
    data = work / "data"
    shutil.rmtree(data, ignore_errors=True)
    (data / folder).mkdir(parents=True)
    for number in range(4):
        (data / folder / f"{number}.bmp").write_bytes(_images("BMP")[0])
    return data


def _check_boxes(data: Path) -> object:
    """Check a data set by command, and that every box that is read is inside of its image and its classes."""
    from mnas.data.detection.load import load_detection

    read = load_detection(data, needs_train=False)
    for image in (image for images in read.parts.values() for image in images):
        assert image.path.resolve().is_relative_to(data.resolve())
        assert image.boxes.shape == (len(image.labels), 4) == (len(image.crowd), 4) == (len(image.areas), 4)
        assert np.isfinite(image.boxes).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes[:, 2:] <= [image.width, image.height]).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert set(image.labels.tolist()) <= set(range(len(read.classes)))
        assert np.isfinite(image.areas).all()
    return _command("detect", "check", "--data", str(data), "--boxes", "paper", "--input-size", "64")


def _read_coco(content: bytes, work: Path) -> object:
    data = _with_images(work, "train")
    (data / "annotations").mkdir()
    (data / "annotations" / "instances_train.json").write_bytes(content)
    return _check_boxes(data)


def _read_voc(content: bytes, work: Path) -> object:
    data = _with_images(work, "JPEGImages")
    (data / "Annotations").mkdir()
    for number in range(4):
        (data / "Annotations" / f"{number}.xml").write_bytes(_voc_xml()[0] if number % 2 else content)
    return _check_boxes(data)


def _read_yaml(content: bytes, work: Path) -> object:
    data = _with_images(work, "images/train")
    (data / "labels" / "train").mkdir(parents=True)
    (data / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.5 0.5\n")
    (data / "data.yaml").write_bytes(content)
    return _check_boxes(data)


def _read_labels(content: bytes, work: Path) -> object:
    data = _with_images(work, "images/train")
    (data / "labels" / "train").mkdir(parents=True)
    for number in range(3):
        (data / "labels" / "train" / f"{number}.txt").write_bytes(content)
    (data / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    return _check_boxes(data)


# Studies


def _seeds() -> Sequence[bytes]:
    return [b"0"]


def _any_seed(content: bytes, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    return str(rng.randrange(1, 1 << 30)).encode()


@functools.cache
def _run() -> Path:
    """Return a run of a few trials, written once for all children of a process."""
    import atexit
    import tempfile

    from synthetic_run import store, synthetic_snapshot

    folder = Path(tempfile.mkdtemp(prefix="mnas-fuzz-run-"))
    atexit.register(shutil.rmtree, folder, True)
    states = ["complete"] * 8 + ["skipped", "failed", "running"]
    store(synthetic_snapshot(folder / "run", states))
    return folder / "run"


def _read_study(content: bytes, work: Path) -> object:
    from damage import damage

    from mnas.report.html import write_report

    run = work / "runs" / "run"
    shutil.rmtree(work / "runs", ignore_errors=True)
    shutil.copytree(_run(), run)
    seed = int(content)
    if seed:
        rng = random.Random(seed)
        for _ in range(rng.choice((1, 1, 2, 5))):
            damage(run / "study.db", rng)
    _command("runs", str(work / "runs"))
    page = write_report(run).read_text("utf-8")
    assert "<script>alert" not in page
    return page


# Names and options


def _lines(*texts: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [text.encode("utf-8", "surrogatepass") for text in texts]


def _mutate_line(content: bytes, rng: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    text = mutated_text(content.decode("utf-8", "surrogatepass"), rng, [word.decode() for word in words])
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def _command(*arguments: str) -> str:
    """Run a command as the console script does, and require that it prints lines without control characters.

    A user's error becomes a ValueError, and so counts as such.
    """
    from mnas.cli.main import run
    from mnas.text import clean

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(arguments))
    for line in (out.getvalue() + err.getvalue()).split("\n"):
        assert clean(line, 1 << 20) == line, f"printed {line!r}"
    assert code in (0, 2), f"exit {code}: {err.getvalue()}"
    assert len(err.getvalue().splitlines()) <= 1, err.getvalue()
    if code:
        raise ValueError(err.getvalue())
    return out.getvalue()


def _class_folders(content: bytes, work: Path) -> object:
    from mnas.data.load import open_source

    data = work / "data"
    shutil.rmtree(data, ignore_errors=True)
    name = os.fsencode(_text(content).replace("/", "_").replace("\0", "_") or "_")[:200] if _is_name(content) else b"x"
    (picture,) = _images("BMP")[:1]
    for folder in (name, b"other"):
        path = os.fsencode(data) + b"/" + folder
        os.makedirs(path, exist_ok=True)
        for file in (name + b".bmp", b"1.bmp", b"2.bmp"):
            with contextlib.suppress(OSError), open(path + b"/" + file[-200:], "wb") as written:
                written.write(picture)
    source = open_source(str(data), work, False)
    return source.parts()


def _is_name(content: bytes) -> bool:
    try:
        os.fsencode(_text(content))
    except UnicodeError:
        return False
    return _text(content) not in ("", ".", "..")


def _shown(content: bytes, work: Path) -> object:
    from rich.table import Table

    from mnas.cli.console import SafeConsole
    from mnas.text import clean

    text = _text(content)
    line = clean(text)
    assert line == clean(line)
    assert len(line.splitlines()) <= 1
    console = SafeConsole(file=io.StringIO(), force_terminal=True, width=60)
    table = Table("name")
    table.add_row(text)
    console.print(text)
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    plain = __import__("re").sub(r"\x1b\[[0-9;]*m", "", printed)
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in plain)
    return printed


def _options(*before: str) -> Callable[[bytes, Path], object]:
    def call(content: bytes, work: Path) -> object:
        return _command(*before, *_text(content).split(" "))

    return call


_JSON = (b"null", b"NaN", b"1e999", b'"\\ud800"', b"\\u0000", b"[[", b"{{", b'"kind": "cell"')
_TOML = (
    b"[[",
    b"]]",
    b"'''",
    b'"""',
    b"= ",
    b"nan",
    b"inf",
    b"1979-05-27T07:32:00Z",
    b"a.b.c",
    b"kind",
    b"true",
    b"0x",
)
_PICKLE = (b"cos\nsystem\n", b"\x80\x02", b"\x93", b"R.", b"PK\x03\x04", b"data.pkl", b"data/0", b"q\x00", b"}", b"e.")
_NAMES = tuple(
    word.encode()
    for word in (
        "mnasnet-a1",
        "@0.5",
        "@1e9",
        "/s8",
        "/s3",
        "#17",
        "runs/x",
        ".json",
        "r1_k3_s11_e1_o16",
        "_se0.25",
        "_noskip",
        "_conv",
        "_fused",
        "_pool",
        "i24",
        "k99999",
        "o999999",
    )
)
_RESULT = {"weights": "model.safetensors", "accuracy": 0.9, "test_accuracy": None, "epochs": 3, "seconds": 1.5,
           "images_per_s": 100.0, "waiting": 0.1}  # fmt: skip

TARGETS: dict[str, Target] = {
    **{
        kind.lower(): Target(corpus=once(functools.partial(_images, kind)), call=_read_image, suffix=f".{kind.lower()}")
        for kind in SAVED
    },
    "tflite": Target(
        corpus=once(_tflite), call=_load_model(".tflite"), suffix=".tflite", words=(b"TFL3", b"mnas"), share=0.2
    ),
    "tflite-metadata": Target(corpus=once(_tflite), call=_tflite_metadata, suffix=".tflite", words=(b"TFL3", b"mnas")),
    "tflite-detector": Target(
        corpus=once(_tflite_detectors),
        call=_detect,
        suffix=".tflite",
        words=(b"TFL3", b"suppression", b"nms_iou", b"max_detections", *_JSON),
        share=0.2,
    ),
    "onnx": Target(
        corpus=once(_onnx),
        call=_load_model(".onnx"),
        suffix=".onnx",
        words=(b"Loop", b"If", b"Cast", b"mean"),
        share=0.2,
    ),
    "safetensors": Target(
        corpus=once(_safetensors),
        call=_load_weights,
        suffix=".safetensors",
        words=(b"__metadata__", b"data_offsets", b"F32", *_JSON),
    ),
    "safetensors-detector": Target(
        corpus=once(_detectors),
        call=_load_detector,
        suffix=".safetensors",
        words=(b"__metadata__", b"boxes", b"extra_filters", *_JSON),
        share=0.3,
    ),
    "pth": Target(corpus=once(_pth), call=_load_pth, suffix=".pth", words=_PICKLE),
    "toml-space": Target(corpus=_toml_space, call=_load_space, suffix=".toml", words=_TOML),
    "toml-devices": Target(corpus=_toml_devices, call=_read_devices, suffix=".toml", words=_TOML),
    "json-architecture": Target(
        corpus=once(_architectures), call=_architecture, mutate=mutated_json, suffix=".json", words=_JSON
    ),
    "json-result": Target(corpus=_json_of(_RESULT), call=_result, mutate=mutated_json, suffix=".json", words=_JSON),
    "json-journal": Target(
        corpus=_lines('{"identity": {"a": 1}, "calibrations": []}\n{"indices": [1, 2], "ratio": 1.5, "error": 0.1}\n'),
        call=_journal,
        words=_JSON,
    ),
    "json-proxy": Target(
        corpus=_json_of(
            {"format": "mnas proxy check 1", "config": {"a": 1}, "trainings": {"x": {"accuracy": 0.5, "train_s": 1.0}}}
        ),
        call=_proxy_results,
        mutate=mutated_json,
        words=_JSON,
    ),
    "json-predictor": Target(corpus=_predictors, call=_predictor, mutate=mutated_json, words=_JSON, share=0.3),
    "json-reply": Target(corpus=_replies, call=_device_reply, mutate=mutated_json, words=_JSON),
    "labels": Target(
        corpus=_lines("cat\ndog\n", '["cat", "dog"]', '{"0": ["n1", "cat"], "1": "dog"}', "0 cat\n1 dog\n"),
        call=_class_names,
        suffix=".txt",
        words=_JSON,
    ),
    "csv": Target(
        corpus=_csv,
        call=_read_table(".csv"),
        suffix=".csv",
        words=(b",", b'"', b"\r", b"nan", b"accuracy", b"cost", b"inf"),
    ),
    "parquet": Target(
        corpus=once(_parquet), call=_read_table(".parquet"), suffix=".parquet", words=(b"PAR1", b"schema")
    ),
    "tar": Target(
        corpus=once(_archives),
        call=_read_archive,
        suffix=".tar",
        words=(b"ustar\x0000", b"5", b"2", b"x", b"L", b"30 size=99999999999\n"),
    ),
    "boxes-coco": Target(
        corpus=_coco_json,
        call=_read_coco,
        mutate=mutated_json,
        suffix=".json",
        words=(b'"bbox"', b'"iscrowd": 1', b'"../x.bmp"', b"1e308", *_JSON),
        share=0.5,
    ),
    "boxes-voc": Target(
        corpus=_voc_xml,
        call=_read_voc,
        suffix=".xml",
        words=(b"<object>", b"<bndbox>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<![CDATA[", b"]]>", b"1e308"),
        share=0.5,
    ),
    "boxes-yaml": Target(
        corpus=_lines(
            "path: ../data\ntrain: images/train\nval: [images/train]\nnames: [cat, dog]\n",
            "train: ./images/train\nnames:\n  0: cat\n  1: dog\nnc: 2\n",
        ),
        call=_read_yaml,
        suffix=".yaml",
        words=(b"&a ", b"*a", b"!!python/object:os.system", b"<<: ", b"? ", b"- ", b"|\n", b"..", b"[", b"{", b"%TAG"),
        share=0.5,
    ),
    "boxes-labels": Target(
        corpus=_lines("0 0.5 0.5 0.25 0.25\n1 0.2 0.2 0.1 0.1\n", "1 0.1 0.1 0.9 0.1 0.5 0.5\n"),
        call=_read_labels,
        suffix=".txt",
        words=(b" ", b"\n", b"-1", b"nan", b"1e308", b"2", b"0x1", b"\xef\xbb\xbf"),
        share=0.5,
    ),
    "class-names": Target(corpus=_lines("cat", "\u732b", "\u05e9\u05dc"), call=_class_folders, mutate=_mutate_line),
    "text": Target(corpus=_lines("cat", "\u0645\u06cc\u200c\u062e", *HOSTILE[:20]), call=_shown, mutate=_mutate_line),
    "architecture-names": Target(
        corpus=_lines("mnasnet-a1", "mnasnet-small@0.5/s8", BLOCKS, "runs/x#17"),
        call=_options("show", "--input-size", "32"),
        mutate=_mutate_line,
        words=_NAMES,
    ),
    "options": Target(
        corpus=_lines(
            "--input-size 32 --width-multiplier 0.5 --classes 10", "--input-size 96,128 --width-multiplier 1"
        ),
        call=_options("show", "mnasnet-a1"),
        mutate=_mutate_line,
        words=(b"--", b"-1", b"1e308", b",", b"nan", b" ", b"0", b"--save /x.svg", b"--debug"),
    ),
}
"""Name -> target."""
if (Path(__file__).parents[1] / "study" / "damage.py").exists():
    TARGETS["study"] = Target(corpus=_seeds, call=_read_study, mutate=_any_seed, share=0.2)
