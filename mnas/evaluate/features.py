"""The cheapest score of a network with pretrained weights: a linear classifier on its frozen features.

The network computes the inputs of its classifier once for each image, without augmentation. A multinomial logistic
regression on the standardised features is then fitted and scored on the validation images (Kornblith et al., "Do
Better ImageNet Models Transfer Better?", CVPR 2019, arXiv:1805.08974). Its regularisation follows a fixed rule,
around which accuracies are flat on CIFAR-10 and hymenoptera (docs/measurements/training.md).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from mnas.counts import class_counts
from mnas.data.augment import normalised
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.mirror import mirrors
from mnas.evaluate.config import FeaturesConfig
from mnas.evaluate.evaluation import Evaluation, EvaluationError, evaluation_of_untrained
from mnas.evaluate.feature_files import Features, cached_features, features_key
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.nn.pretrained import load_pretrained, pretrained_info
from mnas.nn.weights import save_weights
from mnas.train.failures import is_out_of_memory
from mnas.train.initial import WeightsSource, trained_on
from mnas.train.process import training_settings
from mnas.train.scoring import moments
from mnas.training_data import after_training

_BATCH_PIXELS = 400_000  # of all images together; with more, the activations leave the processor's caches
_MOST_IMAGES = 64
_GPU_IMAGES = 256
_MOST_STEPS = 1000
_LEAST_DEVIATION = 0.1  # in mean deviations; a feature that is almost always 0 must not outweigh the others
_ABSENT = -20.0  # logit of a class without training images


def evaluate_features(
    source: WeightsSource,
    dataset: Dataset,
    config: FeaturesConfig,
    *,
    folder: Path | None = None,
    weights_path: Path | None = None,
) -> "FeaturesResult":
    """Fit a linear classifier to the frozen network of `source` on `dataset.train`, and score it on `dataset.val`.

    On a CPU the same arguments give the same bits, cached or not. Torch's number of threads and random state are
    restored.

    Args:
        folder: folder of cached features; None: they are computed.
        weights_path: file for the network with the classifier, with all that prediction needs; None: not written.

    Raises:
        EvaluationError: the features are not finite, or memory ran out.
        ImportError: the package with the weights is not installed.
        ValueError: the weights are missing or do not fit; the images are too small for the strides; or the accelerator
            is missing.
        OSError: `weights_path` cannot be written.
    """
    weights, arch, name = source.weights, source.arch, source.name
    arch.check_input_size(dataset.input_size)
    device = config.device()
    start = time.perf_counter()
    with training_settings(config.threads, device, repeatable=True), threadpool_limits(config.threads):
        with _out_of_memory_explained():
            network = load_pretrained(weights, arch, len(dataset.classes), name=name, new_classifier=True)
            info = pretrained_info(weights, network, name=name, classes=dataset.classes)
            features = network_features(network, dataset, config, info, device, folder)
            classifier = fit_classifier(features, dataset, config.prior)
        right = _right(classifier.logits(features["val"]), dataset.val)
        fitted_s = time.perf_counter() - start
        accuracy = sum(right) / len(dataset.val)
        if weights_path is not None:
            classifier.put_into(network)
            save_weights(weights_path, network, _info(info, network, dataset, accuracy, weights))
    evaluation = evaluation_of_untrained(
        right, dataset.val_counts, seconds=fitted_s, images=len(dataset.train), fidelity="frozen features"
    )
    return FeaturesResult(evaluation=evaluation, classifier=classifier)


def network_features(
    network: Network,
    dataset: Dataset,
    config: FeaturesConfig,
    info: ModelMetadata,
    device: torch.device,
    folder: Path | None,
) -> dict[str, Features]:
    """Return the features of the parts `train` and `val` and, if `config` asks for it, of `mirrored` training images.

    Args:
        info: metadata whose mean and deviation normalise the images.
        folder: see `evaluate_features`.
    """
    mirrored = mirrors(config.mirror, dataset.flip, dataset.classes)
    rows = {"train": len(dataset.train), "val": len(dataset.val)} | (
        {"mirrored": len(dataset.train)} if mirrored else {}
    )

    def compute() -> dict[str, Features]:
        mean, std = moments(*info.normalisation, device)
        moved = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        sources = {"train": dataset.train, "val": dataset.val, "mirrored": dataset.train}
        return {part: _features(moved, sources[part].images, mean, std, flip=part == "mirrored") for part in rows}

    if folder is None:
        return compute()
    key = features_key(
        network, dataset, *info.normalisation, mirrored=mirrored, threads=config.threads, device=device.type
    )
    return cached_features(folder, f"{network.arch.fingerprint[:12]}-{dataset.input_size}px", key, rows, compute)


@torch.inference_mode()
def _features(
    network: Network, images: npt.NDArray[np.uint8], mean: torch.Tensor, std: torch.Tensor, *, flip: bool
) -> Features:
    batches = []
    size = batch_size(images.shape[1], mean.device)
    for start in range(0, len(images), size):
        pixels = torch.from_numpy(images[start : start + size]).to(mean.device)
        means = network.features(normalised(pixels.flip(2) if flip else pixels, mean, std)).mean((2, 3))
        batches.append(network.embedding(means).float().cpu())
    return torch.cat(batches).numpy()


def batch_size(input_size: int, device: torch.device) -> int:
    """Return the number of images whose features are computed at a time."""
    return min(_MOST_IMAGES, max(1, _BATCH_PIXELS // input_size**2)) if device.type == "cpu" else _GPU_IMAGES


def fit_classifier(features: dict[str, Features], dataset: Dataset, prior: float) -> "LinearClassifier":
    """Return the logistic regression on the training features, in terms of the features as they are.

    Args:
        features: see `network_features`; a mirrored image counts as half an image, and so does its original.
        prior: see `FeaturesConfig`.

    Raises:
        EvaluationError: the features are not finite, or all training images are of one class.
    """
    if not all(np.isfinite(part).all() for part in features.values()):
        raise EvaluationError("the features of the network are not finite")
    mirrored = [features["mirrored"]] if "mirrored" in features else []
    inputs = np.concatenate([features["train"], *mirrored])
    labels = np.concatenate([dataset.train.labels] * (1 + len(mirrored)))
    mean, deviation = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
    scale = np.sqrt(deviation**2 + (_LEAST_DEVIATION * deviation.mean()) ** 2)
    scale[scale == 0] = 1.0  # all features are constant
    standardised = ((inputs - mean) / scale).astype(np.float32)
    share = np.full(len(inputs), 1 / (1 + len(mirrored)), np.float32)
    if len(np.unique(labels)) < 2:
        raise EvaluationError("a classifier needs training images of at least two classes")
    # The variance of a weight is C, and the variance of a logit their sum over the standardised features.
    regression = LogisticRegression(C=prior / inputs.shape[1], max_iter=_MOST_STEPS)
    regression.fit(standardised, labels, sample_weight=share)
    coefficients, intercepts = regression.coef_.astype(np.float64), regression.intercept_.astype(np.float64)
    if len(regression.classes_) == 2:  # scikit-learn then has one row, the difference between the classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight = np.zeros((len(dataset.classes), inputs.shape[1]))
    bias = np.full(len(dataset.classes), _ABSENT)
    weight[regression.classes_] = coefficients / scale
    bias[regression.classes_] = intercepts - weight[regression.classes_] @ mean
    return LinearClassifier(weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _right(logits: npt.NDArray[np.float32], part: ImageArrays) -> tuple[int, ...]:
    """Return the number of correct predictions for each class."""
    return class_counts(part.labels[logits.argmax(1) == part.labels], logits.shape[1])


def _info(info: ModelMetadata, network: Network, dataset: Dataset, accuracy: float, weights: str) -> ModelMetadata:
    mean, std = info.normalisation
    return ModelMetadata(
        arch=network.arch,
        classes=dataset.classes,
        mean=mean,
        std=std,
        input_size=dataset.input_size,
        accuracy=accuracy,
        trained_on=after_training(dataset.training_data, trained_on(weights, lambda text: None)),
    )


@contextmanager
def _out_of_memory_explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EvaluationError("out of memory while the features were computed") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearClassifier:
    """A classifier of the features as a network has them; the standardisation is part of its weights."""

    weight: npt.NDArray[np.float32]
    """(classes, features)."""
    bias: npt.NDArray[np.float32]
    """(classes,)."""

    def logits(self, features: Features) -> npt.NDArray[np.float32]:
        """Return the logits (N, classes) of features (N, features)."""
        return features @ self.weight.T + self.bias

    def put_into(self, network: Network) -> None:
        """Replace the weights of the network's classifier, so that its logits are those of this classifier."""
        with torch.no_grad():
            network.classifier.weight.copy_(torch.from_numpy(self.weight))
            network.classifier.bias.copy_(torch.from_numpy(self.bias))


@dataclass(frozen=True, kw_only=True, eq=False)
class FeaturesResult:
    """The score of a network's frozen features, and the classifier that has it."""

    evaluation: Evaluation
    """Score on the validation images; `epochs` is 0."""
    classifier: LinearClassifier
    """Classifier for the network, from which a fine-tuning may begin."""
