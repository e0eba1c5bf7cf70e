"""`mnas eval`: how good a model is on labelled images, by whatever file it is shipped as."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich import box
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from mnas.atomic import write_atomic
from mnas.cli.class_table import print_class_table
from mnas.cli.console import make_console, say, say_json
from mnas.cli.model import ModelOptions, open_model
from mnas.data.arrays import ArrayBatches
from mnas.data.augment import Augmentation
from mnas.data.batches import Batches, Part
from mnas.data.files import FolderBatches
from mnas.data.image import Pixels
from mnas.data.load import load_dataset, open_source
from mnas.data.named import NAMED
from mnas.data.open_batches import MOST_ARRAY_BYTES
from mnas.data.shard_index import is_shards
from mnas.data.shards import ShardBatches
from mnas.folders import user_cache_dir
from mnas.predict.matching import match_classes
from mnas.predict.model import Model
from mnas.predict.score import Score, confusion_picture, score_model, wilson
from mnas.text import NAME_CHARS, clean

_BATCH = 256
_SHOWN, _ERRORS = 10, 5


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Score a model on labelled images: top-1, top-5, accuracy by class, and which classes it confuses."""

    model: tyro.conf.Positional[str]
    """A file (.safetensors, .tflite, .onnx, .pte), the folder of a training, a trial (runs/NAME#17), or with --weights
    an architecture."""
    data: str
    """digits, cifar10, fashion-mnist, imagenet, a folder with one folder of images for each class (or train/, val/,
    test/), or tar shards."""
    part: Part | Literal["auto", "all"] = "auto"
    """Which images; auto: test where the data has such a part, else val; all: every one, for data that the model was
    not trained on."""
    seed: int = 0
    """Draws the validation images where the data does not say: that of the training or search."""
    class_order: Literal["auto", "data"] = "auto"
    """How classes are matched to a model that does not name its own; auto: by number, or as a list of classes says;
    data: in the order of the folders, sorted as text."""
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
        if self.save is not None and (self.save.exists() or not self.save.parent.is_dir()):
            what = "is there already" if self.save.exists() else "is in no folder that there is"
            raise ValueError(f"--save must name a new file, but {str(self.save)!r} {what}")
        model = open_model(self.model, self.options)
        console = make_console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            batches = self._open(model, bar)
            outputs, matching = match_classes(
                model.info, batches.classes, in_order=self.class_order == "data" or _is_listed(self.data)
            )
            parts = self._parts(batches)
            task = bar.add_task("scoring", total=sum(batches.counts[part] for part in parts))
            images = itertools.chain.from_iterable(batches.scoring(part, _BATCH) for part in parts)
            score = score_model(model, _labelled(images, outputs, lambda count: bar.advance(task, count)))
        labels = [model.info.label(i) for i in range(model.info.outputs)]
        if model.info.classes is None:
            for name, output in zip(batches.classes, outputs, strict=True):
                labels[output] = name
        part = parts[0] if len(parts) == 1 else "all"
        where = f"all images of {batches.name}" if part == "all" else f"{part} part of {batches.name}"
        if self.save is not None:
            write_atomic(self.save, confusion_picture(score, labels, f"{Path(self.model).name} on the {where}"))
        if self.json:
            print_class_table(console, batches.table, *parts)
            say_json(_values(self.model, model, score, labels, batches, part, matching))
            return
        for line in (where + self._drawn(part), matching, f"confusion matrix: {self.save}" if self.save else ""):
            if line:
                say(line)
        print_class_table(make_console(), batches.table, *parts)
        _print_tables(self.model, model, score, labels)

    def _open(self, model: Model, bar: Progress) -> Batches:
        """The images as the model is to see them: from the cache where they are few, else decoded on the fly."""
        task = bar.add_task("reading images", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        size, crop, workers = model.info.input_size, model.info.crop, os.cpu_count() or 1
        cache_dir = user_cache_dir()
        if is_shards(self.data):
            batches: Batches = ShardBatches(
                self.data, input_size=size, seed=self.seed, crop=crop, augmentation=Augmentation(), workers=workers,
                cache_dir=cache_dir, on_progress=on_progress,
            )  # fmt: skip
        else:
            data_dir = cache_dir / "downloads" if self.data_dir is None else self.data_dir
            source = open_source(self.data, data_dir, self.download)
            found = source.parts()
            count = sum(len(part) for part in (found.train, found.val, found.test) if part is not None)
            if count * size * size * 3 <= MOST_ARRAY_BYTES:
                dataset = load_dataset(
                    self.data, input_size=size, seed=self.seed, crop=crop, data_dir=self.data_dir,
                    on_progress=on_progress,
                )  # fmt: skip
                batches = ArrayBatches(dataset, Augmentation(), self.seed)
            else:
                batches = FolderBatches(
                    source, input_size=size, seed=self.seed, crop=crop, augmentation=Augmentation(), workers=workers,
                    cache_dir=cache_dir, on_progress=on_progress,
                )  # fmt: skip
        bar.remove_task(task)
        return batches

    def _parts(self, batches: Batches) -> list[Part]:
        if self.part == "all":
            return list(batches.counts)
        part: Part = ("test" if "test" in batches.counts else "val") if self.part == "auto" else self.part
        if part not in batches.counts:
            have = " and ".join(batches.counts)
            raise ValueError(f"the data must have the part {part!r}, but {batches.name!r} has {have} only")
        return [part]

    def _drawn(self, part: str) -> str:
        if part in ("test", "all"):
            return ""
        return f" (drawn with seed {self.seed} unless the data has parts of its own; --part all: every image)"


def _is_listed(data: str) -> bool:
    """Whether the data's classes come in an order that somebody meant: a published one, or that of classes.txt."""
    return data in NAMED or is_shards(data)


def _labelled(
    batches: Iterator[tuple[Tensor, Tensor]], outputs: NDArray[np.int64], advance: Callable[[int], None]
) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """The images, with the outputs that stand for their classes."""
    for images, labels in batches:
        yield images.numpy(), outputs[labels.numpy()]
        advance(len(labels))


def _values(
    name: str, model: Model, score: Score, labels: list[str], batches: Batches, part: str, matching: str
) -> dict[str, Any]:
    return {
        "model": name,
        "format": model.info.format,
        "size_bytes": model.info.size_bytes,
        "input_size": model.info.input_size,
        "crop": model.info.crop,
        "data": batches.name,
        "data_fingerprint": batches.fingerprint,
        "part": part,
        "classes_matched": matching or "same names",
        "images": score.images,
        "class_table": batches.table.to_dict(),
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
        classes.add_row(clean(label, NAME_CHARS), str(count), f"{100 * top1:.2f} %")
    console.print(classes)
    if errors := score.confused(_ERRORS):
        say("  most frequent errors (truth -> model)")
    for truth, first, count in errors:
        say(f"  {count:6d}  {clean(labels[truth], NAME_CHARS)} -> {clean(labels[first], NAME_CHARS)}")
