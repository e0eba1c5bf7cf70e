"""`mnas detect check`: what a detection data set contains, and which of its boxes a detector can learn."""

from dataclasses import dataclass

from mnas.cli.console import make_console, say_json
from mnas.detection.check import check_folder, check_lines
from mnas.detection.fitted import BoxRule
from mnas.detector import INPUT_SIZE, require_detector_size
from mnas.require import require_int


@dataclass(frozen=True, kw_only=True)
class DetectCheckCommand:
    """Check a detection data set: its boxes, their sizes, faulty annotations, and the share that default boxes match.

    Every training of a detector begins with the same check.
    """

    data: str
    """Folder of images with boxes in COCO's, Pascal VOC's or YOLO's layout."""
    boxes: BoxRule = "fitted"
    """Default boxes: fitted (sizes and maps chosen to match at least 95 % of every class's training boxes) or paper
    (those of SSDLite)."""
    input_size: int = INPUT_SIZE
    """Input size in pixels, a multiple of 32. Images are resized to a square."""
    seed: int = 0
    """Seed of the choice of validation images, if the data has none of its own."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        require_int("--seed", self.seed, 0, 2**63 - 1)
        require_detector_size(self.input_size)

    def run(self) -> None:
        """Read the data and print the check. Raises ValueError if it cannot be read or has no training boxes."""
        console = make_console(stderr=self.json)
        with console.status("reading images", spinner="line") as status:
            checked = check_folder(
                self.data,
                boxes=self.boxes,
                input_size=self.input_size,
                seed=self.seed,
                on_progress=lambda done, count: status.update(f"reading images: {done} of {count}"),
            )
        if self.json:
            say_json({**checked.to_dict(), "boxes": self.boxes})
            return
        for line in check_lines(checked):
            console.print(line)
