"""Read the state dict in a weights file: .safetensors, or whatever torch.save wrote. Code in a file never runs."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mnas.formats import WEIGHTS_SUFFIX
from mnas.nn.checkpoint import WouldRunError, read_bytes, read_checkpoint
from mnas.nn.state_dicts import find_weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, unnested and without wrappers' prefixes, with floats as float32.

    Raises:
        ValueError: the file is damaged, contains code, or does not contain a state dict; one line that names it.
    """
    source = str(path)
    if path.suffix == WEIGHTS_SUFFIX:
        try:
            return _tensors(safetensors.torch.load_file(path), source)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"weights file {source!r} is damaged or not in safetensors format: {error}") from None
    return _tensors(_read_torch(path), source)


def _read_torch(path: Path) -> object:
    """Return the content of a checkpoint as `read_checkpoint` does. Never runs code from the file."""
    try:
        return read_checkpoint(path)
    except WouldRunError as error:
        raise _would_run(str(path), str(error)) from None
    except Exception as error:  # damaged archives and pickles raise many types
        script = "TorchScript" in str(error)
        reason = (
            "is TorchScript, which is code; save its state_dict() instead"
            if script
            else "is damaged or was not written by torch.save"
        )
        raise ValueError(f"weights file {str(path)!r} {reason}") from None


def _would_run(source: str, code: str) -> ValueError:
    name = "".join(letter for letter in code if letter.isprintable())[:100]
    return ValueError(
        f"a weights file must contain tensors only, but {source!r} calls {name}, which mnas does not run; "
        "save the model's state_dict() instead"
    )


def _tensors(saved: object, source: str) -> dict[str, Tensor]:
    try:
        weights = find_weights(saved, source)
    except WouldRunError as error:
        raise _would_run(source, str(error)) from None
    size = Path(source).stat().st_size
    if read_bytes(weights) > 4 * size:  # tied weights share bytes, but so could any number of tensors
        raise ValueError(f"weights file {source!r} is damaged: its tensors must not be larger than the file")
    try:
        tensors = {key: value if isinstance(value, Tensor) else value.tensor() for key, value in weights.items()}
    except Exception:
        raise ValueError(f"weights file {source!r} is damaged or was not written by torch.save") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
