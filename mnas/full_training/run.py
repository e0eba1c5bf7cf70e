"""Run a full training from its settings: architectures by name, images, initial weights, and notices about them."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mnas.architecture import Architecture
from mnas.data.batches import Batches, by_stat_line, unreadable_line
from mnas.data.listing.class_lines import class_table_lines
from mnas.data.mirror import as_begun, mirror_note
from mnas.evaluate.baseline import not_above_baseline
from mnas.names import as_file_name, parent_command, searched_size
from mnas.nn.cost import cost
from mnas.nn.network import Network
from mnas.readers import stored_settings
from mnas.scaling import at_width, input_sizes, width_multipliers
from mnas.text import counted
from mnas.train.config import TrainConfig
from mnas.train.folder import CONFIG_NAME, Trained, require_free
from mnas.train.initial import WeightsSource, held_out_seed, initial_network, trained_on, whole_network
from mnas.train.machine import is_first_process
from mnas.train.settings import TrainSettings
from mnas.train.watch import TrainWatcher
from mnas.training_data import TrainedOn

Say = Callable[[str], None]
Watching = Callable[[], AbstractContextManager[TrainWatcher]]
"""Opens the watcher of one training."""


@dataclass(frozen=True, kw_only=True)
class NamedTraining:
    """One architecture to train at one size."""

    name: str
    """Name of the architecture, as the user typed it."""
    arch: Architecture
    input_size: int
    """Side of the images in pixels."""

    def folder(self, out: Path) -> Path:
        """Return the training's own folder in `out`."""
        return out / f"{as_file_name(self.name, self.arch)}-{self.input_size}px"


@dataclass(frozen=True, kw_only=True)
class TrainListeners:
    """Listeners that a training reports to."""

    say: Say
    """Takes one line."""
    progress: Say
    """Takes the name of each step as it begins."""
    watching: Watching


def planned_trainings(settings: TrainSettings) -> list[NamedTraining]:
    """Return the trainings for all widths and sizes in these settings.

    Raises:
        ValueError: the architecture or the data set is unknown, or images are too small for the architecture.
    """
    images = settings.images
    if not images.data:
        raise ValueError("--data must be given: the name of a data set (digits) or a folder of images")
    if not settings.weights and (command := parent_command(settings.arch)):
        raise ValueError(f"{settings.arch} begins from known weights; train it with `{command}`, or with --top")
    sizes = input_sizes(settings.input_size) or (searched_size(settings.arch) or images.native_size(),)
    trainings = []
    for width in width_multipliers(settings.width_multiplier):
        name, arch = at_width(settings.arch, width)
        trainings += [NamedTraining(name=name, arch=arch, input_size=size) for size in sizes]
    for training in trainings:  # the first training may take hours
        training.arch.check_input_size(training.input_size)
        if is_first_process():  # another process may check after the first one has begun to write
            require_free(training.folder(settings.out), settings.resume)
    return trainings


def run_trainings(settings: TrainSettings, listeners: TrainListeners) -> list[Trained]:
    """Run the trainings for all widths and sizes in these settings, one after another.

    Raises:
        ValueError, OSError: see `planned_trainings` and `run_training`.
        TrainingError, TrainingStopped: see `run_training`.
    """
    trainings = planned_trainings(settings)
    return [run_training(settings, training, listeners, table=number == 0) for number, training in enumerate(trainings)]


def run_training(
    settings: TrainSettings, training: NamedTraining, listeners: TrainListeners, *, table: bool = True
) -> Trained:
    """Train one architecture in its folder below `settings.out`.

    Args:
        table: report the number of images per class.

    Raises:
        ValueError, OSError: the images, the initial weights or the folder cannot be used.
        TrainingError, TrainingStopped: see `mnas.train.loop.train`.
    """
    from mnas.full_training.teacher import open_teacher, taught, unseen_seed
    from mnas.train.loop import train  # timm and accelerate take seconds to import, and a refusal needs neither

    say, folder, arch = listeners.say, training.folder(settings.out), training.arch
    earlier, split_seed = _earlier(settings, say)
    teacher = open_teacher(settings) if settings.distillation.teacher else None
    if teacher is not None and not settings.weights:
        split_seed = unseen_seed(settings, teacher, say)
    config, batches = _opened(settings, training, split_seed, listeners.progress)
    initial = None
    if settings.weights:
        initial = _initial(WeightsSource(name=training.name, arch=arch, weights=settings.weights), batches, config, say)
        arch = initial.arch
    labelled = batches
    if teacher is not None:
        with teacher:
            batches = taught(settings, teacher, labelled, config, split_seed, say, listeners.progress)
    for line in _described(training.name, labelled, batches, config, folder):
        say(line)
    for line in _about_images(labelled, config) if table else ():
        say(line)
    skipped = len(batches.skipped)  # from decoding the array; with files, they turn up during reading
    if skipped:
        say(unreadable_line(batches.skipped))
    with listeners.watching() as watcher:
        trained = train(
            arch,
            batches,
            config,
            folder,
            initial=initial,
            earlier=earlier,
            resume=settings.resume,
            watcher=watcher,
            title=training.name,
        )
    if len(batches.skipped) > skipped:
        say(unreadable_line(batches.skipped))
    say(_conclusion(trained))
    counts = batches.table.images.get("val", ())
    if warning := not_above_baseline("accuracy", counts, sum(counts), trained.accuracy, advice=""):
        say(warning)
    return trained


