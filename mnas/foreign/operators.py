"""Name the operator that a runtime lacks, and the runtimes that have it, from the runtime's own error."""

import re

SINCE = {"HARD_SWISH": "TensorFlow 1.15"}
"""Operator of mnas's files -> first release of TensorFlow Lite that has it, if later than 1.14."""

_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        r"Select TensorFlow op.*?\((Flex\w{1,80})\) failed to prepare",
        "LiteRT lacks operator {0}; a LiteRT with TensorFlow's operators (the Flex delegate) has it",
    ),
    (
        r"Regular TensorFlow ops are not supported",
        "LiteRT lacks an operator of TensorFlow; a LiteRT with TensorFlow's operators (the Flex delegate) has it",
    ),
    (
        r"unresolved custom op: (\w{1,80})",
        "LiteRT lacks the custom operator {0}; only a LiteRT built with that operator has it",
    ),
    (
        r"Didn't find op for builtin opcode '(\w{1,80})' version '(\d{1,9})'",
        "this LiteRT lacks operator {0} in version {1}; {since} or later has it",
    ),
    (
        r"Fatal error: ([\w.]{1,80}):(\w{1,80})\(-?\d{1,9}\) is not a registered function/op",
        "ONNX Runtime lacks operator {0}.{1}; only an ONNX Runtime with the library of {0} has it",
    ),
    (
        r"Could not find an implementation for (\w{1,80})\((\d{1,9})\)",
        "ONNX Runtime lacks operator {0} of opset {1} on this processor; another version or provider may have it",
    ),
    (
        r"Missing operator: \[\d{1,9}\] ([\w:.]{1,80})",
        "this ExecuTorch lacks operator {0}; an ExecuTorch built with the kernels of that operator has it",
    ),
)


def explained(error: str) -> str:
    """Return a runtime's error, in place of which stands the operator that it lacks if the error is about one."""
    for pattern, sentence in _PATTERNS:
        match = re.search(pattern, error, re.DOTALL)
        if match:
            groups = match.groups()
            since = SINCE.get(groups[0], "a newer LiteRT") if groups else ""
            return sentence.format(*groups, since=since)
    return error
