"""Metrics of each epoch: metrics.csv, and the same curves for TensorBoard.

Both files are rewritten from the rows when a training starts or resumes, so that no epoch appears twice.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mnas.atomic import write_atomic

CSV_NAME = "metrics.csv"
BOARD_NAME = "tensorboard"


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


class MetricsFiles:
    """`metrics.csv` and `tensorboard/` in a training's folder."""

    def __init__(self, folder: Path, rows: Sequence[EpochMetrics]) -> None:
        self._folder = folder
        self._writer: Any = None
        self.restart(rows)

    def restart(self, rows: Sequence[EpochMetrics]) -> None:
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

    def add(self, rows: Sequence[EpochMetrics]) -> None:
        """Write all rows so far, of which the last is new. Raises OSError."""
        self._curves(rows[-1])
        self._write(rows)

    def close(self) -> None:
        self._writer.close()

    def _write(self, rows: Sequence[EpochMetrics]) -> None:
        self._writer.flush()
        write_atomic(self._folder / CSV_NAME, metrics_csv(rows))

    def _curves(self, row: EpochMetrics) -> None:
        for name, value in asdict(row).items():
            if name not in ("epoch", "steps"):
                self._writer.add_scalar(name, value, row.epoch)


def metrics_csv(rows: Sequence[EpochMetrics]) -> str:
    """Return the rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
