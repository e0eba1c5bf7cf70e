"""LiteRT files (.tflite): ours by what they say of themselves, those of others by their input, output and metadata."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from mnas.data.image import Pixels
from mnas.predict.info import ModelInfo, Run, Triple, Wanted, class_names
from mnas.predict.official import OfficialMetadata, read_official
from mnas.predict.tensors import (
    are_probabilities,
    class_outputs,
    dequantised,
    encoder,
    image_input,
    in_batches,
    input_size,
    normalisation,
    probe,
)
from mnas.tflite.metadata import FileMetadata, metadata_entry, read_metadata


def open_litert(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """The model in a .tflite file, quantised or not.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no classifier of RGB images, or what it does not say is missing in `wanted`.
    """
    file = path.read_bytes()
    name = str(path)
    interpreter = _interpreter(file, wanted.threads, name)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1:
        raise ValueError(f"an image classifier must have one input, but {name!r} has {len(inputs)}")
    shape = [None if dim < 0 else int(dim) for dim in inputs[0]["shape_signature"]]
    entry = image_input(shape, np.dtype(inputs[0]["dtype"]), *_quantisation(inputs[0]), name)
    size = input_size(entry, wanted, name)
    classes = class_outputs([[int(dim) for dim in o["shape_signature"]] for o in outputs], name)
    own, official = _metadata(file, name)
    moments = normalisation(entry, wanted, _found(own, official), name)
    _resize(interpreter, inputs[0], entry.channels_first, size, name)
    scale, zero_point = _quantisation(outputs[0])

    def run_one(image: NDArray[Any]) -> NDArray[np.float32]:
        interpreter.set_tensor(inputs[0]["index"], image)
        try:
            interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(f"LiteRT cannot run {name!r}: {_line(error)}") from None
        return dequantised(interpreter.get_tensor(outputs[0]["index"]), scale, zero_point)

    # one by one, as devices run it; larger batches were no faster (docs/predict.md)
    run = in_batches(run_one, encoder(entry, moments), classes, 1)
    info = ModelInfo(
        format="litert",
        classes=class_names(wanted, (own.labels or None) if own else official.labels, classes, name),
        outputs=classes,
        input_size=size,
        mean=None if moments is None else moments[0],
        std=None if moments is None else moments[1],
        crop=wanted.crop or (1.0 if own is None else own.crop),
        arch=None if own is None else own.arch,
        probabilities=_softmaxed(outputs[0]["dtype"], scale, zero_point, run, size) if own is None else own.softmax,
        size_bytes=len(file),
        notes=() if moments else (f"pixels of 0 to 255 stand for the whole range of the {entry.dtype} input",),
    )
    return info, run


def _interpreter(file: bytes, threads: int, name: str) -> Any:
    if file[4:8] != b"TFL3":
        raise ValueError(f"a .tflite file must be a LiteRT model, but {name!r} has {len(file)} bytes of something else")
    try:
        return Interpreter(model_content=file, num_threads=threads)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT cannot read {name!r}, which may be cut off: {_line(error)}") from None


def _resize(interpreter: Any, detail: dict[str, Any], channels_first: bool, size: int, name: str) -> None:
    shape = (1, 3, size, size) if channels_first else (1, size, size, 3)
    try:
        if tuple(detail["shape"]) != shape:
            interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT cannot run {name!r} on images of {size} px: {_line(error)}") from None


def _quantisation(detail: dict[str, Any]) -> tuple[float, int]:
    scale, zero_point = detail["quantization"]
    return float(scale), int(zero_point)


def _metadata(file: bytes, name: str) -> tuple[FileMetadata | None, OfficialMetadata]:
    """Ours, and that of the format; a file of ours has both."""
    try:
        if metadata_entry(file, "mnas") is not None:
            return read_metadata(file), OfficialMetadata()
        entry = metadata_entry(file, "TFLITE_METADATA")
        return None, OfficialMetadata() if entry is None else read_official(entry, file)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None


def _found(own: FileMetadata | None, official: OfficialMetadata) -> tuple[Triple, Triple] | None:
    if own is not None:
        return None if own.normalisation is None else (own.normalisation.mean, own.normalisation.std)
    return official.normalisation


def _softmaxed(dtype: Any, scale: float, zero_point: int, run: Run, size: int) -> bool:
    """Whether outputs are probabilities: by the numbers that a quantised output can hold, else by trying."""
    if scale > 0:
        limits = np.iinfo(dtype)
        low, high = ((limit - zero_point) * scale for limit in (int(limits.min), int(limits.max)))
        return low >= 0 and high <= 1.001  # the format prescribes 1/256 from the lowest number on for a softmax
    pixels: Pixels = probe(size)
    return are_probabilities(run(pixels))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
