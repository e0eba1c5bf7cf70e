"""Formats of model files, one row each: what a file is called, what opens, checks and measures it, and what it needs.

Whatever brings a runtime is named as `module:function` and imported when it is used.
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
    """Name in results and, for what can be exported, in `--to`."""
    suffix: str
    """End of the file names, with its dot."""
    title: str
    """Name of the format for people."""
    metadata: str
    """Place of what a file of ours says of itself."""
    opener: str
    """`mnas.predict` function that opens a file: (path, wanted) -> (info, run)."""
    reader: str
    """Function that reads what a file says of itself: (path, content) -> (values, state) or None for other authors'."""
    runtimes: tuple[str, ...]
    """Runtimes that measure such a file, the usual one first (`mnas.latency.onboard.script.RUNTIMES`)."""
    writer: str = ""
    """Function by which `mnas export --to` writes a file: (network, metadata) -> content; empty where it does not."""
    sidecar: str = ""
    """Function that writes what belongs beside a file: (metadata, content) -> text; empty where nothing does."""
    extra: str = ""
    """Extra of mnas that has the runtime and the writer; empty where the core has them."""
    packages: tuple[str, ...] = ()
    """Modules that writing a file imports, all from the extra."""


FORMATS: dict[FormatName, ModelFormat] = {
    row.name: row
    for row in (
        ModelFormat(
            name="mnas",
            suffix=".safetensors",
            title="weights of mnas",
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
"""End that is added to a file's name for what belongs beside it."""
SUFFIXES = {row.suffix: row for row in FORMATS.values()}
"""Suffix -> format."""
WEIGHTS_SUFFIX = FORMATS["mnas"].suffix
ARCH_SUFFIXES = (WEIGHTS_SUFFIX, FORMATS["litert"].suffix)
"""Ends of model files whose name may stand for their architecture (`mnas.names.resolve_arch`)."""
RUNTIME_EXTRAS = {runtime: row.extra for row in FORMATS.values() if row.extra for runtime in row.runtimes}
"""Runtime -> the extra of mnas that has it, for those that the core lacks."""


def format_of(path: str | PathLike[str]) -> ModelFormat | None:
    """Return the format by a file's suffix; None for other files."""
    return SUFFIXES.get(Path(path).suffix)


def imported(name: str) -> Callable[..., Any]:
    """Return the function that `module:function` names."""
    module, _, function = name.partition(":")
    value: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return value
