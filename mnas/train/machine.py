"""Settings of proxy tasks and full trainings that depend on the machine and on the number of images."""

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch  # takes seconds to import, and settings are read before it is needed

Accelerator = Literal["auto", "cpu", "cuda"]
_SMALLEST_BATCH = 16


def halved_batch(batch_size: int, images: int, epochs: int, fewest_steps: int) -> int:
    """Return `batch_size`, halved (to 16 at least) until the steps suffice; at most the number of images."""
    while batch_size >= 2 * _SMALLEST_BATCH and epochs * (images // batch_size) < fewest_steps:
        batch_size //= 2
    return min(batch_size, images)


def device_of(accelerator: Accelerator) -> "torch.device":
    """Return the device. Raises ValueError if CUDA is requested but missing."""
    import torch

    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ValueError("--accelerator cuda needs a GPU, but torch finds no usable one; use cpu or auto")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")


def is_first_process() -> bool:
    """Return whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"
