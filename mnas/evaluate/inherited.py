"""Networks cut from a fine-tuned parent: scored untrained, or trained with the parent as their teacher.

Both begin with `mnas.nn.inherit.cut`, which needs what the parent computes on some training images; a process keeps
that of the last few sizes.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnas.arch import Arch
from mnas.counts import class_counts
from mnas.data.arrays import ArrayBatches
from mnas.data.augment import normalised
from mnas.data.batches import Batches
from mnas.data.dataset import Dataset
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import Evaluation, evaluation_of_untrained
from mnas.metadata import Triple
from mnas.nn.digest import weights_digest
from mnas.nn.inherit.cut import cut
from mnas.nn.inherit.trace import Trace, trace
from mnas.nn.network import BlockNetwork, Network
from mnas.train.config import TrainConfig
from mnas.train.distillation import Logits, TaughtBatches, Teaching, cached_logits
from mnas.train.initial import CutSource, WeightsSource, network_for
from mnas.train.presets.finetune import FINETUNE
from mnas.train.process import training_settings
from mnas.train.scoring import moments

TEACHER_WEIGHT, TEMPERATURE = 0.9, 4.0
"""Share of the parent in the loss and temperature of its outputs, as in `mnas train --teacher`."""
_IMAGES, _LEAST_IMAGES, _PIXELS = 384, 128, 384 * 96 * 96
_BATCH = 64
_MOST_TRACES = 4  # of about 100 MB each
_TRACED_EPOCH = 1_000_000  # a number that no training epoch has

Moments = tuple[Triple, Triple]
"""Mean and deviation by which a network expects images to be normalised."""


def cut_network(source: CutSource, batches: Batches) -> tuple[Network, Moments]:
    """Return the network, cut with the training images at their size, and the moments of its images.

    Raises:
        ValueError: the network cannot be cut from the parent; or the parent's weights do not fit.
    """
    traced, normalisation = _traced(source.parent, batches)
    assert isinstance(source.arch, Arch)
    return cut(traced, source.arch), normalisation


_traces: dict[tuple[WeightsSource, str, int], tuple[Trace, Moments]] = {}  # the last ones, oldest first


def _traced(parent: WeightsSource, batches: Batches) -> tuple[Trace, Moments]:
    key = (parent, batches.fingerprint, batches.input_size)
    if key in _traces:
        _traces[key] = _traces.pop(key)
    else:
        network, normalisation = network_for(parent, batches.classes, 0)
        mean, std = moments(*normalisation, torch.device("cpu"))
        wanted = max(_LEAST_IMAGES, min(_IMAGES, _PIXELS // batches.input_size**2))
        count = min(wanted, batches.counts["train"])
        size = min(_BATCH, count)
        drawn = itertools.islice(batches.training(_TRACED_EPOCH, size), count // size)
        images = torch.cat([normalised(pixels, mean, std) for pixels, _ in drawn])
        while len(_traces) >= _MOST_TRACES:
            del _traces[next(iter(_traces))]
        _traces[key] = trace(cast(BlockNetwork, network), images), normalisation
    return _traces[key]


def evaluate_inherited(source: CutSource, dataset: Dataset, config: ProxyConfig) -> Evaluation:
    """Score the cut network, untrained, on `dataset.val`.

    Raises:
        ValueError: see `cut_network`.
    """
    start = time.perf_counter()
    with training_settings(config.threads, torch.device("cpu"), repeatable=True):
        network, normalisation = cut_network(source, array_batches(dataset))
        outputs = _outputs(network, torch.from_numpy(dataset.val.images), normalisation)
    right = class_counts(dataset.val.labels[outputs.argmax(1) == dataset.val.labels], len(dataset.classes))
    seconds = time.perf_counter() - start
    return evaluation_of_untrained(
        right, dataset.val_counts, seconds=seconds, images=len(dataset.val), fidelity="inherited"
    )


def array_batches(dataset: Dataset) -> ArrayBatches:
    """Return the images as a cut and its teacher take them, the same for all trials of a search."""
    return ArrayBatches(dataset, FINETUNE.variation(), 0)


@torch.inference_mode()
def _outputs(network: Network, images: Tensor, normalisation: Moments) -> Logits:
    """Return the logits (N, classes) of images (N, S, S, 3)."""
    mean, std = moments(*normalisation, torch.device("cpu"))
    network.eval()
    return torch.cat([network(normalised(part, mean, std)) for part in torch.split(images, _BATCH)]).numpy()


def taught_by(
    parent: WeightsSource, batches: Batches, whole: Batches, config: TrainConfig, folder: Path
) -> TaughtBatches:
    """Return the images with the parent's outputs for them, which are computed once and cached in `folder`.

    Args:
        batches: the images at any size.
        whole: the same images in the same order, at the parent's size.

    Raises:
        OSError: the folder cannot be written.
    """
    network, normalisation = network_for(parent, whole.classes, 0)
    digest = weights_digest(network)

    def run() -> Iterator[tuple[NDArray[np.int64], Logits]]:
        for images, _, numbers in whole.numbered("train", _BATCH):
            yield numbers.numpy(), _outputs(network, images, normalisation)

    key = [digest, whole.fingerprint, whole.content, whole.input_size, whole.counts["train"]]
    logits = cached_logits(folder, key, (whole.counts["train"], len(whole.classes)), run)
    teaching = Teaching(teacher=digest, logits=logits, weight=TEACHER_WEIGHT, temperature=TEMPERATURE)
    return TaughtBatches(batches, None, teaching, config)
