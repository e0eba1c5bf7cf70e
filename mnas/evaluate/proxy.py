"""The proxy task: a candidate trained from scratch for a few epochs and scored on held-out training images.

Tan et al., "MnasNet" (CVPR 2019, arXiv:1807.11626), section 5, and its published code. Departures
(docs/explanation/departures.md):
1. Any data set, not ImageNet only, at the batch size that suits it; the learning rate scales with the batch.
2. The schedule of the full training (warm-up, x0.97 every 2.4 of 350 epochs) is squeezed into the short run, with a
   longer share of warm-up.
3. Batch-norm statistics are estimated again on training images before scoring: after some hundred steps, the moving
   averages at the paper's momentum are still near their start, and the network scores at chance.
4. No moving average of the weights, for the same reason.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from timm.optim import RMSpropTF
from torch import Tensor

from mnas.architecture import Architecture
from mnas.data.augment import augment, normalised
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.mirror import mirrors
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import Evaluation, EvaluationError, Fidelity
from mnas.metadata import ModelMetadata
from mnas.nn.fast import speed_up
from mnas.nn.network import Network, build_network
from mnas.nn.weights import save_weights
from mnas.train import scoring
from mnas.train.failures import is_out_of_memory
from mnas.train.process import training_settings
from mnas.train.recipe import parameter_groups, rmsprop
from mnas.train.scoring import Scored, TrainingError, moments
from mnas.training_data import after_training

_CHECK_EVERY = 50  # steps between checks of the loss; on a GPU each check waits for it
_STATISTICS_IMAGES = 2048  # enough for means and variances to a few percent of a deviation
_STATISTICS_BATCH = 128
_SCORE_BATCH = 256


def evaluate_proxy(
    arch: Architecture, dataset: Dataset, config: ProxyConfig, seed: int, weights_path: Path | None = None
) -> Evaluation:
    """Train `arch` on `dataset.train` and score it on `dataset.val`; on a CPU the same arguments give the same bits.

    Torch's number of threads and random state are restored.

    Args:
        weights_path: file for the weights of the first repeat, with all that prediction needs; None: not written.

    Raises:
        EvaluationError: the training diverged or ran out of memory.
        ValueError: the images are too small for the strides, or the accelerator is missing.
        OSError: the weights cannot be written.
    """
    arch.check_input_size(dataset.input_size)
    device = config.device()
    scores: list[Scored] = []
    count = len(trained_images(dataset.train.labels, config.image_share))
    training_s = 0.0
    start = time.perf_counter()
    with training_settings(config.threads, device, repeatable=True):
        for repeat in range(config.repeats):
            with _out_of_memory_explained(config.batch_size_for(count)):
                torch.manual_seed(_derived_seed(seed, repeat))
                before = time.perf_counter()
                network = build_network(arch, len(dataset.classes))
                network = train(network, dataset, config, device, _derived_seed(seed, repeat, 1))
                training_s += time.perf_counter() - before
                estimate_statistics(network, dataset)
                scores.append(scored(network, dataset, dataset.val))
            if weights_path is not None and repeat == 0:
                save_weights(weights_path, network, _info(arch, dataset, scores[0].accuracy))
    images = config.repeats * config.epochs * count
    train_s, speed = time.perf_counter() - start, images / training_s
    return evaluation_of(scores, train_s=train_s, images_per_s=speed, epochs=config.epochs, fidelity="from scratch")


def train(network: Network, dataset: Dataset, config: ProxyConfig, device: torch.device, seed: int) -> Network:
    """Train the network on `dataset.train`; return it on `device`, with batch-norm statistics still to be estimated.

    Raises:
        EvaluationError: the loss is not finite.
    """
    network = network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if device.type == "cpu":
        speed_up(network)
    images, labels = _tensors(dataset.train, device)
    mean, std = _moments(dataset, device)
    optimizer = optimizer_for(network, config)
    generator = torch.Generator().manual_seed(seed)
    used = torch.from_numpy(trained_images(dataset.train.labels, config.image_share))
    batch_size = config.batch_size_for(len(used))
    steps = len(used) // batch_size
    flip = mirrors(config.mirror, dataset.flip, dataset.classes)
    peak = config.learning_rate * batch_size / 256
    loss_sum = torch.zeros((), device=device)
    for epoch in range(config.epochs):
        order = used[torch.randperm(len(used), generator=generator)]
        for step in range(steps):
            now = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = peak * schedule((now + 1) / (config.epochs * steps), config.warmup)
            chosen = order[step * batch_size : (step + 1) * batch_size]
            pixels = augment(images, chosen, generator, padding=dataset.input_size // 16, flip=flip)
            with _mixed_precision(device):
                logits = network(normalised(pixels, mean, std))
                loss = F.cross_entropy(logits, labels[chosen], label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach()
            if (now + 1) % _CHECK_EVERY == 0 or step == steps - 1:
                _check_finite(loss_sum, now + 1)
    return network


def trained_images(labels: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """Return ascending indices of a share of each class's images, rounded up; larger shares include smaller ones."""
    rng = np.random.default_rng(0)
    chosen = []
    for label in np.unique(labels):
        mine = rng.permutation(np.flatnonzero(labels == label))
        chosen.append(mine[: math.ceil(share * len(mine))])
    return np.sort(np.concatenate(chosen))


def schedule(progress: float, warmup: float) -> float:
    """Return the share of the peak learning rate at `progress` (0 to 1): a linear rise, then the paper's decay.

    The paper's x0.97 every 2.4 of its 350 epochs, counted from the start, ends at 0.012 for any run.
    """
    rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
    return rise * math.pow(0.97, progress * 350 / 2.4)


def evaluation_of(
    scores: Sequence[Scored], *, train_s: float, images_per_s: float, epochs: int, fidelity: Fidelity
) -> Evaluation:
    """Return the evaluation of a candidate from the score of each repeat."""
    return Evaluation(
        accuracy=sum(one.accuracy for one in scores) / len(scores),
        accuracies=tuple(one.accuracy for one in scores),
        balanced_accuracy=sum(one.balanced_accuracy for one in scores) / len(scores),
        right=tuple(map(sum, zip(*(one.right for one in scores), strict=True))),
        val_images=sum(scores[0].counts),
        train_s=train_s,
        images_per_s=images_per_s,
        epochs=epochs,
        fidelity=fidelity,
    )


def estimate_statistics(network: Network, dataset: Dataset) -> None:
    """Set the batch-norm statistics to the means over batches of training images, preprocessed as in scoring."""
    count = min(len(dataset.train), _STATISTICS_IMAGES)
    # evenly spaced, as the images are sorted by class
    chosen = torch.from_numpy(np.linspace(0, len(dataset.train) - 1, count).astype(np.int64))
    chosen = chosen[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    images, _ = _tensors(dataset.train, torch.device("cpu"))
    size = min(_STATISTICS_BATCH, count)
    batches = (images[chosen[start : start + size]] for start in range(0, count - size + 1, size))
    scoring.estimate_statistics(network, batches, *_moments(dataset, network.classifier.weight.device))


def score(network: Network, dataset: Dataset, part: ImageArrays) -> float:
    """Return the share of the images of `part` that the network classifies correctly; raises as `scored` does."""
    return scored(network, dataset, part).accuracy


def scored(network: Network, dataset: Dataset, part: ImageArrays) -> Scored:
    """Score the network as it is (eval or train mode) on the images of `part`.

    Raises:
        EvaluationError: logits are not finite.
    """
    cpu = torch.device("cpu")
    starts = range(0, len(part), _SCORE_BATCH)
    batches = (_tensors(part, cpu, slice(start, start + _SCORE_BATCH)) for start in starts)
    try:
        return scoring.score(network, batches, *_moments(dataset, network.classifier.weight.device))
    except TrainingError as error:
        raise EvaluationError(str(error)) from None


# Steps of the functions above


def optimizer_for(network: Network, config: ProxyConfig) -> RMSpropTF:
    """Return TensorFlow's RMSProp: epsilon inside the root, mean squares from 1; the paper's constants."""
    return rmsprop(parameter_groups(network, config.weight_decay, biases=False), 0.0)


def _tensors(part: ImageArrays, device: torch.device, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Return images and labels; on the CPU without a copy."""
    return torch.from_numpy(part.images[rows]).to(device), torch.from_numpy(part.labels[rows]).to(device)


def _moments(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    return moments(dataset.mean, dataset.std, device)


def _mixed_precision(device: torch.device) -> torch.autocast:
    """Return bfloat16 autocasting on GPUs that have it; on CPUs it was slower."""
    enabled = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _check_finite(loss_sum: Tensor, step: int) -> None:
    if not bool(loss_sum.isfinite()):
        raise EvaluationError(f"the training diverged: its loss was not finite by step {step}")


@contextmanager
def _out_of_memory_explained(batch_size: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EvaluationError(f"out of memory at {batch_size} images per step") from None


def _info(arch: Architecture, dataset: Dataset, accuracy: float) -> ModelMetadata:
    return ModelMetadata(
        arch=arch,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        input_size=dataset.input_size,
        accuracy=accuracy,
        trained_on=after_training(dataset.training_data, ()),
    )
