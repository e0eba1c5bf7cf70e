"""A LiteRT graph under construction, and its bytes.

Every operator has a form that XNNPACK delegates in full (tests check it), and version 1 (a dilated depthwise
convolution version 2), so that any runtime since TensorFlow 1.14, with hardswish since 1.15, reads the file. Tensors
are NHWC float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
MIN_RUNTIME_VERSION = "1.14.0"  # that of SLICE and LOGISTIC, our newest operators except for these
_LATER = {schema.BuiltinOperator.HARD_SWISH: "1.15.0"}
ALIGNMENT_BYTES = 16  # schema.fbs: force_align of a buffer's data

Fused = Literal["none", "relu", "relu6"]
Padding = Literal["same", "valid"]
Pair = tuple[int, int]
"""(vertical, horizontal)."""
MOST_JOINED = 4
"""Maximum number of values in one concatenation: XNNPACK delegates at most five (until 2024, four)."""

_FUSED: dict[Fused, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_PADDING: dict[Padding, int] = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
_TYPES = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int32): schema.TensorType.INT32}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, by its index and shape."""

    index: int
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[-1]


class _Code(NamedTuple):
    """An operator's kind."""

    builtin: int
    version: int
    custom: str = ""
    """Name of a custom operator; empty for all others."""


class Buffer:
    """Constant data, packed on a 16-byte boundary as the schema requires; the generated `BufferT` does not do that."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the generated classes' name)
        offset = None
        if self.data:
            builder.Prep(ALIGNMENT_BYTES, len(self.data))
            offset = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return int(schema.BufferEnd(builder))


class Graph:
    """A graph under construction: each method adds one operator, in order of execution, and returns its result."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[_Code, int] = {}  # operator -> index in the file
        self._buffers = [Buffer(b"")]  # buffer 0 is the schema's "no data"
        self._indices: dict[tuple[int, ...], Value] = {}

    # Tensors

    def value(self, name: str, shape: tuple[int, ...]) -> Value:
        """Add a tensor without data, the graph's input or an operator's result, and return it."""
        return self._tensor(name, shape, np.dtype(np.float32), buffer=0)

    def constant(self, name: str, array: NDArray[np.float32] | NDArray[np.int32]) -> Value:
        """Add a tensor with data and return it."""
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        self._buffers.append(Buffer(little_endian.tobytes()))
        return self._tensor(name, array.shape, array.dtype, buffer=len(self._buffers) - 1)

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], buffer: int) -> Value:
        self._tensors.append(
            schema.TensorT(shape=list(shape), type=_TYPES[dtype], buffer=buffer, name=name, hasRank=True)
        )
        return Value(len(self._tensors) - 1, shape)

    def _index_constant(self, rows: Sequence[Sequence[int]] | Sequence[int]) -> Value:
        """Return an int32 constant (axes, pads, sizes); equal ones share a tensor."""
        array = np.array(rows, np.int32)
        key = (*array.shape, -1, *array.ravel().tolist())
        if key not in self._indices:
            self._indices[key] = self.constant(f"index{len(self._indices)}", array)
        return self._indices[key]

    # Operators

    def _operator(
        self,
        code: str,
        name: str,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        options: Any = None,
        version: int = 1,
    ) -> Value:
        output = self.value(name, shape)
        operator = self._append(_Code(getattr(schema.BuiltinOperator, code), version), inputs, [output])
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return output

    def _append(self, code: _Code, inputs: Sequence[Value], outputs: Sequence[Value]) -> Any:
        operator = schema.OperatorT(
            opcodeIndex=self._codes.setdefault(code, len(self._codes)),
            inputs=[value.index for value in inputs],
            outputs=[value.index for value in outputs],
        )
        self._operators.append(operator)
        return operator

    def custom(self, code: str, inputs: Sequence[Value], outputs: Sequence[Value], options: bytes) -> None:
        """Add a custom operator.

        Args:
            code: name under which the runtime has the operator.
            outputs: tensors from `value` that it computes.
            options: the operator's options, as a FlexBuffer.
        """
        operator = self._append(_Code(schema.BuiltinOperator.CUSTOM, 1, code), inputs, outputs)
        operator.customOptions = np.frombuffer(options, np.uint8)
        operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS

    def conv(
        self,
        name: str,
        x: Value,
        kernel: Value,
        bias: Value,
        *,
        stride: int | Pair,
        padding: Padding,
        fused: Fused,
        dilation: int = 1,
    ) -> Value:
        """Add a convolution; `kernel` has shape (outputs, height, width, inputs)."""
        down, across = _pair(stride)
        options = schema.Conv2DOptionsT(
            padding=_PADDING[padding],
            strideW=across,
            strideH=down,
            fusedActivationFunction=_FUSED[fused],
            dilationWFactor=dilation,
            dilationHFactor=dilation,
        )
        shape = (*_spatial(x, kernel.shape[1:3], (down, across), padding), kernel.shape[0])
        return self._operator("CONV_2D", name, (x, kernel, bias), shape, options)

    def depthwise(
        self,
        name: str,
        x: Value,
        kernel: Value,
        bias: Value,
        *,
        stride: int,
        padding: Padding,
        fused: Fused,
        dilation: int = 1,
    ) -> Value:
        """Add a depthwise convolution; `kernel` has shape (1, k, k, channels)."""
        options = schema.DepthwiseConv2DOptionsT(
            padding=_PADDING[padding],
            strideW=stride,
            strideH=stride,
            depthMultiplier=1,
            fusedActivationFunction=_FUSED[fused],
            dilationWFactor=dilation,
            dilationHFactor=dilation,
        )
        shape = (*_spatial(x, kernel.shape[1:3], (stride, stride), padding), x.channels)
        version = 1 if dilation == 1 else 2  # runtimes of version 1 ignore the dilation
        return self._operator("DEPTHWISE_CONV_2D", name, (x, kernel, bias), shape, options, version)

    def average_pool(self, name: str, x: Value, *, kernel: int, stride: int, padding: Padding) -> Value:
        """Add the mean over the valid pixels of each window."""
        return self._pool("AVERAGE_POOL_2D", name, x, kernel, stride, padding)

    def max_pool(self, name: str, x: Value, *, kernel: int, stride: int, padding: Padding) -> Value:
        """Add the maximum over the valid pixels of each window."""
        return self._pool("MAX_POOL_2D", name, x, kernel, stride, padding)

    def _pool(self, code: str, name: str, x: Value, kernel: int, stride: int, padding: Padding) -> Value:
        options = schema.Pool2DOptionsT(
            padding=_PADDING[padding], strideW=stride, strideH=stride, filterWidth=kernel, filterHeight=kernel
        )
        shape = (*_spatial(x, (kernel, kernel), (stride, stride), padding), x.channels)
        return self._operator(code, name, (x,), shape, options)

    def mean(self, name: str, x: Value) -> Value:
        """Add the mean over height and width: (1, H, W, C) -> (1, 1, 1, C)."""
        options = schema.ReducerOptionsT(keepDims=True)
        return self._operator("MEAN", name, (x, self._index_constant((1, 2))), (1, 1, 1, x.channels), options)

    def fully_connected(self, name: str, x: Value, kernel: Value, bias: Value) -> Value:
        """Add a fully connected layer, (1, 1, 1, inputs) -> (1, outputs); `kernel` has shape (outputs, inputs)."""
        options = schema.FullyConnectedOptionsT()
        return self._operator("FULLY_CONNECTED", name, (x, kernel, bias), (1, kernel.shape[0]), options)

    def add(self, name: str, x: Value, y: Value) -> Value:
        """Add the sum of x and y, which has x's shape or is broadcast to it."""
        assert np.broadcast_shapes(x.shape, y.shape) == x.shape
        return self._operator("ADD", name, (x, y), x.shape, schema.AddOptionsT())

    def subtract(self, name: str, x: Value, y: Value) -> Value:
        assert x.shape == y.shape
        return self._operator("SUB", name, (x, y), x.shape, schema.SubOptionsT())

    def minimum(self, name: str, x: Value, most: Value) -> Value:
        """Add the smaller of x and `most`, which is broadcast to x."""
        return self._operator("MINIMUM", name, (x, most), x.shape, schema.MaximumMinimumOptionsT())

    def maximum(self, name: str, x: Value, least: Value) -> Value:
        """Add the larger of x and `least`, which is broadcast to x."""
        return self._operator("MAXIMUM", name, (x, least), x.shape, schema.MaximumMinimumOptionsT())

    def log(self, name: str, x: Value) -> Value:
        return self._operator("LOG", name, (x,), x.shape)

    def exp(self, name: str, x: Value) -> Value:
        return self._operator("EXP", name, (x,), x.shape, schema.ExpOptionsT())

    def relu(self, name: str, x: Value) -> Value:
        return self._operator("RELU", name, (x,), x.shape)

    def concat(self, name: str, values: Sequence[Value], axis: int = 3) -> Value:
        """Add a concatenation, by default of channels; more than `MOST_JOINED` values take several operators."""
        if len(values) > MOST_JOINED:
            first = self.concat(f"{name}.first{len(values) - MOST_JOINED + 1}", values[: -MOST_JOINED + 1], axis)
            values = [first, *values[-MOST_JOINED + 1 :]]
        sizes = list(values[0].shape)
        sizes[axis] = sum(value.shape[axis] for value in values)
        return self._operator("CONCATENATION", name, values, tuple(sizes), schema.ConcatenationOptionsT(axis=axis))

    def reshape(self, name: str, x: Value, shape: tuple[int, ...]) -> Value:
        """Add x with the same numbers in another shape."""
        options = schema.ReshapeOptionsT(newShape=list(shape))
        return self._operator("RESHAPE", name, (x, self._index_constant(shape)), shape, options)

    def multiply(self, name: str, x: Value, factor: Value) -> Value:
        """Add the product of x and `factor`, which is broadcast to x."""
        return self._operator("MUL", name, (x, factor), x.shape, schema.MulOptionsT())

    def sigmoid(self, name: str, x: Value) -> Value:
        return self._operator("LOGISTIC", name, (x,), x.shape)

    def hardswish(self, name: str, x: Value) -> Value:
        return self._operator("HARD_SWISH", name, (x,), x.shape, schema.HardSwishOptionsT())

    def softmax(self, name: str, x: Value) -> Value:
        return self._operator("SOFTMAX", name, (x,), x.shape, schema.SoftmaxOptionsT(beta=1.0))

    def pad(self, name: str, x: Value, pads: tuple[tuple[int, int], ...]) -> Value:
        """Add zero padding; `pads` are the zeros before and after x on each axis."""
        shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True))
        return self._operator("PAD", name, (x, self._index_constant(pads)), shape, schema.PadOptionsT())

    def slice(self, name: str, x: Value, begin: tuple[int, ...], shape: tuple[int, ...]) -> Value:
        """Add a slice of x that begins at `begin` and has shape `shape`."""
        inputs = (x, self._index_constant(begin), self._index_constant(shape))
        return self._operator("SLICE", name, inputs, shape, schema.SliceOptionsT())

    def first_channels(self, name: str, x: Value, channels: int) -> Value:
        return self.slice(name, x, (0,) * len(x.shape), (*x.shape[:-1], channels))

    # Bytes

    def to_bytes(
        self, *, inputs: Mapping[str, Value], outputs: Mapping[str, Value], metadata: Mapping[str, bytes]
    ) -> bytes:
        """Return the file, with one signature `serving_default` of these inputs and outputs; it is deterministic."""
        oldest = max([MIN_RUNTIME_VERSION, *(_LATER[code.builtin] for code in self._codes if code.builtin in _LATER)])
        entries = {"min_runtime_version": oldest.encode().ljust(16, b"\0"), **metadata}
        first = len(self._buffers)
        buffers = self._buffers + [Buffer(data) for data in entries.values()]
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            description="mnas",
            operatorCodes=[
                # Old runtimes read codes up to 127 from the deprecated field; all codes written here are below it.
                schema.OperatorCodeT(
                    deprecatedBuiltinCode=code.builtin,
                    builtinCode=code.builtin,
                    version=code.version,
                    customCode=code.custom or None,
                )
                for code in self._codes
            ],
            subgraphs=[
                schema.SubGraphT(
                    name="main",
                    tensors=self._tensors,
                    operators=self._operators,
                    inputs=[value.index for value in inputs.values()],
                    outputs=[value.index for value in outputs.values()],
                )
            ],
            buffers=buffers,
            metadata=[schema.MetadataT(name=name, buffer=first + i) for i, name in enumerate(entries)],
            signatureDefs=[
                schema.SignatureDefT(
                    signatureKey="serving_default", inputs=_tensor_maps(inputs), outputs=_tensor_maps(outputs)
                )
            ],
        )
        # The initial size fits the whole file, so that the builder never has to grow and copy.
        size_bytes = sum(len(b.data) + 64 for b in buffers) + 256 * (len(self._tensors) + len(self._operators)) + 4096
        builder = flatbuffers.Builder(size_bytes)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return _output(builder)


