"""Metrics of each epoch: metrics.csv, and the same curves for TensorBoard.

Both files are rewritten from the rows when a training starts or resumes, so that no epoch appears twice.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from mnas.atomic import write_atomic

CSV_NAME = "metrics.csv"
BOARD_NAME = "tensorboard"


class EpochRow(Protocol):
    """The metrics of one epoch of any training; a dataclass of numbers."""

    @property
    def epoch(self) -> int:
        """Epoch, from 1."""

    @property
    def train_loss(self) -> float:
        """Mean of the minimised loss over the epoch's steps."""

    @property
    def images_per_s(self) -> float: ...

    @property
    def waiting(self) -> float: ...

    @property
    def train_s(self) -> float: ...

    @property
    def score_s(self) -> float: ...

    @property
    def scores(self) -> str:
        """Scores on the validation images, in words."""


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The metrics of one epoch, numbered from 1."""

    epoch: int
    steps: int
    """Number of steps since the start of the training."""
    learning_rate: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    """Mean of the minimised loss (smoothed, mixed labels) over the epoch's steps, in nats."""
    val_loss: float
    """Cross entropy of the network that would be kept at this point (the moving average where there is one), in
    nats."""
    val_accuracy: float
    images_per_s: float
    """Training speed in images per second, without scoring."""
    waiting: float
    """Share of the training time spent waiting for the next batch; an upper bound on a GPU, which may work
    meanwhile."""
    train_s: float
    """Time of training, in seconds."""
    score_s: float
    """Time of scoring, in seconds."""
    restarts: int = 0
    """Number of times that the training had gone back to its best epoch, each with a quarter of the learning rate."""

    @property
    def scores(self) -> str:
        """Scores on the validation images, in words."""
        return f"val accuracy {self.val_accuracy:.2%}  val loss {self.val_loss:.4f}"


class MetricsFiles:
    """`metrics.csv` and `tensorboard/` in a training's folder."""

    def __init__(self, folder: Path, kind: type[EpochRow], rows: Sequence[EpochRow]) -> None:
        self._folder, self._kind = folder, kind
        self._writer: Any = None
        self.restart(rows)

    def restart(self, rows: Sequence[EpochRow]) -> None:
        """Replace both files by these rows. Raises OSError."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        if self._writer is not None:
            self.close()
        for stale in (self._folder / BOARD_NAME).glob("events.out.tfevents.*"):
            stale.unlink()  # the rows contain all its epochs
        self._writer = SummaryWriter(str(self._folder / BOARD_NAME))
        for row in rows:
            self._curves(row)
        self._write(rows)

    def add(self, rows: Sequence[EpochRow]) -> None:
        """Write all rows so far, of which the last is new. Raises OSError."""
        self._curves(rows[-1])
        self._write(rows)

    def close(self) -> None:
        self._writer.close()

    def _write(self, rows: Sequence[EpochRow]) -> None:
        self._writer.flush()
        write_atomic(self._folder / CSV_NAME, metrics_csv(self._kind, rows))

    def _curves(self, row: EpochRow) -> None:
        for name, value in asdict(row).items():  # type: ignore[call-overload]
            if name not in ("epoch", "steps"):
                self._writer.add_scalar(name, value, row.epoch)


def metrics_csv(kind: type[EpochRow], rows: Sequence[EpochRow]) -> str:
    """Return the rows, of dataclass `kind`, as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)  # type: ignore[call-overload]
    return text.getvalue()
