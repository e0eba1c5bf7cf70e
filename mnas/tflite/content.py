"""The digest of a LiteRT file's graphs and metadata, which does not depend on the layout of the bytes.

Tools that add metadata (tensorflow/tflite-support) unpack the flatbuffer and write it again, in another layout and with
other entries. So the digest covers operators, tensors, and the constants of each tensor, in the order of the tensors.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema


def graph_digest(model: bytes, values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the graphs in `model` and of `values`, its metadata.

    Raises ValueError, AttributeError, IndexError, TypeError or struct.error on a damaged file.
    """
    digest = _Digest(2 * len(model) + (1 << 20))
    digest.add("values", json.dumps(values, sort_keys=True).encode())
    root = schema.Model.GetRootAs(model)
    for i in range(root.OperatorCodesLength()):
        code = root.OperatorCodes(i)
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        digest.add("code", builtin, code.Version(), code.CustomCode() or b"")
    for i in range(root.SubgraphsLength()):
        graph = root.Subgraphs(i)
        digest.add("graph", graph.InputsAsNumpy(), graph.OutputsAsNumpy())
        for j in range(graph.TensorsLength()):
            _add_tensor(digest, model, root, graph.Tensors(j))
        for j in range(graph.OperatorsLength()):
            _add_operator(digest, graph.Operators(j))
    return digest.result()


class _Digest:
    """SHA-256 of a sequence of values of bounded size, as offsets in a damaged file may repeat its data for ever."""

    def __init__(self, most_bytes: int) -> None:
        self._digest, self._room = hashlib.sha256(), most_bytes

    def add(self, name: str, *values: Any) -> None:
        """Add values with their name, types and lengths. Raises ValueError if there are too many."""
        self._add(b"%s %d" % (name.encode(), len(values)))
        for value in values:
            if isinstance(value, np.ndarray):
                self._add(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
            elif isinstance(value, bytes):
                self._add(value)
            elif isinstance(value, float | np.floating):
                self._add(struct.pack("<d", value))
            else:
                self._add(b"%d" % value)

    def _add(self, content: bytes) -> None:
        self._room -= len(content) + 1
        if self._room < 0:
            raise ValueError("the graph refers to more data than the file contains")
        self._digest.update(b"%d:" % len(content))
        self._digest.update(content)

    def result(self) -> str:
        return self._digest.hexdigest()


def _add_tensor(digest: _Digest, model: bytes, root: Any, tensor: Any) -> None:
    digest.add("tensor", tensor.ShapeAsNumpy(), tensor.ShapeSignatureAsNumpy(), tensor.Type(), tensor.IsVariable())
    digest.add("unusual", tensor.Sparsity() is not None, tensor.VariantTensorsLength())
    scheme = tensor.Quantization()
    if scheme is not None:
        numbers = scheme.ScaleAsNumpy(), scheme.ZeroPointAsNumpy()
        digest.add("quantization", *numbers, scheme.QuantizedDimension(), scheme.DetailsType())
    digest.add("data", buffer_data(model, root.Buffers(tensor.Buffer())))


def buffer_data(model: bytes, buffer: Any) -> bytes:
    """Return the content of a buffer, inside or after the flatbuffer. Raises ValueError for None."""
    if buffer is None:
        raise ValueError("a tensor refers to a buffer that the file does not contain")
    if not buffer.DataIsNone():
        return bytes(buffer.DataAsNumpy())
    # In schema.fbs, offsets 0 and 1 mean that there is no data.
    return model[buffer.Offset() : buffer.Offset() + buffer.Size()] if buffer.Offset() > 1 else b""


def _add_operator(digest: _Digest, operator: Any) -> None:
    kind = operator.BuiltinOptionsType()
    digest.add("operator", operator.OpcodeIndex(), operator.InputsAsNumpy(), operator.OutputsAsNumpy(), kind)
    digest.add("custom", operator.CustomOptionsAsNumpy(), operator.BuiltinOptions2Type())
    table = operator.BuiltinOptions()
    if table is None:
        return
    options = vars(schema.BuiltinOptionsCreator(kind, table))
    for name in sorted(options, key=_plain):
        value = options[name]
        if isinstance(value, list):
            value = np.array(value)
        if value is not None and np.any(value):  # a field from a later schema has its default in older files
            digest.add(_plain(name), value)


def _plain(name: str) -> str:
    """Return a field's name without case and underscores, in which generators of the schema's classes differ."""
    return name.replace("_", "").lower()
