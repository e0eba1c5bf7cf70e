"""A linear classifier on frozen features: repeatable, cached, equal to scikit-learn's, and part of the network."""

import dataclasses
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mnas.arch import Arch
from mnas.architecture import Architecture
from mnas.block import Block
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.load import load_dataset, load_sizes
from mnas.evaluate import features as features_module
from mnas.evaluate.config import FeaturesConfig
from mnas.evaluate.evaluation import EvaluationError
from mnas.evaluate.features import FeaturesResult, evaluate_features, fit_classifier
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.nn.weights import load_weights, save_weights
from mnas.nn.weights_info import read_weights_info
from mnas.train.initial import WeightsSource
from mnas.train.scoring import moments, score
from mnas.zoo.architectures import named_arch
from tests.nn.test_published_weights import HYMENOPTERA, needs_packages

ARCH = Arch(
    blocks=(
        Block(op="mbconv", kernel=3, stride=2, filters=8, expansion=3, se_ratio=0.25),
        Block(op="sepconv", kernel=5, stride=2, filters=16, skip="none"),
    ),
    stem_filters=8,
    stem_stride=1,
    head_filters=64,
)
CONFIG = FeaturesConfig(accelerator="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load_dataset("digits", input_size=16, seed=0, cache_dir=cache, max_images_per_class=60)


def some_classes(dataset: Dataset, *classes: int) -> Dataset:
    """Return the images of some classes as a data set of its own."""

    def part(arrays: ImageArrays) -> ImageArrays:
        chosen = np.isin(arrays.labels, classes)
        labels = np.searchsorted(classes, arrays.labels[chosen])
        return ImageArrays(images=arrays.images[chosen], labels=labels)

    names = tuple(dataset.classes[number] for number in classes)
    return dataclasses.replace(
        dataset, classes=names, train=part(dataset.train), val=part(dataset.val), test=None, fingerprint="0" * 16
    )


def saved(path: Path, arch: Arch = ARCH, seed: int = 0) -> str:
    """Write random weights with moments of their own, and return the path."""
    torch.manual_seed(seed)
    info = ModelMetadata(arch=arch, classes=("x", "y", "z"), input_size=32, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    save_weights(path, build_network(arch, 3), info)
    return str(path)


def source(weights: str, arch: Architecture, name: str = "toy") -> WeightsSource:
    return WeightsSource(name=name, arch=arch, weights=weights)


def evaluate(tmp_path: Path, dataset: Dataset, config: FeaturesConfig = CONFIG, **options: object) -> FeaturesResult:
    path = tmp_path / "weights.safetensors"
    weights = str(path) if path.exists() else saved(path)
    return evaluate_features(source(weights, ARCH), dataset, config, **options)  # type: ignore[arg-type]


def assert_same(one: FeaturesResult, other: FeaturesResult) -> None:
    assert one.evaluation.right == other.evaluation.right
    assert np.array_equal(one.classifier.weight, other.classifier.weight)
    assert np.array_equal(one.classifier.bias, other.classifier.bias)


def features_of(network: Network, images: np.ndarray, info: ModelMetadata) -> np.ndarray:
    """Return the inputs of the classifier, recorded in a call of the whole network on all images."""
    inputs: list[torch.Tensor] = []
    handle = network.classifier.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in info.normalisation)
    with torch.no_grad():
        network((pixels - mean) / std)
    handle.remove()
    return inputs[0].numpy()


@pytest.mark.parametrize("classes", [range(10), (3, 8)], ids=len)
def test_the_networks_logits_are_the_decision_function_of_the_regression(
    tmp_path: Path, digits: Dataset, classes: tuple[int, ...]
) -> None:
    dataset = some_classes(digits, *classes)
    result = evaluate(tmp_path, dataset, weights_path=tmp_path / "out.safetensors")
    network, info = load_weights(tmp_path / "out.safetensors"), read_weights_info(tmp_path / "out.safetensors")
    assert info.normalisation == ((0.3, 0.4, 0.5), (0.2, 0.3, 0.4))
    train, val = (features_of(network, part.images, info) for part in (dataset.train, dataset.val))
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.hypot(deviation, deviation.mean() / 10)
    regression = LogisticRegression(C=3 / 64, max_iter=1000).fit((train - mean) / scale, dataset.train.labels)
    expected = regression.decision_function((val - mean) / scale)
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(val)).numpy()
    found = logits if len(classes) > 2 else logits[:, 1] - logits[:, 0]
    # scikit-learn stops near the optimum, and our features differ from these in the last bits
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
    assert np.abs(logits - result.classifier.logits(val)).max() < 1e-4
    hits = np.bincount(dataset.val.labels[logits.argmax(1) == dataset.val.labels], minlength=len(classes))
    assert result.evaluation.right == tuple(hits)


