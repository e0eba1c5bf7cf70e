"""Load and run a model file in a separate process, which the file may crash.

This program imports nothing from mnas, and runs as `served.py SOCKET`, a descriptor. A frame, in either direction, is
the length of a JSON object (4 bytes), the object, and an array of `bytes` bytes if the object has that key. Requests:
{"do": "open" | "resize" | "run", ...}; answers: {"ok": ...}, or {"error": one line, "of": "file" | "setup"}, where
"setup" means a missing package. A run gives the first output or, with "all", all of them, one after the other.
"""

import contextlib
import importlib
import json
import os
import socket
import struct
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if sys.platform != "win32":
    import resource

Array = NDArray[Any]
LEAST_BYTES = 1 << 30
"""Memory that a model may always use, in bytes."""
SHARE = 0.75
"""Share of the available memory that a model may use, if that is more than `LEAST_BYTES`."""
MOST_TEXT = 1 << 24
CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files with a container's memory limit and usage, for cgroup versions 2 and 1."""
_HEAD = struct.Struct("<I")


class Runtime(ABC):
    """A model file that is open in its runtime."""

    inputs: list[dict[str, Any]]
    """Inputs as {"name", "shape" (None: any size), "dtype", "scale" (0: not quantized), "zero_point"}."""
    outputs: list[dict[str, Any]]

    def resize(self, shape: Sequence[int]) -> None:  # noqa: B027  # most runtimes take any shape that fits
        """Prepare the model for inputs of this shape."""

    @abstractmethod
    def run(self, values: Array) -> list[Array]:
        """Return all outputs for one batch of the single input."""


class LiteRT(Runtime):
    def __init__(self, path: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with open(path, "rb") as file:
            self._interpreter: Any = Interpreter(model_content=file.read(), num_threads=threads)
        self.inputs = list(map(_tensor, self._interpreter.get_input_details()))
        self.outputs = list(map(_tensor, self._interpreter.get_output_details()))

    def resize(self, shape: Sequence[int]) -> None:
        detail = self._interpreter.get_input_details()[0]
        if tuple(detail["shape"]) != tuple(shape):
            self._interpreter.resize_tensor_input(detail["index"], tuple(shape))
        self._interpreter.allocate_tensors()
        self._entry = detail["index"]
        self._exits = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, values: Array) -> list[Array]:
        self._interpreter.set_tensor(self._entry, values)
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(index)) for index in self._exits]


