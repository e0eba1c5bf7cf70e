"""LiteRT files: equal to torch, in three kinds, with their metadata."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from mnas.data.load import load_dataset
from mnas.export.gate import normalised, torch_outputs
from mnas.export.litert import litert_fp16, litert_fp32, litert_int8
from mnas.tflite.metadata import read_metadata
from mnas.tflite.runtime import run_tflite
from tests.export.networks import (
    CLASSES,
    as_trained,
    assert_equal,
    digits_network,
    every_block,
    info_of,
    inputs,
    network_of,
    outputs,
)
from tests.tflite.test_writer import assert_delegated


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits(_own_cache):
    """(network, info, fp32 file, validation part) of a network that has learnt the digits."""
    network, info = digits_network()
    return network, info, litert_fp32(network, info), load_dataset("digits", input_size=8, seed=0)


def assert_says_what_it_is(model: bytes, info, *, softmax: bool = False) -> None:
    metadata = read_metadata(model)
    assert metadata.arch == info.arch
    assert metadata.classes == info.classes
    assert metadata.mean == info.mean
    assert metadata.std == info.std
    assert metadata.crop == info.crop
    assert metadata.input_size == info.input_size
    assert metadata.softmax is softmax
    with zipfile.ZipFile(io.BytesIO(model)) as archive:  # the metadata that Android Studio and ML Kit read
        assert archive.read("labels.txt").decode().split("\n") == list(info.classes)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_every_kind_of_layer_in_every_kind_of_number(padding):
    network, info = network_of(padding)
    x = inputs(info)
    expected = outputs(network, x)
    fp32 = litert_fp32(network, info)
    assert_equal(run_tflite(fp32, x), expected, 1e-4)
    fp16 = litert_fp16(fp32)
    assert_equal(run_tflite(fp16, x), expected, 1e-2)
    assert np.abs(run_tflite(fp16, x) - expected).max() > 0  # it is a different file
    int8 = litert_int8(fp32, np.concatenate([x, inputs(info, 20)]))
    assert_equal(run_tflite(int8, x), expected, 0.2)
    for model in (fp32, fp16, int8):
        assert_says_what_it_is(model, info)
    assert max(len(int8), len(fp16)) < 0.8 * len(fp32)


@pytest.mark.parametrize("integer_io", [False, True])
def test_xnnpack_takes_all_of_an_int8_file(integer_io):
    """Pooled skips are the exception: XNNPACK has no int8 AVERAGE_POOL_2D, which LiteRT's own kernel computes."""
    arch = dataclasses.replace(
        every_block("same"),
        blocks=tuple(dataclasses.replace(block, skip="identity") for block in every_block("same").blocks),
    )
    info = info_of(arch, CLASSES, 26)
    fp32 = litert_fp32(as_trained(arch, len(CLASSES)), info)
    assert_delegated(litert_int8(fp32, inputs(info), integer_io=integer_io))
    assert_delegated(litert_fp16(fp32))


def test_a_layer_that_is_always_zero_is_no_obstacle():
    """Small networks often have such a layer after training. Its scale would be 0, which XNNPACK rejects."""
    network, info = network_of("same")
    with torch.no_grad():
        network.layers[-1].depthwise.norm.bias.fill_(-1000.0)
        network.layers[-1].project.norm.bias.copy_(torch.linspace(-1, 1, 12))
        network.layers[3].depthwise.norm.bias.fill_(-1000.0)
    x = inputs(info)
    int8 = litert_int8(litert_fp32(network, info), x)
    expected = outputs(network, x)
    assert np.abs(run_tflite(int8, x) - expected).max() <= 0.2 * np.abs(expected).max()


def test_all_data_lies_inside_the_flatbuffer(digits):
    """The quantizer appends it, but metadata readers of phones and older runtimes do not look there."""
    _, info, fp32, data = digits
    model = litert_int8(fp32, normalised(info, data.train.images[:10]))
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    assert all(buffer.offset <= 1 for buffer in parsed.buffers)
    assert [entry.name.decode() for entry in parsed.metadata] == ["mnas", "TFLITE_METADATA"]


def test_the_kinds_recognise_digits_alike(digits):
    network, info, fp32, data = digits
    x = normalised(info, data.val.images)
    expected = torch_outputs(network, info, data.val.images)
    accuracy = np.mean(expected.argmax(1) == data.val.labels)
    assert accuracy > 0.85
    calibration = normalised(info, data.train.images[:100])
    for model, agreement in ((litert_fp16(fp32), 0.995), (litert_int8(fp32, calibration), 0.985)):
        got = run_tflite(model, x)
        assert np.mean(got.argmax(1) == expected.argmax(1)) >= agreement
        assert np.mean(got.argmax(1) == data.val.labels) >= accuracy - 0.01
        assert np.abs(got - expected).mean() < 0.015 * np.abs(expected).max()


def test_integers_from_end_to_end(digits):
    network, info, fp32, data = digits
    model = litert_int8(fp32, normalised(info, data.train.images[:100]), integer_io=True)
    assert_says_what_it_is(model, info)
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    [image], [logits] = interpreter.get_input_details(), interpreter.get_output_details()
    assert image["dtype"] == logits["dtype"] == np.int8
    scale, zero = image["quantization"]
    x = normalised(info, data.val.images[:100])
    first = []
    for one in np.clip(np.round(x / scale + zero), -128, 127).astype(np.int8):
        interpreter.set_tensor(image["index"], one[None])
        interpreter.invoke()
        first.append(interpreter.get_tensor(logits["index"])[0].argmax())
    expected = torch_outputs(network, info, data.val.images[:100]).argmax(1)
    assert np.mean(np.array(first) == expected) >= 0.97


def test_probabilities_in_every_kind(digits):
    network, info, _, data = digits
    model = litert_fp32(network, info, softmax=True)
    x = normalised(info, data.val.images[:20])
    expected = torch_outputs(network, info, data.val.images[:20], softmax=True)
    for file, tolerance in (
        (model, 1e-4),
        (litert_fp16(model), 1e-2),
        (litert_int8(model, normalised(info, data.train.images[:50])), 0.2),
    ):
        assert_says_what_it_is(file, info, softmax=True)
        got = run_tflite(file, x)
        assert np.abs(got.sum(1) - 1).max() < 0.05
        assert np.abs(got - expected).max() <= tolerance


def test_same_input_same_bytes(digits):
    network, info, fp32, data = digits
    calibration = normalised(info, data.train.images[:10])
    assert litert_fp32(network, info) == fp32
    assert litert_fp16(fp32) == litert_fp16(fp32)
    assert litert_int8(fp32, calibration) == litert_int8(fp32, calibration)


def test_no_images_to_calibrate_on():
    network, info = network_of("same")
    with pytest.raises(ValueError, match="int8 needs at least one image to calibrate on, but got none"):
        litert_int8(litert_fp32(network, info), inputs(info, 0))


def test_labels_survive_where_they_are_not_ascii():
    network, info = network_of("symmetric")
    model = litert_fp16(litert_fp32(network, info))
    assert read_metadata(model).classes == CLASSES
