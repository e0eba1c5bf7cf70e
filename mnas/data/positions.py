"""Remember which image is at which position while a model is scored, as unreadable images are skipped."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from mnas.data.batches import Batches, Part


class Positions:
    """The images and labels of some parts, one after another, as `Batches.scoring` yields them.

    Args:
        parts: parts of `batches`.
        batch_size: largest number of images of a batch.
    """

    def __init__(self, batches: Batches, parts: Sequence[Part], batch_size: int) -> None:
        self._batches, self._parts, self._size = batches, parts, batch_size
        self._runs: list[tuple[Part, Tensor]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._runs = []
        for part in self._parts:
            for images, labels, indices in self._batches.numbered(part, self._size):
                self._runs.append((part, indices))
                yield images, labels

    def name(self, position: int) -> str:
        """Return the name of an image by its position among all images so far. Raises IndexError."""
        for part, indices in self._runs:
            if position < len(indices):
                return self._batches.image_name(part, int(indices[position]))
            position -= len(indices)
        raise IndexError(position)
