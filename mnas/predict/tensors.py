"""Check that a model file is a classifier, and convert uint8 images to its input type and quantisation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnas.data.image import Pixels
from mnas.foreign.session import MOST_BYTES, ForeignSession
from mnas.metadata import Triple
from mnas.predict.info import NORMALISATIONS, Run, Wanted

Dim = int | None
"""Size of a dimension; None: any."""
MOST_SUM_ERROR = 1e-2
"""Largest deviation of the sum of probabilities from 1, as half-precision softmaxes have it."""


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """An input that takes RGB images."""

    dtype: np.dtype[Any]
    channels_first: bool
    batch: Dim
    size: Dim
    scale: float = 0.0
    """Scale of stored numbers: q means scale * (q - zero_point). 0 if numbers are not quantised."""
    zero_point: int = 0


def image_input(shape: Sequence[Dim], dtype: np.dtype[Any], scale: float, zero_point: int, name: str) -> ImageInput:
    """Return the input of this shape and type.

    Raises:
        ValueError: the input does not take RGB images.
    """
    rule = f"an image classifier must take square RGB images, (N, S, S, 3) or (N, 3, S, S), but {name!r} takes"
    if dtype.kind not in "fiu" or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ValueError(f"{rule} {_text(shape)} {dtype}")
    channels_first = shape[3] != 3
    height, width = shape[2:] if channels_first else shape[1:3]
    if height != width:
        raise ValueError(f"{rule} {_text(shape)} {dtype}")
    return ImageInput(
        dtype=dtype,
        channels_first=channels_first,
        batch=shape[0],
        size=height,
        scale=scale,
        zero_point=zero_point,
    )


def image_entry(session: ForeignSession, name: str) -> ImageInput:
    """Return the only input of a session's model. Raises ValueError where it has several, or takes no images."""
    if len(session.inputs) != 1:
        raise ValueError(f"an image classifier must have one input, but {name!r} has {len(session.inputs)}")
    spec = session.inputs[0]
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        raise ValueError(f"an image classifier must take numbers, but {name!r} takes {spec.dtype}") from None
    return image_input(spec.shape, dtype, spec.scale, spec.zero_point, name)


def input_size(entry: ImageInput, wanted: Wanted, name: str) -> int:
    """Return the side of the images. Raises ValueError where user and file differ, or neither gives one."""
    if entry.size is None and wanted.input_size is None:
        raise ValueError(f"{name!r} takes images of any size; choose one with --input-size")
    if entry.size is not None and wanted.input_size not in (None, entry.size):
        raise ValueError(f"--input-size must be {entry.size} for {name!r}, but got {wanted.input_size}")
    return entry.size or wanted.input_size or 0


def normalisation(
    entry: ImageInput, wanted: Wanted, recorded: tuple[Triple, Triple] | None, name: str
) -> tuple[Triple, Triple] | None:
    """Return (mean, std) for pixels from 0 to 1; None where the input takes unscaled pixels.

    Raises:
        ValueError: neither the file nor the user gives them, or the user does although the input takes pixels.
    """
    given = None if wanted.mean is None or wanted.std is None else (wanted.mean, wanted.std)
    if entry.dtype.kind != "f" and entry.scale == 0:
        if entry.dtype.itemsize > 1:
            raise ValueError(f"an integer input must have 8 bits or a scale, but {name!r} takes {entry.dtype}")
        if given is not None:
            raise ValueError(
                f"--mean and --std must be omitted, because {name!r} takes unscaled pixels ({entry.dtype})"
            )
        return None
    if given is not None or recorded is not None:
        return given or recorded
    if entry.dtype.itemsize == 1:
        return None
    raise ValueError(
        f"--mean and --std must be given, because {name!r} does not record how its input is normalised; "
        f"common values are {NORMALISATIONS}"
    )