def test_folding_the_standardisation_changes_no_logit(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    """The fitted regression itself, on the inputs that it was fitted to, against the weights that a network gets."""
    random = np.random.default_rng(0)
    scales = 10.0 ** random.uniform(-3, 1, 64)
    inputs = (random.normal(1, 1, (len(digits.train), 64)) * scales + digits.train.labels[:, None] * scales / 5).astype(
        np.float32
    )
    fitted: list[tuple[LogisticRegression, np.ndarray]] = []

    class Recorded(LogisticRegression):  # type: ignore[misc]
        def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: object = None) -> "Recorded":
            fitted.append((self, x))
            super().fit(x, y, sample_weight)
            return self

    monkeypatch.setattr(features_module, "LogisticRegression", Recorded)
    classifier = fit_classifier({"train": inputs, "val": inputs}, digits, 3.0)
    [(regression, standardised)] = fitted
    assert abs(standardised.mean(0)).max() < 1e-4
    expected = regression.decision_function(standardised)
    network = build_network(ARCH, 10).eval()
    classifier.put_into(network)
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(inputs)).numpy()
    assert np.abs(logits - expected).max() < 1e-4


def test_the_whole_network_scores_as_the_evaluation_says(tmp_path: Path, digits: Dataset) -> None:
    evaluation = evaluate(tmp_path, digits, weights_path=tmp_path / "out.safetensors").evaluation
    network, info = load_weights(tmp_path / "out.safetensors"), read_weights_info(tmp_path / "out.safetensors")
    mean, std = moments(*info.normalisation, torch.device("cpu"))
    images = torch.from_numpy(np.array(digits.val.images)), torch.from_numpy(digits.val.labels)
    scored = score(network, [images], mean, std)
    assert scored.right == evaluation.right
    assert evaluation.accuracy == evaluation.accuracies[0] == scored.accuracy == info.accuracy
    assert evaluation.balanced_accuracy == scored.balanced_accuracy
    assert (evaluation.val_images, evaluation.epochs, evaluation.fidelity) == (len(digits.val), 0, "frozen features")
    assert evaluation.accuracy > 0.5  # chance is 0.1
    assert (info.classes, info.input_size) == (digits.classes, 16)
    assert [training.content for training in info.trained_on] == [digits.content]


