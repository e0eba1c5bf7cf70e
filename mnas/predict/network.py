"""Run networks in torch: a .safetensors file of mnas, or an architecture with weights from another source."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnas.architecture import Architecture
from mnas.data.augment import normalised
from mnas.data.image import Pixels
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network
from mnas.nn.weights import load_weights
from mnas.nn.weights_info import is_weights_file, read_weights_info
from mnas.predict.info import ModelInfo, Run, Wanted, class_names

_BATCH_PIXELS = 16 * 224 * 224  # A1 at 224 px takes 21 ms per image, but 43 ms in batches of 64, which need new memory


def open_network(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """Return the model in a .safetensors file of mnas.

    Raises:
        ValueError: the file is of another kind or damaged, or contradicts `wanted`.
    """
    info = read_weights_info(path)
    if wanted.classes is not None:
        info = replace(info, classes=class_names(wanted, None, info.num_classes, str(path)) or ())
    model, run = network_model(load_weights(path), info, wanted, path.stat().st_size)
    return replace(model, ours=True), run


def open_pretrained(source: str, arch: Architecture, name: str, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """Return `arch` with weights from `source`: `timm`, `torchvision`, `pretrained`, or a file of any origin.

    Raises:
        ImportError, ValueError: see `mnas.nn.pretrained.load_pretrained`.
    """
    from mnas.nn.pretrained import load_pretrained, pretrained_info, unrecorded_images

    network = load_pretrained(source, arch, None, name=name)
    classes = class_names(wanted, None, network.classifier.out_features, source)
    info = pretrained_info(source, network, name=name, classes=classes)
    path = Path(source)
    note = unrecorded_images(source, name) if wanted.mean is None else ""
    notes = (f"{note} (--mean, --std and --crop override)",) if note else ()
    size = path.stat().st_size if path.is_file() else sum(4 * p.numel() for p in network.parameters())
    model, run = network_model(network, info, wanted, size)
    return replace(model, notes=notes, ours=path.is_file() and is_weights_file(path)), run


def network_model(network: Network, info: ModelMetadata, wanted: Wanted, size_bytes: int) -> tuple[ModelInfo, Run]:
    """Return a network in evaluation mode as a model. Raises ValueError where images are too small for its strides."""
    size = wanted.input_size or info.input_size
    network.arch.check_input_size(size)
    mean, std = (wanted.mean, wanted.std) if wanted.mean and wanted.std else info.normalisation
    model = ModelInfo(
        format="mnas",
        classes=info.classes or None,
        outputs=info.num_classes,
        input_size=size,
        mean=mean,
        std=std,
        crop=wanted.crop or info.crop,
        arch=network.arch,
        probabilities=False,
        size_bytes=size_bytes,
        trained_on=info.trained_on,
    )
    return model, _runner(network, model, wanted.threads)


def _runner(network: Network, model: ModelInfo, threads: int) -> Callable[[Pixels], NDArray[np.float32]]:
    network = network.eval().to(memory_format=torch.channels_last)
    mean, std = torch.tensor(model.mean), torch.tensor(model.std)
    batch = max(1, min(256, _BATCH_PIXELS // model.input_size**2))

    def run(pixels: Pixels) -> NDArray[np.float32]:
        rows = np.empty((len(pixels), model.outputs), np.float32)
        with _threads(threads), torch.inference_mode():
            for start in range(0, len(pixels), batch):
                chunk = torch.from_numpy(pixels[start : start + batch].copy())  # torch requires writable memory
                rows[start : start + len(chunk)] = network(normalised(chunk, mean, std)).numpy()
        return rows

    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set torch's number of threads while the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
