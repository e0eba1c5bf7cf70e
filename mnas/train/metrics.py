"""What a training says of each epoch: metrics.csv, and the same curves for TensorBoard.

Both are written anew from the rows when a training starts or goes on, so that no epoch is in them twice.
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
    """An epoch, from 1 on."""

    epoch: int
    steps: int
    """Since the beginning of the training."""
    learning_rate: float
    """Of the epoch's last step."""
    train_loss: float
    """Mean over the epoch's steps, in nats, of what is minimised (smoothed, mixed labels)."""
    val_loss: float
    """Cross entropy of what would be kept at this point (the moving average where there is one)."""
    val_accuracy: float
    images_per_s: float
    """Of training, without scoring."""
    waiting: float
    """Share of the training time in which the next batch was waited for; on a GPU, which may be at work meanwhile, at
    most this."""
    train_s: float
    """Seconds of training."""
    score_s: float
    """Seconds of scoring."""


class MetricsFiles:
    """`metrics.csv` and `tensorboard/` in a training's folder."""

    def __init__(self, folder: Path, rows: Sequence[EpochMetrics]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        self._folder = folder
        for stale in (folder / BOARD_NAME).glob("events.out.tfevents.*"):
            stale.unlink()  # its epochs are among the rows
        self._writer: Any = SummaryWriter(str(folder / BOARD_NAME))
        for row in rows:
            self._curves(row)
        self._write(rows)

    def add(self, rows: Sequence[EpochMetrics]) -> None:
        """All rows so far, the last of them new. Raises OSError."""
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
    """The rows as a file for spreadsheets."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
