"""Run a detector's training from its settings: the backbone by name, images, default boxes, and notices about them."""

from pathlib import Path

from mnas.arch import Arch
from mnas.data.batches import unreadable_line
from mnas.data.detection.batches import BoxBatches, open_box_batches
from mnas.data.detection.faults import fault_line
from mnas.data.detection.load import load_detection
from mnas.data.detection.record import DetectionData, count_objects
from mnas.detection.check import box_lines, chosen_boxes
from mnas.detection.result import TrainedDetector
from mnas.detection.settings import DetectTrainSettings
from mnas.detector import Detector, DetectorMetadata, paper_boxes
from mnas.full_training.run import Say, TrainListeners
from mnas.metadata import Triple
from mnas.names import as_file_name, resolve_arch
from mnas.nn.detection.cost import detector_cost
from mnas.nn.network import Network
from mnas.text import counted
from mnas.train.folder import require_free
from mnas.train.initial import WeightsSource, network_for, trained_on
from mnas.train.machine import is_first_process
from mnas.training_data import TrainedOn, after_training, printable_name

_PLAIN: Triple = (0.5, 0.5, 0.5)
"""Mean and deviation for a backbone without weights: pixels from -1 to 1."""
_FEW = 10_000
"""Number of training images below which a backbone without weights is advised against."""


def run_detector_training(settings: DetectTrainSettings, listeners: TrainListeners) -> TrainedDetector:
    """Train a detector in its folder below `settings.out`.

    Raises:
        ValueError, OSError: the backbone, its weights, the images or the folder cannot be used.
        TrainingError, TrainingStopped: see `mnas.detection.loop.train_detector`.
    """
    from mnas.detection.loop import train_detector  # timm and accelerate take seconds to import

    say, config = listeners.say, settings.config
    name, arch = settings.arch, resolve_arch(settings.arch)
    if not isinstance(arch, Arch):
        raise ValueError(f"the backbone of a detector must be a network of blocks, but {name} consists of cells")
    folder = settings.out / f"{as_file_name(name, arch)}-{settings.input_size}px"
    Detector(arch=arch, boxes=paper_boxes(), input_size=settings.input_size)  # checks both before the images are read
    if is_first_process():
        require_free(folder, settings.resume)
    backbone, moments, earlier = _backbone(settings, name, arch, say)
    listeners.progress("reading images")
    data = load_detection(settings.data, seed=config.seed)
    for line in (fault_line(data.faults), _unread(data)):
        if line:
            say(line)
    _require_trainable(data)
    boxes = chosen_boxes(settings.boxes, data, settings.input_size)
    arch = backbone.arch if backbone is not None and isinstance(backbone.arch, Arch) else arch
    detector = Detector(arch=arch, boxes=boxes, input_size=settings.input_size)
    for line in box_lines(data, detector):
        say(line)
    if data.test and not count_objects(data.test):
        say("the test images have no objects, so they are not scored")
    batches = open_box_batches(
        data,
        input_size=settings.input_size,
        augmentation=config.augmentation,
        mirror=config.mirror,
        seed=config.seed,
        workers=settings.workers,
        on_progress=lambda done, count: listeners.progress(f"decoding images: {done} of {count}"),
    )
    metadata = DetectorMetadata(
        detector=detector,
        classes=data.classes,
        mean=moments[0],
        std=moments[1],
        trained_on=after_training(data.training_data(batches.content), earlier),
    )
    say(_described(name, settings, batches, detector, folder))
    if backbone is None and len(data.train) < _FEW:
        say(
            f"the backbone begins with random weights, which {len(data.train):,} images hardly train; "
            "--weights pretrained (efficientnet-lite0 to -lite2) or --weights timm begins with those of ImageNet"
        )
    with listeners.watching() as watcher:
        trained = train_detector(
            metadata, batches, config, folder, backbone=backbone, resume=settings.resume, watcher=watcher
        )
    say(_conclusion(trained))
    return trained


def _require_trainable(data: DetectionData) -> None:
    """Raise ValueError if a training on these images would fail at its first step or at its first scoring."""
    where = printable_name(data.name)
    if len(data.train) < 2:
        raise ValueError(
            f"--data must have at least 2 training images beside those for validation, but {where!r} has "
            f"{len(data.train)}"
        )
    if not count_objects(data.val):
        remedy = (
            "add boxes to more images"
            if data.held_out
            else "add boxes to them, or remove this part so that mnas draws validation images from the training images"
        )
        raise ValueError(
            f"--data must have objects in its validation images, but none of {len(data.val)} in {where!r} has one; "
            f"{remedy}"
        )


def _backbone(
    settings: DetectTrainSettings, name: str, arch: Arch, say: Say
) -> tuple[Network | None, tuple[Triple, Triple], TrainedOn]:
    """Return the network that the backbone begins with, the normalisation of its images, and its own trainings."""
    if not settings.weights:
        return None, (_PLAIN, _PLAIN), ()
    network, moments = network_for(WeightsSource(name=name, arch=arch, weights=settings.weights), ("any",), 0)
    return network, moments, trained_on(settings.weights, say)


def _unread(data: DetectionData) -> str:
    return unreadable_line(data.unreadable) if data.unreadable else ""


def _described(name: str, settings: DetectTrainSettings, batches: BoxBatches, detector: Detector, folder: Path) -> str:
    config = settings.config
    size = min(config.batch_size, batches.counts["train"])
    total = detector_cost(detector, len(batches.data.classes))
    return (
        f"{name} with {detector.head}, {total.params / 1e6:.2f}M parameters, {total.macs / 1e9:.3f}B multiply-adds at "
        f"{detector.input_size} px: {counted(config.epochs, 'epoch')} of {counted(batches.steps(size), 'step')} of "
        f"{size} images, peak learning rate {config.learning_rate * size / 256:.4g}; output in {folder}"
    )


def _conclusion(trained: TrainedDetector) -> str:
    test = ""
    if trained.test_precision is not None and trained.test_ap50 is not None:
        test = f", test mAP {trained.test_precision:.1%}, AP50 {trained.test_ap50:.1%}"
    report = f"; report: {trained.report}" if trained.report.is_file() else ""  # an earlier version wrote none
    return (
        f"validation mAP {trained.mean_precision:.1%}, AP50 {trained.ap50:.1%}{test}; "
        f"{counted(trained.epochs, 'epoch')} in {trained.seconds:.0f} s, {trained.images_per_s:.1f} images/s, "
        f"{trained.waiting:.1%} of the time waiting for data; {trained.weights}{report}"
    )
