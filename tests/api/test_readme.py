"""The Python lines of the README and of docs/guides/python.md, shortened by options, on a folder of JPEGs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnas.study import read_run

ROOT = Path(__file__).parents[2]
SHORT = (
    "trials=2, epochs=1, fewest_steps=1, width=0.25, input_size=16, output_stride=8, latency_budget_s=0.1, workers=1"
)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def make_photos(folder: Path) -> None:
    """Two classes of photographs that a network can tell apart: bright and dark ones."""
    random = np.random.default_rng(0)
    for label, level in (("dark", 60), ("bright", 190)):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(level - 50, level + 50, (24, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.jpg", quality=95)


def test_the_five_lines_search_train_export_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = ("README.md", "docs/guides/python.md")
    [code] = {block for page in pages for block in blocks(page) if "mnas.search(" in block}  # the same in both
    make_photos(tmp_path / "photos")
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photos/dark/0.jpg").read_bytes())
    assert "trials=100" in code
    short = code.replace("trials=100", SHORT).replace("top=1", "top=1, epochs=2, threads=1")
    lines = "\n".join(f"    {line}" for line in short.splitlines())
    (tmp_path / "script.py").write_text(f'if __name__ == "__main__":\n{lines}\n')
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.search("bright|dark", result.stdout)
    assert "study" not in result.stderr
    before = read_run(tmp_path / "runs/photos").trials
    [weights] = (tmp_path / "runs/photos/trained").glob("*/model.safetensors")
    content = weights.read_bytes()
    monkeypatch.chdir(tmp_path)
    exec(compile(short, "script.py", "exec"), {})  # the same lines resume the run, and change nothing
    assert capsys.readouterr().out == result.stdout
    assert read_run(tmp_path / "runs/photos").trials == before
    assert weights.read_bytes() == content
    assert list(tmp_path.rglob("*.tflite"))
