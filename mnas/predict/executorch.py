"""ExecuTorch files (.pte) with what they say of themselves beside them, in FILE.pte.json."""

import hashlib
import json
import subprocess
import sys
import warnings
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

SIDECAR = ".json"
"""Added to the file's name; the JSON of `mnas.nn.weights.weights_json`."""
_METHOD = "forward"
_TRIAL = """
import sys, torch
from executorch.runtime import Runtime
method = Runtime.get().load_program(open(sys.argv[1], "rb").read()).load_method(sys.argv[2])
method.execute([torch.zeros(method.metadata.input_tensor_meta(0).sizes())])
"""
_FLOAT, _BYTE, _CHAR = 6, 0, 1  # torch's ScalarType


def open_executorch(path: Path, wanted: Wanted) -> tuple[ModelInfo, Run]:
    """The model in a .pte file, which takes one image at a time.

    Raises:
        ImportError: executorch is missing.
        OSError: the file cannot be read.
        ValueError: it is damaged, or no classifier of RGB images, or what it does not say is missing in `wanted`.
    """
    name = str(path)
    own, digest = _sidecar(path)
    program = _program(path, wanted.threads, digest)
    method = program.load_method(_METHOD)
    meta = method.metadata
    if meta.num_inputs() != 1:
        raise ValueError(f"an image classifier must have one input, but {name!r} has {meta.num_inputs()}")
    tensor = meta.input_tensor_meta(0)
    dtypes = {_FLOAT: np.float32, _BYTE: np.uint8, _CHAR: np.int8}
    if tensor.dtype() not in dtypes:
        raise ValueError(f"an image classifier must take float32 or 8-bit numbers, but {name!r} takes others")
    entry = image_input(list(tensor.sizes()), np.dtype(dtypes[tensor.dtype()]), 0.0, 0, name)
    shapes = [list(meta.output_tensor_meta(i).sizes()) for i in range(meta.num_outputs())]
    classes = class_outputs(shapes, name)
    size = input_size(entry, wanted, name)
    moments = normalisation(entry, wanted, None if own is None else (own.mean, own.std), name)
    if entry.batch != 1:
        raise ValueError(f"a .pte file must take one image at a time, but {name!r} takes {entry.batch}")

    def run_one(image: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        try:  # through the program, as a method crashes once its program is gone
            (rows,) = program.load_method(_METHOD).execute([torch.from_numpy(image)])
        except RuntimeError as error:
            raise ValueError(f"ExecuTorch cannot run {name!r}: {_line(error)}") from None
        return rows.float().numpy()  # type: ignore[no-any-return]

    run = in_batches(run_one, encoder(entry, moments), classes, 1)
    info = ModelInfo(
        format="executorch",
        classes=class_names(wanted, None if own is None else own.classes, classes, name),
        outputs=classes,
        input_size=size,
        mean=None if moments is None else moments[0],
        std=None if moments is None else moments[1],
        crop=wanted.crop or (1.0 if own is None else own.crop),
        arch=None if own is None else own.arch,
        probabilities=own is None and are_probabilities(run(probe(size))),
        size_bytes=path.stat().st_size,
        notes=() if moments else (f"pixels of 0 to 255 stand for the whole range of the {entry.dtype} input",),
    )
    return info, run


def _program(path: Path, threads: int, digest: str | None) -> Any:
    content = path.read_bytes()
    if content[4:6] != b"ET":
        raise ValueError(
            f"a .pte file must be an ExecuTorch program, but {str(path)!r} has {len(content)} bytes of something else"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
    except ImportError:
        raise ImportError("running .pte files needs executorch: pip install 'mnas[executorch]'") from None
    if digest is None:
        _try_in_a_child(path)
    elif hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{str(path)!r} must be the file that {path.name + SIDECAR} beside it was written for, but got another or "
            "a damaged one; export it again"
        )
    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)  # safe while no method runs
    try:
        program = Runtime.get().load_program(content)
        program.load_method(_METHOD)  # cached in it
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"ExecuTorch cannot read {str(path)!r}, which may be cut off: {_line(error)}") from None
    return program


def _try_in_a_child(path: Path) -> None:
    """Load and run a program whose content nobody vouches for in a process of its own: damaged ones may end it.

    Raises:
        ValueError: it did end it. What it only complains of, it will complain of again.
    """
    found = subprocess.run([sys.executable, "-c", _TRIAL, str(path), _METHOD], capture_output=True, check=False)
    if found.returncode < 0:
        raise ValueError(
            f"ExecuTorch cannot run {str(path)!r}, which is damaged: the process that tried it was ended by signal "
            f"{-found.returncode}"
        )


def _sidecar(path: Path) -> tuple[Any, str | None]:
    """The WeightsInfo beside the file and the file's SHA-256, None where there are none."""
    beside = path.with_name(path.name + SIDECAR)
    if not beside.exists():
        return None, None
    from mnas.nn.weights_info import weights_info

    try:
        values = json.loads(beside.read_text())
        return weights_info(values), values.get("sha256")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(beside)!r} must be what mnas export wrote, but got {error!r}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
