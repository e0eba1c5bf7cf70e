"""The first step of a search from weights: a linear classifier on the frozen features of a pretrained network."""

import time

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mnas.counts import balanced_accuracy, class_counts
from mnas.data.augment import normalised
from mnas.data.dataset import Dataset, ImageArrays
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import Evaluation
from mnas.nn.network import Network
from mnas.train.initial import WeightsSource, network_for
from mnas.train.process import training_settings
from mnas.train.scoring import moments

_BATCH = 128
_INVERSE_PENALTY = 0.01
"""Inverse of the penalty on squared weights of standardised features; the best of a few on 1,000 images."""
_MOST_STEPS = 500


def evaluate_features(source: WeightsSource, dataset: Dataset, config: ProxyConfig) -> Evaluation:
    """Fit a logistic regression on the features of the training images, and score it on the validation images.

    Deterministic on a CPU. Raises ValueError where the weights do not fit, or the images are too small.
    """
    start = time.perf_counter()
    with training_settings(config.threads, torch.device("cpu"), repeatable=True):
        network, (mean, std) = network_for(source, dataset.classes, 0)
        scaler = StandardScaler()
        features = scaler.fit_transform(_features(network, dataset.train, mean, std))
        classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MOST_STEPS).fit(features, dataset.train.labels)
        answers = classifier.predict(scaler.transform(_features(network, dataset.val, mean, std)))
    hits = dataset.val.labels[answers == dataset.val.labels]
    right = class_counts(hits, len(dataset.classes))
    accuracy = len(hits) / len(dataset.val)
    seconds = time.perf_counter() - start
    return Evaluation(
        accuracy=accuracy,
        accuracies=(accuracy,),
        balanced_accuracy=balanced_accuracy(right, dataset.val_counts),
        right=tuple(right),
        val_images=len(dataset.val),
        train_s=seconds,
        images_per_s=(len(dataset.train) + len(dataset.val)) / seconds,
        epochs=0,
        fidelity="frozen features",
    )


@torch.inference_mode()
def _features(
    network: Network, part: ImageArrays, mean: tuple[float, ...], std: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Return the (N, F) pooled features of the images, before dropout and classifier."""
    network.eval()
    collected: list[torch.Tensor] = []
    handle = network.classifier.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0]))
    values = moments(mean, std, torch.device("cpu"))
    try:
        for first in range(0, len(part), _BATCH):
            network(normalised(torch.from_numpy(part.images[first : first + _BATCH]), *values))
    finally:
        handle.remove()
    features: npt.NDArray[np.float32] = torch.cat(collected).flatten(1).numpy()
    return features
