"""Scores against a count by hand, ties, the picture, and the outputs of classes."""

import io

import numpy as np
import pytest
from foreign_models import images
from own_models import save_own, save_own_litert
from PIL import Image
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from mnas.counts import wilson
from mnas.predict.info import ModelInfo
from mnas.predict.matching import match_classes
from mnas.predict.model import Model, load_model
from mnas.predict.score import Score, confusion_picture, ranks, score_model


def info(outputs: int, classes: tuple[str, ...] | None = None, input_size: int = 8) -> ModelInfo:
    return ModelInfo(
        format="onnx", classes=classes, outputs=outputs, input_size=input_size, mean=None, std=None, crop=1.0,
        arch=None, probabilities=False, size_bytes=0,
    )  # fmt: skip


def fixed(outputs: np.ndarray) -> Model:
    """Return a model that gives these rows for images 0, 1, ... (the first pixel is the number)."""
    return Model(info(outputs.shape[1]), lambda pixels: outputs[pixels[:, 0, 0, 0]])


def numbered(count: int) -> np.ndarray:
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3))


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((200, 12)).astype(np.float32)
    labels = rng.integers(0, 10, 200)  # two classes without images
    outputs[np.arange(200), labels] += rng.uniform(0, 3, 200).astype(np.float32)
    pixels = numbered(200)
    batches = [(pixels[i : i + 64], labels[i : i + 64]) for i in range(0, 200, 64)]
    score = score_model(fixed(outputs), batches)
    classes = range(12)
    assert score.top1 == pytest.approx(top_k_accuracy_score(labels, outputs, k=1, labels=classes))
    assert score.top5 == pytest.approx(top_k_accuracy_score(labels, outputs, k=5, labels=classes))
    assert 0.2 < score.top1 < score.top5 < 1
    assert score.images == 200
    np.testing.assert_array_equal(score.confusion, confusion_matrix(labels, outputs.argmax(1), labels=classes))
    assert score.per_class[10:] == (None, None)
    right = outputs.argmax(1) == labels
    assert score.per_class[:10] == pytest.approx([right[labels == c].mean() for c in range(10)])
    truth, first, count = score.confused(3)[0]
    errors = score.confusion - np.diag(np.diagonal(score.confusion))
    assert count == errors.max() == errors[truth, first]


def test_of_equal_outputs_the_first_counts():
    outputs = np.zeros((3, 8), np.float32)
    labels = np.array([0, 4, 5])
    assert ranks(outputs, labels).tolist() == [0, 4, 5]
    score = score_model(fixed(outputs), [(numbered(3), labels)])
    assert (score.top1, score.top5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_fewer_than_five_classes():
    score = score_model(fixed(np.eye(3, dtype=np.float32)), [(numbered(3), np.array([0, 1, 1]))])
    assert (score.top1, score.top5) == (pytest.approx(2 / 3), 1.0)
    assert score.confused(9) == [(1, 2, 1)]


def test_what_cannot_be_scored():
    model = fixed(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="scoring needs images, but got none"):
        score_model(model, [])
    with pytest.raises(ValueError, match="labels must be from 0 to 2, but got 0 to 3"):
        score_model(model, [(numbered(2), np.array([0, 3]))])
    with pytest.raises(ValueError, match="must give finite numbers"):
        score_model(fixed(np.full((3, 3), np.nan, np.float32)), [(numbered(3), np.array([0, 1, 2]))])


def test_the_same_network_scores_the_same_in_two_formats(tmp_path):
    save_own(tmp_path)
    save_own_litert(tmp_path)
    batches = [(images(100, 16), np.arange(100) % 4)]
    ours, litert = (score_model(load_model(tmp_path / f"model.{s}"), batches) for s in ("safetensors", "tflite"))
    assert (ours.top1, ours.top5, ours.per_class) == (litert.top1, litert.top5, litert.per_class)
    np.testing.assert_array_equal(ours.confusion, litert.confusion)


def test_the_interval_of_a_share():
    # Newcombe, 1998, Statistics in Medicine 17: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for right, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right / count, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("count", [10, 1000])
def test_the_picture_is_darker_where_more_images_are(count):
    confusion = np.diag(np.full(count, 8))
    confusion[1, 2] = 2
    confusion[3, 3] = 0  # never the true class
    score = Score(top1=0.99, top5=1.0, per_class=(), confusion=confusion, images=int(confusion.sum()))
    with Image.open(io.BytesIO(confusion_picture(score, [f"class {i}" for i in range(count)], "title"))) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    cell = 80 if count == 10 else 2
    full = np.array([18, 60, 130])
    rows, columns = np.nonzero((np.abs(pixels - full) <= 1).all(2))
    left, top = columns.min(), rows.min()  # pixels of the first cell, which is full apart from its number
    assert columns.max() - left == rows.max() - top == (count - 1) * cell - 1  # class 3 is omitted

    def colour(row: int, column: int) -> list[int]:
        return pixels[top + row * cell + 1, left + column * cell + 1].tolist()

    assert colour(0, 0) == full.tolist()
    assert colour(0, 1) == [255, 255, 255]
    strength = 0.15 + 0.85 * np.sqrt(0.2)
    assert colour(1, 2) == pytest.approx(255 - strength * (255 - full), abs=1)


# Outputs of classes


def test_by_name_in_any_order():
    model = info(3, ("cat", "dog", "eel"))
    for classes, expected, words in (
        (("cat", "dog", "eel"), [0, 1, 2], ""),
        (("eel", "cat", "dog"), [2, 0, 1], "classes matched by name"),
        (("eel", "dog"), [2, 1], "the data has 2 of the model's 3 classes, matched by name"),
    ):
        outputs, how = match_classes(model, classes)
        assert (outputs.tolist(), how) == (expected, words)


def test_imagenets_folders():
    names = tuple(f"name {i}" for i in range(1000))
    folders = ("n01440764", "n02391049", "n15075141")  # tench, zebra, toilet tissue
    outputs, how = match_classes(info(1000, names), folders)
    assert (outputs.tolist(), how) == ([0, 340, 999], "classes matched by ImageNet's order")
    assert match_classes(info(1001, ("background", *names)), folders)[0].tolist() == [1, 341, 1000]
    assert match_classes(info(1000), folders)[0].tolist() == [0, 340, 999]
    own = info(3, ("n15075141", "n01440764", "n02391049"))
    assert match_classes(own, folders)[0].tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="among ImageNet's 1000, but got n00000001"):
        match_classes(info(1000), ("n00000001", "n01440764"))


def test_classes_that_do_not_fit():
    model = info(3, ("cat", "dog", "eel"))
    with pytest.raises(ValueError, match="at most the model's 3 classes, but got 4"):
        match_classes(model, ("cat", "dog", "eel", "fox"))
    with pytest.raises(ValueError, match=r"must be the model's \(cat, dog, eel\), but got fox; .*--class-file"):
        match_classes(model, ("cat", "dog", "fox"))
    with pytest.raises(ValueError, match="must have 3 classes, because the model has no class names, but got 2"):
        match_classes(info(3), ("cat", "dog"))
    outputs, how = match_classes(info(3), ("cat", "dog", "fox"))
    assert (outputs.tolist(), how) == ([0, 1, 2], "the model has no class names; classes matched in the data's order")
