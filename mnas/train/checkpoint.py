"""Save and load the state of a training: a file is whole or absent, and loading it executes no code from it."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mnas.atomic import write_atomic
from mnas.digests import notice_unsealed
from mnas.readers import open_regular

FORMAT = 1
_MARK = b"\nmnas checkpoint, SHA-256 of all before this line: "
_TAIL = len(_MARK) + 64
_KEYS = {"identity", "epoch", "step", "network", "average", "optimizer", "scaler", "loss_sum", "spent", "rows"}
_LATER = {"guard", "equal_sum"}
"""Keys that checkpoints of earlier versions lack."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the last checkpoint with this state of plain values and tensors. An OSError leaves the last one."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()  # a zip file, whose readers search for its index from the end and ignore what follows
    write_atomic(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state that `save_checkpoint` wrote, on the CPU.

    Args:
        identity: identity of the training to resume, which must equal the stored one.

    Raises:
        ValueError: the file is cut off, is not a checkpoint of mnas, would execute code, or belongs to another
            training.
    """
    remedy = "remove it to start from the beginning"
    try:
        with open_regular(path) as file:
            content = file.read()
        _check_digest(content, str(path))
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "contains more than tensors and plain values" if "GLOBAL" in str(error) else "has a damaged pickle"
        raise ValueError(f"{path} is not a checkpoint of mnas: it {reason}; {remedy}") from None
    except Exception as error:  # torch's readers raise too many kinds of exceptions on damaged files to list them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the checkpoint {path} is damaged or cut off ({reason}); {remedy}") from None
    if not isinstance(state, dict) or set(state) - _LATER != {"format", *_KEYS} or state["format"] != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this version of mnas; {remedy}")
    if not isinstance(state["identity"], dict):
        raise ValueError(f"{path} is not a checkpoint of this version of mnas; {remedy}")
    if different := differences(state["identity"], identity):
        raise ValueError(
            f"{path} belongs to a training with other settings ({different}). Use the same settings, or rename its "
            "folder to start a new training."
        )
    return state


def check_progress(state: Mapping[str, Any], epochs: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
    """Check that a state's progress, with the optimizer's state loaded, fits a training of this many epochs and steps.

    Raises:
        ValueError: it does not fit; the message says why.
    """
    epoch, step, rows = state["epoch"], state["step"], state["rows"]
    if type(epoch) is not int or not 0 <= epoch <= epochs:
        raise ValueError(f"it is in epoch {epoch!r} of {epochs}")
    if type(step) is not int or not 0 <= step <= (steps if epoch < epochs else 0):
        raise ValueError(f"it is in step {step!r} of {steps} in epoch {epoch + 1} of {epochs}")
    if len(rows) != epoch:
        raise ValueError(f"it has metrics of {len(rows)} epochs after {epoch}")
    for row in rows:
        if not all(isinstance(value, int | float) for value in row.values()):
            raise ValueError("its metrics are not numbers")
    sums = (state["loss_sum"], state.get("equal_sum", state["loss_sum"]))
    if not all(each.shape == () and each.is_floating_point() for each in sums):
        raise ValueError("its sum of losses is not a number")
    if set(state["spent"]) != {"training", "waiting"} or not all(type(s) is float for s in state["spent"].values()):
        raise ValueError(f"its times are {state['spent']!r}")
    for parameter, values in optimizer.state.items():
        if any(isinstance(v, torch.Tensor) and v.ndim and v.shape != parameter.shape for v in values.values()):
            raise ValueError("its optimizer has tensors of other shapes")


def _check_digest(content: bytes, name: str) -> None:
    """Raise ValueError if the content does not match its digest; print a notice if there is no digest."""
    if content[-_TAIL:-64] != _MARK:
        notice_unsealed(name)
    elif hashlib.sha256(content[:-_TAIL]).hexdigest().encode() != content[-64:]:
        raise ValueError("its content does not match its digest")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the fields that differ, such as `epochs: 5 before, 6 now`; empty if none does."""
    names = [*there, *(name for name in here if name not in there)]
    return ", ".join(
        f"{name}: {there.get(name)} before, {here.get(name)} now" for name in names if there.get(name) != here.get(name)
    )
