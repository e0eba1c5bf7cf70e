"""Classifiers by other authors: shapes, types and layouts of inputs, quantisation, metadata, and other models."""

import os
import tarfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from foreign_models import CLASSES, FOREIGN, SHARED, SIZE, channel_means, images, litert, onnx_model
from onnx import TensorProto
from PIL import Image

from mnas.arch import Arch
from mnas.block import Block
from mnas.metadata import ModelMetadata, Triple
from mnas.predict.model import load_model
from mnas.predict.official import read_official
from mnas.tflite.graph import Graph
from mnas.tflite.metadata import metadata_entries, metadata_entry
from tests.old_files.old import old_litert

UNIT = {"mean": [0], "std": [1]}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
needs_shared = pytest.mark.skipif(not FOREIGN.exists(), reason=f"needs {FOREIGN}")


def saved(folder, content: bytes, suffix: str = ".tflite"):
    path = folder / f"theirs{suffix}"
    path.write_bytes(content)
    return path


def official(mean: Triple | None, std: Triple | None, labels: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the entry that the format defines, without that of mnas."""
    arch = Arch(blocks=(Block(op="sepconv", kernel=3, stride=1, filters=8),))
    entries = metadata_entries(
        ModelMetadata(
            arch=arch, input_size=SIZE, classes=labels, unnamed_classes=0 if labels else 3, mean=mean, std=std
        )
    )
    return {"TFLITE_METADATA": entries["TFLITE_METADATA"]}


# Float inputs


@pytest.mark.parametrize("mean", [MEAN, (0.5, 0.5, 0.5)])
def test_normalisation_and_labels_in_a_litert_file(tmp_path, mean):
    std = STD if mean == MEAN else (0.25, 0.25, 0.25)  # equal channels are stored as one number
    metadata = official(mean, std, CLASSES)
    model = load_model(saved(tmp_path, litert(metadata=metadata, labels=CLASSES)))
    info = model.info
    assert (info.format, info.classes, info.outputs, info.input_size) == ("litert", CLASSES, 3, SIZE)
    assert (info.mean, info.std) == (pytest.approx(mean, abs=1e-6), pytest.approx(std, abs=1e-6))
    assert (info.crop, info.arch, info.probabilities, info.notes) == (1.0, None, False, ())
    np.testing.assert_allclose(model.run(images()), channel_means(images(), mean, std), atol=1e-5)
    assert load_model(tmp_path / "theirs.tflite", **UNIT).info.mean == (0, 0, 0)


def test_without_normalisation_nothing_is_assumed(tmp_path):
    for path in (saved(tmp_path, litert()), saved(tmp_path, onnx_model(), ".onnx")):
        with pytest.raises(
            ValueError, match=r"does not record how its input is normalised; common values are --mean 0.485"
        ) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        model = load_model(path, mean=MEAN, std=STD)
        assert model.info.classes is None
        np.testing.assert_allclose(model.run(images()), channel_means(images(), MEAN, STD), atol=1e-5)
        first = model.predict(images()[0], top=1)[0]
        assert first.label == f"class {first.index}"


def test_metadata_with_labels_only(tmp_path):
    path = saved(tmp_path, litert(metadata=official(None, None, CLASSES), labels=CLASSES))
    with pytest.raises(ValueError, match="does not record how"):
        load_model(path)
    assert load_model(path, **UNIT).info.classes == CLASSES


def test_damaged_metadata(tmp_path):
    entry = official(MEAN, STD, CLASSES)["TFLITE_METADATA"]
    path = saved(tmp_path, litert(metadata={"TFLITE_METADATA": entry}))
    with pytest.raises(ValueError, match=r"theirs.tflite'.*TFLITE_METADATA must be intact"):
        load_model(path)  # it names labels.txt, which does not exist
    for content in (b"", b"\0" * 3, entry[: len(entry) // 3]):
        with pytest.raises(ValueError, match="TFLITE_METADATA must be intact"):
            read_official(content, b"")


def test_a_litert_file_of_any_size(tmp_path):
    path = saved(tmp_path, litert(signature=(-1, -1, -1, 3)))
    with pytest.raises(ValueError, match=r"takes images of any size; choose one with --input-size"):
        load_model(path, **UNIT)
    model = load_model(path, input_size=20, **UNIT)
    assert model.info.input_size == 20
    np.testing.assert_allclose(model.run(images(3, 20)), channel_means(images(3, 20)), atol=1e-6)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize(("batch", "size"), [("N", SIZE), (1, SIZE), (4, SIZE), ("N", "S")])
def test_onnx_layouts_and_batches(tmp_path, channels_first, batch, size):
    path = saved(tmp_path, onnx_model(channels_first=channels_first, batch=batch, size=size), ".onnx")
    model = load_model(path, mean=MEAN, std=STD, input_size=SIZE)
    pixels = images(37)
    np.testing.assert_allclose(model.run(pixels), channel_means(pixels, MEAN, STD), atol=1e-5)
    if size == "S":
        with pytest.raises(ValueError, match="any size; choose one with --input-size"):
            load_model(path, mean=MEAN, std=STD)


def test_onnx_half_precision_and_pixels(tmp_path):
    half = load_model(saved(tmp_path, onnx_model(dtype=TensorProto.FLOAT16), ".onnx"), mean=MEAN, std=STD)
    np.testing.assert_allclose(half.run(images()), channel_means(images(), MEAN, STD), atol=2e-3)
    model = load_model(saved(tmp_path, onnx_model(dtype=TensorProto.UINT8, channels_first=False), ".onnx"))
    assert model.info.mean is None
    assert "whole range of the uint8 input" in model.info.notes[0]
    np.testing.assert_allclose(model.run(images()), 255 * channel_means(images()), rtol=1e-5)
    with pytest.raises(ValueError, match=r"--mean and --std must be omitted, because .* takes unscaled pixels"):
        load_model(tmp_path / "theirs.onnx", **UNIT)


@pytest.mark.parametrize("softmax", [True, False])
def test_logits_and_probabilities_are_told_apart(tmp_path, softmax):
    means = channel_means(images(), MEAN, STD)
    expected = np.exp(means) / np.exp(means).sum(1, keepdims=True)
    for path in (saved(tmp_path, litert(softmax=softmax)), saved(tmp_path, onnx_model(softmax=softmax), ".onnx")):
        model = load_model(path, mean=MEAN, std=STD)
        assert model.info.probabilities == softmax
        np.testing.assert_allclose(model.run(images()), expected if softmax else means, atol=1e-5)
        np.testing.assert_allclose(model.probabilities(images()), expected, atol=1e-5)


# Quantised inputs and outputs

UINT8, INT8 = schema.TensorType.UINT8, schema.TensorType.INT8


@pytest.mark.parametrize(("kind", "low"), [(UINT8, 0), (INT8, -128)])
def test_pixels_are_the_whole_range_of_a_quantised_input(tmp_path, kind, low):
    # numbers of input and output mean -1 to 1; the file receives (pixel + low - zero point) * scale
    scale, zero_point = 2 / 255, 127 + low
    model = load_model(saved(tmp_path, litert(quantised=(kind, (scale, zero_point), (scale, zero_point)))))
    assert (model.info.mean, model.info.std) == (None, None)
    assert "whole range" in model.info.notes[0]
    pixels = images()
    expected = ((pixels.astype(float) + low - zero_point) * scale).mean((1, 2))
    np.testing.assert_allclose(model.run(pixels), expected, atol=scale)
    assert not model.info.probabilities


@pytest.mark.parametrize(("kind", "low"), [(UINT8, 0), (INT8, -128)])
def test_a_quantised_input_with_normalisation(tmp_path, kind, low):
    # numbers of the input mean -2 to 3.1: (pixel - mean) / std is stored by its scale and zero point
    scale, zero_point = 0.02, 100 + low
    file = litert(
        quantised=(kind, (scale, zero_point), (scale, zero_point)),
        metadata=official((0.5,) * 3, (0.3,) * 3),
    )
    for model in (
        load_model(saved(tmp_path, file)),
        load_model(tmp_path / "theirs.tflite", mean=[0.5], std=[0.3]),
    ):
        assert model.info.notes == ()
        np.testing.assert_allclose(model.run(images()), channel_means(images(), (0.5,), (0.3,)), atol=scale)


def test_a_quantised_output_that_can_only_be_probabilities(tmp_path):
    for kind, low in ((UINT8, 0), (INT8, -128)):
        model = load_model(saved(tmp_path, litert(quantised=(kind, (1 / 255, low), (1 / 256, low)))))
        assert model.info.probabilities
        pixels = np.full((1, SIZE, SIZE, 3), 64, np.uint8)
        np.testing.assert_allclose(model.run(pixels), 64 / 255, atol=1 / 256)


# Models that are not classifiers


def two_outputs() -> bytes:
    graph = Graph()
    image = graph.value("image", (1, SIZE, SIZE, 3))
    boxes, scores = graph.mean("boxes", image), graph.sigmoid("scores", image)
    return graph.to_bytes(inputs={"image": image}, outputs={"boxes": boxes, "scores": scores}, metadata={})


def a_map() -> bytes:
    graph = Graph()
    image = graph.value("image", (1, SIZE, SIZE, 3))
    return graph.to_bytes(inputs={"image": image}, outputs={"map": graph.sigmoid("map", image)}, metadata={})


def test_litert_files_that_are_no_classifiers(tmp_path):
    for file, message in (
        (two_outputs(), "a classifier must have one output, .* but .*theirs.tflite' has 2"),
        (a_map(), r"a classifier must have one output, .* gives \(1, 8, 8, 3\)"),
        (litert(shape=(1, 8, 8, 1)), r"must take square RGB images, .* takes \(1, 8, 8, 1\) float32"),
        (litert(shape=(1, 8, 6, 3)), r"must take square RGB images, .* takes \(1, 8, 6, 3\) float32"),
        (
            litert(quantised=(schema.TensorType.INT32, (0.0, 0), (0.0, 0))),
            "must have 8 bits or a scale, .* takes int32",
        ),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_model(saved(tmp_path, file), **UNIT)
        assert "\n" not in str(caught.value)


def test_onnx_files_that_are_no_classifiers(tmp_path):
    for file, message in (
        (onnx_model(outputs=2), "a classifier must have one output, .* has 2"),
        (onnx_model(channels=1), r"must take square RGB images, .* takes \(\?, 1, 8, 8\) float32"),
        (onnx_model(dtype=TensorProto.INT64), r"must take numbers, .* takes tensor\(int64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(saved(tmp_path, file, ".onnx"), **UNIT)


# Real models


@needs_shared
def test_real_photographs_by_a_real_quantised_model(tmp_path):
    model = load_model(FOREIGN, class_file=FOREIGN.parent / "imagenet_labels.txt")
    info = model.info
    assert (info.outputs, info.input_size, info.probabilities, info.arch) == (1001, 224, True, None)
    assert info.classes == load_model(FOREIGN).info.classes  # labels in the file itself
    assert (info.classes[0], info.classes[341]) == ("background", "zebra")
    assert (info.mean, info.std) == ((0.5,) * 3, (0.5,) * 3)
    seen = {
        "train2017/000000499716": "zebra",
        "val2017/000000104455": "zebra",
        "train2017/000000163840": "Indian elephant",
        "val2017/000000415748": "Indian elephant",
        "train2017/000000344065": "banana",
        "val2017/000000560256": "banana",
        "val2017/000000047112": "pizza",
        "train2017/000000188416": "computer keyboard",
        "train2017/000000221184": "airliner",
        "val2017/000000318080": "brown bear",
        "train2017/000000524291": "Border collie",
        "val2017/000000436738": "trolleybus",
    }
    with tarfile.open(SHARED / "coco-tiny.tar.gz") as archive:
        archive.extractall(tmp_path, [f"coco-tiny/{name}.jpg" for name in seen], filter="data")
    for name, label in seen.items():
        first, second = model.predict(tmp_path / f"coco-tiny/{name}.jpg", top=2)
        assert first.label.startswith(label), name
        assert 0.5 < first.probability <= 1
        assert first.probability > second.probability


@needs_shared
def test_scikit_learns_photographs():
    from sklearn.datasets import load_sample_images

    model = load_model(FOREIGN)
    labels = [model.predict(image, top=1)[0].label for image in load_sample_images().images]
    assert labels == ["palace", "honeycomb"]  # the Summer Palace; a dahlia, which is not an ImageNet class


@needs_shared
def test_the_official_metadata_of_a_file_nobody_here_wrote():
    content = FOREIGN.read_bytes()
    found = read_official(metadata_entry(content, "TFLITE_METADATA"), content)
    assert found.normalisation == ((0.5,) * 3, (0.5,) * 3)
    assert found.labels == tuple((FOREIGN.parent / "imagenet_labels.txt").read_text().splitlines())


@pytest.mark.slow
def test_torchvisions_network_as_onnx(tmp_path):
    """A model with its own random weights, exported by torch as anybody would, has the same outputs."""
    import torch
    from torchvision.models import mnasnet0_5

    torch.manual_seed(0)
    network = mnasnet0_5(num_classes=10)
    network(torch.randn(8, 3, 64, 64))  # statistics of batch norm, so that outputs differ
    network.eval()
    torch.nn.init.normal_(network.classifier[1].weight)
    path = tmp_path / "mnasnet.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), path, dynamo=True, external_data=False, verbose=False)
    model = load_model(path, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], threads=os.cpu_count() or 1)
    picture = Image.fromarray(images(1, 64)[0])
    pixels = np.asarray(picture)[None]
    normalised = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        expected = network(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()).numpy()
    np.testing.assert_allclose(model.run(pixels), expected, atol=1e-4)
    assert model.predict(picture, top=1)[0].index == expected.argmax()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_says_so(tmp_path, share):
    content = old_litert(tmp_path).read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="may be truncated") as error:
        load_model(tmp_path / "cut.tflite")
    assert "cut.tflite" in str(error.value)
