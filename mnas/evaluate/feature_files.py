"""Cached features of frozen networks: one sealed safetensors file for each network, weights and images.

A file may be deleted at any time. A damaged one is computed again, and mnas logs a notice. If the folder cannot be
written to, features are not cached.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError

from mnas import digests
from mnas.atomic import write_atomic
from mnas.data.dataset import Dataset
from mnas.nn.network import Network
from mnas.readers import MODEL_BYTES, parse_json, read_regular

Features = npt.NDArray[np.float32]
"""(N, features), the inputs of the classifier for N images."""

_VERSION = 1
_KEY = "mnas"
_Moments = tuple[float, float, float]


def features_key(
    network: Network, dataset: Dataset, mean: _Moments, std: _Moments, *, mirrored: bool, threads: int, device: str
) -> str:
    """Return the key of the features, 64 hexadecimal digits; equal keys mean equal bits on one processor.

    Args:
        network: network whose classifier does not count.
        mean, std: moments that normalise the images.
        mirrored: whether the features of mirrored training images are included.
        device: torch's type of device.
    """
    weights = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("classifier."):
            weights.update(json.dumps([name, *tensor.shape]).encode())
            weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    described = [
        _VERSION, network.arch.fingerprint, weights.hexdigest(), dataset.fingerprint, dataset.input_size, mean, std,
        mirrored, threads, device, torch.__version__,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def cached_features(
    folder: Path, name: str, key: str, rows: Mapping[str, int], compute: Callable[[], dict[str, Features]]
) -> dict[str, Features]:
    """Return the features of each part from the file of `key` in `folder`; compute and write them if it is missing.

    Args:
        name: start of the file's name.
        rows: number of images of each part.
    """
    path = folder / f"{name}-{key[:32]}.safetensors"
    features = _read(path, key, rows)
    if features is None:
        features = compute()
        values = {"key": key}
        placeholder = digests.blank(values)
        content = safetensors.numpy.save(features, {_KEY: json.dumps(values | {digests.KEY: placeholder})})
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, digests.sealed(content, placeholder))
    return features


def _read(path: Path, key: str, rows: Mapping[str, int]) -> dict[str, Features] | None:
    """Return the features in a file; None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        content = read_regular(path, MODEL_BYTES)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = parse_json(header["__metadata__"][_KEY])
        if digests.state_of(content, values[digests.KEY]) != "intact" or values["key"] != key:
            raise ValueError("its digest does not match its content")
        features = safetensors.numpy.load(content)
        if {part: len(values) for part, values in features.items()} != dict(rows):
            raise ValueError("it has features of other images")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        logging.getLogger(__name__).warning("The features in %s are damaged (%s). Computing them again.", path, error)
        return None
    return features
