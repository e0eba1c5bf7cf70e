"""`mnas detect eval`: COCO's metrics of a detector."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table

from mnas.atomic import write_atomic
from mnas.cli.console import Steps, make_console, say, say_json
from mnas.cli.eval import require_new
from mnas.data.batches import unreadable_line
from mnas.data.detection.faults import fault_line
from mnas.data.held_out import Wanted
from mnas.detection.evaluation import Evaluated, evaluate_detector
from mnas.detection.files import open_detector
from mnas.detection.misses import misses_picture, worst_misses
from mnas.detection.score import SCORE_THRESHOLD
from mnas.names import resolve_weights
from mnas.predict.images import read_picture
from mnas.require import require_int
from mnas.text import NAME_CHARS, clean, counted

_SIDE = 960
"""Longest side of an image in the picture of misses before it is fitted, in pixels."""


@dataclass(frozen=True, kw_only=True)
class DetectEvalCommand:
    """Score a detector on images with boxes, by COCO's metrics: mAP, AP50, AP75, by size and for each class."""

    model: str = field(kw_only=False)
    """Folder of a training, or model file (.safetensors, .tflite, .onnx)."""
    data: str
    """Folder of images with boxes in COCO's, Pascal VOC's or YOLO's layout."""
    part: Wanted = "auto"
    """Part to score: train, val, test or all; auto: test, else the data's own val, else the images that the training
    held out."""
    seed: int | Literal["auto"] = "auto"
    """Seed of the split of data without validation images; auto: that of the training."""
    json: bool = False
    """Print the scores as JSON."""
    save: Path | None = None
    """New .jpg file for a picture of the worst misses: missed objects and wrong detections."""

    def __post_init__(self) -> None:
        if self.seed != "auto":
            require_int("--seed", self.seed, 0, 2**63 - 1)

    def run(self) -> None:
        """Score, and print tables or JSON. Raises ValueError for errors that the user can correct."""
        require_new("--save", self.save, ".jpg")
        detector = open_detector(resolve_weights(self.model, by="mnas detect train"), score_threshold=SCORE_THRESHOLD)
        with Steps(make_console(quiet=self.json)) as steps:
            steps.step("scoring")
            evaluated = evaluate_detector(
                detector,
                self.data,
                part=self.part,
                seed=None if self.seed == "auto" else self.seed,
                on_progress=lambda done, count: steps.step(f"reading images: {done} of {count}"),
            )
        saved = self.save is not None and _write_misses(self.save, evaluated)
        if self.json:
            say_json({
                "model": self.model, "data": evaluated.data.name, "part": evaluated.selection.part,
                "notes": list(evaluated.selection.notes), **asdict(evaluated.scores),
            })  # fmt: skip
            return
        unread = unreadable_line(evaluated.data.unreadable) if evaluated.data.unreadable else ""
        for line in (
            f"{evaluated.selection.part} part of {evaluated.data.name}: "
            f"{counted(evaluated.scores.images, 'image')}, {counted(evaluated.scores.objects, 'object')}",
            *evaluated.selection.notes,
            fault_line(evaluated.data.faults),
            unread,
        ):
            if line:
                say(line)
        _print_tables(self.model, evaluated)
        if self.save is not None:
            say(f"worst misses: {self.save}" if saved else "no object was missed, so --save wrote nothing")


def _print_tables(name: str, evaluated: Evaluated) -> None:
    scores = evaluated.scores
    table = Table("model", box=box.SIMPLE)
    for column in ("mAP", "AP50", "AP75", "small", "medium", "large", "recall"):
        table.add_column(column, justify="right", no_wrap=True)
    values = (scores.mean_precision, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large, scores.recall)
    table.add_row(name, *map(_percent, values))
    classes = Table("class", box=box.SIMPLE)
    for column in ("objects", "mAP", "AP50"):
        classes.add_column(column, justify="right")
    for label, (title, of_class) in enumerate(scores.classes.items()):
        objects = sum(int(((image.labels == label) & ~image.crowd).sum()) for image in evaluated.images)
        cells = ("", "") if of_class is None else (_percent(of_class.mean_precision), _percent(of_class.ap50))
        classes.add_row(clean(title, NAME_CHARS), f"{objects:,}", *cells)
    console = make_console()
    console.print(table)
    console.print(classes)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _write_misses(path: Path, evaluated: Evaluated) -> bool:
    """Write the picture of the worst misses; return whether there were any."""
    worst = worst_misses(evaluated.images, evaluated.results)
    if not worst:
        return False
    pictures = [read_picture(str(misses.image.path), _SIDE) for misses in worst]
    file = io.BytesIO()
    misses_picture(worst, pictures, evaluated.data.classes).save(file, "JPEG", quality=90)
    write_atomic(path, file.getvalue(), new=True)
    return True
