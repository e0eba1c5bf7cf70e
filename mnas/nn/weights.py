"""A trained network in one safetensors file, whose metadata contain everything that prediction needs."""

import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from mnas import digests
from mnas.atomic import write_atomic
from mnas.metadata import ModelMetadata, metadata_from_json, metadata_json
from mnas.nn.network import Network, build_network
from mnas.nn.weights_info import KEY, REMEDY, read_weights, sealed_json, state_of_file
from mnas.readers import parse_json


def weights_bytes(network: Network, info: ModelMetadata, *, seal: bool = True) -> bytes:
    """Return the content of a file with the network's parameters and batch-norm statistics.

    Args:
        seal: whether to include a digest and the architecture's fingerprint.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    values = sealed_json(info) if seal else metadata_json(info)
    content = safetensors.torch.save(tensors, {KEY: json.dumps(values)})
    return digests.sealed(content, values[digests.KEY]) if seal else content


def save_weights(path: Path, network: Network, info: ModelMetadata) -> None:
    """Write `weights_bytes` atomically. Raises OSError."""
    write_atomic(path, weights_bytes(network, info))


def network_of_bytes(file: bytes) -> tuple[Network, ModelMetadata]:
    """Return the network of `weights_bytes`, in evaluation mode, on the CPU. Raises ValueError for other bytes."""
    try:
        header = parse_json(file[8 : 8 + int.from_bytes(file[:8], "little")])
        values = parse_json(header["__metadata__"][KEY])
        if state_of_file(file, values) == "changed":
            raise ValueError(f"changed after mnas wrote them: {REMEDY}")
        info = metadata_from_json(values)
        network = build_network(info.arch, info.num_classes)
        network.load_state_dict(safetensors.torch.load(file))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"weights must be a .safetensors file written by mnas, but got other bytes ({error})"
        ) from None
    return network.eval(), info


def load_weights(path: Path, num_classes: int | None = None, *, fingerprint: str | None = None) -> Network:
    """Return the network of a file by `save_weights`, in evaluation mode, on the CPU.

    Args:
        num_classes: expected number of classes; None: any.
        fingerprint: fingerprint of the expected architecture; None: any.

    Raises:
        ValueError: see `read_weights`; or the file has another number of classes.
    """
    content, info = read_weights(path, fingerprint)
    if num_classes is not None and num_classes != info.num_classes:
        raise ValueError(f"{str(path)!r} must have {num_classes} classes, but got {info.num_classes}")
    network = build_network(info.arch, info.num_classes)
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the tensors in {str(path)!r} must fit its architecture, but got {error}") from None
    return network.eval()
