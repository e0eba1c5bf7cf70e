"""Open a trained detector from its file, as a function from images to detections."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnas.data.detection.pixels import read_stretched
from mnas.data.image import UnreadableImage
from mnas.data.web import is_url
from mnas.detection.detections import ImageDetections
from mnas.detection.exported import Shares, load_exported
from mnas.detection.score import in_pixels
from mnas.detector import DetectorMetadata
from mnas.foreign.limits import most_threads_here
from mnas.formats import WEIGHTS_SUFFIX


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenDetector:
    """A detector that is ready to detect."""

    path: Path
    metadata: DetectorMetadata
    detect: Callable[[npt.NDArray[np.uint8]], Sequence[Shares]]
    """Images (B, S, S, 3) at the detector's size -> detections of each, the most certain first."""

    def detect_files(self, paths: str | Path | Iterable[str | Path]) -> Iterator[ImageDetections]:
        """Yield the objects in each image file, in pixels of the upright image. Raises UnreadableImage, a ValueError.

        Images are read one at a time.

        Args:
            paths: an image file, or several.
        """
        for path in [paths] if isinstance(paths, str | Path) else paths:
            if is_url(str(path)):
                raise UnreadableImage(f"images must be files, but got the URL {str(path)!r}; download it first")
            pixels, (width, height) = read_stretched(Path(path), self.metadata.detector.input_size)
            [shares] = self.detect(pixels[None])
            yield in_pixels(shares, width, height)


def open_detector(path: Path, *, score_threshold: float, allow_changed: bool = False) -> OpenDetector:
    """Return the detector in a file of `mnas detect train` or `mnas detect export`.

    Args:
        score_threshold: lowest score of a detection.
        allow_changed: whether to open an exported file that was changed after mnas wrote it.

    Raises:
        ImportError: the file's runtime is not installed.
        ValueError, OSError: the file is missing or damaged, or is no detector.
    """
    if path.suffix != WEIGHTS_SUFFIX:
        exported = load_exported(path, threads=most_threads_here(), allow_changed=allow_changed)
        detect = partial(exported.detect, score_threshold=score_threshold)
        return OpenDetector(path=path, metadata=exported.metadata, detect=detect)
    from mnas.detection.network import NetworkDetector  # torch takes seconds to import
    from mnas.nn.detection.weights import load_detector

    network, metadata = load_detector(path)
    return OpenDetector(
        path=path, metadata=metadata, detect=NetworkDetector(network, metadata, score_threshold=score_threshold)
    )
