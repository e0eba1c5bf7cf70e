"""Augmentation of whole batches of uint8 images: reflected random crops and mirroring, in one gather."""

import torch
from torch import Tensor


def augment(images: Tensor, chosen: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """A batch of randomly shifted (and mirrored) images: uint8 (len(chosen), S, S, 3) on the images' device.

    Each is as a random S x S crop of the image padded by reflection, without the padded copy ever being made.

    Args:
        images: uint8 (N, S, S, 3).
        chosen: int64 (B,), on the CPU; which images.
        generator: of the CPU, so that every device sees the same draws.
        padding: largest shift in pixels, at most S - 1; 0 for none.
        flip: mirror half of the images, at random.
    """
    count, size = len(chosen), images.shape[1]
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator)
    rows, columns = _reflect(torch.arange(size) + shifts, size)
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
        columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = (chosen[:, None, None] * size + rows[:, :, None]) * size + columns[:, None, :]
    return images.view(-1, 3)[pixels.to(images.device)]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Indices outside 0..size-1 folded back at the edge pixels, which are not repeated."""
    index = index.abs()
    return (size - 1) - (size - 1 - index).abs()


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) as float32 (B, 3, S, S) in channels_last memory, mean 0 and deviation 1 over the data.

    Args:
        mean, std: (3,) of pixels as 0..1, on the images' device.
    """
    scaled = images.permute(0, 3, 1, 2).float()  # permuted, the memory is channels_last already
    return scaled.mul_((1 / (255 * std)).view(3, 1, 1)).add_((-mean / std).view(3, 1, 1))
