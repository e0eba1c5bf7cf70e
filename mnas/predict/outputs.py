"""Determine the meaning of a foreign model's outputs: logits, a softmax, or a separate probability for each class.

The file's last operation shows it where it is readable (`mnas.predict.last_op`); otherwise mnas runs the model on a few
images.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnas.data.image import Pixels
from mnas.predict.info import ModelInfo, Run
from mnas.predict.tensors import MOST_SUM_ERROR, ForeignRun

Kind = Literal["logits", "softmax", "sigmoid"]
_TOLERANCE = 1e-3  # tolerance for half precision, around 0 and 1


def settled(info: ModelInfo, run: Run, wanted: Kind | None, last: Kind | None) -> tuple[ModelInfo, Run]:
    """Return the model with the kind of its outputs settled; one with a single output gets two classes.

    Args:
        wanted: the kind that the user gives.
        last: the kind by the file's last operation.

    Raises:
        ValueError: a single output is not a probability, and the user gives no kind.
    """
    if last == "logits" and info.probabilities:
        last = None  # all its quantised numbers are from 0 to 1
    if info.outputs == 1 and last is not None:
        return _binary(info, run, wanted or ("sigmoid" if last == "sigmoid" else None))  # a layer may give any number
    kind = wanted or last
    rows = run(probes(info.input_size)) if kind is None else None
    if kind is None and rows is not None:
        kind = _tried(rows, info)
    if info.outputs == 1:
        return _binary(info, run, kind)
    assert kind is not None
    notes = info.notes
    if kind == "sigmoid" and wanted is None:
        why = "its last operation is a sigmoid" if last else "the outputs are from 0 to 1 and do not sum to 1"
        notes += (f"each output is shown as a separate probability, because {why} (--outputs overrides)",)
    return replace(info, probabilities=kind != "logits", independent=kind == "sigmoid", notes=notes), run


def probes(size: int) -> Pixels:
    """Return images that show the kind of a model's outputs: black, gray, white, colours, an edge, and noise."""
    rng = np.random.default_rng(0)
    flat = [np.full((size, size, 3), colour, np.uint8) for colour in (0, 128, 255, (220, 30, 30), (20, 200, 60))]
    edge = np.zeros((size, size, 3), np.uint8)
    edge[:, size // 2 :] = 255
    noise = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    return np.stack([*flat, edge, *noise])


def _tried(rows: NDArray[np.float32], info: ModelInfo) -> Kind | None:
    within = bool(((rows >= -_TOLERANCE) & (rows <= 1 + _TOLERANCE)).all())
    if info.outputs == 1:
        return "sigmoid" if within else None
    sums = rows.sum(1, dtype=np.float64)
    if within and (np.abs(sums - 1) <= MOST_SUM_ERROR).all():
        return "softmax"
    if info.probabilities:  # inferred from a quantised range, which both kinds share; each value is rounded
        most = MOST_SUM_ERROR + info.outputs / 512
        return "softmax" if (np.abs(sums - 1) <= most).all() else "sigmoid"
    return "sigmoid" if within else "logits"


def _binary(info: ModelInfo, run: Run, kind: Kind | None) -> tuple[ModelInfo, Run]:
    if kind is None:
        raise ValueError(
            "a single output must be a probability, but this one is not from 0 to 1 or not the result of a sigmoid; "
            "use --outputs logits to apply a sigmoid to it"
        )
    sigmoid = kind != "logits"

    def both(pixels: Pixels) -> NDArray[np.float32]:
        second = run(pixels)
        # a softmax over 0 and z is the sigmoid of z
        return np.concatenate([1 - second if sigmoid else np.zeros_like(second), second], 1)

    second = "class 1" if info.classes is None else repr(info.classes[1])
    notes = (*info.notes, f"its single output is used as the probability of the second class, {second}")
    return replace(info, outputs=2, probabilities=sigmoid, notes=notes), ForeignRun(both, run.close) if isinstance(
        run, ForeignRun
    ) else both
