"""Compare the LiteRT file of `mnas export` with litert_torch's export of the same weights: latency, size, outputs.

    python benchmarks/export_litert.py [--arch mnasnet-a1] [--input-size 224] [--minutes 1] [--theirs FILE]

litert-torch is no dependency of mnas, and pins torch. Another environment can make its file: `python -m venv other`,
`other/bin/pip install litert-torch -e .`, and `other/bin/python benchmarks/export_litert.py --write FILE`. Then pass it
to this script as `--theirs FILE`. If litert-torch is installed here, one call is enough. The weights are a function of
the seed: random kernels, and batch-norm statistics of photographs, as after training.

Goal: the ratio of latencies is at most 1.00 within its interval (`mnas.export.timing` alternates rounds of both files).
It takes about 2 minutes with --minutes 1.
"""

import argparse
import contextlib
import io
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mnas.export.gate import normalised
from mnas.export.images import photographs
from mnas.export.litert import litert_fp32
from mnas.export.timing import TimedFile, speed
from mnas.metadata import ModelMetadata
from mnas.nn.network import Network, build_network
from mnas.tflite.runtime import run_tflite
from mnas.zoo.architectures import named_arch


class NHWC(nn.Module):
    """The network with the input of the file, (1, S, S, 3) images."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2))


def network_of(arch_name: str, input_size: int) -> tuple[Network, ModelMetadata]:
    """Return a network of seed 0, with batch-norm statistics of photographs, gathered as in training."""
    torch.manual_seed(0)
    arch = named_arch(arch_name)
    network = build_network(arch, 1000)
    info = ModelMetadata(
        arch=arch,
        classes=tuple(f"class {i}" for i in range(1000)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        input_size=input_size,
        accuracy=None,
        crop=0.875,
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.momentum = None  # the plain mean over all batches
    x = torch.from_numpy(normalised(info, photographs(input_size).pixels)).permute(0, 3, 1, 2)
    with torch.no_grad():
        network.train()(x)
    return network.eval(), info


def theirs_of(network: Network, input_size: int) -> bytes | None:
    """Return litert_torch's file, or None if it is not installed."""
    try:
        import litert_torch
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.tflite"
        sample = (torch.zeros(1, input_size, input_size, 3),)
        litert_torch.convert(NHWC(network).eval(), sample).export(str(path))
        return path.read_bytes()


def outputs(model: bytes, info: ModelMetadata) -> np.ndarray:
    return run_tflite(model, normalised(info, photographs(info.input_size).pixels[:8]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="mnasnet-a1")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--theirs", type=Path, help="litert_torch's file, made in another environment by --write")
    parser.add_argument("--write", type=Path, help="only write litert_torch's file")
    options = parser.parse_args()
    network, info = network_of(options.arch, options.input_size)
    theirs = options.theirs.read_bytes() if options.theirs else theirs_of(network, options.input_size)
    if theirs is None:
        raise SystemExit("litert-torch is not installed here; see --help for how to get its file")
    if options.write:
        options.write.write_bytes(theirs)
        return
    ours = litert_fp32(network, info)
    found = speed(TimedFile(ours), TimedFile(theirs), budget_s=60 * options.minutes)
    with torch.no_grad():
        x = torch.from_numpy(normalised(info, photographs(info.input_size).pixels[:8])).permute(0, 3, 1, 2)
        expected = network(x).numpy()
    largest = np.abs(expected).max()
    table = Table("file", "bytes", "latency, one thread", "largest difference from torch", title=options.arch)
    for name, model, ms in (
        ("mnas export", ours, found.latency_ms),
        ("litert_torch.convert", theirs, found.reference_ms),
    ):
        difference = np.abs(outputs(model, info) - expected).max() / largest
        table.add_row(name, f"{len(model):,}", f"{ms:.4g} ms", f"{difference:.1e} of the largest output")
    console = Console()
    console.print(table)
    between = np.abs(outputs(ours, info) - outputs(theirs, info)).max() / largest
    console.print(
        f"latency, ours / litert_torch: {found.ratio:.4f} (95 %: {found.ratio_low:.4f} to {found.ratio_high:.4f})\n"
        f"largest difference between both: {between:.1e} of the largest output"
    )


if __name__ == "__main__":
    main()
