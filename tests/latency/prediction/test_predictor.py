"""A predictor for a simulated device: errors, file, rejected inputs, and the candidates that are still measured."""

import dataclasses
import json
import math
import random

import numpy as np
import pytest
from synthetic import CALIBRATION, CLASSES, ERROR, SPACE, ratio_of, samples_of

from mnas.digests import ChangedFileError
from mnas.latency.latency import Latency
from mnas.latency.prediction.design import design_sample
from mnas.latency.prediction.learned import kendall_tau
from mnas.latency.prediction.predictor import Sample, choose_to_measure, fit_predictor, load_predictor
from mnas.nn.cost import cost
from mnas.space.named import SPACES
from mnas.zoo.architectures import named_arch


@pytest.fixture(scope="module")
def predictor():
    samples = samples_of(design_sample(SPACE, 100, seed=0), seed=0)
    return fit_predictor(samples, space=SPACE, num_classes=CLASSES, calibration=CALIBRATION, date="2026-11-21", folds=4)


@pytest.fixture(scope="module")
def others():
    """Return networks that the predictor was not fitted on."""
    draw = np.random.default_rng(1)
    return [SPACE.decode([int(draw.integers(len(d.choices))) for d in SPACE.decisions]) for _ in range(150)]


def test_an_additive_device_is_learnt(predictor, others):
    predicted = predictor.predict_all(others)
    ratios, truth = np.array([p.ratio for p in predicted]), np.array([ratio_of(arch) for arch in others])
    missed = np.abs(ratios / truth - 1)
    assert missed.mean() < 0.01
    assert missed.max() < 0.05
    assert kendall_tau(ratios, truth).value > 0.97
    assert kendall_tau([cost(arch, 64).macs for arch in others], truth).value < 0.95  # the task is not trivial


def test_a_device_is_learnt_in_the_space_of_mobilenetv4():
    space = SPACES["mobilenetv4"]
    samples = samples_of(design_sample(space, 60, seed=0), 0, space)
    fitted = fit_predictor(
        samples, space=space, num_classes=CLASSES, calibration=CALIBRATION, date="2026-12-01", folds=3
    )
    draw = np.random.default_rng(1)
    unseen = [space.decode([int(draw.integers(len(d.choices))) for d in space.decisions]) for _ in range(60)]
    truth = np.array([ratio_of(arch, space) for arch in unseen])
    ratios = np.array([p.ratio for p in fitted.predict_all(unseen)])
    assert np.abs(ratios / truth - 1).mean() < 0.01
    assert kendall_tau(ratios, truth).value > 0.95


def test_what_it_says_of_itself_is_what_others_show(predictor, others):
    """The error on new networks, measured with the same noise, equals the held-out score within a factor of 1.5."""
    noise = np.exp(np.random.default_rng(2).normal(0, ERROR, len(others)))
    measured = noise * np.array([ratio_of(arch) for arch in others])
    missed = np.abs(np.array([p.ratio for p in predictor.predict_all(others)]) / measured - 1)
    held_out = predictor.learned.held_out
    assert held_out.networks == 100
    assert held_out.mape.low <= held_out.mape.value <= held_out.mape.high
    assert held_out.mape.value / 1.5 < missed.mean() < held_out.mape.value * 1.5
    assert held_out.kendall_tau.value > 0.97


def test_intervals_hold_the_truth(predictor, others):
    """Each interval contains the truth with probability 0.95 or more; of 150, fewer than 90 % do once in 200 runs."""
    held = [
        p.ratio_low <= ratio_of(a) <= p.ratio_high for p, a in zip(predictor.predict_all(others), others, strict=True)
    ]
    assert sum(held) >= 0.9 * len(held)


