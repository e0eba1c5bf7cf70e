"""One small architecture as a file for every runtime, and an ExecuTorch program that mnas did not write."""

import functools

import torch
from torch import nn

from mnas.arch import Arch
from mnas.block import Block
from mnas.export.render import render
from mnas.latency.latency import Setup

SIZE, CLASSES = 16, 4
ARCH = Arch(
    blocks=(Block(op="mbconv", kernel=3, stride=2, filters=8, expansion=3, se_ratio=0.25),),
    stem_filters=8,
    head_filters=16,
)
RUNTIMES = ("litert", "litert-builtin", "onnxruntime", "executorch", "torch")


def model_file(runtime: str, batch: int = 1, int8: bool = False) -> bytes:
    return _model_file(runtime, batch, int8)


@functools.cache
def _model_file(
    runtime: str, batch: int, int8: bool
) -> bytes:  # a cache distinguishes a default from the same value given
    return render(Setup(runtime=runtime, batch=batch), int8=int8)(ARCH, SIZE, CLASSES)


@functools.cache
def foreign_program(dtype: torch.dtype = torch.float32, batch: int = 1) -> bytes:
    """Return an ExecuTorch program that mnas did not write, without XNNPACK, with input of any type."""
    from executorch.exir import to_edge

    class Means(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(torch.float32).mean((2, 3))

    example = torch.zeros(batch, 3, 8, 8, dtype=dtype)
    return bytes(to_edge(torch.export.export(Means(), (example,))).to_executorch().buffer)