def encoder(entry: ImageInput, moments: tuple[Triple, Triple] | None) -> Callable[[Pixels], NDArray[Any]]:
    """Return a function from uint8 (N, S, S, 3) to the contiguous array that the input takes."""
    if moments is not None:
        mean, std = (np.array(values, np.float32) for values in moments)
        factor = np.float32(1) / (np.float32(255) * std)
        offset = -mean / std  # the order in `mnas.data.augment.normalised`: bit-equal inputs

    def encode(pixels: Pixels) -> NDArray[Any]:
        if entry.channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        if moments is None:
            low = int(np.iinfo(entry.dtype).min)
            shifted = pixels if low == 0 else pixels.astype(np.int16) + low
            return np.ascontiguousarray(shifted.astype(entry.dtype))
        shape = (3, 1, 1) if entry.channels_first else (3,)
        values = np.ascontiguousarray(pixels, np.float32)
        values *= factor.reshape(shape)
        values += offset.reshape(shape)
        if entry.dtype.kind == "f":
            return values.astype(entry.dtype, copy=False)
        limits = np.iinfo(entry.dtype)
        stored = np.rint(values / np.float32(entry.scale)) + entry.zero_point
        clipped: NDArray[Any] = stored.clip(limits.min, limits.max).astype(entry.dtype)
        return clipped

    return encode


def class_outputs(shapes: Sequence[Sequence[Dim]], name: str) -> int:
    """Return the number of class outputs, from the shapes of all outputs. Raises ValueError for other models."""
    rule = "a classifier must have one output, (N, classes), but"
    if len(shapes) != 1:
        raise ValueError(f"{rule} {name!r} has {len(shapes)}")
    wide = [dim for dim in shapes[0][1:] if dim != 1]  # some models keep the last map's height and width of 1
    if not wide and len(shapes[0]) > 1:
        return 1
    if len(wide) != 1 or wide[0] is None:
        raise ValueError(f"{rule} {name!r} gives {_text(shapes[0])}")
    return wide[0]


def dequantised(values: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return the real values of stored numbers."""
    if scale == 0:
        return values.astype(np.float32)
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def are_probabilities(outputs: NDArray[np.float32]) -> bool:
    """Return whether the rows are probabilities: none below 0, and each row sums to 1."""
    return bool((outputs >= 0).all() and (np.abs(outputs.sum(1, dtype=np.float64) - 1) <= MOST_SUM_ERROR).all())


def probe(size: int) -> Pixels:
    """Return two images that show the kind of a model's outputs: a grey one, and noise."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return np.stack([np.full_like(noise, 128), noise])


@dataclass(frozen=True)
class ForeignRun:
    """The outputs of a model that runs in its own process."""

    run: Run
    close: Callable[[], None]
    """Ends the process."""

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        return self.run(pixels)


def in_a_child(
    session: ForeignSession,
    entry: ImageInput,
    moments: tuple[Triple, Triple] | None,
    outputs: int,
    size: int,
    batch: int = 1,
) -> ForeignRun:
    """Return a function that runs the session's model on images of `size` pixels, `batch` at a time."""
    scale, zero_point = session.outputs[0].scale, session.outputs[0].zero_point

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        missing = -len(images) % batch if entry.batch else 0  # a file with a fixed batch takes no fewer
        whole = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
        return dequantised(session.run(whole, batch, outputs)[: len(images)], scale, zero_point)

    image_bytes = 3 * size * size * entry.dtype.itemsize
    together = max(1, MOST_BYTES // image_bytes // batch)  # number of images sent at a time
    return ForeignRun(in_batches(run, encoder(entry, moments), outputs, batch * together), session.close)


def in_batches(
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
    encode: Callable[[Pixels], NDArray[Any]],
    outputs: int,
    batch: int,
) -> Run:
    """Apply `run` to all images, `batch` at a time, so that only one batch is held in the file's type."""

    def run_all(pixels: Pixels) -> NDArray[np.float32]:
        rows = np.empty((len(pixels), outputs), np.float32)
        for start in range(0, len(pixels), batch):
            chunk = pixels[start : start + batch]
            rows[start : start + len(chunk)] = run(encode(chunk)).reshape(len(chunk), outputs)
        return rows

    return run_all


def _text(shape: Sequence[Dim]) -> str:
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"
