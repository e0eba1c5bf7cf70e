"""The second step of a search from weights: a candidate fine-tuned for a few epochs by the recipe of full trainings.

Its recipe is the preset `finetune` of `mnas train` with fewer epochs, so that a short training ranks the candidates as
the full one would. A network that is cut from a parent also learns from the parent's outputs.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mnas.data.arrays import ArrayBatches
from mnas.data.batches import Batches
from mnas.data.dataset import Dataset, ImageArrays
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import Evaluation, EvaluationError
from mnas.evaluate.inherited import array_batches, cut_network, taught_by
from mnas.evaluate.proxy import evaluation_of, scored, trained_images
from mnas.folders import user_cache_dir
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import read_weights_info
from mnas.train.config import TrainConfig
from mnas.train.folder import Trained
from mnas.train.initial import CutSource, WeightsSource, network_for, trained_on
from mnas.train.loop import train
from mnas.train.presets.finetune import FINETUNE
from mnas.train.process import training_settings
from mnas.train.scoring import Scored, TrainingError


def evaluate_finetuned(
    source: WeightsSource | CutSource,
    dataset: Dataset,
    config: ProxyConfig,
    seed: int,
    weights_path: Path | None = None,
    *,
    whole: Dataset | None = None,
) -> Evaluation:
    """Fine-tune the network on `dataset.train` and score it on `dataset.val`; deterministic on a CPU.

    Args:
        source: weights to begin with; a network that is cut from a parent has it as its teacher.
        whole: the images at the parent's size, for a `CutSource`.
        weights_path: file for the weights of the first repeat, with all that prediction needs; None: not written.

    Raises:
        EvaluationError: the training diverged or ran out of memory.
        ValueError: the weights do not fit, or the images are too small for the strides.
        OSError: the weights cannot be written.
    """
    start = time.perf_counter()
    used = trained_images(dataset.train.labels, config.image_share)
    if len(used) < len(dataset.train):
        dataset = _part(dataset, used)
        whole = None if whole is None else _part(whole, used)
    scores: list[Scored] = []
    trainings: list[Trained] = []
    for repeat in range(config.repeats):
        # in models/ of the run, which removes what a killed process leaves
        where = None if weights_path is None else weights_path.parent
        name = "mnas-" if weights_path is None else f".{weights_path.name}-"
        with tempfile.TemporaryDirectory(dir=where, prefix=name, suffix=".tmp") as folder:
            try:
                trained = _trained(source, dataset, whole, _recipe(config, seed + repeat), Path(folder))
            except TrainingError as error:
                raise EvaluationError(str(error)) from None
            trainings.append(trained)
            scores.append(_scored(trained.weights, dataset, config))
            if weights_path is not None and repeat == 0:
                trained.weights.replace(weights_path)
    return evaluation_of(
        scores,
        train_s=time.perf_counter() - start,
        images_per_s=sum(one.images_per_s for one in trainings) / len(trainings),
        epochs=max(one.epochs for one in trainings),
        fidelity="distilled" if isinstance(source, CutSource) else "fine-tuned",
    )


def _part(dataset: Dataset, used: npt.NDArray[np.int64]) -> Dataset:
    images = ImageArrays(images=dataset.train.images[used], labels=dataset.train.labels[used])
    return dataclasses.replace(dataset, train=images)


def _recipe(config: ProxyConfig, seed: int) -> TrainConfig:
    return dataclasses.replace(
        FINETUNE,
        epochs=config.epochs,
        mirror=config.mirror,
        accelerator=config.accelerator,
        threads=config.threads,
        seed=seed,
        checkpoint_every=config.epochs,  # a search repeats an interrupted training as a whole
    )


def _trained(
    source: WeightsSource | CutSource, dataset: Dataset, whole: Dataset | None, config: TrainConfig, folder: Path
) -> Trained:
    if isinstance(source, CutSource):
        assert whole is not None
        network, (mean, std) = cut_network(source, array_batches(dataset))
        weights = source.parent.weights
    else:
        network, (mean, std) = network_for(source, dataset.classes, config.seed)
        weights = source.weights
    dataset = dataclasses.replace(dataset, mean=mean, std=std)
    batches: Batches = ArrayBatches(dataset, config.variation(), config.seed)
    if isinstance(source, CutSource) and whole is not None:
        batches = taught_by(source.parent, batches, array_batches(whole), config, user_cache_dir() / "teachers")
    earlier = trained_on(weights, lambda line: None)  # the search has printed its warning
    return train(network.arch, batches, config, folder, initial=network, earlier=earlier)


def _scored(weights: Path, dataset: Dataset, config: ProxyConfig) -> Scored:
    """Return the score of the trained model on the validation images, with its own normalisation."""
    mean, std = read_weights_info(weights).normalisation
    with training_settings(config.threads, torch.device("cpu"), repeatable=True):
        return scored(load_weights(weights), dataclasses.replace(dataset, mean=mean, std=std), dataset.val)
