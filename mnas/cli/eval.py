"""`mnas eval`: how good a model is on labelled images, by whatever file it is shipped as."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mnas.atomic import write_atomic
from mnas.cli.model import ModelOptions, open_model
from mnas.cli.progress import make_console
from mnas.data.dataset import Dataset, ImageArrays
from mnas.data.image import Pixels
from mnas.data.load import load_dataset
from mnas.predict.matching import match_classes
from mnas.predict.model import Model
from mnas.predict.score import Score, confusion_picture, score_model, wilson

Part = Literal["train", "val", "test"]
_BATCH = 256
_SHOWN, _ERRORS = 10, 5


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Score a model on labelled images: top-1, top-5, accuracy by class, and which classes it confuses."""

    model: tyro.conf.Positional[str]
    """A file (.safetensors, .tflite, .onnx, .pte), the folder of a training, a trial (runs/NAME#17), or with --weights
    an architecture."""
    data: str
    """digits, cifar10, fashion-mnist, imagenet, or a folder with one folder of images for each class (or train/,
    val/, test/)."""
    part: Part | Literal["auto"] = "auto"
    """Which images; auto: test where the data has such a part, else val."""
    seed: int = 0
    """Draws the validation images where the data does not say: that of the training or search."""
    json: bool = False
    """Print one JSON object instead of a table, with the whole confusion matrix."""
    save: Path | None = None
    """Also draw the confusion matrix into this .png file."""
    data_dir: Path | None = None
    """Where cifar10, fashion-mnist and imagenet lie; not given: in the cache folder."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    options: Annotated[tyro.conf.OmitArgPrefixes[ModelOptions], tyro.conf.arg(name="model-file")] = field(
        default_factory=ModelOptions
    )

    def run(self) -> None:
        """Score and print.

        Raises:
            ValueError: the model or the data cannot be opened, do not fit each other, or there is no such part.
        """
        if self.save is not None and self.save.suffix != ".png":
            raise ValueError(f"--save must name a .png file, but got {str(self.save)!r}")
        if self.save is not None and self.save.exists():
            raise ValueError(f"--save must name a new file, but {str(self.save)!r} is there already")
        model = open_model(self.model, self.options)
        console = Console(stderr=True)
        with Progress(console=console, transient=True) as bar:
            dataset = self._dataset(model, bar)
            outputs, matching = match_classes(model.info, dataset.classes)
            part, arrays = self._part(dataset)
            task = bar.add_task("scoring", total=len(arrays))
            score = score_model(model, _batches(arrays, outputs, lambda count: bar.advance(task, count)))
        labels = [model.info.label(i) for i in range(model.info.outputs)]
        if model.info.classes is None:
            for name, output in zip(dataset.classes, outputs, strict=True):
                labels[output] = name
        where = f"{part} part of {dataset.name}"
        if self.save is not None:
            write_atomic(self.save, confusion_picture(score, labels, f"{Path(self.model).name} on the {where}"))
        if self.json:
            print(json.dumps(_values(self.model, model, score, labels, dataset, part, matching)))
            return
        for line in (where + self._drawn(part), matching, f"confusion matrix: {self.save}" if self.save else ""):
            if line:
                print(line)
        _print_tables(self.model, model, score, labels)

    def _dataset(self, model: Model, bar: Progress) -> Dataset:
        task = bar.add_task("reading images", total=None)
        dataset = load_dataset(
            self.data,
            input_size=model.info.input_size,
            seed=self.seed,
            crop=model.info.crop,
            data_dir=self.data_dir,
            download=self.download,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        bar.remove_task(task)
        return dataset

    def _part(self, dataset: Dataset) -> tuple[Part, ImageArrays]:
        parts: dict[Part, ImageArrays | None] = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        part: Part = ("val" if dataset.test is None else "test") if self.part == "auto" else self.part
        arrays = parts[part]
        if arrays is None:
            raise ValueError(f"the data must have the part {part!r}, but {dataset.name!r} has train and val only")
        return part, arrays

    def _drawn(self, part: Part) -> str:
        return "" if part == "test" else f" (drawn with seed {self.seed}, unless the data has parts of its own)"


def _batches(
    arrays: ImageArrays, outputs: NDArray[np.int64], advance: Callable[[int], None]
) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """The images, with the outputs that stand for their classes."""
    for start in range(0, len(arrays), _BATCH):
        rows = slice(start, start + _BATCH)
        yield arrays.images[rows], outputs[arrays.labels[rows]]
        advance(len(arrays.labels[rows]))


def _values(
    name: str, model: Model, score: Score, labels: list[str], dataset: Dataset, part: Part, matching: str
) -> dict[str, Any]:
    return {
        "model": name,
        "format": model.info.format,
        "size_bytes": model.info.size_bytes,
        "input_size": model.info.input_size,
        "crop": model.info.crop,
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "part": part,
        "classes_matched": matching or "same names",
        "images": score.images,
        "top1": score.top1,
        "top5": score.top5,
        "per_class": [{"label": label, "top1": top1} for label, top1 in zip(labels, score.per_class, strict=True)],
        "confusion": score.confusion.tolist(),
    }


def _print_tables(name: str, model: Model, score: Score, labels: list[str]) -> None:
    console = make_console()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for column in ("format", "px", "MB", "images", "top-1", "95 %", "top-5"):
        table.add_column(column, justify="right", no_wrap=True)
    low, high = wilson(score.top1, score.images)
    table.add_row(
        name,
        model.info.format,
        str(model.info.input_size),
        f"{model.info.size_bytes / 1e6:.2f}",
        f"{score.images:,}",
        f"{100 * score.top1:.2f} %",
        f"{100 * low:.2f}-{100 * high:.2f}",
        f"{100 * score.top5:.2f} %",
    )
    console.print(table)
    counts = score.confusion.sum(1)
    rows = zip(score.per_class, labels, counts, strict=True)
    known = sorted([(top1, label, int(count)) for top1, label, count in rows if top1 is not None], key=lambda r: r[0])
    rest = "" if len(known) <= _SHOWN else f" (the lowest {_SHOWN} of {len(known)})"
    classes = Table("class" + rest, box=box.SIMPLE, padding=(0, 1, 0, 0))
    classes.add_column("images", justify="right")
    classes.add_column("top-1", justify="right")
    for top1, label, count in known[:_SHOWN]:
        classes.add_row(escape(label), str(count), f"{100 * top1:.2f} %")
    console.print(classes)
    if errors := score.confused(_ERRORS):
        print("  most frequent errors (truth -> model)")
    for truth, first, count in errors:
        print(f"  {count:6d}  {labels[truth]} -> {labels[first]}")