def repacked(model: bytes, *, drop: Sequence[str] = ()) -> bytes:
    """Return `model` in the form that this module writes: all data inside the flatbuffer, nothing after it.

    ai-edge-quantizer moves large data behind the flatbuffer, where older runtimes and metadata readers on phones do not
    find it.

    Args:
        drop: names of metadata entries to omit.
    """
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    parsed.metadata = [entry for entry in parsed.metadata or [] if entry.name.decode() not in drop]
    return packed(parsed, model)


def packed(parsed: Any, model: bytes) -> bytes:
    """Return the bytes of a `ModelT` whose buffers may still be in `model`, the file that it was read from."""
    parsed.buffers = [
        buffer if isinstance(buffer, Buffer) else Buffer(_data(model, buffer)) for buffer in parsed.buffers
    ]
    builder = flatbuffers.Builder(len(model) + 65536)
    builder.Finish(parsed.Pack(builder), file_identifier=IDENTIFIER)
    return _output(builder)


def _output(builder: flatbuffers.Builder) -> bytes:
    """Return the finished file; `builder.Output()` would copy it once more."""
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _data(model: bytes, buffer: Any) -> bytes:
    if buffer.data is not None:
        return np.asarray(buffer.data, np.uint8).tobytes()
    return model[buffer.offset : buffer.offset + buffer.size] if buffer.offset > 1 else b""  # 0 and 1: no data


def _tensor_maps(values: Mapping[str, Value]) -> list[Any]:
    return [schema.TensorMapT(name=name, tensorIndex=value.index) for name, value in values.items()]


def _pair(number: int | Pair) -> Pair:
    return (number, number) if isinstance(number, int) else number


def _spatial(x: Value, kernel: tuple[int, ...], stride: Pair, padding: Padding) -> tuple[int, int, int]:
    """Return (batch, height, width) of the result of a window over x."""
    trimmed = [0 if padding == "same" else size - 1 for size in kernel]
    height, width = (-(-(n - t) // s) for n, t, s in zip(x.shape[1:3], trimmed, stride, strict=True))
    return x.shape[0], height, width
