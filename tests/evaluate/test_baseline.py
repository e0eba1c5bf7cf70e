"""The score of guessing, beside every accuracy."""

import math

import pytest

from mnas.counts import balanced_accuracy, majority_share
from mnas.evaluate.baseline import baseline_line, not_above_baseline
from mnas.evaluate.evaluation import (
    Evaluation,
    baseline,
    effective_images,
)

UNEQUAL = [190, 10]


def test_a_model_that_never_says_the_second_class():
    assert majority_share(UNEQUAL) == 0.95
    assert balanced_accuracy([190, 0], UNEQUAL) == 0.5
    assert baseline("accuracy", UNEQUAL) == 0.95
    assert baseline("balanced-accuracy", UNEQUAL) == 0.5
    assert "always predicting 'cat', the most frequent class, has an accuracy of 0.9500" in baseline_line(
        "accuracy", UNEQUAL, ["cat", "dog"]
    )
    warning = not_above_baseline("accuracy", UNEQUAL, 200, 0.95)
    assert warning.startswith(
        "warning: the accuracy 0.9500 on 200 images is not significantly above that of always predicting one class "
        "(0.9500)"
    )
    assert "--metric balanced-accuracy" in warning


def test_no_warning_where_it_is_beaten_or_there_is_one_class():
    assert not_above_baseline("accuracy", UNEQUAL, 200, 1.0) == ""
    assert not_above_baseline("accuracy", [500, 500], 1000, 0.6) == ""
    assert not_above_baseline("accuracy", [500, 500], 1000, 0.52) != ""  # within 1.96 standard errors of a half
    assert not_above_baseline("accuracy", [200], 200, 1.0) == ""
    assert not_above_baseline("balanced-accuracy", UNEQUAL, 38, 0.9) == ""


def test_classes_without_images_do_not_count():
    assert balanced_accuracy([8, 0, 1], [10, 0, 2]) == pytest.approx(0.65)
    assert baseline("balanced-accuracy", [10, 0, 2]) == 0.5
    assert (majority_share([]), balanced_accuracy([], []), baseline("balanced-accuracy", [0])) == (0, 0, 0)


def test_the_balanced_accuracy_of_unequal_classes_is_as_uncertain_as_that_of_fewer_images():
    assert effective_images("accuracy", UNEQUAL) == 200
    assert effective_images("balanced-accuracy", [100, 100]) == 200
    counted = effective_images("balanced-accuracy", UNEQUAL)
    assert counted == 38
    p = 0.8
    variance = sum(p * (1 - p) / n for n in UNEQUAL) / 4
    assert math.isclose(p * (1 - p) / counted, variance, rel_tol=0.01)


def test_records_without_counts_are_read_as_before():
    old = {"accuracy": 0.9, "accuracies": [0.9], "val_images": 9, "train_s": 1.0, "images_per_s": 2.0, "epochs": 1}
    read = Evaluation.from_dict(old)
    assert (read.balanced_accuracy, read.right, read.score("accuracy")) == (None, (), 0.9)
    with pytest.raises(ValueError, match="has no balanced accuracy"):
        read.score("balanced-accuracy")
    new = Evaluation.from_dict({**old, "balanced_accuracy": 0.5, "right": [3, 5]})
    assert Evaluation.from_dict(new.to_dict()) == new
    assert new.score("balanced-accuracy") == 0.5


@pytest.mark.parametrize(
    "change", [{"accuracy": 1.1}, {"accuracies": []}, {"right": [-1]}, {"val_images": "9"}, {"x": 1}]
)
def test_other_records_are_refused(change):
    old = {"accuracy": 0.9, "accuracies": [0.9], "val_images": 9, "train_s": 1.0, "images_per_s": 2.0, "epochs": 1}
    with pytest.raises(ValueError, match="must"):
        Evaluation.from_dict({**old, **change})
