"""`mnas train RUN --top N`: the best of a search trained in full, and what that says of the search's proxy."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mnas.cli.class_table import print_class_table, print_line
from mnas.data.arrays import ArrayBatches
from mnas.data.batches import Batches, by_stat_line, unreadable_line
from mnas.data.cache import OnProgress
from mnas.data.mirror import as_begun, mirror_note
from mnas.data.open_batches import Loader, open_batches
from mnas.evaluate.baseline import NAMES
from mnas.objective import Objective
from mnas.readers import stored_settings
from mnas.report.html import write_report
from mnas.shortlist.table import FILE_NAME, Row, agreement, meaning
from mnas.shortlist.train import SETTINGS_NAME, Outcome, train_shortlist
from mnas.study import RunError, Snapshot, needed, objectives_of, read_run
from mnas.study.results import metric_of
from mnas.train.config import TrainConfig
from mnas.train.settings import TrainingStopped


@dataclass(frozen=True, kw_only=True)
class RunImages:
    """How the images of a run are opened; picklable, as every training does so for itself."""

    data: str
    input_size: int
    split_seed: int
    """The search's: it decides which images are held out."""
    config: TrainConfig
    loader: Loader
    readers: int
    """Processes that read files or shards."""
    data_dir: Path | None
    download: bool
    max_images_per_class: int
    cached: tuple[str, str] | None = None
    """Content and key of the images, so that the trainings' own processes open the cache without listing files."""

    def __call__(self, on_progress: OnProgress | None = None, *, verify_cache: bool = False) -> Batches:
        """Raises ValueError as `open_batches`."""
        return open_batches(
            self.data,
            input_size=self.input_size,
            seed=self.split_seed,
            crop=self.config.crop,
            augmentation=self.config.variation(),
            loader=self.loader,
            workers=self.readers,
            data_dir=self.data_dir,
            download=self.download,
            max_images_per_class=self.max_images_per_class,
            on_progress=on_progress,
            cached=self.cached,
            verify_cache=verify_cache,
        )


