"""`mnas predict`: classify images."""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from PIL.Image import Image

from mnas.cli.console import complain, say, say_json
from mnas.cli.model import ModelOptions, open_model
from mnas.cli.pictures import write_picture
from mnas.data.decoding.dim import dim_line, used_bits_of
from mnas.data.image import Pixels
from mnas.predict.annotate import SIDE, annotated
from mnas.predict.images import fetch, find_images, read_picture, read_pixels
from mnas.predict.info import Prediction
from mnas.predict.model import Model
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
    """Image files, folders (searched recursively), patterns ('photos/*.jpg') or URLs."""
    top: int = 5
    """Number of classes to print for each image."""
    json: bool = False
    """Print one JSON object per line, with the image and its predictions or error."""
    save: Path | None = None
    """Also write a .jpg copy of each image, with its predictions below it, to this folder."""
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
        model = open_model(self.model, self.options)
        if self.save is not None:
            self.save.mkdir(parents=True, exist_ok=True)
        done, failed = 0, 0
        bits: dict[str, int] = {}
        for name, result, picture in self._results(model, bits):
            if isinstance(result, str):
                failed += 1
                self._complain(name, result)
                continue
            done += 1
            self._print(name, result)
            if self.save is not None and picture is not None:
                write_picture(self.save, name, annotated(picture, result))
        if line := dim_line(bits):
            complain(line)
        if failed:
            raise ValueError(f"{failed} of {done + failed} images could not be read")

    def _results(
        self, model: Model, bits: dict[str, int]
    ) -> Iterator[tuple[str, tuple[Prediction, ...] | str, Image | None]]:
        """Yield for every image in order its name, its predictions or an error, and the picture to annotate.

        Args:
            bits: receives name -> number of bits in use, for 16-bit images whose files do not state it.
        """
        size, crop = model.info.input_size, model.info.crop
        problems: list[tuple[str, str]] = []
        names = find_images(self.images, lambda argument, reason: problems.append((argument, reason)))

        def read(name: str) -> tuple[Pixels, Image | None] | str:
            try:
                source = fetch(name)  # a URL is fetched once, for both
                if used := used_bits_of(Path(source) if isinstance(source, str) else source):
                    bits[name] = used
                return read_pixels(source, size, crop), None if self.save is None else read_picture(source, SIDE)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(itertools.islice(names, _BATCH)):
                images = list(pool.map(read, batch))
                pixels = [one[0] for one in images if not isinstance(one, str)]
                ranked = iter(model.ranked(model.probabilities(np.stack(pixels)), self.top) if pixels else [])
                for name, one in zip(batch, images, strict=True):
                    yield (name, one, None) if isinstance(one, str) else (name, next(ranked), one[1])
        yield from ((name, reason, None) for name, reason in problems)

    def _print(self, name: str, predictions: tuple[Prediction, ...]) -> None:
        if self.json:
            say_json({"image": name, "predictions": [asdict(p) for p in predictions]})
            return
        say(name)
        for prediction in predictions:
            say(f"  {100 * prediction.probability:6.2f} %  {clean(prediction.label, NAME_CHARS)}")

    def _complain(self, name: str, reason: str) -> None:
        if self.json:
            say_json({"image": name, "error": reason})
        complain(f"{name!r}: {reason}")
