"""Build the wheel and try it in fresh environments: for each Python, with the lowest and the newest dependencies.

`python scripts/check_wheel.py [--pythons 3.11,3.12,3.13] [--resolutions lowest-direct,highest]` prints a table and ends
with 1 if a step fails. A Python that this machine lacks is listed as missing. Each environment runs a whole search,
training, export and prediction on scikit-learn's digits. It needs uv, which the extra dev contains.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = "--input-size 8 --threads 1"
STEPS = (
    ("installed packages agree", "uv pip check"),
    ("mnas --version", "mnas --version"),
    ("mnas --help", "mnas --help"),
    (
        "search",
        "mnas search --data digits --run runs/digits --trials 3 --epochs 1 --fewest-steps 1 --width 0.25 "
        "--input-size 8 --output-stride 8 --latency-budget-s 0.2 --max-images-per-class 30 --workers 1",
    ),
    ("train", f"mnas train mnasnet-small@0.25/s4 --data digits --epochs 1 --out trained {TINY}"),
    (
        "export",
        "mnas export trained/mnasnet-small@0.25-s4-8px --to litert --data digits --images 50 --out model.tflite",
    ),
    ("predict", "mnas predict model.tflite digit.png --top 2"),
    ("latency", "mnas latency mnasnet-small@0.25/s4 --input-size 8 --budget-s 0.2"),
    ("report", "mnas report runs/digits"),
    (
        "import mnas",
        "python -c \"import mnas; run = mnas.open_run('runs/digits'); assert run.status == 'finished'; "
        "assert len(run.trials) == 3; assert mnas.load('model.tflite').predict('digit.png')\"",
    ),
    (
        "py.typed",
        "python -c \"import importlib.resources as r; assert r.files('mnas').joinpath('py.typed').is_file()\"",
    ),
)
"""Name and command of each step; `digit.png` is an image of the digits."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", default="3.11,3.12,3.13")
    parser.add_argument("--resolutions", default="lowest-direct,highest")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "wheel")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # uv of the same environment
    shutil.rmtree(arguments.folder, ignore_errors=True)
    wheel = built(arguments.folder)
    failed = False
    print(f"{wheel.name}, {wheel.stat().st_size / 1000:.0f} kB")
    for version in arguments.pythons.split(","):
        if (python := found(version)) is None:
            print(f"Python {version}: missing on this machine")
            continue
        for resolution in arguments.resolutions.split(","):
            failed |= not check(wheel, python, version, resolution, arguments.folder / f"{version}-{resolution}")
    return int(failed)


def built(folder: Path) -> Path:
    """Return the wheel, built from the files that git tracks."""
    source = folder / "source"
    source.mkdir(parents=True)
    subprocess.run(f"git archive HEAD | tar -x -C {source}", shell=True, check=True, cwd=ROOT)
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, source], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def found(version: str) -> str | None:
    """Return the path of a Python of this version, from PATH or pyenv, or None; nothing is downloaded."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        code = "import sys; print(f'{sys.version_info.major}.{sys.version_info.minor}')"
        result = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if result.stdout.strip() == version:
            return candidate
    return None


def check(wheel: Path, python: str, version: str, resolution: str, folder: Path) -> bool:
    """Install the wheel in a new environment, run the steps and print a line for each; return whether all passed."""
    environment = folder / "environment"
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "VIRTUAL_ENV": str(environment),
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **{f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "STATE", "CONFIG")},
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
    }
    print(f"\nPython {version}, dependencies: {resolution}")
    steps = (
        ("new environment", f"uv venv --quiet --python {python} {environment}"),
        ("install", f"uv pip install --quiet --only-binary :all: --resolution {resolution} {wheel}"),
        ("digit.png", f'python -c "{DIGIT}"'),
        *STEPS,
    )
    folder.mkdir(parents=True)
    for name, command in steps:
        start = time.monotonic()
        result = subprocess.run(command, shell=True, cwd=folder, env=variables, capture_output=True, text=True)
        print(f"  {name:28} {'passed' if result.returncode == 0 else 'FAILED'} {time.monotonic() - start:8.2f} s")
        if result.returncode != 0:
            print(result.stdout[-2000:], result.stderr[-2000:], sep="\n")
            return False
    return True


DIGIT = (
    "from sklearn.datasets import load_digits; from PIL import Image; "
    "Image.fromarray((load_digits().images[0] * 15).astype('uint8')).save('digit.png')"
)

if __name__ == "__main__":
    sys.exit(main())
