"""`mnas predict`: classify images."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from PIL.Image import Image

from mnas.cli.console import complain, say, say_json
from mnas.cli.model import ModelOptions, open_model
from mnas.cli.pictures import free_path, unread_line, write_picture
from mnas.data.decoding.dim import dim_line, used_bits_of
from mnas.data.image import Pixels, square
from mnas.predict.annotate import SIDE, annotated
from mnas.predict.images import fetch, find_images, read_picture, read_pixels
from mnas.predict.info import Prediction
from mnas.predict.model import Model
from mnas.predict.video import VideoFile, is_video, opened_video
from mnas.require import require_int
from mnas.text import NAME_CHARS, clean

_BATCH = 32
"""Number of images decoded side by side and held in memory."""


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Classify images with any supported model: a trained one, or any .tflite, .onnx or .pte classifier."""

    model: str = field(kw_only=False)
    """Model file (.safetensors, .tflite, .onnx, .pte), folder of a training, trial (runs/NAME#17), or, with --weights,
    an architecture."""
    images: tuple[str, ...] = field(kw_only=False)
    """Image files, videos (.mp4, .mov, .mkv, .webm, .avi), folders (searched recursively for images), patterns
    ('photos/*.jpg') or URLs of images."""
    top: int = 5
    """Number of classes to print for each image."""
    every: int = 1
    """Read every N-th frame of a video only."""
    json: bool = False
    """Print one JSON object per line: the image (or video and frame) and its predictions or error."""
    save: Path | None = None
    """Also write a copy of each image (.jpg) and video (.mp4), with the predictions below it, to this folder."""
    options: Annotated[ModelOptions, Parameter(name="*", group="Model file")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        """Predict and print, image by image.

        Raises:
            ValueError: the model cannot be opened; or, after all others are done, images could not be read.
        """
        if not self.images:
            raise ValueError(
                "IMAGES must be at least one file, folder, pattern or URL, as in mnas predict MODEL cat.jpg"
            )
        if self.top < 1:
            raise ValueError(f"--top must be 1 or more, but got {self.top}")
        require_int("--every", self.every, 1)
        model = open_model(self.model, self.options)
        if self.save is not None:
            self.save.mkdir(parents=True, exist_ok=True)
        failed = 0
        bits: dict[str, int] = {}
        problems: list[tuple[str, str]] = []
        names = list(find_images(self.images, lambda argument, reason: problems.append((argument, reason))))
        results = self._results(model, [name for name in names if not is_video(name)], bits)
        for name, result, picture in itertools.chain(results, ((name, why, None) for name, why in problems)):
            if isinstance(result, str):
                failed += 1
                self._complain(name, result)
                continue
            self._print({"image": name}, name, result)
            if self.save is not None and picture is not None:
                write_picture(self.save, name, annotated(picture, result))
        for name in filter(is_video, names):
            try:
                self._video(model, name)
            except ValueError as error:
                failed += 1
                self._complain(name, str(error))
        if line := dim_line(bits):
            complain(line)
        if failed:
            raise ValueError(unread_line(failed, [*names, *(argument for argument, _ in problems)]))

    def _results(
        self, model: Model, names: Sequence[str], bits: dict[str, int]
    ) -> Iterator[tuple[str, tuple[Prediction, ...] | str, Image | None]]:
        """Yield for every image in order its name, its predictions or an error, and the picture to annotate.

        Args:
            bits: receives name -> number of bits in use, for 16-bit images whose files do not state it.
        """
        size, crop = model.info.input_size, model.info.crop
        rest = iter(names)

        def read(name: str) -> tuple[Pixels, Image | None] | str:
            try:
                source = fetch(name)  # a URL is fetched once, for both
                if used := used_bits_of(Path(source) if isinstance(source, str) else source):
                    bits[name] = used
                return read_pixels(source, size, crop), None if self.save is None else read_picture(source, SIDE)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(itertools.islice(rest, _BATCH)):
                images = list(pool.map(read, batch))
                pixels = [one[0] for one in images if not isinstance(one, str)]
                ranked = iter(model.ranked(model.probabilities(np.stack(pixels)), self.top) if pixels else [])
                for name, one in zip(batch, images, strict=True):
                    yield (name, one, None) if isinstance(one, str) else (name, next(ranked), one[1])

    def _video(self, model: Model, name: str) -> None:
        """Classify every frame. Raises ValueError for a file that is no video."""
        size, crop = model.info.input_size, model.info.crop
        path = None if self.save is None else free_path(self.save, name, ".mp4")
        with opened_video(Path(name), every=self.every) as video, ExitStack() as stack:
            file = None if path is None else stack.enter_context(contextlib.closing(VideoFile(path, video.rate)))
            for frame in video:
                [result] = model.ranked(model.probabilities(square(frame.picture, size, crop)[None]), self.top)
                place = {"video": name, "frame": frame.number, "time_s": round(frame.time_s, 3)}
                self._print(place, f"{name} at {frame.time_s:.2f} s", result)
                if file is not None:
                    file.add(annotated(frame.picture, result))

    def _print(self, place: dict[str, Any], title: str, predictions: tuple[Prediction, ...]) -> None:
        if self.json:
            say_json({**place, "predictions": [asdict(p) for p in predictions]})
            return
        say(title)
        for prediction in predictions:
            say(f"  {100 * prediction.probability:6.2f} %  {clean(prediction.label, NAME_CHARS)}")

    def _complain(self, name: str, reason: str) -> None:
        if self.json:
            say_json({"image": name, "error": reason})
        complain(f"{name!r}: {reason}")
