"""Open the teacher of a training, run it on the training images once, and give the student its outputs."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnas.data.batches import Batches
from mnas.data.files import FolderBatches
from mnas.data.named import NAMED
from mnas.data.options import Loader
from mnas.folders import user_cache_dir
from mnas.foreign.limits import most_threads_here
from mnas.names import resolve_weights
from mnas.predict.matching import match_classes
from mnas.predict.model import Model, load_model
from mnas.train.config import TrainConfig
from mnas.train.distillation import Logits, TaughtBatches, Teaching, as_logits, cached_logits
from mnas.train.initial import held_out_seed
from mnas.train.settings import TrainSettings
from mnas.training_data import printable_name

Say = Callable[[str], None]
_BATCH = 64


def open_teacher(settings: TrainSettings) -> Model:
    """Return the model of `--teacher`.

    Raises:
        ImportError: its runtime is not installed.
        OSError, ValueError: the file is missing or damaged, or does not record how to prepare its images.
    """
    chosen, threads = settings.distillation, settings.config.threads
    cores = min(os.cpu_count() or 1, most_threads_here())
    mean, std = _numbers("--teacher-mean", chosen.teacher_mean), _numbers("--teacher-std", chosen.teacher_std)
    try:
        return load_model(
            resolve_weights(chosen.teacher),
            class_file=chosen.teacher_class_file,
            mean=mean,
            std=std,
            threads=cores if threads == "auto" else min(threads, cores),
        )
    except ValueError as error:
        fault = re.sub("--(class-file|mean|std)", r"--teacher-\1", str(error))
        raise ValueError(f"--teacher {chosen.teacher!r} cannot be opened: {fault}") from None


def _numbers(option: str, text: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split()) or None
    except ValueError:
        raise ValueError(f"{option} must be one number or three (0.5,0.5,0.5), but got {text!r}") from None


def unseen_seed(settings: TrainSettings, teacher: Model, say: Say) -> int:
    """Return the seed of the split: `--seed`, or the one that held images of this data out of the teacher's training.

    Raises ValueError if the data cannot be opened.
    """
    chosen, images = settings.distillation.teacher, settings.images
    earlier = teacher.info.trained_on
    name = printable_name(Path(images.data).resolve().name)
    limits = {one.max_images_per_class for one in earlier if one.held_out and one.name == name}
    if limits - {images.max_images_per_class}:
        say(
            f"{chosen} was trained with another --max-images-per-class, so validation images of this training may be "
            "among its training images"
        )
        return settings.config.seed
    return held_out_seed(
        chosen,
        earlier,
        images.data,
        seed=settings.config.seed,
        max_images_per_class=images.max_images_per_class,
        data_dir=images.data_dir,
        download=images.download,
        say=say,
    )


def overlap_note(settings: TrainSettings, teacher: Model, split_seed: int) -> str:
    """Return the notice that the teacher may have seen validation images of a fixed split; empty if it has not."""
    notes: list[str] = []
    fixed = dataclasses.replace(settings, config=dataclasses.replace(settings.config, seed=split_seed))
    seed = unseen_seed(fixed, teacher, notes.append)
    if seed == split_seed:
        return notes[0] if notes else ""
    return (
        f"{settings.distillation.teacher} was trained with seed {seed} and the search with seed {split_seed}, so "
        "validation images may be among its training images; choose by the test accuracy, or train a teacher with "
        f"--seed {split_seed}"
    )


def taught(
    settings: TrainSettings,
    teacher: Model,
    batches: Batches,
    config: TrainConfig,
    split_seed: int,
    say: Say,
    progress: Say,
) -> TaughtBatches:
    """Return the images of a training with the teacher's outputs, which are cached for later trainings.

    Raises:
        ValueError: the teacher has other classes than the data, the data are tar shards, or images cannot be read.
        OSError: the cache cannot be written.
    """
    chosen = settings.distillation
    labels = batches.train_labels()
    outputs = _outputs(settings, teacher, batches)
    config = dataclasses.replace(config, mirror="yes" if batches.mirrored else "no")
    unlabelled = None
    if chosen.unlabelled:
        progress("reading unlabelled images")
        unlabelled = settings.open_images(batches.input_size, config, split_seed, None, unlabelled=True)
    views = _views(settings, teacher, batches, unlabelled, config, split_seed)
    count = sum(view.counts["train"] for view in views)

    def run() -> Iterator[tuple[NDArray[np.int64], Logits]]:
        first = 0
        for view in views:
            for images, _, numbers in view.numbered("train", _BATCH):
                logits = as_logits(teacher.run(images.numpy()), probabilities=teacher.info.probabilities)
                yield numbers.numpy() + first, logits[:, outputs]
                progress(f"running the teacher: {first + int(numbers[-1]) + 1} of {count}")
            first += view.counts["train"]

    digest = _digest(resolve_weights(chosen.teacher), teacher, outputs)
    key = [digest, [[view.fingerprint, view.content, view.input_size, view.crop] for view in views]]
    logits = cached_logits(user_cache_dir() / "teachers", key, (count, len(batches.classes)), run)
    right = float((logits[: len(labels)].argmax(1) == labels.numpy()).mean())
    say(
        f"teacher {chosen.teacher}: {teacher.info.input_size} px, {right:.1%} of the training images right; "
        f"weight {chosen.distillation_weight:g}, temperature {chosen.temperature:g}"
    )
    teaching = Teaching(
        teacher=digest, logits=logits, weight=chosen.distillation_weight, temperature=chosen.temperature
    )
    return TaughtBatches(batches, unlabelled, teaching, config, int(os.environ.get("WORLD_SIZE", "1")))


def _outputs(settings: TrainSettings, teacher: Model, batches: Batches) -> NDArray[np.int64]:
    """Return the teacher's output of each class. Raises ValueError if the classes differ."""
    info, name = teacher.info, settings.distillation.teacher
    if info.outputs < 2 or info.independent:
        raise ValueError(f"--teacher must give one distribution over all classes, but {name!r} has independent outputs")
    try:
        return match_classes(info, batches.classes, in_order=settings.images.data in NAMED)[0]
    except ValueError:
        own = f"{info.outputs} outputs without names" if info.classes is None else _some(info.classes)
        raise ValueError(
            f"--teacher must have the data's classes ({_some(batches.classes)}), but {name!r} has {own}; train a "
            "teacher on this data (mnas train), or name its outputs with --teacher-class-file"
        ) from None


