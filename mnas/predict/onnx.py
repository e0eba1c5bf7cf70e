"""ONNX files (.onnx), run by onnxruntime on the processor: ours by what they say of themselves, those of others too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnas.predict.info import ModelInfo, Run, Wanted, class_names
from mnas.predict.tensors import (
    are_probabilities,
    class_outputs,
    encoder,
    image_input,
    in_batches,
    input_size,
    normalisation,
    probe,
)

METADATA_KEY = "mnas"
"""Of `metadata_props`; its value is the JSON of `mnas.nn.weights.weights_json`."""
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}
_BATCH = 16


def open_onnx(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """The model in an .onnx file.

    Raises:
        ImportError: onnxruntime is missing.
        OSError: the file cannot be read.
        ValueError: it is damaged, or no classifier of RGB images, or what it does not say is missing in `wanted`.
    """
    size_bytes = path.stat().st_size
    name = str(path)
    session = _session(path, wanted.threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise ValueError(f"an image classifier must have one input, but {name!r} has {len(inputs)}")
    if inputs[0].type not in _TYPES:
        raise ValueError(f"an image classifier must take numbers, but {name!r} takes {inputs[0].type}")
    entry = image_input(_shape(inputs[0]), np.dtype(_TYPES[inputs[0].type]), 0.0, 0, name)
    classes = class_outputs([_shape(output) for output in outputs], name)
    own = _metadata(session, name)
    size = input_size(entry, _with_size(wanted, None if own is None else own.input_size), name)
    moments = normalisation(entry, wanted, None if own is None else (own.mean, own.std), name)
    batch = entry.batch or _BATCH

    def run_batch(images: NDArray[Any]) -> NDArray[np.float32]:
        missing = (entry.batch or len(images)) - len(images)  # a file of a fixed batch takes no fewer
        whole = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
        (rows,) = session.run(None, {inputs[0].name: whole})
        return np.asarray(rows, np.float32)[: len(images)]

    run = in_batches(run_batch, encoder(entry, moments), classes, batch)
    info = ModelInfo(
        format="onnx",
        classes=class_names(wanted, None if own is None else own.classes, classes, name),
        outputs=classes,
        input_size=size,
        mean=None if moments is None else moments[0],
        std=None if moments is None else moments[1],
        crop=wanted.crop or (1.0 if own is None else own.crop),
        arch=None if own is None else own.arch,
        probabilities=own is None and are_probabilities(_tried(run, size, name)),
        size_bytes=size_bytes,
        notes=() if moments else (f"pixels of 0 to 255 stand for the whole range of the {entry.dtype} input",),
    )
    return info, run


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        raise ImportError("running .onnx files needs onnxruntime: pip install 'mnas[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    refused = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
               state.NotImplemented, state.RuntimeException)  # fmt: skip
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refused as error:
        raise ValueError(f"onnxruntime cannot read {str(path)!r}, which may be cut off: {_line(error)}") from None


def _shape(value: Any) -> list[int | None]:
    """The dimensions; None for those with a name, or none."""
    return [dim if isinstance(dim, int) and dim > 0 else None for dim in value.shape]


def _with_size(wanted: Wanted, found: int | None) -> Wanted:
    return wanted if wanted.input_size is not None or found is None else replace(wanted, input_size=found)


def _metadata(session: Any, name: str) -> Any:
    """The WeightsInfo in a file of ours, None for others."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        return None
    from mnas.nn.weights_info import weights_info  # torch takes seconds, and files of others need none of it

    try:
        return weights_info(json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the metadata of {name!r} must be those of mnas, but got {error!r}") from None


def _tried(run: Run, size: int, name: str) -> NDArray[np.float32]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return run(probe(size))
    except (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented) as error:
        raise ValueError(f"onnxruntime cannot run {name!r} on images of {size} px: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
