"""Settings of `mnas train`: the network to train, its images, and the recipe."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mnas.data.cache import OnProgress
from mnas.data.options import Loader, TrainingDataOptions
from mnas.readers import stored_settings
from mnas.require import require_number
from mnas.settings import from_options, named_preset
from mnas.train.config import TrainConfig
from mnas.train.presets import PRESETS

if TYPE_CHECKING:
    from mnas.data.batches import Batches

Auto = Literal["auto"]
MOST_READERS = 16
"""Default limit on the number of processes that read images for one training."""


@dataclass(frozen=True, kw_only=True)
class TrainImages(TrainingDataOptions):
    """The images of a training."""

    data: str = ""
    """Data set: digits, cifar10, fashion-mnist, imagenet, a folder that contains a folder of images for each class
    (directly or inside train/, val/ and test/), or a folder of tar shards (train-*.tar). With --top, needed only if the
    run's data has moved."""
    max_images_per_class: int = 0
    """Number of training images to use per class; 0: all."""


@dataclass(frozen=True, kw_only=True)
class DistillationOptions:
    """The teacher of a training. Raises ValueError if a field is out of range."""

    teacher: str = ""
    """Trained model that teaches the network its outputs: a .safetensors, .tflite, .onnx or .pte file, the folder of a
    training, or a trial (runs/NAME#17). Its classes must include the data's."""
    unlabelled: str = ""
    """Further images without labels, which only the teacher labels: a folder of images or of tar shards, or a pattern
    of tar shards; needs --teacher."""
    teacher_class_file: Path | None = None
    """File with the names of the teacher's outputs, for a file without names: one per line, or JSON."""
    teacher_mean: str = ""
    """Mean of pixels from 0 to 1 for a teacher whose file does not record it: one number or three
    (0.485,0.456,0.406)."""
    teacher_std: str = ""
    """Standard deviation of pixels for such a teacher."""
    distillation_weight: float = 0.9
    """Share of the teacher in the loss; the labels have the rest."""
    temperature: float = 4.0
    """Temperature of the outputs of teacher and network in the loss; higher ones show more of the less likely
    classes."""

    def __post_init__(self) -> None:
        require_number("--distillation-weight", self.distillation_weight, 0, 1)
        require_number("--temperature", self.temperature, 0.1, 100)
        if not self.teacher:
            chosen = {
                "--unlabelled": self.unlabelled,
                "--teacher-class-file": self.teacher_class_file is not None,
                "--teacher-mean": self.teacher_mean,
                "--teacher-std": self.teacher_std,
                "--distillation-weight": self.distillation_weight != 0.9,
                "--temperature": self.temperature != 4,
            }
            for name in (name for name, value in chosen.items() if value):
                raise ValueError(f"{name} needs a teacher; name one with --teacher")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """A full training."""

    arch: str = field(kw_only=False)
    """Network to train: a name (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), trial (runs/NAME#17), .json file or
    block strings (see mnas show); with --top a run (runs/NAME)."""
    images: Annotated[TrainImages, Parameter(name="*")] = field(default_factory=TrainImages)
    """Images."""
    preset: str = "auto"
    """Recipe that sets the defaults; auto: finetune with --weights, or for a search with --parent; imagenet for
    --data imagenet; else small. The recipes are small, imagenet and finetune."""
    out: Path = Path("trained")
    """Folder for all trainings; each one writes to OUT/ARCH-SIZEpx."""
    resume: bool = False
    """Resume an interrupted training; a finished one is left as it is."""
    weights: str = ""
    """Weights to start from: timm, torchvision, pretrained or a file. timm and torchvision download them, and
    pretrained needs the extra mnas[pretrained]. If their classes differ from the data's, the classifier is newly
    initialised. From a larger network in a file of mnas, this one is cut."""

    input_size: str = "auto"
    """Input size in pixels, or several (96,128); auto: that of a trial, else of the data set, up to 224. A trial has
    the input size of its search. Several sizes are trained one after another."""
    width_multiplier: str = "1"
    """Width multiplier of the network, or several to train one after another (0.5,1.0)."""
    top: int = 0
    """Number of best trials to train from the run ARCH; 0: train ARCH itself. The trials have the best rewards at
    different latencies."""

    loader: Loader = "auto"
    """Way to read the images: array (decoded once, shared by all processes), files (decoded in every epoch) or shards
    (tar files). auto: shards for tar files; array if the decoded images take at most 2 GB and lose no detail that
    training needs; else files."""
    workers: int | Auto = "auto"
    """Number of processes that read files or shards (auto: one per core, at most 16); with --top, number of trainings
    that run in parallel (auto: 1)."""

    distillation: Annotated[DistillationOptions, Parameter(name="*")] = field(default_factory=DistillationOptions)
    """Teacher."""
    config: Annotated[TrainConfig, Parameter(name="*")] = field(default_factory=lambda: PRESETS["small"])
    """Recipe."""

    @property
    def readers(self) -> int:
        """Return the number of processes that read images; auto: the cores, divided among torchrun's processes."""
        if self.workers != "auto" and not self.top:
            return self.workers
        return max(1, min(MOST_READERS, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))

    def open_images(
        self,
        input_size: int,
        config: TrainConfig,
        split_seed: int,
        on_progress: OnProgress | None,
        *,
        cached: tuple[str, str] | None = None,
        unlabelled: bool = False,
    ) -> "Batches":
        """Return the images at one size, split by the seed.

        Args:
            cached: content and key of the images, as another process has just read them (`cached` of `open_batches`).
            unlabelled: return those of --unlabelled.

        Raises:
            ValueError: see `open_batches`.
        """
        from mnas.data.open_batches import open_batches  # torch takes seconds to import, and the help does not need it

        return open_batches(
            self.distillation.unlabelled if unlabelled else self.images.data,
            input_size=input_size,
            seed=split_seed,
            crop=config.crop,
            augmentation=config.variation(),
            loader=self.loader,
            workers=self.readers,
            data_dir=self.images.data_dir,
            download=self.images.download,
            max_images_per_class=0 if unlabelled else self.images.max_images_per_class,
            on_progress=on_progress,
            cached=cached,
            verify_cache=self.images.verify_cache,
            unlabelled=unlabelled,
        )


def preset_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe that these options choose, option by option. Raises ValueError for an unknown preset."""
    name = options.get("preset", TrainSettings.preset)
    if name == "auto":
        has_weights = options.get("weights") or (options.get("top") and _has_parents(str(options.get("arch"))))
        name = "finetune" if has_weights else "imagenet" if options.get("data") == "imagenet" else "small"
    return dict(vars(named_preset(PRESETS, name)))


def _has_parents(run: str) -> bool:
    """Return whether the search of this run chose among networks with known weights."""
    return "parents" in (stored_settings(Path(run) / "config.json") or {})


def train_settings(options: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of these options by name, over the values of the preset among them.

    Raises:
        ValueError: an option or the preset is unknown, or a value is out of range.
    """
    return from_options(TrainSettings, {**preset_values(options), **options})