def _tensor(detail: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = detail["quantization"]
    shape = [None if size < 0 else int(size) for size in detail["shape_signature"]]
    dtype = np.dtype(detail["dtype"]).str
    return {"name": "", "shape": shape, "dtype": dtype, "scale": float(scale), "zero_point": int(zero_point)}


ONNX_TYPES = {"tensor(float)": "<f4", "tensor(float16)": "<f2", "tensor(uint8)": "|u1", "tensor(int8)": "|i1"}


class Onnx(Runtime):
    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # errors are raised as exceptions anyway
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = list(map(self._described, self._session.get_inputs()))
        self.outputs = list(map(self._described, self._session.get_outputs()))

    def run(self, values: Array) -> list[Array]:
        return [np.asarray(output) for output in self._session.run(None, {self.inputs[0]["name"]: values})]

    def _described(self, entry: Any) -> dict[str, Any]:
        shape = [size if isinstance(size, int) and size > 0 else None for size in entry.shape]
        dtype = ONNX_TYPES.get(entry.type, entry.type)  # other names appear in the message that rejects the type
        return {"name": entry.name, "shape": shape, "dtype": dtype, "scale": 0.0, "zero_point": 0}


EXECUTORCH_TYPES = {6: "<f4", 0: "|u1", 1: "|i1"}
"""torch's ScalarType -> NumPy's type string."""


def _bindings() -> Any:
    """Return ExecuTorch's extension module alone, as its package takes five seconds to import."""
    import torch

    assert torch
    for name in ("_C", "_portable_lib"):  # names since 1.5, and before
        with contextlib.suppress(ImportError):
            return importlib.import_module(f"executorch.extension.pybindings.{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is experimental
        return importlib.import_module("executorch.extension.pybindings.portable_lib")


class ExecuTorch(Runtime):
    def __init__(self, path: str, threads: int) -> None:
        library = _bindings()
        if library._threadpool_get_thread_count() != threads:
            library._unsafe_reset_threadpool(threads)  # safe because no method runs
        with open(path, "rb") as file:
            self._content = file.read()  # the program refers to it, so it must stay alive
        self._program: Any = library._load_program_from_buffer(self._content)
        self._method: Any = self._program.load_method("forward")
        meta = self._method.method_meta()
        self.inputs = [self._described(meta.input_tensor_meta(i)) for i in range(meta.num_inputs())]
        self.outputs = [self._described(meta.output_tensor_meta(i)) for i in range(meta.num_outputs())]

    def run(self, values: Array) -> list[Array]:
        import torch

        return [np.asarray(rows.float().numpy()) for rows in self._method([torch.from_numpy(values)])]

    def _described(self, meta: Any) -> dict[str, Any]:
        dtype = EXECUTORCH_TYPES.get(meta.dtype(), f"ScalarType {meta.dtype()}")
        return {"name": "", "shape": list(meta.sizes()), "dtype": dtype, "scale": 0.0, "zero_point": 0}


RUNTIMES: dict[str, tuple[Callable[[str, int], Runtime], str]] = {
    "litert": (LiteRT, "ai_edge_litert"),
    "onnx": (Onnx, "onnxruntime"),
    "executorch": (ExecuTorch, "executorch"),
}
"""Runtime -> (function that opens a file, module that the runtime needs)."""


class ModelServer:
    """A server of requests about one file."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def answer(self, request: dict[str, Any], values: Array | None) -> tuple[dict[str, Any], Array | None]:
        """Return the answer of `Runtime` to a request, or its error on one line."""
        try:
            return self._answered(request, values)
        except ImportError as error:
            return {"error": line(error), "of": "setup"}, None
        except Exception as error:  # the runtimes' exceptions have no common base
            return {"error": line(error), "of": "file"}, None

    def _answered(self, request: dict[str, Any], values: Array | None) -> tuple[dict[str, Any], Array | None]:
        if request["do"] == "open":
            opened, module = RUNTIMES[request["runtime"]]
            importlib.import_module(module)
            runtime = self._runtime = opened(request["path"], request["threads"])
            return {"ok": {"inputs": runtime.inputs, "outputs": runtime.outputs}}, None
        assert self._runtime is not None
        if request["do"] == "resize":
            self._runtime.resize(request["shape"])
            return {"ok": None}, None
        assert values is not None
        step, most = request["batch"], None if request["all"] else 1
        batches = [values[i : i + step] for i in range(0, len(values), step)]
        return {"ok": None}, np.concatenate([_rows(self._runtime.run(batch)[:most], len(batch)) for batch in batches])


def _rows(outputs: Sequence[Array], count: int) -> Array:
    """Return a batch's outputs as one row per image, one output after the other."""
    rows = [_rows_of(values, count) for values in outputs]
    return rows[0] if len(rows) == 1 else np.concatenate([each.astype(np.float32) for each in rows], axis=1)


def _rows_of(values: Array, count: int) -> Array:
    if values.size % count:
        raise ValueError(f"a batch of {count} images must give one row for each, but gave shape {values.shape}")
    return values.reshape(count, -1)


def line(error: BaseException) -> str:
    """Return an error's message on one line of printable characters."""
    return printable(str(error)) or type(error).__name__


def printable(text: str) -> str:
    """Return the text on one line, without characters that control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:500]


# Frames


def send(end: socket.socket, head: dict[str, Any], values: Array | None) -> None:
    """Send an object, followed by an array if there is one."""
    if values is not None:
        head = {**head, "shape": values.shape, "dtype": values.dtype.str, "bytes": values.nbytes}
    text = json.dumps(head).encode()
    end.sendall(_HEAD.pack(len(text)) + text)
    if values is not None and values.nbytes:
        end.sendall(memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8)))  # type: ignore[arg-type]


def receive(end: socket.socket, most_bytes: int) -> tuple[dict[str, Any], Array | None]:
    """Return the next object and its array. Raises EOFError at the end, ValueError for an invalid frame."""
    (length,) = _HEAD.unpack(_exactly(end, _HEAD.size))
    if length > MOST_TEXT:
        raise ValueError(f"a frame must have at most {MOST_TEXT} bytes of text, but got {length}")
    head = json.loads(bytes(_exactly(end, length)))
    if "bytes" not in head:
        return head, None
    dtype, shape, size = np.dtype(head.pop("dtype")), head.pop("shape"), head.pop("bytes")
    if dtype.kind not in "fiu" or size > most_bytes:
        raise ValueError(f"an array must have at most {most_bytes} bytes of numbers, but got {size} of {dtype}")
    return head, np.frombuffer(_exactly(end, size), dtype).reshape(shape)


def _exactly(end: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = end.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return content


def limit_memory() -> None:
    """Limit this process's memory, disable core dumps, and make it the kernel's first victim when memory runs out."""
    if sys.platform == "win32":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = max(LEAST_BYTES, int(SHARE * available_bytes()))
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def available_bytes() -> int:
    """Return the available memory of this machine or container, in bytes; 2^62 if the system does not report it."""
    amounts = []
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo") as file:
        amounts.append(1024 * int(next(row.split()[1] for row in file if row.startswith("MemAvailable:"))))
    for most, used in CGROUP_FILES:
        with contextlib.suppress(OSError, ValueError):
            amounts.append(max(0, int(Path(most).read_text()) - int(Path(used).read_text())))
    return min(amounts, default=1 << 62)


def main(descriptor: int) -> None:
    """Serve requests until the other end closes the connection."""
    limit_memory()
    server = ModelServer()
    with socket.socket(fileno=descriptor) as end, contextlib.suppress(EOFError, ConnectionError):
        while True:
            send(end, *server.answer(*receive(end, 1 << 40)))
    os._exit(0)  # a normal exit could crash in a runtime that a damaged file has corrupted


if __name__ == "__main__":
    main(int(sys.argv[1]))