def _views(
    settings: TrainSettings,
    teacher: Model,
    batches: Batches,
    unlabelled: Batches | None,
    config: TrainConfig,
    split_seed: int,
) -> list[Batches]:
    """Return the labelled and unlabelled images as the teacher sees them, in the order of the student's.

    Raises ValueError if the same images cannot be read at the teacher's size.
    """
    size = teacher.info.input_size
    config = dataclasses.replace(
        config, crop=teacher.info.crop, augmentation="shift", auto_augment="", random_erasing=0.0
    )
    views = []
    for own in (batches, unlabelled):
        if own is None:
            continue
        alike = dataclasses.replace(settings, loader=_loader_of(own))
        view = alike.open_images(size, config, split_seed, None, unlabelled=own is unlabelled)
        views.append(view)
        if not torch.equal(view.train_labels(), own.train_labels()):
            raise ValueError(
                f"--teacher needs the same images at {size} px as the training, but some are unreadable; remove them, "
                "or use --loader files"
            )
    return views


def _loader_of(batches: Batches) -> Loader:
    """Return the loader that numbers images as `batches` does: arrays omit unreadable images, files count them."""
    if isinstance(batches, FolderBatches):
        return "files"
    return "array" if batches.skipped else "auto"


def _digest(file: Path, teacher: Model, outputs: NDArray[np.int64]) -> str:
    """Return a digest of the teacher's file, its normalisation, and the outputs that the classes use."""
    info = teacher.info
    digest = hashlib.sha256(json.dumps([outputs.tolist(), info.mean, info.std, info.probabilities]).encode())
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
