"""The result of a finished training, from the metrics of its epochs and its last scores."""

from collections.abc import Sequence
from pathlib import Path

from mnas.train.folder import Trained
from mnas.train.metrics import EpochMetrics
from mnas.train.scoring import Scored


def trained_of(
    weights: Path,
    rows: Sequence[EpochMetrics],
    images: int,
    *,
    accuracy: float,
    scored: Scored,
    tested: Scored | None,
    best_epoch: int | None,
    restarts: int,
) -> Trained:
    """Return the result of a training.

    Args:
        weights: file of the trained model.
        rows: metrics of all epochs.
        images: number of images that the training saw, over all epochs.
        accuracy: validation accuracy of the model.
        scored: score on the validation images.
        tested: score on the test images; None without any.
        best_epoch: number of epochs of the model that was kept; None: all.
        restarts: number of times that the training went back to an earlier epoch.
    """
    train_s = sum(row.train_s for row in rows)
    return Trained(
        weights=weights,
        accuracy=accuracy,
        test_accuracy=tested.accuracy if tested else None,
        balanced_accuracy=scored.balanced_accuracy,
        test_balanced_accuracy=tested.balanced_accuracy if tested else None,
        majority_share=scored.majority_share,
        epochs=len(rows),
        seconds=train_s + sum(row.score_s for row in rows),
        images_per_s=images / train_s,
        waiting=sum(row.waiting * row.train_s for row in rows) / train_s,
        best_epoch=best_epoch,
        restarts=restarts,
    )