def _initial(source: WeightsSource, batches: Batches, config: TrainConfig, say: Say) -> Network:
    """Return the network with its weights, cut from a larger one where the file has such, and set the normalisation.

    Raises ValueError as `load_pretrained` does.
    """
    larger = whole_network(source)
    if larger is None:
        return initial_network(source, batches, config.seed)
    from mnas.evaluate.inherited import cut_network  # torch takes seconds to import

    network, (batches.mean, batches.std) = cut_network(larger, batches)
    parts = [cost(arch, batches.input_size, len(batches.classes)) for arch in (network.arch, larger.parent.arch)]
    say(
        f"{source.name} is cut from the network in {source.weights}, with {parts[0].macs / parts[1].macs:.0%} of its "
        f"multiply-adds and {parts[0].params / parts[1].params:.0%} of its parameters"
    )
    return network


def _opened(
    settings: TrainSettings, training: NamedTraining, split_seed: int, progress: Say
) -> tuple[TrainConfig, Batches]:
    """Return the images, and the recipe with `mirror` as in the training that is resumed."""

    def opened(config: TrainConfig) -> Batches:
        progress("reading images")
        return settings.open_images(
            training.input_size, config, split_seed, lambda done, count: progress(f"decoding images: {done} of {count}")
        )

    config = settings.config
    batches = opened(config)
    stored = stored_settings(training.folder(settings.out) / CONFIG_NAME, "identity") if settings.resume else None
    mirror = as_begun(config.mirror, stored, batches.may_be_mirrored, batches.classes)
    config = config.for_images(batches.counts["train"])
    if mirror == config.mirror:
        return config, batches
    config = dataclasses.replace(config, mirror=mirror)
    return config, opened(config)


def _earlier(settings: TrainSettings, say: Say) -> tuple[TrainedOn, int]:
    """Return the trainings of the initial weights, and the seed that keeps their images out of validation."""
    if not settings.weights:
        return (), settings.config.seed
    earlier = trained_on(settings.weights, say)
    seed = held_out_seed(
        settings.weights,
        earlier,
        settings.images.data,
        seed=settings.config.seed,
        max_images_per_class=settings.images.max_images_per_class,
        data_dir=settings.images.data_dir,
        download=settings.images.download,
        say=say,
    )
    return earlier, seed


def _about_images(batches: Batches, config: TrainConfig) -> list[str]:
    lines = class_table_lines(batches.table, "val")
    lines += [by_stat_line(batches), mirror_note(config.mirror, batches.may_be_mirrored, batches.classes)]
    return [line for line in lines if line]


def _described(name: str, labelled: Batches, batches: Batches, config: TrainConfig, folder: Path) -> tuple[str, str]:
    counts = ", ".join(f"{count:,} {part}" for part, count in labelled.counts.items())
    if unlabelled := batches.counts["train"] - labelled.counts["train"]:
        counts = f"{counts}, {unlabelled:,} unlabelled"
    size = config.batch_size_for(batches.counts["train"])
    epochs = counted(config.fixed_epochs, "epoch")
    return (
        f"data {batches.name}: {len(batches.classes)} classes, images {counts}, {batches.input_size} px",
        f"{name}: {epochs} of {counted(batches.steps(size), 'step')} of {size} images, "
        f"peak learning rate {config.learning_rate * size / 256:.4g}; output in {folder}",
    )


def _ended(trained: Trained) -> str:
    """Return which epoch's weights the training ends with if not the last one's, and how often it went back."""
    best = "" if trained.best_epoch is None else f" (weights of epoch {trained.best_epoch})"
    return best + (f", {counted(trained.restarts, 'restart')} after divergence," if trained.restarts else "")


def _conclusion(trained: Trained) -> str:
    test = "" if trained.test_accuracy is None else f", test accuracy {trained.test_accuracy:.2%}"
    balanced = ""
    if trained.balanced_accuracy is not None and trained.majority_share is not None:
        tested = "" if trained.test_balanced_accuracy is None else f", test {trained.test_balanced_accuracy:.2%}"
        balanced = f"balanced {trained.balanced_accuracy:.2%}{tested}, majority share {trained.majority_share:.2%}; "
    report = f"; report: {trained.report}" if trained.report.is_file() else ""  # an earlier version wrote none
    return (
        f"validation accuracy {trained.accuracy:.2%}{test}; {balanced}"
        f"{counted(trained.epochs, 'epoch')}{_ended(trained)} in {trained.seconds:.0f} s, "
        f"{trained.images_per_s:,.0f} images/s, {trained.waiting:.1%} of the time waiting for data; "
        f"{trained.weights}{report}"
    )
