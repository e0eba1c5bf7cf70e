"""The record of a candidate's score, and its noise, against exact and simulated numbers."""

import json

import numpy as np
import pytest

from mnas.evaluate.evaluation import Evaluation, accuracy_error, accuracy_noise


def test_round_trip_through_json() -> None:
    evaluation = Evaluation(
        accuracy=0.5, accuracies=(0.4, 0.6), val_images=10, train_s=1.5, images_per_s=100.0, epochs=5
    )
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation


def test_noise_is_the_binomial_one() -> None:
    assert accuracy_error(0.9, 10_000) == pytest.approx(0.003, rel=0.01)
    assert accuracy_noise(0.9, 10_000) == pytest.approx(1.96 * 2**0.5 * 0.003, rel=0.01)
    assert accuracy_noise(0.9, 100) > 0.08
    assert 0 < accuracy_error(1.0, 100) < 0.02  # a perfect score on a few images is not certain


def test_two_equal_models_rarely_differ_by_more() -> None:
    hits = np.random.default_rng(0).binomial(300, 0.85, (2, 20_000)) / 300
    above = np.abs(hits[0] - hits[1]) > accuracy_noise(0.85, 300)
    assert 0.03 < above.mean() < 0.06
