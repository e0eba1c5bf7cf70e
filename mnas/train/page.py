"""The page of a finished training, `report.html`: confusions, mistakes and samples of its test or validation images."""

from pathlib import Path

from mnas.atomic import write_atomic
from mnas.data.batches import Batches, Part
from mnas.data.positions import Positions
from mnas.pages.gallery import Gallery
from mnas.pages.scored import ScoredModel, scored_page
from mnas.text import counted
from mnas.train.distillation import TaughtBatches
from mnas.train.folder import PAGE_NAME


class ScoredPart:
    """The part whose images the page of a training shows: the test images, or without them the validation images."""

    def __init__(self, batches: Batches, batch_size: int) -> None:
        self.part: Part = "test" if batches.counts.get("test") else "val"
        self.gallery = Gallery(len(batches.classes))
        self.images = Positions(batches, [self.part], batch_size)
        self._batches = batches

    def write(self, folder: Path, title: str, epochs: int) -> None:
        """Write the page after the images were scored. Raises OSError."""
        batches = self._batches
        crop = f", crop {batches.crop:g}" if batches.crop != 1 else ""
        described = ScoredModel(
            title=title,
            part=f"{'test' if self.part == 'test' else 'validation'} part of {batches.name}",
            facts=[
                f"{batches.input_size}×{batches.input_size} px{crop}",
                f"{len(batches.classes):,} classes",
                f"trained on {batches.counts['train']:,} images, {counted(epochs, 'epoch')}",
                "with a teacher" if isinstance(batches, TaughtBatches) else "",
            ],
            classes=batches.classes,
            name_of=self.images.name,
        )
        write_atomic(folder / PAGE_NAME, scored_page(described, self.gallery))
