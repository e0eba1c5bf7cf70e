"""The state of a training on disk: whole or absent, read without running anything that the file says."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mnas.atomic import write_atomic

FORMAT = 1
_KEYS = {"identity", "epoch", "step", "network", "average", "optimizer", "scaler", "loss_sum", "spent", "rows"}


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training's state, plain values and tensors only, over the last one. Raises OSError; that one is kept."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """A state by `save_checkpoint`, on the CPU.

    Args:
        identity: of the training that is to go on; what the state must have been saved with.

    Raises:
        ValueError: cut off, not a checkpoint of ours, one that would run code, or one of another training.
    """
    way_out = "remove it to start from the beginning"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds more than tensors and plain values" if "GLOBAL" in str(error) else "its pickle is damaged"
        raise ValueError(f"a checkpoint must be one written by mnas, but got {path} ({reason}); {way_out}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"a checkpoint must be whole, but got {path} (cut off? {reason}); {way_out}") from None
    if not isinstance(state, dict) or set(state) != {"format", *_KEYS} or state["format"] != FORMAT:
        raise ValueError(f"a checkpoint must be one written by this mnas, but got {path}; {way_out}")
    if different := differences(state["identity"], identity):
        raise ValueError(f"{path} is of another training ({different}); choose another --out")
    return state


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The fields that differ, as `epochs: 5 there, 6 here`; empty for none."""
    names = [*there, *(name for name in here if name not in there)]
    return ", ".join(
        f"{name}: {there.get(name)} there, {here.get(name)} here" for name in names if there.get(name) != here.get(name)
    )
