"""`mnas detect predict`: find objects in images and videos."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from mnas.atomic import require_writable, write_atomic
from mnas.cli.console import complain, say, say_json
from mnas.cli.pictures import free_path, unread_line, write_picture
from mnas.data.detection.pixels import read_stretched, stretched
from mnas.detection.detections import ImageDetections, coco_results
from mnas.detection.draw import drawn
from mnas.detection.files import OpenDetector, open_detector
from mnas.detection.score import in_pixels
from mnas.names import resolve_weights
from mnas.predict.annotate import SIDE
from mnas.predict.images import fetch, find_images, read_picture
from mnas.predict.video import VideoFile, is_video, opened_video
from mnas.require import require_int, require_number
from mnas.text import NAME_CHARS, clean

_BATCH = 16
"""Number of images decoded side by side and held in memory."""


@dataclass(frozen=True, kw_only=True)
class DetectPredictCommand:
    """Find objects in images and videos with a detector of mnas detect train."""

    model: str = field(kw_only=False)
    """Folder of a training, or model file (.safetensors, .tflite, .onnx)."""
    images: tuple[str, ...] = field(kw_only=False)
    """Image files, videos (.mp4, .mov, .mkv, .webm, .avi), folders (searched recursively for images), patterns
    ('photos/*.jpg') or URLs of images."""
    score: float = 0.3
    """Lowest score of a detection, from 0 to 1."""
    every: int = 1
    """Read every N-th frame of a video only."""
    json: bool = False
    """Print one JSON object per line: the image (or video and frame) and its detections or error."""
    save: Path | None = None
    """Also write a copy of each image (.jpg) and video (.mp4), with the detections drawn in, to this folder."""
    coco: Path | None = None
    """Also write all detections in images to this .json file: COCO's images, categories and annotations with scores."""

    def __post_init__(self) -> None:
        require_number("--score", self.score, 0, 1)
        require_int("--every", self.every, 1)
        if self.coco is not None and self.coco.suffix != ".json":
            raise ValueError(f"--coco must name a .json file, but got {str(self.coco)!r}")
        if self.coco is not None and (self.coco.is_dir() or not self.coco.parent.is_dir()):
            fault = "is a folder" if self.coco.is_dir() else "is in a folder that does not exist"
            raise ValueError(f"--coco must name a .json file to write, but {str(self.coco)!r} {fault}")

    def run(self) -> None:
        """Detect and print, image by image.

        Raises:
            ValueError: the model cannot be opened; or, after all others are done, images could not be read.
        """
        if not self.images:
            raise ValueError("IMAGES must be at least one file, folder, pattern or URL, but got none")
        if self.coco is not None:
            require_writable(self.coco.parent, "--coco")
        detector = open_detector(
            resolve_weights(self.model, by="mnas detect train"), score_threshold=max(self.score, 1e-6)
        )
        if self.save is not None:
            require_writable(self.save, "--save")
            self.save.mkdir(parents=True, exist_ok=True)
        problems: list[tuple[str, str]] = []
        names = list(find_images(self.images, lambda argument, reason: problems.append((argument, reason))))
        inputs = [*names, *(argument for argument, _ in problems)]
        entries = _CocoEntries(detector)
        for name, result, picture in self._images(detector, [name for name in names if not is_video(name)]):
            if isinstance(result, str):
                problems.append((name, result))
                continue
            self._print({"image": name}, name, result, detector)
            entries.add(name, result)
            if self.save is not None and picture is not None:
                scale = picture.width / result.width
                write_picture(self.save, name, drawn(picture, result, detector.metadata.classes, scale=scale))
        for name in filter(is_video, names):
            try:
                self._video(detector, name)
            except ValueError as error:
                problems.append((name, str(error)))
        if self.coco is not None:
            write_atomic(self.coco, json.dumps(entries.values()) + "\n")
        for name, reason in problems:
            if self.json:
                say_json({"image": name, "error": reason})
            complain(f"{name!r}: {reason}")
        if problems:
            raise ValueError(unread_line(len(problems), inputs))

    def _images(
        self, detector: OpenDetector, names: list[str]
    ) -> Iterator[tuple[str, ImageDetections | str, Image | None]]:
        """Yield for every image in order its name, its detections or an error, and the picture to draw on."""
        size = detector.metadata.detector.input_size

        def read(name: str) -> Any:
            try:
                source = fetch(name)  # a URL is fetched once, for both
                pixels, sides = read_stretched(Path(source) if isinstance(source, str) else source, size)
                return pixels, sides, None if self.save is None else read_picture(source, SIDE)
            except ValueError as error:
                return str(error)

        rest = iter(names)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(itertools.islice(rest, _BATCH)):
                images = list(pool.map(read, batch))
                pixels = [one[0] for one in images if not isinstance(one, str)]
                answers = iter(detector.detect(np.stack(pixels)) if pixels else ())
                for name, one in zip(batch, images, strict=True):
                    if isinstance(one, str):
                        yield name, one, None
                    else:
                        yield name, in_pixels(next(answers), *one[1]), one[2]

    def _video(self, detector: OpenDetector, name: str) -> None:
        """Detect in every frame. Raises ValueError for a file that is no video."""
        size = detector.metadata.detector.input_size
        path = None if self.save is None else free_path(self.save, name, ".mp4")
        with opened_video(Path(name), every=self.every) as video, ExitStack() as stack:
            file = None if path is None else stack.enter_context(contextlib.closing(VideoFile(path, video.rate)))
            for frame in video:
                [shares] = detector.detect(stretched(frame.picture, size)[None])
                result = in_pixels(shares, *frame.picture.size)
                place = {"video": name, "frame": frame.number, "time_s": round(frame.time_s, 3)}
                self._print(place, f"{name} at {frame.time_s:.2f} s", result, detector)
                if file is not None:
                    file.add(drawn(frame.picture, result, detector.metadata.classes))

    def _print(self, place: dict[str, Any], title: str, result: ImageDetections, detector: OpenDetector) -> None:
        classes = detector.metadata.classes
        rows = zip(result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True)
        if self.json:
            detections = [
                {"label": classes[label], "score": round(score, 5), "box": [round(side, 2) for side in box]}
                for box, score, label in rows
            ]
            say_json({**place, "detections": detections})
            return
        say(title)
        for (x0, y0, x1, y1), score, label in rows:
            box = f"{x0:.0f},{y0:.0f} to {x1:.0f},{y1:.0f}"
            say(f"  {100 * score:6.2f} %  {clean(classes[label], NAME_CHARS)}  {box}")
        if not len(result):
            say("  nothing found")


class _CocoEntries:
    """The detections of many images in COCO's format."""

    def __init__(self, detector: OpenDetector) -> None:
        self._classes = detector.metadata.classes
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, result: ImageDetections) -> None:
        """Add an image."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": name, "width": result.width, "height": result.height})
        for entry in coco_results(image_id, result, tuple(range(1, len(self._classes) + 1))):
            box: Any = entry["bbox"]
            more = {"id": len(self._annotations) + 1, "area": round(box[2] * box[3], 2), "iscrowd": 0}
            self._annotations.append({**entry, **more})

    def values(self) -> dict[str, Any]:
        """Return the content of the file."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self._classes, 1)]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}
