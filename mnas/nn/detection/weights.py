"""A trained detector in one safetensors file, whose metadata contain everything that prediction needs."""

import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from mnas import digests
from mnas.atomic import write_atomic
from mnas.detector import DetectorMetadata
from mnas.nn.detection.network import DetectorNetwork, build_detector, require_metadata
from mnas.nn.detection.weights_info import read_detector, sealed_detector_json
from mnas.nn.weights_info import KEY


def detector_bytes(network: DetectorNetwork, metadata: DetectorMetadata) -> bytes:
    """Return the content of a file with the network's parameters and batch-norm statistics.

    Raises:
        ValueError: the metadata are those of another detector, or have another number of classes.
    """
    require_metadata(network, metadata)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    values = sealed_detector_json(metadata)
    return digests.sealed(safetensors.torch.save(tensors, {KEY: json.dumps(values)}), values[digests.KEY])


def save_detector(path: Path, network: DetectorNetwork, metadata: DetectorMetadata) -> None:
    """Write `detector_bytes` atomically. Raises OSError."""
    write_atomic(path, detector_bytes(network, metadata))


def load_detector(path: Path) -> tuple[DetectorNetwork, DetectorMetadata]:
    """Return the network of a file by `save_detector`, in evaluation mode, on the CPU, and its metadata.

    Raises:
        ChangedFileError, ValueError: see `read_detector`; or the tensors do not fit the detector.
    """
    content, metadata = read_detector(path)
    network = build_detector(metadata.detector, len(metadata.classes))
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the tensors in {str(path)!r} must fit its detector, but got {reason}") from None
    return network.eval(), metadata
