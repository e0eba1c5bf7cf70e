"""Class balance: an order of training images with all classes equally often, and weights of classes in the loss."""

import torch
from torch import Tensor


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the draws of an epoch, int64 (N,) for N images: all classes are equally often in any first part of it.

    A draw is `image + N * turn`: turns count the earlier draws of the image in this epoch, so that each draw can get an
    augmentation of its own. The images of a class take turns, so their numbers of draws differ by at most one.

    Args:
        labels: int64 (N,).
        generator: CPU generator.
    """
    count = len(labels)
    classes = torch.bincount(labels).nonzero()[:, 0]
    needed = -(-count // len(classes))
    draws = torch.empty(len(classes), needed, dtype=torch.int64)
    for row, label in enumerate(classes.tolist()):
        images = (labels == label).nonzero()[:, 0]
        turns = -(-needed // len(images))
        orders = [images[torch.randperm(len(images), generator=generator)] + count * turn for turn in range(turns)]
        draws[row] = torch.cat(orders)[:needed]
    rows = torch.rand(needed, len(classes), generator=generator).argsort(1)  # each class once in every few draws
    return draws[rows, torch.arange(needed)[:, None]].flatten()[:count]


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return weights (classes,), float32, with which all classes count equally and images 1 on average.

    A class without images has weight 0.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)