def test_intervals_are_wider_away_from_the_data():
    """The predictor learns from networks whose blocks 4 to 7 are never convolutions, and then predicts such a block."""
    ops = [i for i, d in enumerate(SPACE.decisions) if d.name.endswith(".op")]
    rows = []
    for row in design_sample(SPACE, 40, seed=3):
        rows.append(tuple(max(1, index) if i in ops[3:] else index for i, index in enumerate(row)))
    predictor = fit_predictor(
        samples_of(rows, seed=1),
        space=SPACE,
        num_classes=CLASSES,
        calibration=CALIBRATION,
        date="2026-11-21",
        folds=2,
    )
    within = SPACE.decode(rows[0])
    beyond = SPACE.decode([0 if i in ops[3:] else index for i, index in enumerate(rows[0])])
    near, far = predictor.predict_all([within, beyond])
    assert far.ratio_high / far.ratio_low > 1.2 * near.ratio_high / near.ratio_low


def test_milliseconds_are_the_ratio_times_the_reference_and_hold_its_error(predictor, others):
    latency = predictor.predict(others[0])
    assert latency.source == "predicted"
    assert (latency.runs, latency.rounds, latency.unit) == (0, 0, "synthetic")
    assert latency.latency_ms == pytest.approx(4.0 * latency.ratio)
    own, calibrated = math.log(latency.ratio_high / latency.ratio), math.log(4.04 / 4.0)
    assert math.log(latency.high_ms / latency.latency_ms) == pytest.approx(math.hypot(own, calibrated))
    slower = dataclasses.replace(CALIBRATION, reference_ms=5.0, low_ms=4.9, high_ms=5.1, unit="synthetic-2")
    again = predictor.predict(others[0], slower)
    assert (again.latency_ms, again.unit) == (5.0 * latency.ratio, "synthetic-2")


def test_a_saved_predictor_predicts_exactly_the_same(predictor, others, tmp_path):
    path = tmp_path / "predictor.json"
    predictor.save(path)
    loaded = load_predictor(path)
    assert loaded.predict_all(others) == predictor.predict_all(others)
    assert loaded.learned.held_out == predictor.learned.held_out
    assert (loaded.samples, loaded.calibration, loaded.date) == (predictor.samples, CALIBRATION, "2026-11-21")
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_size": 96}, "the predictor must be for input size 96, but got one for 64"),
        ({"runtime": "onnxruntime"}, "the predictor must be for runtime onnxruntime, but got one for litert"),
        ({"threads": 2}, "the predictor must be for threads 2, but got one for 1"),
        ({"reference": "mobilenetv2/s8"}, "for reference mobilenetv2/s8, but got one for mobilenetv2; fit another"),
        (
            {"device": {"processor": "none", "runtime": "none 2"}},
            "fitted on another device .runtime 'none 1' instead of 'none 2'.; fit one on this device",
        ),
    ],
)
def test_other_devices_runtimes_and_sizes_are_refused(predictor, others, changes, words):
    with pytest.raises(ValueError, match=words):
        predictor.predict(others[0], dataclasses.replace(CALIBRATION, **changes))


def test_other_spaces_and_classes_are_refused(predictor):
    with pytest.raises(
        ValueError, match=r"this search space \(mnasnet, .* stride 8, .* but got one for mnasnet, output stride 32, "
    ):
        predictor.require(space=SPACE.with_output_stride(8))
    with pytest.raises(ValueError, match="the predictor must be for 1000 classes, but got one for 10"):
        predictor.require(num_classes=1000)
    predictor.require(space=SPACE, num_classes=CLASSES, calibration=CALIBRATION)


def test_architectures_outside_the_space_are_refused(predictor):
    with pytest.raises(ValueError, match="covers only networks of its search space: "):
        predictor.predict(named_arch("mobilenetv2@0.5"))


