"""Augmentation of whole batches of uint8 images: random shifts or random-resized crops, mirroring, random erasing."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ASPECT = (3 / 4, 4 / 3)  # Szegedy et al., arXiv:1409.4842, and the published MnasNet code
_TRIES = 10  # as in torchvision and timm; after that, the whole image
_ERASED_AREA, _ERASED_ASPECT = (0.02, 1 / 3), 0.3  # Zhong et al., arXiv:1708.04896, as timm's defaults


def seed_of(*numbers: int) -> int:
    """Return a 63-bit seed of these numbers, each 0 or more; (1, 2) and (1, 2, 0) give the same one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def generator_of(*seed: int) -> torch.Generator:
    """Return a CPU generator, seeded with `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*seed))


def augment(
    images: Tensor,
    chosen: Tensor,
    generator: torch.Generator,
    *,
    padding: int,
    flip: bool,
    rows: slice = slice(None),
) -> Tensor:
    """Return a batch of randomly shifted (and mirrored) images: uint8 (len(chosen), S, S, 3) on the images' device.

    Each equals a random S x S crop of the image padded by reflection, but no padded copy is made.

    Args:
        images: uint8 (N, S, S, 3).
        chosen: int64 (B,), on the CPU; indices of the batch's images.
        generator: CPU generator, so that every device sees the same draws.
        padding: largest shift in pixels, at most S - 1; 0 disables shifts.
        flip: mirror half of the images, at random.
        rows: rows of the batch to return; draws cover the whole batch, so the rows do not depend on this choice.
    """
    count, size = len(chosen), images.shape[1]
    shifts = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator)
    lines, columns = _reflect(torch.arange(size) + shifts[:, rows], size)
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)[rows]
        columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = (chosen[rows, None, None] * size + lines[:, :, None]) * size + columns[:, None, :]
    return images.view(-1, 3)[pixels.to(images.device)]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Return the indices with those outside 0..size-1 reflected at the edge pixels, which are not repeated."""
    index = index.abs()
    return (size - 1) - (size - 1 - index).abs()


def random_resized_crops(
    images: Tensor,
    chosen: Tensor,
    generator: torch.Generator,
    *,
    scale_low: float,
    flip: bool,
    rows: slice = slice(None),
) -> Tensor:
    """Return a batch of random-resized crops as in torchvision; other arguments and the result are those of `augment`.

    Resizing is bilinear, without antialiasing, as a crop is never larger than the result.

    Args:
        scale_low: smallest area of a crop, as a share of the image's.
    """
    count, size = len(chosen), images.shape[1]
    area = torch.empty(_TRIES, count).uniform_(scale_low, 1, generator=generator) * size * size
    aspect = torch.empty(_TRIES, count).uniform_(math.log(_ASPECT[0]), math.log(_ASPECT[1]), generator=generator).exp()
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()]).round().clamp_(min=1)  # (2, tries, B)
    fits = (sides <= size).all(0)
    first = fits.int().argmax(0)  # argmax returns the first of equal values
    side = torch.where(fits.any(0), sides[:, first, torch.arange(count)], float(size))
    start = torch.floor(torch.rand(2, count, generator=generator) * (size - side + 1))
    side, start = side[:, rows, None], start[:, rows, None]
    # Centres of the result's pixels in the image are clamped to the crop, as if the crop itself were resized.
    centres = start + ((torch.arange(size) + 0.5) * side / size - 0.5).clamp(min=0).minimum(side - 1)
    lines, columns = (2 * centres + 1) / size - 1  # in grid_sample's units
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)[rows]
        columns = torch.where(mirrored, columns.flip(1), columns)
    shape = (len(columns), size, size)
    grid = torch.stack([columns[:, None, :].expand(shape), lines[:, :, None].expand(shape)], -1)
    pixels = images[chosen[rows]].permute(0, 3, 1, 2).float()
    crops = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.round_().to(torch.uint8).permute(0, 2, 3, 1)


def erase(images: Tensor, probability: float, generator: torch.Generator, *, rows: slice = slice(None)) -> Tensor:
    """Replace rectangles of some images by noise, in place, and return the images, uint8 (B, S, S, 3).

    Args:
        rows: start and stop of these images in a larger batch; draws are those for all images before `stop`.
    """
    size = images.shape[1]
    first = rows.start or 0
    for index in range(first + len(images)):
        draws = torch.rand(5, generator=generator).tolist()
        noise_seed = int(torch.randint(0, 2**62, (1,), generator=generator))
        if index < first or draws[0] >= probability:
            continue
        area = (_ERASED_AREA[0] + draws[1] * (_ERASED_AREA[1] - _ERASED_AREA[0])) * size * size
        aspect = math.exp((2 * draws[2] - 1) * math.log(_ERASED_ASPECT))
        height, width = (min(size - 1, max(1, round(math.sqrt(x)))) for x in (area * aspect, area / aspect))
        row, column = int(draws[3] * (size - height + 1)), int(draws[4] * (size - width + 1))
        noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(noise_seed))
        images[index - first, row : row + height, column : column + width] = noise.to(torch.uint8)
    return images


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return uint8 images (B, S, S, 3) as normalised float32 (B, 3, S, S) in channels_last memory.

    Args:
        mean, std: (3,) of pixels in [0, 1], on the images' device.
    """
    scaled = images.permute(0, 3, 1, 2).float()  # after permute the memory is channels_last
    return scaled.mul_((1 / (255 * std)).view(3, 1, 1)).add_((-mean / std).view(3, 1, 1))
