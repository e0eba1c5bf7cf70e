"""A tiny network and data set for short trainings, also in processes that are killed.

`print_starts`, called in a separate process, forks a process for each start, which resumes the training in the folder:
`run` to its end, `die3` until it is killed (SIGKILL) in its third step, `stop3` until it is stopped there (SIGTERM),
`full` on a disk with room for files of 20 kB.
"""

import dataclasses
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np

from mnas.arch import Arch
from mnas.block import Block
from mnas.data.arrays import ArrayBatches
from mnas.data.dataset import Dataset, ImageArrays
from mnas.train.loop import train
from mnas.train.presets import PRESETS
from mnas.train.watch import TrainWatcher

ARCH = Arch(
    blocks=(
        Block(op="sepconv", kernel=3, stride=1, filters=8, skip="none"),
        Block(op="mbconv", kernel=5, stride=2, filters=8, expansion=3, se_ratio=0.25, layers=2),
    ),
    stem_filters=8,
    stem_stride=1,
    head_filters=32,
)
CONFIG = dataclasses.replace(
    PRESETS["small"], epochs=3, batch_size=16, optimizer="rmsprop", learning_rate=0.064, weight_decay=1e-5,
    fewest_steps=0, warmup_epochs=0.5, estimate_statistics=64, accelerator="cpu", threads=1,
)  # fmt: skip
STEPS = 6  # per epoch


def toy_dataset(images: int = 100, classes: int = 3, size: int = 8, **changes) -> Dataset:
    """Classes differ in brightness by less than the noise of a pixel; test and validation parts are half as large."""
    rng = np.random.default_rng(0)

    def part(count: int) -> ImageArrays:
        labels = np.arange(count) % classes
        pixels = rng.normal(100 + 25 * labels[:, None, None, None], 40, (count, size, size, 3))
        return ImageArrays(images=np.clip(pixels, 0, 255).astype(np.uint8), labels=labels)

    fields = {
        "name": "toy", "classes": tuple("abcdefghij"[:classes]), "train": part(images), "val": part(images // 2),
        "test": part(images // 2), "mean": (0.5,) * 3, "std": (0.2,) * 3, "input_size": size, "flip": True,
        "fingerprint": "0123456789abcdef", "content": "ab" * 32, "key": "cd" * 32, "skipped": (),
    }  # fmt: skip
    return Dataset(**{**fields, **changes})


def toy_batches(config=CONFIG, **changes) -> ArrayBatches:
    return ArrayBatches(toy_dataset(**changes), config.variation(), config.seed)


class Killing(TrainWatcher):
    """Sends its own process a signal after this number of steps, or while the epoch is scored."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.left = number, step

    def step(self, progress):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)

    def epoch(self, row):
        pass


def values(folder: Path) -> list[dict[str, str]]:
    """Return metrics.csv without times."""
    import csv

    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    timed = ("images_per_s", "waiting", "train_s", "score_s")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def start(folder: Path, how: str) -> int:
    """Fork, train, and return the exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if how == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            number = signal.SIGKILL if how.startswith("die") else signal.SIGTERM
            step = int(how.removeprefix("die").removeprefix("stop")) if how[-1].isdigit() else 0
            train(ARCH, toy_batches(), CONFIG, folder, resume=True, watcher=Killing(number, step))
            code = 0
        except SystemExit as stop:
            code = stop.code
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def print_starts(folder: Path, *hows: str) -> None:
    """Print the exit codes, as JSON."""
    print(json.dumps([start(folder, how) for how in hows]))
