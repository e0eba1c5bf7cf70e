"""`mnas demo`: search, export and check on built-in images, in a few minutes on two cores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.cli.console import make_console
from mnas.cli.search import search_and_conclude
from mnas.data.dataset import Dataset
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.search.settings import SearchSettings
from mnas.study import TrialRecord, front_of
from mnas.study.results import results_of
from mnas.tflite.runtime import run_tflite


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Search the paper's space on scikit-learn's digits, then score the exported LiteRT files on held-out images."""

    trials: int = 40
    """Number of candidates."""
    run_dir: Path = Path("runs/demo")
    """Folder of the run; an interrupted demo is resumed, and a finished one is printed again."""

    def run(self) -> None:
        """Search, check what was exported, and point to the report."""
        console = make_console()
        # The space has all choices of all seven blocks. The other values are chosen to fit the time, and are printed.
        settings = SearchSettings(
            images=TrainingDataOptions(data="digits"),
            run=self.run_dir,
            trials=self.trials,
            parent="",
            width=0.25,
            input_size="12",
            output_stride=8,
            latency_budget_s=0.5,
            proxy=ProxyConfig(epochs=3, batch_size=32, fewest_steps=1),
        )
        console.print(
            "demo: digits, width multiplier 0.25, input size 12, output stride 8, 3 epochs in batches of 32, latency "
            "budget 0.5 s; it takes a few minutes on two cores"
        )
        result = search_and_conclude(settings, console)
        self._check(console, result.dataset, front_of(results_of(result.run)))
        console.print(f"to start again from scratch, delete {self.run_dir}")

    def _check(self, console: Console, dataset: Dataset, front: list[TrialRecord]) -> None:
        """Run every exported file on the validation images and print its accuracy beside the table's."""
        images = (np.asarray(dataset.val.images, np.float32) / 255 - dataset.mean) / dataset.std
        table = Table("file", "accuracy in LiteRT", "accuracy in the table", "difference", box=box.SIMPLE)
        for trial in front:
            path = self.run_dir / "front" / trial.label / "model.tflite"
            outputs = run_tflite(path.read_bytes(), images.astype(np.float32))
            accuracy = float((outputs.argmax(1) == dataset.val.labels).mean())
            in_table, _ = trial.point
            table.add_row(str(path), f"{accuracy:.4f}", f"{in_table:.4f}", f"{accuracy - in_table:+.4f}")
            if abs(accuracy - in_table) > 0.005:
                raise RuntimeError(
                    f"{path} must also have the accuracy {in_table:.4f} in LiteRT, but got {accuracy:.4f}"
                )
        console.print()
        console.print(f"exported files, run by LiteRT on the {len(images)} held-out digits:")
        console.print(table)
