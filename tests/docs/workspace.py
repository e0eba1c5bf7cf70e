"""The files that the commands on the pages use, and how their commands are shortened."""

import contextlib
import importlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from foreign_models import onnx_model
from PIL import Image

import mnas
from mnas.cli.main import COMMANDS, run
from mnas.cli.parsing import parse
from tests.docs.pages import DOCS, blocks

BENCHMARK = Path(__file__).parents[3] / "shared" / "data" / "anb" / "anb_dataset_jsons.tar.gz"
SHORTER = {
    "search": "--trials 3 --epochs 1 --fewest-steps 1 --latency-budget-s 0.1 --max-images-per-class 60 --workers 1",
    "train": "--epochs 1 --threads 1",
    "proxy-check": "--architectures 3 --seeds 1 --epochs 2 --try-epochs 1 --try-image-shares 1 --try-input-sizes 16 "
    "--fewest-steps 1 --workers 1",
    "export": "--images 24",
    "latency": "--budget-s 0.1",
    "latency fit": "--samples 24 --budget-s 0.1",
    "devices calibrate": "--sessions 3 --budget-s 0.1",
    "bench": "--trials 20 --seeds 2 --workers 1",
}
"""Command -> options that make it short; they replace the values on the page."""
SMALL = "--input-size 16 --width 0.25 --output-stride 8"
"""Options of a search whose page gives no --input-size."""


def make_photos(folder: Path, images: int = 60) -> None:
    """Write two classes of photographs that a network can tell apart: bright and dark ones."""
    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("bright", 190)):
        (folder / label).mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(level - 50, level + 50, (24, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.jpg", quality=95)


def make_table(folder: Path) -> None:
    """Write table.csv by the block of the guide that other guides link to."""
    page = DOCS / "guides" / "compare-controllers.md"
    [code] = [block.text for block in blocks(page) if 'open("table.csv", "w"' in block.text]
    with contextlib.chdir(folder):
        exec(compile(code, page.name, "exec"), {})


def make_files(folder: Path) -> None:
    """Write what the user of README and tutorial has: images, a table of networks and a model of another program."""
    make_photos(folder / "photos")
    make_photos(folder / "more-photos", 10)
    make_table(folder)
    shutil.copy(folder / "photos/dark/0.jpg", folder / "photo.jpg")
    (folder / "theirs.onnx").write_bytes(onnx_model())
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    if BENCHMARK.exists():
        (folder / BENCHMARK.name).symlink_to(BENCHMARK)


def add_search(folder: Path) -> None:
    """Write what the user of a guide has besides: a search, a training and an export of the images."""
    with contextlib.chdir(folder):
        for command in (
            "search --data photos --run runs/photos --trials 3 --epochs 20 --fewest-steps 100 --input-size 16 "
            "--width 0.5 --output-stride 8 --latency-budget-s 0.1 --workers 1",
            "train runs/photos#0 --data photos --epochs 3 --threads 1",
            "export runs/photos#0 --to litert --data photos --images 24 --out model.tflite",
        ):
            run_mnas([with_trial(word) for word in command.split()])


def run_mnas(arguments: Sequence[str]) -> None:
    """Run a command of mnas in this process."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()) as out:
        code = run(arguments)
    assert code == 0, f"mnas {' '.join(arguments)}\n{out.getvalue()[-1000:]}\n{errors.getvalue()[-2000:]}"


def run_command(command: str) -> None:
    """Run a command: mnas in this process, others by a shell."""
    if command.startswith("mnas "):
        run_mnas(arguments_of(command))
    else:
        subprocess.run(command, shell=True, check=True, timeout=120)


def parse_command(command: str) -> None:
    """Check the options of `mnas ...`, without running it."""
    words = shlex.split(command)[1:]
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), "")
    if words != ["--version"]:
        assert name, command
        module, _, kind = COMMANDS[name][0].partition(":")
        rest = list(itertools.takewhile(lambda word: word not in ("|", ">", "&&"), words[len(name.split()) :]))
        parse(getattr(importlib.import_module(module), kind), name, rest)


def commands_of(text: str) -> Iterator[str]:
    """Yield the commands of a block of bash; a backslash at the end of a line continues it."""
    for line in text.replace("\\\n", " ").splitlines():
        if (command := re.sub(r"\s+#.*$", "", line).strip()) and not command.startswith("#"):
            yield command


def arguments_of(command: str) -> list[str]:
    """Return the arguments of `mnas ...` with shorter options, and with a trial that exists in the place of #17."""
    words = shlex.split(command)[1:]
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), "")
    small = name == "search" and "--input-size" not in words
    for flag, value in shorter(name, small=small):
        words = with_option(words, flag, value)
    if "--target-latency-ms" in words:
        words = with_option(words, "--target-latency-ms", quicker(words[words.index("--target-latency-ms") + 1]))
    return [with_trial(word) for word in words]


def quicker(targets: str) -> str:
    """Return targets in ms that the small networks of the shorter commands reach."""
    return re.sub(r"\b\d+(\.\d+)?\b", lambda match: f"{0.1 + float(match[0]) / 200:g}", targets)


def shorter(command: str, *, small: bool) -> list[tuple[str, str]]:
    """Return the flags and values that make a command short."""
    words = f"{SHORTER.get(command, '')} {SMALL if small else ''}".split()
    return list(zip(words[::2], words[1::2], strict=True))


def with_option(words: Sequence[str], flag: str, value: str) -> list[str]:
    """Return the words with this value of an option."""
    words = list(words)
    if flag in words:
        longer = flag == "--trials" and float(words[words.index(flag) + 1]) > 100  # a search that is extended
        words[words.index(flag) + 1] = str(int(value) + 1) if longer else value
        return words
    return [*words, flag, value]


def with_trial(text: str) -> str:
    """Replace each `RUN#NUMBER` by the fastest result on the front of that run, which has weights."""
    for match in re.finditer(r"([\w./-]+)#(\d+)\b", text):
        if (Path(match[1]) / "study.db").exists():
            text = text.replace(match[0], f"{match[1]}#{mnas.open_run(match[1]).front[0].label}")
    return text