def test_files_that_are_no_predictors_are_refused(predictor, tmp_path):
    path = tmp_path / "predictor.json"
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_predictor(path)
    for content, words in [("{", "must be JSON"), ("[]", "must come from mnas latency fit"), ("{}", "must come from")]:
        path.write_text(content)
        with pytest.raises(ValueError, match=words):
            load_predictor(path)
    predictor.save(path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "width": 2}))
    with pytest.raises(ChangedFileError, match="was changed after mnas wrote it"):
        load_predictor(path)
    del values["digest"]  # as an earlier version wrote it
    for damage in ({"samples": values["samples"][:3]}, {"parameters": {}}, {"width": None}, {"space": {}}):
        path.write_text(json.dumps({**values, **damage}))
        with pytest.raises(ValueError, match="is damaged: "):
            load_predictor(path)


def test_every_flipped_bit_is_refused(predictor, tmp_path):
    path = tmp_path / "predictor.json"
    predictor.save(path)
    whole = path.read_bytes()
    draw = random.Random(0)
    for part in range(25):
        place = draw.randrange(part * len(whole) // 25, (part + 1) * len(whole) // 25)
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"predictor\.json'"):
            load_predictor(path)


def test_too_few_or_impossible_samples_are_refused():
    samples = samples_of(design_sample(SPACE, 20, seed=0), seed=0)
    settings = {"space": SPACE, "num_classes": CLASSES, "calibration": CALIBRATION, "date": "2026-11-21"}
    with pytest.raises(ValueError, match="needs at least 20 measured networks, but got 19"):
        fit_predictor(samples[:19], **settings)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="times must be positive"):
            fit_predictor([*samples[1:], dataclasses.replace(samples[0], ratio=bad)], **settings)


# Candidates that are still measured


def latency(low: float, value: float, high: float, source: str = "predicted") -> Latency:
    values = {"latency_ms": value, "low_ms": low, "high_ms": high, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    rest = {"against": "reference", "raw_median_ms": value, "runs": 0, "rounds": 0, "stopped_by": "interval"}
    rest |= {"seconds": 0.0, "drift": 0.0, "disturbed": 0.0, "peak_memory_bytes": None, "energy_mj": None, "unit": "x"}
    return Latency(**values, **rest, source=source)


def test_wide_undecided_and_leading_candidates_are_measured():
    candidates = [
        latency(3.0, 3.1, 3.2),  # a narrow interval, slower than the front
        latency(2.0, 3.1, 4.2),  # too wide
        latency(4.9, 5.1, 5.3),  # the target is 5
        latency(9.8, 10.1, 10.4),  # the limit is 10
        latency(1.9, 1.95, 2.1),  # faster than all
        latency(1.9, 1.95, 2.1, "measured"),
    ]
    front = [(0.6, 2.0), (0.8, 4.0)]
    assert choose_to_measure(candidates, target_ms=5.0, limit_ms=10.0, front=front) == [1, 2, 3, 4]
    assert choose_to_measure(candidates, target_ms=5.0, widest=0.5) == [2]


def test_once_accuracies_are_known_those_that_may_be_on_the_front_are_measured():
    candidates = [latency(2.9, 3.0, 3.1)] * 3 + [latency(4.1, 4.2, 4.3)]
    front = [(0.6, 2.0), (0.7, 3.05), (0.8, 4.0)]
    accuracies = [0.65, 0.7, 0.75, 0.81]
    # 0.65 at 2.9 beats 0.7 at 3.05 in time; 0.81 is the most accurate of all, however slow
    assert choose_to_measure(candidates, target_ms=9.0, front=front, accuracies=accuracies) == [0, 1, 2, 3]
    assert choose_to_measure(candidates, target_ms=9.0, front=[(0.9, 2.8)], accuracies=accuracies) == []
    assert choose_to_measure(candidates, target_ms=9.0, front=[], accuracies=accuracies) == [0, 1, 2, 3]


def test_the_error_of_a_sample_is_of_its_interval():
    record = dataclasses.replace(latency(1.0, 1.0, 1.0), ratio_low=1 / 1.02, ratio=1.0, ratio_high=1.02)
    assert Sample.of([1, 2], record) == Sample((1, 2), 1.0, pytest.approx(math.log(1.02) / 1.96))
