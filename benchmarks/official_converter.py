"""Convert networks with litert-torch, the official converter, in the environment of scripts/litert-torch-env.

Files are cached in build/litert-torch: a conversion takes about ten seconds, most of them to start the converter.
"""

import hashlib
import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mnas.nn.network import Network

ROOT = Path(__file__).parents[1]
INTERPRETER = ROOT / ".venv-litert-torch/bin/python"
"""Interpreter that scripts/litert-torch-env makes."""
CHILD = ROOT / "scripts/litert_torch_convert.py"
CACHE = ROOT / "build/litert-torch"


class ConversionError(Exception):
    """The converter failed; one line."""


@dataclass(frozen=True)
class Converted:
    """A LiteRT file of the official converter."""

    content: bytes
    seconds: float
    """CPU time of converting and writing, without imports."""
    versions: dict[str, str]
    """Versions of litert-torch and of its torch."""


class Pooled(nn.Module):
    """A network of mnas whose means over all pixels are a pool, as in timm.

    The converter puts a transposition before a mean that drops its axes, and none before a pool.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(self.network.features(images), 1)
        return self.network.classify(means.flatten(1))


def is_installed() -> bool:
    """Return whether scripts/litert-torch-env has made its environment."""
    return (INTERPRETER.parents[1] / "litert-torch-env.txt").is_file() and INTERPRETER.exists()


def convert(network: Network, input_size: int, cache: Path = CACHE) -> Converted:
    """Return the file of `network` in evaluation mode, for one image of input_size x input_size, (1, S, S, 3).

    Raises:
        ConversionError: the converter does not start, or rejects the network.
    """
    program = torch.export.export(Pooled(network).eval(), (torch.zeros(1, 3, input_size, input_size),))
    file = cache / f"{_digest(program, input_size)}.tflite"
    record = file.with_suffix(".json")  # written last, so an interrupted conversion is not cached
    if not record.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            path = Path(folder) / "network.pt2"
            torch.export.save(program, path)
            printed = _run(str(path), f"{folder}/network.tflite")
            (Path(folder) / "network.tflite").replace(file)
            (Path(folder) / "record.json").write_text(printed.splitlines()[-1])
            (Path(folder) / "record.json").replace(record)
    return Converted(file.read_bytes(), **json.loads(record.read_text()))


def _run(*arguments: str) -> str:
    """Return what the child prints. Raises ConversionError with the last line of its errors."""
    try:
        done = subprocess.run([INTERPRETER, CHILD, *arguments], capture_output=True, text=True)
    except OSError as error:
        raise ConversionError(f"{INTERPRETER} does not start ({error}); run scripts/litert-torch-env") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ConversionError(f"litert-torch failed: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return done.stdout


def _digest(program: torch.export.ExportedProgram, input_size: int) -> str:
    """Return a digest of all that the file depends on: operators, sizes, weights, the converter and the child."""
    digest = hashlib.sha256(f"{input_size} {program.graph}".encode())
    digest.update(CHILD.read_bytes() + (INTERPRETER.parents[1] / "litert-torch-env.txt").read_bytes())
    for name, tensor in sorted({**program.state_dict, **program.constants}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:24]
