"""Formats of model files, one row each: names, the functions that open and check a file, runtimes and dependencies.

A function that needs a runtime is named as `module:function` and imported when it is used.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

WEIGHTS_NAME = "model.safetensors"
"""Name of a trained network in the folder of its training."""

FormatName = Literal["mnas", "litert", "onnx", "executorch"]
ExportName = Literal["litert", "onnx", "executorch"]


@dataclass(frozen=True, kw_only=True)
class ModelFormat:
    """A kind of model file."""

    name: FormatName
    """Name in results and, for export formats, in `--to`."""
    suffix: str
    """Suffix of the file names, with its dot."""
    title: str
    """Readable name of the format."""
    metadata: str
    """Location of the metadata in a file written by mnas."""
    opener: str
    """Function of `mnas.predict` that opens a file: (path, wanted) -> (info, run)."""
    reader: str
    """Function that reads a file's metadata: (path, content) -> (values, state), or None for files of other authors."""
    runtimes: tuple[str, ...]
    """Runtimes that can measure the format, the default first (`mnas.latency.onboard.script.RUNTIMES`)."""
    writer: str = ""
    """Function that writes a file for `mnas export --to`: (network, metadata) -> content; empty if it cannot."""
    sidecar: str = ""
    """Function that writes a file's sidecar: (metadata, content) -> text; empty for formats without one."""
    extra: str = ""
    """Extra of mnas that brings the runtime and the writer; empty if the core has them."""
    packages: tuple[str, ...] = ()
    """Modules of the extra that the writer imports."""


FORMATS: dict[FormatName, ModelFormat] = {
    row.name: row
    for row in (
        ModelFormat(
            name="mnas",
            suffix=".safetensors",
            title="mnas weights",
            metadata='the header\'s metadata entry "mnas"',
            opener="mnas.predict.network:open_network",
            reader="mnas.nn.weights_info:read_values",
            runtimes=("torch",),
        ),
        ModelFormat(
            name="litert",
            suffix=".tflite",
            title="LiteRT",
            metadata='the metadata entry "mnas"',
            opener="mnas.predict.litert:open_litert",
            reader="mnas.tflite.metadata:read_values",
            runtimes=("litert", "litert-builtin"),
            writer="mnas.export.litert:litert_fp32",
        ),
        ModelFormat(
            name="onnx",
            suffix=".onnx",
            title="ONNX",
            metadata='metadata_props["mnas"]',
            opener="mnas.predict.onnx:open_onnx",
            reader="mnas.foreign.onnx_file:read_values",
            runtimes=("onnxruntime",),
            writer="mnas.export.onnx:onnx_fp32",
            extra="onnx",
            packages=("onnx", "onnxscript"),
        ),
        ModelFormat(
            name="executorch",
            suffix=".pte",
            title="ExecuTorch",
            metadata="FILE.pte.json beside the file",
            opener="mnas.predict.executorch:open_executorch",
            reader="mnas.foreign.sidecar:read_values",
            runtimes=("executorch",),
            writer="mnas.export.executorch:executorch_fp32",
            sidecar="mnas.foreign.sidecar:sidecar",
            extra="executorch",
            packages=("executorch",),
        ),
    )
}
"""Name -> format."""

SIDECAR_SUFFIX = ".json"
"""Suffix that is appended to a model file's name for its sidecar."""
SUFFIXES = {row.suffix: row for row in FORMATS.values()}
"""Suffix -> format."""
WEIGHTS_SUFFIX = FORMATS["mnas"].suffix
ARCH_SUFFIXES = (WEIGHTS_SUFFIX, FORMATS["litert"].suffix)
"""Suffixes of model files that may name an architecture (`mnas.names.resolve_arch`)."""
RUNTIME_EXTRAS = {runtime: row.extra for row in FORMATS.values() if row.extra for runtime in row.runtimes}
"""Runtime -> extra of mnas, for runtimes outside the core."""


def format_of(path: str | PathLike[str]) -> ModelFormat | None:
    """Return the format of a file by its suffix; None for other files."""
    return SUFFIXES.get(Path(path).suffix)


def imported(name: str) -> Callable[..., Any]:
    """Return the function that `module:function` names."""
    module, _, function = name.partition(":")
    value: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return value
