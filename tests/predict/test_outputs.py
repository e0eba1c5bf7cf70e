"""Logits, softmaxes, sigmoids and a single output: from the last operation, by running the model, or by option."""

import numpy as np
import onnx
import pytest
from foreign_models import images
from onnx import TensorProto, helper, numpy_helper

from mnas.predict.info import ModelInfo
from mnas.predict.last_op import last_op
from mnas.predict.matching import match_classes
from mnas.predict.model import load_model
from mnas.predict.numbered import by_number
from mnas.predict.outputs import settled
from mnas.tflite.graph import Graph

WEIGHT = np.float32([[4, 0, 0], [0, 4, 0], [0, 0, 4]])
RED = np.full((1, 32, 32, 3), (255, 0, 0), np.uint8)


def classifier(*tail: str | tuple[str, dict[str, object]], weight: np.ndarray = WEIGHT, bias: float = -1.0) -> bytes:
    """Return an .onnx file with channel means, a layer, and the operations after it."""
    classes = weight.shape[1]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["z0"]),
    ]  # fmt: skip
    for i, step in enumerate(tail):
        kind, options = (step, {}) if isinstance(step, str) else step
        extra = {"Clip": ["low", "high"], "Reshape": ["shape"], "Div": []}.get(kind, [])
        first = ["one", f"z{i}"] if kind == "Div" else [f"z{i}", *extra]
        if kind == "Add":
            first = [f"z{i}", "one"]
        nodes.append(helper.make_node(kind, first, [f"z{i + 1}"], **options))
    constants = {
        "w": weight, "b": np.full(classes, bias, np.float32), "low": np.float32(0), "high": np.float32(1),
        "one": np.float32(1), "shape": np.int64([-1, classes]),
    }  # fmt: skip
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info(f"z{len(tail)}", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def loaded(tmp_path, file: bytes, **options):
    (tmp_path / "theirs.onnx").write_bytes(file)
    return load_model(tmp_path / "theirs.onnx", mean=[0], std=[1], **options)


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def test_sigmoids_are_shown_as_they_are(tmp_path):
    """`faults/sigmoid/multilabel.onnx` on red gives 0.95 as in the file, not 49 %."""
    model = loaded(tmp_path, classifier("Sigmoid"))
    np.testing.assert_allclose(model.probabilities(RED)[0], sigmoid([3, -1, -1]), atol=1e-5)
    assert (model.info.probabilities, model.info.independent) == (True, True)
    assert model.info.notes == (
        "each output is shown as a separate probability, because its last operation is a sigmoid (--outputs overrides)",
    )
    assert [round(p.probability, 4) for p in model.predict(RED[0])] == [0.9526, 0.2689, 0.2689]


@pytest.mark.parametrize(
    ("tail", "kind", "seen"),
    [
        (["Sigmoid"], "sigmoid", "sigmoid"),
        (["Sigmoid", "Reshape"], "sigmoid", "sigmoid"),
        (["Sigmoid", "Identity", "Identity"], "sigmoid", "sigmoid"),
        (["HardSigmoid"], "sigmoid", "sigmoid"),
        (["Clip"], "sigmoid", None),
        (["Neg", "Exp", "Add", "Div"], "sigmoid", None),
        (["Softmax"], "softmax", "softmax"),
        (["Softmax", "Flatten"], "softmax", "softmax"),
        (["Identity"], "logits", "logits"),
        (["LogSoftmax"], "logits", "logits"),
        (["Neg"], "logits", None),
        ([], "logits", "logits"),
    ],
)
def test_every_ending(tmp_path, tail, kind, seen):
    file = classifier(*tail)
    model = loaded(tmp_path, file)
    assert (model.info.probabilities, model.info.independent) == (kind != "logits", kind == "sigmoid")
    assert last_op(tmp_path / "theirs.onnx") == seen
    assert bool(model.info.notes) == (kind == "sigmoid")
    pixels = images(4, 32)
    rows = model.run(pixels)
    softmaxed = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
    np.testing.assert_allclose(model.probabilities(pixels), softmaxed if kind == "logits" else rows, atol=1e-5)


def test_small_logits_are_no_sigmoids(tmp_path):
    """All logits of a new network may be from 0 to 1."""
    model = loaded(tmp_path, classifier(weight=np.float32(np.eye(3) * 0.1), bias=0.5))
    assert not model.info.probabilities


def test_the_user_overrides(tmp_path):
    file = classifier("Sigmoid")
    rows = loaded(tmp_path, file).run(RED)
    for kind, expected in (("logits", np.exp(rows) / np.exp(rows).sum()), ("softmax", rows), ("sigmoid", rows)):
        model = loaded(tmp_path, file, outputs=kind)
        np.testing.assert_allclose(model.probabilities(RED), expected, atol=1e-6)
        assert model.info.notes == ()


@pytest.mark.parametrize(("tail", "outputs"), [(["Sigmoid"], "auto"), ([], "logits")])
def test_a_single_output_is_a_binary_classifier(tmp_path, tail, outputs):
    (tmp_path / "names").write_text("cat\ndog\n")
    file = classifier(*tail, weight=np.ones((3, 1), np.float32))
    model = loaded(tmp_path, file, class_file=tmp_path / "names", outputs=outputs)
    assert (model.info.outputs, model.info.classes, model.info.independent) == (2, ("cat", "dog"), False)
    assert model.info.notes == ("its single output is used as the probability of the second class, 'dog'",)
    for pixels in (RED, np.full_like(RED, 255), np.zeros_like(RED)):
        dog = sigmoid(pixels.mean((1, 2)).sum() / 255 - 1)
        np.testing.assert_allclose(model.probabilities(pixels), [[1 - dog, dog]], atol=1e-5)
    assert loaded(tmp_path, file, outputs=outputs).info.label(1) == "class 1"


def test_a_single_output_that_is_no_probability(tmp_path):
    with pytest.raises(ValueError, match=r"a single output must be a probability.*--outputs logits") as caught:
        loaded(tmp_path, classifier("Neg", weight=np.ones((3, 1), np.float32) * 9))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="a single output must be a probability"):
        loaded(tmp_path, classifier(weight=np.ones((3, 1), np.float32)))  # its layer gives -1 to 2


