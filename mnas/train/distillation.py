"""Distillation: a training learns from a teacher's outputs, besides the labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015, arXiv:1503.02531): the loss of an image
is (1 - weight) x its cross entropy + weight x T^2 x KL(teacher || student), both distributions at the temperature T.

Departure (docs/explanation/departures.md): the teacher sees each image once, as it is scored. The student's augmented
view of an image has the teacher's outputs for the whole image, so the teacher does not run in each epoch.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mnas.data.balance import class_weights
from mnas.data.batches import Batches, Part
from mnas.train.config import TrainConfig
from mnas.train.recipe import Mix, mix_of

Logits = NDArray[np.float32]
_LEAST = 1e-5
"""Smallest probability of a teacher: a softmax in an int8 file rounds smaller ones to 0."""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """The teacher's outputs for all training images, and their share in the loss."""

    teacher: str
    """Digest of the teacher's file and of the outputs that the classes use."""
    logits: Logits
    """(N, classes), memory-mapped: labelled images, then unlabelled ones. Unreadable images have zeros."""
    weight: float
    """Share of the teacher in the loss."""
    temperature: float


class TaughtBatches(Batches):
    """The images of a training with a teacher; `training` yields targets (B, 2 x classes) in place of labels.

    The first half of a target is the label with its smoothing, or zeros for an unlabelled image. The second half is the
    teacher's distribution at the temperature. A step has the same share of unlabelled images as the data; they begin
    again where an epoch needs more.

    Args:
        world: number of processes that share a step; each gets as many unlabelled images as the others.

    Raises:
        ValueError: the data are tar shards.
    """

    def __init__(
        self,
        labelled: Batches,
        unlabelled: Batches | None,
        teaching: Teaching,
        config: TrainConfig,
        world: int = 1,
    ) -> None:
        self.labelled, self.unlabelled, self.teaching, self._config = labelled, unlabelled, teaching, config
        self._labels = labelled.train_labels()
        self._world = world
        self._weights = class_weights(self._labels, len(labelled.classes)) if config.balance == "loss" else None
        extra = 0 if unlabelled is None else unlabelled.counts["train"]
        if len(teaching.logits) != len(self._labels) + extra:
            raise ValueError(f"a teacher needs {len(self._labels) + extra} rows, but got {len(teaching.logits)}")
        self.name, self.classes = labelled.name, labelled.classes
        self.mean, self.std = labelled.mean, labelled.std
        self.input_size, self.crop = labelled.input_size, labelled.crop
        self.counts = {**labelled.counts, "train": labelled.counts["train"] + extra}
        self.fingerprint, self.content = labelled.fingerprint, labelled.content
        self.mirrored, self.may_be_mirrored = labelled.mirrored, labelled.may_be_mirrored
        self.listing, self.images_by_class = labelled.listing, labelled.images_by_class
        self.training_data = labelled.training_data

    def identity(self) -> dict[str, Any]:
        """Return the values that must not change while a training with this teacher is resumed."""
        return {
            "teacher": self.teaching.teacher,
            "distillation_weight": self.teaching.weight,
            "temperature": self.teaching.temperature,
            "unlabelled": None if self.unlabelled is None else self.unlabelled.fingerprint,
        }

    @property
    def skipped(self) -> tuple[str, ...]:
        return self.labelled.skipped + (() if self.unlabelled is None else self.unlabelled.skipped)

    def steps(self, batch_size: int) -> int:
        return self.labelled.counts["train"] // (batch_size - self._unlabelled_in(batch_size))

    def training(
        self, epoch: int, batch_size: int, *, start: int = 0, rank: int = 0, world: int = 1, numbered: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        extra = self._unlabelled_in(batch_size)
        steps = self.steps(batch_size)
        with contextlib.ExitStack() as stack:
            sources = [
                self.labelled.training(epoch, batch_size - extra, start=start, rank=rank, world=world, numbered=True)
            ]
            if extra:
                sources.append(self._unlabelled_steps(epoch, extra, steps, start, rank, world))
            for source in sources:
                if close := getattr(source, "close", None):
                    stack.callback(close)
            for parts in itertools.islice(zip(*sources, strict=False), max(0, steps - start)):
                numbers = [part[1] + number * len(self._labels) for number, part in enumerate(parts)]
                images, rows = torch.cat([part[0] for part in parts]), torch.cat(numbers)
                yield images, rows if numbered else self.targets(rows)

    def numbered(self, part: Part, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return self.labelled.numbered(part, batch_size)

    def image_name(self, part: Part, index: int) -> str:
        return self.labelled.image_name(part, index)

    def targets(self, rows: Tensor) -> Tensor:
        """Return the targets of images by their rows in the teacher's outputs."""
        classes = len(self.classes)
        hard = torch.zeros(len(rows), classes)
        labelled = rows < len(self._labels)
        smoothing = self._config.label_smoothing
        labels = F.one_hot(self._labels[rows[labelled]], classes).float()
        hard[labelled] = labels * (1 - smoothing) + smoothing / classes
        logits = torch.from_numpy(self.teaching.logits[rows.numpy()])
        return torch.cat([hard, F.softmax(logits / self.teaching.temperature, 1)], 1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of the student's logits (B, classes) for targets (B, 2 x classes)."""
        hard, soft = targets.chunk(2, 1)
        weight, temperature = self.teaching.weight, self.teaching.temperature
        own = -(hard * F.log_softmax(logits, 1)).sum(1)
        if self._weights is not None:
            own = own * (hard @ self._weights.to(hard.device))
        taught = F.kl_div(F.log_softmax(logits / temperature, 1), soft, reduction="batchmean")
        return (1 - weight) * own.mean() + weight * temperature**2 * taught

    def mix(self, share: int) -> Mix | None:
        """Return mixup and CutMix for `share` images, which mix labels and the teacher's outputs alike; None if off."""
        rows_of = mix_of(dataclasses.replace(self._config, label_smoothing=0.0), share)
        if rows_of is None:
            return None

        def mix(images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
            images, rows = rows_of(images, torch.arange(len(images), device=images.device), seed)
            return images, rows @ targets

        return mix

    def _unlabelled_in(self, batch_size: int) -> int:
        """Return the number of unlabelled images in a step, a multiple of the number of processes."""
        if self.unlabelled is None:
            return 0
        each = batch_size // self._world
        share = self.unlabelled.counts["train"] / self.counts["train"]
        return self._world * min(each - 1, max(1, round(each * share)))

    def _unlabelled_steps(
        self, epoch: int, size: int, steps: int, start: int, rank: int, world: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the unlabelled images of an epoch's steps, in as many passes as the steps need."""
        assert self.unlabelled is not None
        each = self.unlabelled.steps(size)
        if not each:
            raise ValueError(
                f"--unlabelled must have at least {size} images for this --batch-size, but got "
                f"{self.unlabelled.counts['train']}"
            )
        passes = -(-steps // each)
        first, begin = divmod(start, each)
        for turn in range(first, passes):
            number = epoch * passes + turn
            yield from self.unlabelled.training(number, size, start=begin, rank=rank, world=world, numbered=True)
            begin = 0


def as_logits(outputs: Logits, *, probabilities: bool) -> Logits:
    """Return a model's outputs as logits: probabilities by their logarithm."""
    logits: Logits = np.log(np.maximum(outputs, np.float32(_LEAST))) if probabilities else outputs
    return logits


def cached_logits(
    folder: Path,
    key: Any,
    shape: tuple[int, int],
    outputs: Callable[[], Iterable[tuple[NDArray[np.int64], Logits]]],
) -> Logits:
    """Return the logits of `key` (JSON-able) in `folder`, memory-mapped; `outputs` is run once if they are not there.

    Args:
        shape: number of images and of classes.
        outputs: returns batches of (rows, logits of these rows).

    Raises:
        OSError: the folder cannot be written.
    """
    name = hashlib.sha256(json.dumps(["teacher 1", *key]).encode()).hexdigest()
    path = folder / f"{name}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{name}.lock"):  # the processes of a machine need one run of the teacher
        if (logits := _mapped(path, shape)) is not None:
            return logits
        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=folder)
        os.close(handle)
        try:
            written = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
            for rows, values in outputs():
                written[rows] = values
            written.flush()
            del written
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        logits = _mapped(path, shape)
    assert logits is not None
    return logits


def _mapped(path: Path, shape: tuple[int, int]) -> Logits | None:
    """Return the logits in a file; None if there is no such file, or it is damaged."""
    try:
        logits: Logits = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return logits if logits.shape == shape and logits.dtype == np.float32 else None
