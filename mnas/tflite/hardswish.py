"""HARD_SWISH as operators that XNNPACK computes in int8.

XNNPACK has no int8 kernel for HARD_SWISH, and each one cuts the delegated graph in two: a small int8 network took 2.9
ms instead of 0.49 (benchmarks/int8_hardswish.py).
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnas.tflite.graph import Buffer, packed


def without_hardswish(model: bytes) -> bytes:
    """Return a float32 file with x relu6(x + 3) / 6 in place of each HARD_SWISH: ADD with a fused ReLU6, MUL, MUL."""
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    editing = _Editing(parsed)
    (graph,) = parsed.subgraphs
    if schema.BuiltinOperator.HARD_SWISH not in editing.codes:
        return model
    operators = []
    for operator in graph.operators:
        if editing.codes[operator.opcodeIndex] == schema.BuiltinOperator.HARD_SWISH:
            operators += editing.composed(operator)
        else:
            operators.append(operator)
    graph.operators = operators
    return packed(parsed, model)


class _Editing:
    """A file being changed, with the constants and operator codes that the composed operators need."""

    def __init__(self, parsed: Any) -> None:
        self._parsed = parsed
        self._constants: dict[float, int] = {}
        self.codes = [code.builtinCode for code in parsed.operatorCodes]

    def composed(self, operator: Any) -> list[Any]:
        """Return the operators that compute what this HARD_SWISH does."""
        (x,), (y,) = operator.inputs, operator.outputs
        result = self._parsed.subgraphs[0].tensors[y]
        name, shape = result.name.decode(), list(result.shape)
        clipped, gate = self._tensor(f"{name}.clipped", shape), self._tensor(f"{name}.gate", shape)
        relu6 = schema.AddOptionsT(fusedActivationFunction=schema.ActivationFunctionType.RELU6)
        return [
            self._operator("ADD", [x, self._constant(3)], clipped, relu6),
            self._operator("MUL", [clipped, self._constant(1 / 6)], gate, schema.MulOptionsT()),
            self._operator("MUL", [x, gate], y, schema.MulOptionsT()),
        ]

    def _constant(self, value: float) -> int:
        if value not in self._constants:
            self._parsed.buffers.append(Buffer(np.float32(value).tobytes()))
            buffer = len(self._parsed.buffers) - 1
            self._constants[value] = self._tensor(f"hardswish/{value:.3g}", [], buffer)
        return self._constants[value]

    def _tensor(self, name: str, shape: list[int], buffer: int = 0) -> int:
        tensors = self._parsed.subgraphs[0].tensors
        kind = schema.TensorType.FLOAT32
        tensors.append(schema.TensorT(shape=shape, type=kind, buffer=buffer, name=name, hasRank=True))
        return len(tensors) - 1

    def _operator(self, name: str, inputs: list[int], output: int, options: Any) -> Any:
        builtin = getattr(schema.BuiltinOperator, name)
        if builtin not in self.codes:
            self.codes.append(builtin)
            code = schema.OperatorCodeT(deprecatedBuiltinCode=builtin, builtinCode=builtin, version=1)
            self._parsed.operatorCodes.append(code)
        return schema.OperatorT(
            opcodeIndex=self.codes.index(builtin),
            inputs=inputs,
            outputs=[output],
            builtinOptions=options,
            builtinOptionsType=getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
        )
