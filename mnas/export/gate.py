"""The gate for exports: run each file by its own runtime and compare its outputs with torch's.

Differences are relative to the largest output of the network over all images, so that one limit suits every network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnas.counts import class_counts, majority_share
from mnas.export.images import RealImages
from mnas.export.record import GateRecord
from mnas.export.target import Tolerance
from mnas.metadata import ModelMetadata

if TYPE_CHECKING:
    from mnas.nn.network import Network

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The outputs of a file compared with those of its network."""

    images: int
    source: str
    """Source of the images, in words."""
    max_difference: float
    mean_difference: float
    agreement: float
    """Share of the images for which file and network predict the same class."""
    accuracy: float | None
    """Accuracy of the file; None where the images have no labels of the network's classes."""
    torch_accuracy: float | None
    """Accuracy of the network on the same images."""
    majority_share: float | None = None
    """Accuracy of always predicting the most frequent class of these images."""


@dataclass(frozen=True, kw_only=True)
class GateResult(GateRecord):
    """The gate's result for one file of a classifier."""

    comparison: Comparison | None
    """Comparison with the network; None where the runtime did not run the file."""
    tolerance: Tolerance


def torch_outputs(
    network: "Network", info: ModelMetadata, pixels: NDArray[np.uint8], *, softmax: bool = False
) -> NDArray[np.float32]:
    """Return the network's outputs (N, classes) for images (N, S, S, 3)."""
    import torch

    network.eval()
    outputs = []
    with torch.no_grad():
        for start in range(0, len(pixels), _BATCH):
            x = torch.from_numpy(normalised(info, pixels[start : start + _BATCH])).permute(0, 3, 1, 2)
            y = network(x)
            outputs.append((y.softmax(1) if softmax else y).numpy())
    return np.concatenate(outputs)


def normalised(info: ModelMetadata, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pixels (N, S, S, 3) as the network's input, NHWC."""
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def compare(expected: NDArray[np.float32], got: NDArray[np.float32], images: RealImages) -> Comparison:
    """Compare the outputs (N, classes) of the network and of a file for the same images."""
    if got.shape != expected.shape:
        raise ValueError(f"an exported file must give outputs of shape {expected.shape}, but got {got.shape}")
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    difference = np.abs(got.astype(np.float64) - expected)  # NaN stays NaN, and fails
    first, file_first = expected.argmax(1), got.argmax(1)
    labels = images.labels
    return Comparison(
        images=len(images),
        source=images.source,
        max_difference=float(difference.max()) / largest,
        mean_difference=float(difference.mean()) / largest,
        agreement=float(np.mean(first == file_first)),
        accuracy=None if labels is None else float(np.mean(file_first == labels)),
        torch_accuracy=None if labels is None else float(np.mean(first == labels)),
        majority_share=None if labels is None else majority_share(class_counts(labels, expected.shape[1])),
    )


FEWEST_IMAGES = 20
"""Smallest number of images that gives a useful comparison: with fewer, a single image may always differ."""


def judge(comparison: Comparison, tolerance: Tolerance) -> tuple[str, ...]:
    """Return the violations of the tolerance, in words; empty if the file passes."""
    failures = []
    if not comparison.max_difference <= tolerance.max_difference:  # so that NaN fails
        failures.append(
            f"the outputs differ by {comparison.max_difference:.2g} of the largest output, "
            f"but at most {tolerance.max_difference:g} is allowed"
        )
    if comparison.images < FEWEST_IMAGES:
        failures.append(f"a comparison needs at least {FEWEST_IMAGES} images, but got {comparison.images}")
    slack = 1 / comparison.images
    if 1 - comparison.agreement > max(slack, 1 - tolerance.min_agreement) + 1e-9:
        failures.append(
            f"file and network predict the same class for {comparison.agreement:.2%} of the images, "
            f"but at least {tolerance.min_agreement:.2%} are required"
        )
    if comparison.accuracy is not None and comparison.torch_accuracy is not None:
        loss = comparison.torch_accuracy - comparison.accuracy
        if loss > max(slack, tolerance.max_accuracy_loss) + 1e-9:
            failures.append(
                f"the accuracy falls by {100 * loss:.2f} points, "
                f"but at most {100 * tolerance.max_accuracy_loss:g} are allowed"
            )
    return tuple(failures)
