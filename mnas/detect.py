"""Object detection from Python, as `mnas detect` on the command line.

    import mnas

    trained = mnas.detect.train("efficientnet-lite0", data="cells", weights="pretrained")
    detector = mnas.detect.load(trained.weights)
    [cells] = detector.detect_files(["smear.jpg"])
    print(mnas.detect.evaluate(trained.weights, data="cells").scores.mean_precision)
    [file] = mnas.detect.export(trained.weights, postprocess=True, data="cells")

Each function takes the options of the command with the same name as keyword arguments.
"""

import inspect
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mnas.api.keywords import names_keywords
from mnas.api.lists import joined
from mnas.api.saying import SAY, Say, silence
from mnas.api.train_watching import ShownTraining, training_shown_by
from mnas.data.held_out import Wanted
from mnas.detection.check import CheckedData, check_folder
from mnas.detection.detections import ImageDetections
from mnas.detection.evaluation import Evaluated, evaluate_detector
from mnas.detection.files import OpenDetector, open_detector
from mnas.detection.fitted import BoxRule
from mnas.detection.result import TrainedDetector
from mnas.detection.score import SCORE_THRESHOLD
from mnas.detection.settings import DetectTrainSettings, detect_train_settings
from mnas.detector import INPUT_SIZE
from mnas.export.detector.run import ExportedDetectorFile, export_detector
from mnas.export.detector.settings import DetectExportSettings
from mnas.full_training.detector import run_detector_training
from mnas.full_training.run import TrainListeners
from mnas.names import resolve_weights
from mnas.require import require_number
from mnas.settings import from_options, signature_of
from mnas.train.process import TrainingStopped

__all__ = ["check", "evaluate", "export", "load", "predict", "train"]


@names_keywords
def check(data: str | Path, *, boxes: BoxRule = "fitted", input_size: int = INPUT_SIZE, seed: int = 0) -> CheckedData:
    """Check a detection data set: its boxes, their sizes, faulty annotations, and the share that default boxes match.

    Args:
        data: folder of images in COCO's, Pascal VOC's or YOLO's layout.
        boxes: fitted (sizes and maps chosen to match at least 95 % of every class's training boxes) or paper (those of
            SSDLite).
        input_size: input size in pixels, a multiple of 32.
        seed: seed of the choice of validation images, if the data has none of its own.

    Raises:
        ValueError: the data cannot be read, or has no training boxes.
    """
    return check_folder(data, boxes=boxes, input_size=input_size, seed=seed)


@names_keywords
def train(arch: str | Path, *, watcher: ShownTraining = "auto", say: Say = silence, **options: Any) -> TrainedDetector:
    """Train a detector, and save its weights to a folder of its own below `out`.

    With `resume=True`, the same call resumes an interrupted training or returns the result of a finished one.

    Args:
        arch: named network (mnasnet-a1, efficientnet-lite0), trial (runs/NAME#17), .json file or block strings.
        watcher: display of the progress: auto (a bar in a notebook, else nothing), bar, none, or a `TrainWatcher`.
        say: function that receives lines of text about the images and the training, such as `print`.
        options: options of `mnas detect train --help-all`, with underscores: `data`, `epochs`, `weights`, ...

    Returns:
        The finished training: its weights file, and COCO's metrics on validation and test images.

    Raises:
        ValueError: an option is unknown or out of range, the images cannot be used, or the folder contains another
            training.
        TrainingError: the loss is no longer finite, or the machine failed (out of memory, a killed process).
        KeyboardInterrupt: the training was interrupted; its checkpoint is saved.
    """
    settings = detect_train_settings({"arch": str(arch), **options})
    listeners = TrainListeners(say=say, progress=silence, watching=lambda: training_shown_by(watcher))
    try:
        return run_detector_training(settings, listeners)
    except TrainingStopped as stop:
        if stop.code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt(
            f"stopped at {stop.where}; the same call with resume=True resumes the training"
        ) from None


@names_keywords
def load(model: str | Path, *, score: float = 0.3) -> OpenDetector:
    """Open a trained detector.

    Args:
        model: folder of a training, or model file.
        score: lowest score of a detection, from 0 to 1.

    Returns:
        The detector, whose `detect_files` finds objects in image files and whose `detect` takes arrays.

    Raises:
        ValueError, OSError: the model is missing or damaged, or is no detector.
    """
    require_number("score", score, 0, 1)
    return open_detector(resolve_weights(str(model), by="mnas detect train"), score_threshold=score)


@names_keywords
def predict(
    model: str | Path, images: str | Path | Iterable[str | Path], *, score: float = 0.3
) -> list[ImageDetections]:
    """Find objects in image files.

    Args:
        model: folder of a training, or model file.
        images: an image file, or several.
        score: lowest score of a detection, from 0 to 1.

    Returns:
        The objects in each image, in pixels of the upright image.

    Raises:
        ValueError, OSError: the model or an image is missing or damaged, or the model is no detector.
    """
    return list(load(model, score=score).detect_files(images))


@names_keywords
def evaluate(model: str | Path, *, data: str | Path, part: Wanted = "auto", seed: int | None = None) -> Evaluated:
    """Score a detector on images with boxes, by COCO's metrics.

    Args:
        model: folder of a training, or model file.
        data: folder of images in COCO's, Pascal VOC's or YOLO's layout.
        part: train, val, test or all; auto: test, else the data's own val, else the images that the training held out.
        seed: seed of the split of data without validation images; None: that of the training.

    Raises:
        ImportError: faster-coco-eval is not installed.
        ValueError: the model or the images cannot be used.
    """
    detector = open_detector(resolve_weights(str(model), by="mnas detect train"), score_threshold=SCORE_THRESHOLD)
    return evaluate_detector(detector, str(data), part=part, seed=seed)


@names_keywords
def export(
    model: str | Path, to: str | Sequence[str] = ("litert",), *, say: Say = silence, **options: Any
) -> list[ExportedDetectorFile]:
    """Export a trained detector to LiteRT or ONNX, and compare every file with the network.

    A file gets its name only after its runtime has found the network's objects.

    Args:
        model: weights file (.safetensors), or folder of a training.
        to: litert or onnx, or both.
        say: function that receives lines of text about the images, such as `print`.
        options: options of `mnas detect export --help-all`, with underscores: `postprocess`, `int8`, `data`, ...

    Returns:
        The files, in the order of `to`, each with its comparison (`gate`).

    Raises:
        ValueError: an option is unknown or out of range, the weights cannot be read, or a file differs from the network
            by more than allowed. The other files are still written.
        ImportError: the package of a format is missing.
    """
    settings = from_options(DetectExportSettings, {"model": str(model), **joined({"to": to, **options}, "to")})
    result = export_detector(settings, resolve_weights(settings.model, by="mnas detect train"), silence)
    for note in result.notes:
        say(note)
    result.require_all()
    return list(result.files)


_WATCHER = inspect.Parameter("watcher", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=ShownTraining)
train.__signature__ = signature_of(  # type: ignore[attr-defined]
    DetectTrainSettings, returns=TrainedDetector, more=(_WATCHER, SAY)
)
export.__signature__ = signature_of(  # type: ignore[attr-defined]
    DetectExportSettings, returns=list[ExportedDetectorFile], more=(SAY,), defaults={"to": ("litert",)}
)
