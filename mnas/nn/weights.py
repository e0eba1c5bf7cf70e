"""A trained network in one file: safetensors, with all that prediction needs in its metadata."""

import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from mnas.atomic import write_atomic
from mnas.nn.network import Network, build_network
from mnas.nn.weights_info import KEY, WeightsInfo, read_weights_info, weights_info, weights_json
from mnas.readers import parse_json


def weights_bytes(network: Network, info: WeightsInfo) -> bytes:
    """The network's parameters and batch-norm statistics, as a file's content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(tensors, {KEY: json.dumps(weights_json(info))})


def save_weights(path: Path, network: Network, info: WeightsInfo) -> None:
    """Write `weights_bytes`, whole or not at all. Raises OSError."""
    write_atomic(path, weights_bytes(network, info))


def network_of_bytes(file: bytes) -> tuple[Network, WeightsInfo]:
    """The network of `weights_bytes`, in evaluation mode, on the CPU. Raises ValueError for other bytes."""
    try:
        header = parse_json(file[8 : 8 + int.from_bytes(file[:8], "little")])
        info = weights_info(parse_json(header["__metadata__"][KEY]))
        network = build_network(info.arch, len(info.classes))
        network.load_state_dict(safetensors.torch.load(file))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got other bytes ({error})"
        ) from None
    return network.eval(), info


def load_weights(path: Path, num_classes: int | None = None) -> Network:
    """The network of a file by `save_weights`, in evaluation mode, on the CPU.

    Args:
        num_classes: what the caller expects; None for what the file has.

    Raises:
        ValueError: as `read_weights_info`, or another number of classes.
    """
    info = read_weights_info(path)
    if num_classes is not None and num_classes != len(info.classes):
        raise ValueError(f"{str(path)!r} must have {num_classes} classes, but got {len(info.classes)}")
    network = build_network(info.arch, len(info.classes))
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the tensors in {str(path)!r} must fit its architecture, but got {error}") from None
    return network.eval()
