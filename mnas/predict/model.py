"""`load_model`: open any supported model file, by mnas or another program, through one interface."""

import threading
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnas.architecture import Architecture
from mnas.data.decoding.decoders import upright
from mnas.data.image import Pixels, square
from mnas.formats import SUFFIXES, WEIGHTS_NAME, format_of, imported
from mnas.metadata import Triple
from mnas.predict.images import read_pixels
from mnas.predict.info import ModelInfo, Prediction, Run, Wanted
from mnas.predict.labels import read_class_names
from mnas.predict.last_op import last_op
from mnas.predict.outputs import Kind, settled
from mnas.predict.tensors import ForeignRun
from mnas.zoo.architectures import named_arch

ImageLike = str | PathLike[str] | Image.Image | Pixels
"""A path or URL, an open picture, or uint8 (H, W, 3) RGB pixels."""


@final
class Model:
    """A trained image classifier in any format; thread-safe, but runs one call at a time.

    A .tflite, .onnx or .pte file runs in its own process, which ends with the last reference to the model, at the end
    of a `with` block, or by `close`.
    """

    def __init__(self, info: ModelInfo, run: Run) -> None:
        self.info = info
        self._run = run
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the model's process, if it has one; the model cannot run afterwards."""
        if isinstance(self._run, ForeignRun):
            self._run.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        classes = f"{self.info.outputs} classes" if self.info.classes is None else ", ".join(self.info.classes[:5])
        more = "" if self.info.classes is None or len(self.info.classes) <= 5 else ", ..."
        return f"Model({self.info.input_size} px: {classes}{more})"

    def run(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return the file's outputs (N, outputs), logits or probabilities (`info.probabilities`), dequantised.

        Args:
            pixels: uint8 (N, S, S, 3), RGB, with S = `info.input_size`.

        Raises:
            ValueError: pixels have another shape or type, outputs are not finite, or the model's process has ended.
        """
        size = self.info.input_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            raise ValueError(f"pixels must be uint8 (N, {size}, {size}, 3), but got {pixels.dtype} {pixels.shape}")
        with self._lock:
            outputs = self._run(pixels)
        if not np.isfinite(outputs).all():
            raise ValueError("a model must give finite numbers, but got others; check its weights and normalisation")
        return outputs

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return `run` with a softmax over logits; rows sum to 1, except for sigmoids and rounded quantised outputs."""
        return self.as_probabilities(self.run(pixels))

    def as_probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs of `run` as `probabilities` does."""
        if self.info.probabilities:
            return outputs
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        normed: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
        return normed

    def predict(self, image: ImageLike, top: int = 5) -> tuple[Prediction, ...]:
        """Return the `top` most probable classes, most probable first; the lower index first among equals.

        Raises:
            ValueError: the image cannot be read, or top < 1.
        """
        return self.ranked(self.probabilities(self._pixels(image)[None]), top)[0]

    def ranked(self, probabilities: NDArray[np.float32], top: int) -> list[tuple[Prediction, ...]]:
        """Return the `top` best predictions for each row (N, outputs), ordered as by `predict`."""
        if top < 1:
            raise ValueError(f"top must be 1 or more, but got {top}")
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        return [
            tuple(Prediction(label=self.info.label(int(i)), index=int(i), probability=float(row[i])) for i in first)
            for row, first in zip(probabilities, order, strict=True)
        ]

    def _pixels(self, image: ImageLike) -> Pixels:
        info = self.info
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"an array must be uint8 (H, W, 3), but got {image.dtype} {image.shape}")
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            return square(upright(image), info.input_size, info.crop)
        try:
            return read_pixels(str(image), info.input_size, info.crop)
        except ValueError as error:
            raise ValueError(f"{str(image)!r}: {error}") from None


def load_model(
    model: str | PathLike[str] | Architecture,
    *,
    weights: str | None = None,
    name: str = "",
    class_file: str | PathLike[str] | None = None,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop: float | None = None,
    outputs: Literal["auto"] | Kind = "auto",
    threads: int = 1,
    allow_changed: bool = False,
) -> Model:
    """Return a trained model that predicts; arguments override the file's metadata.

    Args:
        model: a .safetensors, .tflite, .onnx or .pte file, or a folder with model.safetensors in it; with `weights` an
            architecture or its name (`mnasnet-a1`).
        weights: `timm`, `torchvision`, `pretrained`, or a file of weights for that architecture.
        name: name of an `Architecture` object in `model`, under which it has published weights.
        class_file: names of the classes, see `read_class_names`.
        input_size: side of the image in pixels, for files that take any size.
        mean, std: for pixels from 0 to 1, one number or three: the input is (pixel / 255 - mean) / std.
        crop: share of the side of an image's centre square.
        outputs: kind of the file's outputs: `logits`, `softmax` (probabilities that sum to 1), `sigmoid` (a separate
            probability for each class), or `auto`: the kind in the file, else determined by running the model.
        threads: number of the runtime's threads.
        allow_changed: whether to open a .tflite, .onnx or .pte file that was changed after mnas wrote it.

    Raises:
        ChangedFileError: a ValueError: the file was changed after mnas wrote it.
        ImportError: the runtime is not installed.
        OSError: a file cannot be read.
        ValueError: the file is damaged, is no classifier or lacks needed metadata; one line with the remedy.

    Examples:
        >>> from PIL import Image
        >>> model = mnas.load("trained/mnasnet-small@0.25-s8-16px/model.tflite")
        >>> [prediction] = model.predict(Image.new("RGB", (16, 16)), top=1)
        >>> prediction.label in "0123456789"
        True
    """
    wanted = Wanted(
        classes=None if class_file is None else read_class_names(Path(class_file)),
        input_size=input_size,
        mean=None if mean is None else _triple("mean", mean),
        std=None if std is None else _triple("std", std),
        crop=crop,
        threads=threads,
        allow_changed=allow_changed,
    )
    if weights is not None:
        from mnas.predict.network import open_pretrained

        arch = model if isinstance(model, Architecture) else named_arch(str(model))
        info, run = open_pretrained(weights, arch, name or str(model), wanted)
        return Model(info, run) if outputs == "auto" else Model(*settled(info, run, outputs, None))
    if isinstance(model, Architecture):
        raise ValueError("an architecture needs weights, but got none; use timm, torchvision, pretrained or a file")
    return _opened(Path(model) / WEIGHTS_NAME if Path(model).is_dir() else Path(model), wanted, outputs)


def _opened(path: Path, wanted: Wanted, outputs: Literal["auto"] | Kind) -> Model:
    info, run = _opener(path)(path, wanted)
    if outputs == "auto" and info.arch is not None:
        return Model(info, run)  # files written by mnas record it
    try:
        kind = None if outputs == "auto" else outputs
        return Model(*settled(info, run, kind, last_op(path) if kind is None else None))
    except ValueError as error:
        if isinstance(run, ForeignRun):
            run.close()
        raise ValueError(f"{str(path)!r}: {error}") from None


def _opener(path: Path) -> Callable[[Path, Wanted], tuple[ModelInfo, Run]]:
    row = format_of(path)
    if row is None:
        raise ValueError(
            f"a model must be a file of type {', '.join(SUFFIXES)}, but got {str(path)!r}; "
            "for other weights, name their architecture (mnas predict ARCH --weights FILE)"
        )
    if not path.is_file():
        raise ValueError(f"a model must be a file, but {str(path)!r} does not exist")
    return imported(row.opener)


def _triple(what: str, values: Sequence[float]) -> Triple:
    numbers = [float(value) for value in values]
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        raise ValueError(f"--{what} must be one finite number or three, one per channel, but got {list(values)}")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue
