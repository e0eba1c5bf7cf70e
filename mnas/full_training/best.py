"""Train the best of a run in full: open its images, train side by side, and write the table of results."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mnas.data.arrays import ArrayBatches
from mnas.data.batches import Batches, by_stat_line, unreadable_line
from mnas.data.cache import OnProgress
from mnas.data.listing.class_lines import class_table_lines
from mnas.data.mirror import as_begun, mirror_note
from mnas.full_training.run import Say
from mnas.full_training.teacher import open_teacher, overlap_note, taught
from mnas.readers import stored_settings
from mnas.shortlist.train import SETTINGS_NAME, Outcome, train_shortlist
from mnas.space.candidates import input_sizes_of
from mnas.study import RunError, Snapshot, needed, read_run
from mnas.train.config import TrainConfig
from mnas.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class RunImages:
    """Opens the images of a run; picklable, as every training opens them for itself."""

    settings: TrainSettings
    """Settings with the run's data and the recipe of the trainings."""
    split_seed: int
    """Seed of the search's split, which decides which images are held out."""
    cached: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Input size -> content and key of the images, with which a process opens the cache without listing files."""

    def __call__(self, input_size: int) -> Batches:
        """Return the images at one size, with the outputs of a teacher. Raises ValueError as `taught` does."""
        return self.taught(self.labelled(input_size), _silence, _silence)

    def labelled(self, input_size: int, on_progress: OnProgress | None = None) -> Batches:
        """Return the images at one size. Raises ValueError as `open_batches` does."""
        return self.settings.open_images(
            input_size, self.settings.config, self.split_seed, on_progress, cached=self.cached.get(input_size)
        )

    def taught(self, batches: Batches, say: Say, progress: Say) -> Batches:
        """Return the images with the teacher's outputs, which are cached; unchanged without a teacher."""
        settings = self.settings
        if not settings.distillation.teacher:
            return batches
        with open_teacher(settings) as teacher:
            if note := overlap_note(settings, teacher, self.split_seed):
                say(note)
            return taught(settings, teacher, batches, settings.config, self.split_seed, say, progress)


def _silence(line: str) -> None:
    """Print nothing."""


def train_best(settings: TrainSettings, *, say: Say, progress: Say) -> Outcome:
    """Train the best `settings.top` of the run `settings.arch`; an empty `data` selects the run's own.

    Raises:
        ValueError: see `train_shortlist`; also for options that do not apply to a run's best, changed images, and
            torchrun.
        KeyboardInterrupt, TrainingStopped: Ctrl-C or SIGTERM, after everything is saved.
    """
    _require_options(settings)
    run = read_run(Path(settings.arch))
    data, seed = (needed(run.path, run.attributes, "config", name) for name in ("data", "seed"))
    input_size = input_sizes_of(needed(run.path, run.attributes, "config"))[-1]
    images = dataclasses.replace(settings.images, data=settings.images.data or data)
    settings = dataclasses.replace(settings, images=images)
    source = RunImages(settings=settings, split_seed=seed)
    progress("reading images")
    batches = source.labelled(input_size, lambda done, count: progress(f"decoding images: {done} of {count}"))
    _check_unchanged(run, settings, batches)
    settings = dataclasses.replace(settings, config=_mirrored_as_begun(run, settings.config, batches))
    images = dataclasses.replace(images, verify_cache=False)  # once is enough
    source = dataclasses.replace(source, settings=dataclasses.replace(settings, images=images))
    if isinstance(batches, ArrayBatches):
        source = dataclasses.replace(source, cached={input_size: batches.cached})
    for line in _about_images(batches, settings.config):
        say(line)
    source.taught(batches, say, progress)  # the teacher runs once, before the trainings, which read its cached outputs
    del batches
    return train_shortlist(
        run.path,
        top=settings.top,
        config=settings.config,
        open_batches=source,
        workers=1 if settings.workers == "auto" else settings.workers,
        say=say,
    )


def _require_options(settings: TrainSettings) -> None:
    """Raise ValueError for options that do not apply to --top, and for torchrun."""
    path = settings.arch
    chosen = {
        "--out": settings.out != TrainSettings.out,
        "--weights": settings.weights,
        "--input-size": settings.input_size != "auto",
        "--width-multiplier": settings.width_multiplier != "1",
    }
    if names := [name for name, value in chosen.items() if value]:
        raise ValueError(
            f"--top trains trials as they were searched, in the run's folder, and does not take {', '.join(names)}. "
            f"Leave {'these options' if len(names) > 1 else 'this option'} out, or train single trials ({path}#NUMBER)."
        )
    if not settings.top:
        raise ValueError(f"{path!r} is a run; train its best trials (--top 15) or one of its trials ({path}#NUMBER)")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--top does not work under torchrun, which distributes a single training; use --workers")


def _about_images(batches: Batches, config: TrainConfig) -> list[str]:
    lines = [
        *class_table_lines(batches.table, "val"),
        mirror_note(config.mirror, batches.may_be_mirrored, batches.classes),
        by_stat_line(batches),
        unreadable_line(batches.skipped) if batches.skipped else "",
    ]
    return [line for line in lines if line]


def _mirrored_as_begun(run: Snapshot, config: TrainConfig, batches: Batches) -> TrainConfig:
    """Return the recipe with images mirrored as in the trainings that it resumes, else as in the search."""
    stored = stored_settings(run.path / "trained" / SETTINGS_NAME)
    mirror = as_begun(config.mirror, stored, batches.may_be_mirrored, batches.classes)
    if mirror == "auto":
        mirror = needed(run.path, run.attributes, "config", "proxy").get("mirror", "auto")
    return dataclasses.replace(config, mirror=mirror)


def _check_unchanged(run: Snapshot, settings: TrainSettings, batches: Batches) -> None:
    """Raise RunError if the images have changed since the search."""
    searched = run.attributes["config"]
    for name in ("data", "max_images_per_class", "data_content"):
        needed(run.path, run.attributes, "config", name)
    images = settings.images
    same_images = (searched["data"], searched["max_images_per_class"]) == (images.data, images.max_images_per_class)
    # other loaders have their own kind of fingerprint
    if same_images and isinstance(batches, ArrayBatches) and batches.fingerprint != searched["data_content"]:
        raise RunError(
            f"the images of {images.data} have changed since the search, so the accuracies would not be comparable. "
            f"Search again, or train single trials (mnas train {run.path}#NUMBER)."
        )