def train_best(
    console: Console,
    path: Path,
    *,
    top: int,
    workers: int,
    config: TrainConfig,
    data: str,
    loader: Loader,
    readers: int,
    data_dir: Path | None,
    download: bool,
    max_images_per_class: int,
    verify_cache: bool,
) -> None:
    """Train the best `top` of the run at `path`, and print its table; `data` empty: the run's own.

    Raises:
        ValueError: as `train_shortlist`; the run's images have changed; torchrun; some trainings have failed (the
            others are done then, and in the table).
        KeyboardInterrupt, TrainingStopped: Ctrl-C or SIGTERM, after everything is saved and the command to go on is
            printed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a run's best must be trained without torchrun, which shares out one training; use --workers")
    run = read_run(path)
    searched = {name: needed(path, run.attributes, "config", name) for name in ("data", "input_size", "seed")}
    images = RunImages(
        data=data or searched["data"],
        input_size=searched["input_size"],
        split_seed=searched["seed"],
        config=config,
        loader=loader,
        readers=readers,
        data_dir=data_dir,
        download=download,
        max_images_per_class=max_images_per_class,
    )
    with console.status("reading the images") as status:
        batches = images(
            lambda done, count: status.update(f"decoding images: {done} of {count}"), verify_cache=verify_cache
        )
    _check_unchanged(run, images, batches)
    config = _mirrored_as_begun(run, config, batches)
    images = dataclasses.replace(images, config=config)
    if isinstance(batches, ArrayBatches):
        images = dataclasses.replace(images, cached=batches.cached)
    print_class_table(console, batches.table, "val")
    print_line(console, mirror_note(config.mirror, batches.may_be_mirrored, batches.classes))
    print_line(console, by_stat_line(batches))
    print_line(console, unreadable_line(batches.skipped) if batches.skipped else "")
    del batches

    say = console.print
    try:
        outcome = train_shortlist(path, top=top, config=config, open_batches=images, workers=workers, say=say)
    except (KeyboardInterrupt, TrainingStopped):
        say(f"stopped; nothing is lost. To go on: {shlex.join(['mnas', *sys.argv[1:]])}")
        raise
    if outcome.rows:
        name = NAMES[metric_of(run.attributes)]
        say(shortlist_table(outcome.rows, name))
        say(f"{meaning(agreement(outcome.rows))}.")
        for objective in objectives_of(run.attributes):
            say(_advice(path, outcome.rows, objective, name, len(objectives_of(run.attributes)) > 1))
        say(f"table: {path / 'trained' / FILE_NAME}; report: {write_report(path)}")
    if outcome.failed:
        raise RunError(_failures(outcome))


def _failures(outcome: Outcome) -> str:
    titles = {n: f"trial {n}" if isinstance(n, int) else n for n in outcome.failed}
    reasons = "; ".join(f"{titles[n]}: {reason}" for n, reason in outcome.failed.items())
    return (
        f"all trainings must end well, but got {len(outcome.failed)} of {len(outcome.chosen)} failed ({reasons}); the "
        "same command tries them again"
    )


def _mirrored_as_begun(run: Snapshot, config: TrainConfig, batches: Batches) -> TrainConfig:
    """Return the recipe with images mirrored as in the trainings that it resumes, else as in the search."""
    stored = stored_settings(run.path / "trained" / SETTINGS_NAME)
    mirror = as_begun(config.mirror, stored, batches.may_be_mirrored, batches.classes)
    if mirror == "auto":
        mirror = needed(run.path, run.attributes, "config", "proxy").get("mirror", "auto")
    return dataclasses.replace(config, mirror=mirror)


def _check_unchanged(run: Snapshot, images: RunImages, batches: Batches) -> None:
    searched = run.attributes["config"]
    for name in ("data", "max_images_per_class", "data_content"):
        needed(run.path, run.attributes, "config", name)
    same_images = (searched["data"], searched["max_images_per_class"]) == (images.data, images.max_images_per_class)
    # other loaders have fingerprints of their own kind
    if same_images and isinstance(batches, ArrayBatches) and batches.fingerprint != searched["data_content"]:
        raise RunError(
            f"the images of {images.data} must be those of the search for the accuracies to be comparable, but they "
            f"have changed since; search them anew, or train its trials one by one (mnas train {run.path}#NUMBER)"
        )


def shortlist_table(rows: Sequence[Row], name: str = "accuracy") -> Table:
    """The trained trials, fastest first, the highest reward in bold; `name` is what their accuracies are."""
    tested = any(row.test_accuracy is not None for row in rows)
    told = any(row.source != "measured" for row in rows)  # in this search, as all are unless it says so
    names = ["trial", f"proxy {name}", name, *([f"test {name}"] if tested else [])]
    table = Table(
        *names, "latency ms", *(["source"] if told else []), "95 %", "params", "MACs", "reward", box=box.SIMPLE
    )
    best = max(rows, key=lambda row: row.reward)
    for row in rows:
        test = "-" if row.test_accuracy is None else f"{row.test_accuracy:.4f}"
        table.add_row(
            str(row.trial),
            f"{row.proxy_accuracy:.4f}",
            f"{row.accuracy:.4f}",
            *([test] if tested else []),
            f"{row.latency_ms:.3f}",
            *([row.source] if told else []),
            f"{row.low_ms:.3f}-{row.high_ms:.3f}",
            f"{row.params / 1e6:.2f}M",
            f"{row.macs / 1e6:.1f}M",
            f"{row.reward:.4f}",
            style="bold" if row is best else "",
        )
    return table


def _advice(path: Path, rows: Sequence[Row], objective: Objective, name: str, several: bool) -> str:
    best = max(rows, key=lambda row: objective.reward(row.accuracy, row.latency_ms))
    reward = objective.reward(best.accuracy, best.latency_ms)
    model = f"{path}#{best.trial}"
    target = f"for {objective.target_latency_ms:g} ms " if several else ""
    return (
        f"{target}take {best.title}: the best reward after full training ({reward:.4f}), {name} "
        f"{best.accuracy:.4f} at {best.latency_ms:.3f} ms; mnas export {model} --to litert"
    )
