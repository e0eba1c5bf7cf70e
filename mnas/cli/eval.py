"""`mnas eval`: score a model on labelled images, from any supported file."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray
from rich import box
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from mnas.atomic import claimed, write_atomic
from mnas.cli.class_table import print_class_table
from mnas.cli.console import make_console, say, say_json
from mnas.cli.model import ModelOptions, open_model
from mnas.counts import largest_class, wilson
from mnas.data.batches import by_stat_line
from mnas.data.held_out import Offered, Selection, Wanted, select
from mnas.data.image import Pixels
from mnas.data.named import NAMED
from mnas.data.options import DataOptions
from mnas.data.positions import Positions
from mnas.data.scored import ScoredImages, open_scored
from mnas.data.shards.index import is_shards
from mnas.evaluate.baseline import not_above_baseline
from mnas.names import resolve_weights
from mnas.pages.gallery import Gallery
from mnas.pages.scored import ScoredModel, scored_page
from mnas.predict.matching import match_classes
from mnas.predict.model import Model
from mnas.predict.score import Score, confusion_picture, score_model
from mnas.text import NAME_CHARS, clean
from mnas.train.split_seed import seed_beside

_BATCH = 256
_SHOWN, _ERRORS = 10, 5


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Score any supported model on labelled images: top-1, top-5, accuracy of each class, and confused classes."""

    model: str = field(kw_only=False)
    """Model file (.safetensors, .tflite, .onnx, .pte), folder of a training, trial (runs/NAME#17), or, with --weights,
    an architecture."""
    images: DataOptions
    """Images to score the model on."""
    part: Wanted = "auto"
    """Images to score on; auto: the test part if there is one, else the validation part or held-out images. Held-out
    images are those that the training did not use. all: every image, for data that the model was not trained on."""
    seed: int | Literal["auto"] = "auto"
    """Seed with which the training chose its held-out images, for data without a validation part; auto: the seed stored
    with the model."""
    class_order: Literal["auto", "data"] = "auto"
    """Order of classes for a model that names none: numeric or published (auto), or that of the sorted folders (data).
    Class folders named 0, 1, 2 and so on have a numeric order. Named data sets, tar shards and ImageNet's folders
    (n01440764) have a published order. With auto, mnas rejects other data."""
    json: bool = False
    """Print one JSON object, with the whole confusion matrix, instead of tables."""
    save: Path | None = None
    """Also draw the confusion matrix to this new .png file."""
    report: Path | None = None
    """Also write a page to this new .html file: the confusion matrix, the most confident mistakes, and sample images of
    each class."""
    options: Annotated[ModelOptions, Parameter(name="*", group="Model file")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        """Score and print.

        Raises:
            ValueError: the model or the data cannot be opened or do not fit each other, or the part is missing.
        """
        require_new("--save", self.save, ".png")
        require_new("--report", self.report, ".html")
        if self.seed != "auto" and self.seed < 0:
            raise ValueError(f"--seed must be auto, or 0 or more, but got {self.seed}")
        with (
            claimed([] if self.save is None else [self.save], "--save"),
            claimed([] if self.report is None else [self.report], "--report"),
        ):
            self._score()

    def _score(self) -> None:
        model = open_model(self.model, self.options)
        console = make_console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            scored = self._open(model, bar)
            batches, selection = scored.batches, scored.selection
            outputs, matching = match_classes(
                model.info, batches.classes, in_order=self.class_order == "data" or _is_listed(self.images.data)
            )
            task = bar.add_task("scoring", total=sum(batches.counts[part] for part in scored.parts))
            gallery = None if self.report is None else Gallery(model.info.outputs)
            images = Positions(batches, scored.parts, _BATCH)
            labelled = _labelled(images, outputs, lambda count: bar.advance(task, count))
            score = score_model(model, labelled, gallery)
        labels = [model.info.label(i) for i in range(model.info.outputs)]
        if model.info.classes is None:
            for name, output in zip(batches.classes, outputs, strict=True):
                labels[output] = name
        where = f"{'all images' if selection.part == 'all' else f'{selection.part} part'} of {batches.name}"
        if self.save is not None:
            title = f"{Path(self.model).name} on the {where}"
            write_atomic(self.save, confusion_picture(score, labels, title), new=True)
        if self.report is not None and gallery is not None:
            described = ScoredModel(
                title=Path(self.model).name,
                part=where,
                facts=_facts(model),
                notes=[_sentence(note) for note in selection.notes],
                classes=labels,
                name_of=images.name,
            )
            write_atomic(self.report, scored_page(described, gallery), new=True)
        if self.json:
            print_class_table(console, scored.table, *scored.names)
            say_json(_values(self.model, model, score, labels, scored, matching))
            return
        saved = f"confusion matrix: {self.save}" if self.save else ""
        report = f"report: {self.report}" if self.report else ""
        for line in (where + _drawn(selection), *selection.notes, by_stat_line(batches), matching, saved, report):
            if line:
                say(line)
        print_class_table(make_console(), scored.table, *scored.names)
        _print_tables(self.model, model, score, labels)

    def _open(self, model: Model, bar: Progress) -> ScoredImages:
        """Return the images in the form that the model needs."""
        task = bar.add_task("reading images", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def choose(offered: Offered) -> Selection:
            seed = None if self.seed == "auto" else self.seed
            beside = None if self.options.weights else seed_beside(resolve_weights(self.model))
            return select(self.part, seed, offered, model.info.trained_on, ours=model.info.ours, beside=beside)

        opened = open_scored(
            self.images.data,
            choose,
            input_size=model.info.input_size,
            crop=model.info.crop,
            data_dir=self.images.data_dir,
            download=self.images.download,
            workers=os.cpu_count() or 1,
            on_progress=on_progress,
            verify_cache=self.images.verify_cache,
        )
        bar.remove_task(task)
        return opened


def require_new(option: str, file: Path | None, suffix: str) -> None:
    """Raise ValueError if a file has another suffix, exists already, or is in a folder that does not exist."""
    if file is None:
        return
    if file.suffix != suffix:
        raise ValueError(f"{option} must name a {suffix} file, but got {str(file)!r}")
    if file.exists() or not file.parent.is_dir():
        fault = "already exists" if file.exists() else "is in a folder that does not exist"
        raise ValueError(f"{option} must name a new file, but {str(file)!r} {fault}")


def _facts(model: Model) -> list[str]:
    info = model.info
    crop = f", crop {info.crop:g}" if info.crop != 1 else ""
    return [
        f"{info.input_size}×{info.input_size} px{crop}",
        f"{info.outputs:,} classes",
        f"format {info.format}",
        f"{info.size_bytes / 1e6:.2f} MB",
    ]


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _drawn(selection: Selection) -> str:
    """Return how the part was drawn, as the text after its name."""
    if selection.seed is None:
        return ""
    if selection.record is None:
        return f" (drawn with seed {selection.seed})"
    return f" (drawn with seed {selection.seed}, as in the training)"


def _is_listed(data: str) -> bool:
    """Return whether the order of the data's classes has a meaning: a published one, or that of classes.txt."""
    return data in NAMED or is_shards(data)


def _labelled(
    batches: Iterable[tuple[Tensor, Tensor]], outputs: NDArray[np.int64], advance: Callable[[int], None]
) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
    """Yield the images, with the outputs of their classes."""
    for images, labels in batches:
        yield images.numpy(), outputs[labels.numpy()]
        advance(len(labels))


def _values(
    name: str, model: Model, score: Score, labels: list[str], scored: ScoredImages, matching: str
) -> dict[str, Any]:
    selection = scored.selection
    return {
        "model": name,
        "format": model.info.format,
        "size_bytes": model.info.size_bytes,
        "input_size": model.info.input_size,
        "crop": model.info.crop,
        "data": scored.batches.name,
        "data_fingerprint": scored.batches.fingerprint,
        "data_content": scored.content,
        "data_of_training": None if selection.relation == "unknown" else selection.relation == "same",
        "part": selection.part,
        "seed": selection.seed,
        "notes": list(selection.notes),
        "classes_matched": matching or "same names",
        "images": score.images,
        "class_table": scored.table.to_dict(),
        "top1": score.top1,
        "top5": score.top5,
        "balanced_accuracy": score.balanced_accuracy,
        "majority_share": score.majority_share,
        "per_class": [{"label": label, "top1": top1} for label, top1 in zip(labels, score.per_class, strict=True)],
        "confusion": score.confusion.tolist(),
    }


def _print_tables(name: str, model: Model, score: Score, labels: list[str]) -> None:
    console = make_console()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for column in ("format", "px", "MB", "images", "top-1", "95 % CI", "top-5", "balanced", "majority"):
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
        f"{100 * score.balanced_accuracy:.2f} %",
        f"{100 * score.majority_share:.2f} %",
    )
    console.print(table)
    largest = labels[largest_class(score.counts)]
    say(f"  balanced: mean top-1 of the classes; majority: top-1 of always predicting {largest!r}")
    if warning := not_above_baseline("accuracy", score.counts, score.images, score.top1, advice=""):
        say(f"  {warning}")
    counts = score.confusion.sum(1)
    rows = zip(score.per_class, labels, counts, strict=True)
    scored = sorted([(top1, label, int(count)) for top1, label, count in rows if top1 is not None], key=lambda r: r[0])
    rest = "" if len(scored) <= _SHOWN else f" (the lowest {_SHOWN} of {len(scored)})"
    classes = Table("class" + rest, box=box.SIMPLE, padding=(0, 1, 0, 0))
    classes.add_column("images", justify="right")
    classes.add_column("top-1", justify="right")
    for top1, label, count in scored[:_SHOWN]:
        classes.add_row(clean(label, NAME_CHARS), str(count), f"{100 * top1:.2f} %")
    console.print(classes)
    if errors := score.confused(_ERRORS):
        say("  most frequent errors (true class -> prediction)")
    for truth, first, count in errors:
        say(f"  {count:6d}  {clean(labels[truth], NAME_CHARS)} -> {clean(labels[first], NAME_CHARS)}")