def litert(ending: str) -> bytes:
    graph = Graph()
    image = graph.value("image", (1, 8, 8, 3))
    output = graph.mean("mean", image)
    if ending == "softmax":
        output = graph.softmax("softmax", output)
    elif ending == "sigmoid":
        output = graph.sigmoid("sigmoid", output)
    return graph.to_bytes(inputs={"image": image}, outputs={"output": output}, metadata={})


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "logits"])
def test_litert(tmp_path, ending):
    path = tmp_path / "theirs.tflite"
    path.write_bytes(litert(ending))
    assert last_op(path) == ending
    model = load_model(path, mean=[0], std=[1])
    assert (model.info.probabilities, model.info.independent) == (ending != "logits", ending == "sigmoid")
    if ending == "sigmoid":
        pixels = images(3, 8)
        np.testing.assert_allclose(model.probabilities(pixels), sigmoid(pixels.mean((1, 2)) / 255), atol=1e-5)


def test_damaged_files_say_nothing(tmp_path):
    draws = np.random.default_rng(0)
    for name, file in (("a.onnx", classifier("Sigmoid")), ("a.tflite", litert("sigmoid"))):
        for _ in range(200):
            damaged = bytearray(file)
            for place in draws.integers(0, len(file), 4):
                damaged[place] = draws.integers(256)
            (tmp_path / name).write_bytes(damaged[: draws.integers(1, len(file))])
            assert last_op(tmp_path / name) in ("logits", "softmax", "sigmoid", None)
    (tmp_path / "a.onnx").write_bytes(b"\x3a" + b"\xff" * 100_000)
    assert last_op(tmp_path / "a.onnx") is None


def quantised(rows: np.ndarray, outputs: int) -> ModelInfo:
    info = ModelInfo(
        format="litert", classes=None, outputs=outputs, input_size=8, mean=None, std=None, crop=1.0, arch=None,
        probabilities=True, size_bytes=0,
    )  # fmt: skip
    return settled(info, lambda pixels: np.tile(rows, (len(pixels), 1)).astype(np.float32), None, None)[0]


def test_quantised_outputs_from_0_to_1() -> None:
    """A softmax over many classes rounds each to 1/256; sigmoids are stored in the same way."""
    softmax = np.zeros(1000)
    softmax[:100] = 2.4 / 256
    assert not quantised(softmax, 1000).independent
    assert quantised(np.array([240, 10, 200]) / 256, 3).independent


# Numbers


def model_info(classes, outputs):
    return ModelInfo(
        format="onnx", classes=classes, outputs=outputs, input_size=8, mean=None, std=None, crop=1.0, arch=None,
        probabilities=True, size_bytes=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "outputs"),
    [
        (("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"), [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (("1", "10", "2", "3", "4", "5", "6", "7", "8", "9"), [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]),
        (("00", "01", "02"), [0, 1, 2]),
        (("0_cat", "10_cow", "1_dog", "2_a", "3_b", "4_c", "5_d", "6_e", "7_f", "8_g", "9_h"),
         [0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (("1. cat", "2. dog"), [0, 1]),
    ],
)  # fmt: skip
def test_numbers_are_no_text(classes, outputs):
    for in_order in (True, False):
        found, words = match_classes(model_info(None, len(classes)), classes, in_order=in_order)
        assert found.tolist() == outputs
        assert "classes matched by " in words
        assert ("output 0 is class 1" in words) == classes[0].startswith("1")


@pytest.mark.parametrize("classes", [("0", "2"), ("2", "3"), ("0", "00"), ("a", "b"), ("1a", "2b"), ("0", "1", "x")])
def test_other_numbers_are_a_guess(classes):
    assert by_number(classes) is None
    with pytest.raises(ValueError, match=r"the order of the classes is unknown.*--class-file.*--class-order data"):
        match_classes(model_info(None, len(classes)), classes, in_order=False)
    assert match_classes(model_info(None, len(classes)), classes)[0].tolist() == list(range(len(classes)))


def test_leading_zeros():
    names = tuple(str(i) for i in range(12))
    folders = tuple(f"{i:03}" for i in range(12))
    found, words = match_classes(model_info(names, 12), folders)
    assert (found.tolist(), words) == (list(range(12)), "classes matched by number")
    assert match_classes(model_info(names, 12), ("007", "002"))[0].tolist() == [7, 2]
    with pytest.raises(ValueError, match="but got 007, 012"):
        match_classes(model_info(names, 12), ("007", "012"))
