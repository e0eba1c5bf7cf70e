"""Batched augmentation equals cropping a padded copy, image by image."""

import numpy as np
import pytest
import torch

from mnas.data.augment import augment, normalised


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 7])
def test_every_image_is_a_crop_of_its_reflected_self(padding: int, flip: bool) -> None:
    images = torch.randint(0, 256, (20, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([3, 3, 0, 19, 7, 3, 11, 12])
    found = augment(images, chosen, torch.Generator().manual_seed(1), padding=padding, flip=flip).numpy()
    kinds = set()
    for pixels, index in zip(found, chosen.tolist(), strict=True):
        padded = np.pad(images[index].numpy(), ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        crops = {
            (top, left, mirrored): padded[top : top + 8, left : left + 8][:, :: -1 if mirrored else 1]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for mirrored in (False, True)
        }
        matches = [kind for kind, crop in crops.items() if np.array_equal(crop, pixels)]
        assert matches  # at the widest padding, a shift back and forth is a mirror image too
        kinds.add(matches[0])
    if padding < 7:
        assert {mirrored for _, _, mirrored in kinds} == ({False, True} if flip else {False})
    assert len(kinds) > 4 or padding == 0


def test_draws_depend_on_the_generator_only() -> None:
    images = torch.randint(0, 256, (50, 8, 8, 3), dtype=torch.uint8)

    def batch(seed: int) -> torch.Tensor:
        return augment(images, torch.arange(50), torch.Generator().manual_seed(seed), padding=2, flip=True)

    assert torch.equal(batch(0), batch(0))
    assert not torch.equal(batch(0), batch(1))


def test_normalised_is_channels_last_with_mean_0_and_deviation_1() -> None:
    images = torch.randint(0, 256, (50, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.double() / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2), correction=0)
    found = normalised(images, mean.float(), std.float())
    assert found.shape == (50, 3, 8, 8)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, ((pixels - mean) / std).permute(0, 3, 1, 2).float(), atol=1e-6)