def test_results_repeat_bit_for_bit_cached_or_not(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first = evaluate(tmp_path, digits)
    assert torch.get_num_threads() == threads
    torch.manual_seed(5)
    written = evaluate(tmp_path, digits, folder=tmp_path / "features")
    monkeypatch.setattr(Network, "embedding", lambda *_: pytest.fail("the features were computed again"))
    read = evaluate(tmp_path, digits, folder=tmp_path / "features")
    assert_same(first, written)
    assert_same(first, read)
    torch.random.set_rng_state(state)


def test_each_network_size_and_setting_has_its_own_file(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "features"
    sizes = load_sizes("digits", input_sizes=(16, 24), seed=0, cache_dir=cache, max_images_per_class=20)
    evaluate(tmp_path, sizes[16], folder=folder)
    evaluate(tmp_path, sizes[24], folder=folder)
    evaluate(tmp_path, sizes[16], FeaturesConfig(accelerator="cpu", mirror="yes"), folder=folder)
    evaluate(tmp_path, sizes[16], FeaturesConfig(accelerator="cpu", prior=1.0), folder=folder)  # same features
    assert len(list(folder.iterdir())) == 3
    saved(tmp_path / "weights.safetensors", seed=1)
    evaluate(tmp_path, sizes[16], folder=folder)
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("fault", ["cut off", "one bit", "of other images", "empty"])
def test_damaged_features_are_computed_again_with_a_notice(
    tmp_path: Path, digits: Dataset, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    first = evaluate(tmp_path, digits, folder=tmp_path / "features")
    [path] = (tmp_path / "features").iterdir()
    intact = path.read_bytes()
    if fault == "of other images":
        fewer = dataclasses.replace(digits, val=ImageArrays(images=digits.val.images[:9], labels=digits.val.labels[:9]))
        evaluate(tmp_path, fewer, folder=tmp_path / "features")  # claims to have the same fingerprint
    else:
        changed = {"cut off": intact[:-9], "one bit": intact[:-1] + bytes([intact[-1] ^ 1]), "empty": b""}
        path.write_bytes(changed[fault])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert_same(first, evaluate(tmp_path, digits, folder=tmp_path / "features"))
    assert "are damaged" in caplog.text
    assert path.read_bytes() == intact


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path, digits: Dataset) -> None:
    (tmp_path / "file").write_text("")
    assert_same(evaluate(tmp_path, digits, folder=tmp_path / "file"), evaluate(tmp_path, digits))


def test_mirrored_images_count_half(tmp_path: Path, digits: Dataset) -> None:
    """Symmetric images give the same classifier with and without their mirror images."""
    half = digits.train.images[:, :, :8]
    train = ImageArrays(images=np.concatenate([half, half[:, :, ::-1]], 2), labels=digits.train.labels)
    symmetric = dataclasses.replace(digits, train=train, fingerprint="1" * 16)
    plain = evaluate(tmp_path, symmetric)
    mirrored = evaluate(tmp_path, symmetric, FeaturesConfig(accelerator="cpu", mirror="yes"))
    assert np.abs(plain.classifier.weight - mirrored.classifier.weight).max() < 1e-2 * plain.classifier.weight.std()
    assert_same(
        evaluate(tmp_path, digits, FeaturesConfig(accelerator="cpu", mirror="auto")), evaluate(tmp_path, digits)
    )


def test_a_class_without_training_images_is_never_predicted(tmp_path: Path, digits: Dataset) -> None:
    present = digits.train.labels != 4
    train = ImageArrays(images=digits.train.images[present], labels=digits.train.labels[present])
    result = evaluate(tmp_path, dataclasses.replace(digits, train=train, fingerprint="2" * 16))
    assert result.evaluation.right[4] == 0
    assert not result.classifier.weight[4].any()
    one = digits.train.labels == 4
    train = ImageArrays(images=digits.train.images[one], labels=digits.train.labels[one])
    with pytest.raises(EvaluationError, match="at least two classes"):
        evaluate(tmp_path, dataclasses.replace(digits, train=train))


def test_features_that_are_not_finite_are_the_networks_failure(tmp_path: Path, digits: Dataset) -> None:
    network = build_network(ARCH, 3)
    torch.nn.init.constant_(network.stem.conv.weight, 1e38)
    info = ModelMetadata(arch=ARCH, classes=("x", "y", "z"), input_size=32, mean=(0.3,) * 3, std=(0.2,) * 3)
    save_weights(tmp_path / "weights.safetensors", network, info)
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(tmp_path, digits)


def test_images_smaller_than_the_strides_are_an_error(cache: Path) -> None:
    digits = load_dataset("digits", input_size=8, seed=0, cache_dir=cache, max_images_per_class=20)
    with pytest.raises(ValueError, match="--input-size"):
        evaluate_features(source("none.pth", named_arch("mnasnet-a1")), digits, CONFIG)


@pytest.mark.parametrize("name", ["mobilenetv3-small@0.5", "mnasnet-small@0.35", "mobilenetv2@0.35"])
def test_networks_of_all_heads_and_sizes(tmp_path: Path, cache: Path, name: str) -> None:
    """The head after the pool is part of the features; odd sizes and both paddings have logits as the network has."""
    arch = named_arch(name)
    assert isinstance(arch, Arch)
    for padding, size in (("same", 33), ("symmetric", 48)):
        digits = load_dataset("digits", input_size=size, seed=0, cache_dir=cache, max_images_per_class=10)
        padded = dataclasses.replace(arch, padding=padding)
        weights, out = saved(tmp_path / "w.safetensors", padded), tmp_path / "out.safetensors"
        result = evaluate_features(source(weights, padded, name), digits, CONFIG, weights_path=out)
        network, info = load_weights(out), read_weights_info(out)
        inputs = features_of(network, digits.val.images, info)
        assert inputs.shape[1] == network.classifier.in_features
        with torch.no_grad():
            logits = network.classifier(torch.from_numpy(inputs)).numpy()
        hits = np.bincount(digits.val.labels[logits.argmax(1) == digits.val.labels], minlength=10)
        assert result.evaluation.right == tuple(hits)


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Dataset:
    if not HYMENOPTERA.exists():
        pytest.skip("the data set hymenoptera is not in ../shared/data")
    folder = tmp_path_factory.mktemp("hymenoptera")
    with tarfile.open(HYMENOPTERA) as archive:
        archive.extractall(folder, filter="data")
    return load_dataset(str(folder / "hymenoptera"), input_size=96, seed=0, cache_dir=cache)


@needs_packages
def test_published_weights_beat_random_ones(tmp_path: Path, insects: Dataset) -> None:
    arch = named_arch("efficientnet-lite0")
    out = tmp_path / "out.safetensors"
    lite0 = source("pretrained", arch, "efficientnet-lite0")
    published = evaluate_features(lite0, insects, CONFIG, weights_path=out)
    network, info = load_weights(out), read_weights_info(out)
    inputs = features_of(network, insects.val.images, info)
    with torch.no_grad():
        logits = network.classifier(torch.from_numpy(inputs)).numpy()
    assert np.abs(logits - published.classifier.logits(inputs)).max() < 1e-4
    assert isinstance(arch, Arch)
    random = evaluate_features(source(saved(tmp_path / "w.safetensors", arch), arch), insects, CONFIG)
    # 44 and 37 of 49 images
    assert sum(published.evaluation.right) >= 40
    assert sum(published.evaluation.right) > sum(random.evaluation.right)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mirror", "maybe"), ("prior", 0), ("prior", float("nan")), ("accelerator", "tpu"), ("threads", 0)],
)
def test_settings_out_of_range_are_errors(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        FeaturesConfig(**{field: value})  # type: ignore[arg-type]
