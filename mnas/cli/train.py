"""`mnas train`: an architecture, or a run's best, trained in full."""

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter
from rich.console import Console

from mnas.architecture import Architecture
from mnas.cli.class_table import print_class_table, print_line
from mnas.cli.console import make_console
from mnas.cli.data_options import VerifyCache
from mnas.cli.shortlist import train_best
from mnas.cli.signals import closing_takes
from mnas.cli.train_progress import is_first_process, watching_training
from mnas.data.batches import Batches, by_stat_line, unreadable_line
from mnas.data.mirror import as_begun, mirror_note
from mnas.data.native import native_size
from mnas.data.open_batches import Loader, open_batches
from mnas.evaluate.baseline import not_above_baseline
from mnas.names import searched_size
from mnas.readers import stored_settings
from mnas.scaling import at_width, input_sizes, width_multipliers
from mnas.train.config import TrainConfig
from mnas.train.folder import CONFIG_NAME, Trained, require_free
from mnas.train.initial import held_out_seed, initial_network, trained_on
from mnas.train.presets import PRESETS, named_preset
from mnas.train.settings import STOPPING_S, TrainingStopped
from mnas.training_data import TrainedOn


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Train an architecture in full; with --top, the best of a search. The same command with --resume goes on."""

    arch: str = field(kw_only=False)
    """A name (mnasnet-a1, mnasnet-a1@0.5, mnasnet-small/s8), a trial (runs/NAME#17), a .json file or block strings;
    with --top a run (runs/NAME)."""
    data: str = ""
    """digits, cifar10, fashion-mnist, imagenet, a folder with one folder of images for each class (or train/, val/,
    test/), or tar shards; with --top the run's own unless it lies elsewhere now."""
    preset: str = "auto"
    """small, imagenet or finetune, whose values are the defaults of the recipe below; auto: finetune with --weights,
    imagenet for imagenet, else small."""
    out: Path = Path("trained")
    """Each training gets a folder of its own in it: OUT/ARCH-SIZEpx."""
    resume: bool = False
    """Go on with what is there, and leave alone what is finished."""
    weights: str = ""
    """Weights to start from: timm, torchvision, or a file of theirs or ours; a new classifier where classes differ."""

    input_size: str = "auto"
    """Side of the images in pixels, or several to train one after another (96,128); auto: a trial's as it was searched,
    else the data set's own, up to 224."""
    width_multiplier: str = "1"
    """Of the architecture, or several (0.5,1.0)."""
    top: int = 0
    """Of a run: train its so many best by reward, spread along the front."""

    loader: Loader = "auto"
    """How images are read: array (decoded once, shared by all processes), files (decoded every time) or shards (tar);
    auto: shards for tar files, an array where that is small and the whole image is used, else files."""
    workers: int | Literal["auto"] = "auto"
    """Processes that read files or shards (auto: one for each core, 16 at most); with --top, trainings side by side
    (auto: 1)."""
    data_dir: Path | None = None
    """Where cifar10, fashion-mnist and imagenet lie, or are downloaded to; not given: in the cache folder."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    verify_cache: VerifyCache = False
    max_images_per_class: int = 0
    """Use only so many training images of each class; 0: all."""

    config: Annotated[TrainConfig, Parameter(name="*")] = field(default_factory=lambda: PRESETS["small"])
    """The recipe."""

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return option -> default, of the preset that the given options choose.

        Raises:
            ValueError: there is no such preset.
        """
        preset = given.get("preset", cls.preset)
        if preset == "auto":
            preset = "finetune" if given.get("weights") else "imagenet" if given.get("data") == "imagenet" else "small"
        return vars(named_preset(preset))

    def run(self) -> None:
        """Train, and print what came out. Raises ValueError for what the user can mend."""
        closing_takes(STOPPING_S + 10)  # with the end of what is trained side by side
        if (Path(self.arch) / "study.db").is_file():
            self._train_shortlist()
            return
        if self.top:
            raise ValueError(f"--top must come with a run's folder, but got {self.arch!r}; name one (mnas runs)")
        if not self.data:
            raise ValueError("data must be given, but got none; use --data with a name (digits) or a folder of images")
        console = make_console() if is_first_process() else make_console(quiet=True)
        sizes = input_sizes(self.input_size) or (searched_size(self.arch) or native_size(self.data),)
        widths = width_multipliers(self.width_multiplier)
        trainings = [(*at_width(self.arch, width), size) for width in widths for size in sizes]
        for name, arch, size in trainings:  # before the first of them takes its hours
            arch.check_input_size(size)
            if is_first_process():  # the others come when it may have begun
                require_free(self._folder(name, arch, size), self.resume)
        for number, (name, arch, size) in enumerate(trainings):
            self._train(console, name, arch, size, show=number == 0)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _train(self, console: Console, name: str, arch: Architecture, size: int, *, show: bool) -> Trained:
        from mnas.train.loop import train  # timm and accelerate take seconds, and what is refused needs neither

        folder = self._folder(name, arch, size)
        earlier, split_seed = self._earlier(console)
        batches = self._open(console, size, self.config, split_seed)
        stored = stored_settings(folder / CONFIG_NAME, "identity") if self.resume else None
        mirror = as_begun(self.config.mirror, stored, batches.may_be_mirrored, batches.classes)
        config = dataclasses.replace(self.config, mirror=mirror)
        if mirror != self.config.mirror:
            batches = self._open(console, size, config, split_seed)
        initial = None
        if self.weights:
            initial = initial_network(self.weights, name, arch, batches, self.config.seed)
            arch = initial.arch
        for line in _described(name, arch, batches, config, folder):
            console.print(line)
        if show:
            print_class_table(console, batches.table, "val")
            print_line(console, by_stat_line(batches))
            print_line(console, mirror_note(mirror, batches.may_be_mirrored, batches.classes))
        known = len(batches.skipped)  # decoded before; others turn up while files are read
        if known:
            console.print(unreadable_line(batches.skipped))
        try:
            with watching_training(console) as watcher:
                trained = train(
                    arch, batches, config, folder, initial=initial, earlier=earlier, resume=self.resume, watcher=watcher
                )
        except TrainingStopped as stop:
            console.print(f"stopped at {stop.where}; nothing is lost. To go on: {resuming()}")
            raise
        if len(batches.skipped) > known:
            console.print(unreadable_line(batches.skipped))
        console.print(_conclusion(trained))
        counts = batches.table.images.get("val", ())
        print_line(console, not_above_baseline("accuracy", counts, sum(counts), trained.accuracy, advice=""))
        return trained

    def _earlier(self, console: Console) -> tuple[TrainedOn, int]:
        """Return the trainings of --weights, and the seed of the split that keeps their images out of validation."""
        if not self.weights:
            return (), self.config.seed
        earlier = trained_on(self.weights, console.print)
        seed = held_out_seed(
            self.weights,
            earlier,
            self.data,
            seed=self.config.seed,
            max_images_per_class=self.max_images_per_class,
            data_dir=self.data_dir,
            download=self.download,
            say=console.print,
        )
        return earlier, seed

    def _folder(self, name: str, arch: Architecture, size: int) -> Path:
        return self.out / f"{_as_file_name(name, arch)}-{size}px"

    def _open(self, console: Console, size: int, config: TrainConfig, split_seed: int) -> Batches:
        with console.status("reading the images", spinner="line") as status:
            return open_batches(
                self.data,
                input_size=size,
                seed=split_seed,
                crop=config.crop,
                augmentation=config.variation(),
                loader=self.loader,
                workers=_readers() if self.workers == "auto" else self.workers,
                data_dir=self.data_dir,
                download=self.download,
                max_images_per_class=self.max_images_per_class,
                on_progress=lambda done, count: status.update(f"decoding images: {done} of {count}"),
                verify_cache=self.verify_cache,
            )

    def _train_shortlist(self) -> None:
        choices = {
            "--out": self.out != Path("trained"),
            "--weights": self.weights,
            "--input-size": self.input_size != "auto",
            "--width-multiplier": self.width_multiplier != "1",
        }
        if given := [name for name, chosen in choices.items() if chosen]:
            raise ValueError(
                f"a run's best must be trained as they were searched, inside the run, but got {', '.join(given)}; "
                f"leave that out, or train single trials ({self.arch}#NUMBER)"
            )
        if not self.top:
            raise ValueError(
                f"{self.arch!r} is a run; train its best (--top 15), or one of its trials ({self.arch}#NUMBER)"
            )
        train_best(
            make_console(),
            Path(self.arch),
            top=self.top,
            workers=1 if self.workers == "auto" else self.workers,
            config=self.config,
            data=self.data,
            loader=self.loader,
            readers=_readers(),
            data_dir=self.data_dir,
            download=self.download,
            max_images_per_class=self.max_images_per_class,
            verify_cache=self.verify_cache,
        )


def _readers() -> int:
    """Processes that read files or shards unless told: the machine's cores, shared by those that torchrun started."""
    return max(1, min(16, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _as_file_name(name: str, arch: Architecture) -> str:
    """`mnasnet-small/s8` -> mnasnet-small-s8, `runs/NAME#17` -> NAME-17; block strings by their fingerprint."""
    if "," in name or ("_" in name and re.match(r"\s*r\d+_", name)):
        return f"arch-{arch.fingerprint}"
    if "#" in name or name.split(" ")[0].endswith((".json", ".safetensors", ".tflite")):
        name = Path(name).name  # of a trial, or of a file
    name = re.sub(r"\.(json|safetensors|tflite)\b", "", name)
    return re.sub(r"[^A-Za-z0-9@.]+", "-", name).strip("-")


def _described(name: str, arch: Architecture, batches: Batches, config: TrainConfig, folder: Path) -> tuple[str, str]:
    counts = ", ".join(f"{count:,} {part}" for part, count in batches.counts.items())
    size = config.batch_size_for(batches.counts["train"])
    return (
        f"data {batches.name}: {len(batches.classes)} classes, images {counts}, {batches.input_size} px",
        f"{name}: {config.epochs} epoch(s) of {batches.steps(size):,} steps of {size} images, peak learning rate "
        f"{config.learning_rate * size / 256:.4g}; into {folder}",
    )


def _conclusion(trained: Trained) -> str:
    test = "" if trained.test_accuracy is None else f", test accuracy {trained.test_accuracy:.2%}"
    balanced = ""
    if trained.balanced_accuracy is not None and trained.majority_share is not None:
        tested = "" if trained.test_balanced_accuracy is None else f", test {trained.test_balanced_accuracy:.2%}"
        balanced = f"balanced {trained.balanced_accuracy:.2%}{tested}, majority share {trained.majority_share:.2%}; "
    return (
        f"validation accuracy {trained.accuracy:.2%}{test}; {balanced}"
        f"{trained.epochs} epoch(s) in {trained.seconds:.0f} s, "
        f"{trained.images_per_s:,.0f} images/s, {trained.waiting:.1%} of the time waiting for data; {trained.weights}"
    )


def resuming() -> str:
    """The command that goes on with this process's training."""
    arguments = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return shlex.join(["mnas", *arguments])
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:  # what of torchrun's options is whose, only its user knows
        return f"the same torchrun on every machine, ending in: -m mnas.cli.main {shlex.join(arguments)}"
    launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "mnas.cli.main"]
    return shlex.join([*launcher, *arguments])
