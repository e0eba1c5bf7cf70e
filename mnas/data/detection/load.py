"""Load a detection data set from its folder: layout, classes, parts and boxes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mnas.data.cache import OnProgress, check_unreadable
from mnas.data.detection.faults import FaultCount, because
from mnas.data.detection.listing.annotated import AnnotatedData, settled
from mnas.data.detection.listing.layout import find_layout_reader
from mnas.data.detection.listing.parts import PARTS
from mnas.data.detection.record import BoxedImage, DetectionData, count_objects
from mnas.data.load import VAL_SHARE
from mnas.data.split import shuffled
from mnas.labels import shown, shown_path


def load_detection(
    data: str | Path, *, seed: int = 0, needs_train: bool = True, on_progress: OnProgress | None = None
) -> DetectionData:
    """Return the images and boxes of a folder in COCO's, Pascal VOC's or YOLO's layout (docs/reference/box-folders.md).

    Reads the annotations and the header of every image. Faulty boxes and images are counted in `DetectionData.faults`.

    Args:
        data: path of the folder.
        seed: seed of the choice of validation images, if the data has none of its own: a fifth of the training images.
        needs_train: reject data without training images with boxes; else any part is enough.
        on_progress: callback that receives (images read, total images).

    Raises:
        ValueError: no such folder; none of the layouts, or several; annotations that cannot be read; invalid classes;
            a part whose images are all missing; more than 1 % unreadable images; no training boxes.
    """
    root = detection_folder(data)
    try:
        return _load(root, seed, needs_train, on_progress)
    except OSError as error:
        where = str(error.filename or root)
        raise ValueError(
            f"cannot read {where!r} ({error.strerror or error}); check its permissions and the disk"
        ) from None


def detection_folder(data: str | Path) -> Path:
    """Return the folder that --data names. Raises ValueError if there is no such folder."""
    text = str(data)
    if not text.strip() or "\0" in text:
        raise ValueError(f"--data must be a folder of images with boxes, but got {shown(text)}; pass a path")
    if "://" in text:
        raise ValueError(
            f"--data must be a folder of images with boxes, but got the URL {shown(text)}; download and unpack it, and "
            "pass the folder"
        )
    try:
        root = Path(text).expanduser()
        is_folder, exists = root.is_dir(), root.exists()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"--data must be a folder of images with boxes, but got {shown(text)} ({error})") from None
    if not is_folder:
        listing = root.suffix.lower() in (".yaml", ".yml", ".json", ".xml")
        file = "a file; pass the folder that contains it" if listing else "a file; unpack an archive first"
        what = file if exists else "no such folder"
        raise ValueError(f"--data must be a folder of images with boxes, but got {shown(text)} ({what})")
    return root


def _load(root: Path, seed: int, needs_train: bool, on_progress: OnProgress | None) -> DetectionData:
    layout, read = find_layout_reader(root)
    faults = FaultCount()
    content = read(faults)
    images, unreadable = _settle_all(content, faults, on_progress)
    train, val, test = (images.get(part, []) for part in PARTS)
    if needs_train:
        _check_train(train, root, faults)
        if "val" in content.parts and not val:
            raise ValueError(f"--data must have usable images in its validation part, but {shown_path(root)} has none"
                             f"{because(faults)}")  # fmt: skip
    held_out = len(train) > 1 and "val" not in content.parts
    if held_out:
        train, val = hold_out_boxed(train, len(content.classes), VAL_SHARE, seed)
    return DetectionData(
        name=root.resolve().name,
        layout=layout,
        classes=content.classes,
        category_ids=content.category_ids,
        train=tuple(train),
        val=tuple(val),
        test=tuple(test),
        seed=seed,
        held_out=held_out,
        faults=faults.faults,
        unreadable=tuple(unreadable),
    )


def _settle_all(
    content: AnnotatedData, faults: FaultCount, on_progress: OnProgress | None
) -> tuple[dict[str, list[BoxedImage]], list[str]]:
    """Return the images of each part, and a line for each unreadable one. Raises ValueError."""
    total, done = sum(map(len, content.parts.values())), 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    images, unreadable = {}, []
    for part, annotated in content.parts.items():
        images[part], lines = settled(annotated, content.form, faults, f"the {part} part", count)
        unreadable += lines
    check_unreadable(unreadable, total)
    _count_shared(images, faults)
    return images, unreadable


def _count_shared(images: Mapping[str, Sequence[BoxedImage]], faults: FaultCount) -> None:
    """Count images that are in two parts, on which a score is too high."""
    parts_by_path: dict[Path, str] = {}
    for part, group in images.items():
        for image in group:
            if parts_by_path.setdefault(image.path, part) != part:
                faults.add("images are in two parts (used in both)", image.name)


def _check_train(train: Sequence[BoxedImage], root: Path, faults: FaultCount) -> None:
    if not train and faults.faults:
        raise ValueError(f"--data must have training images, but {shown_path(root)} has no usable one{because(faults)}")
    if not train:
        raise ValueError(f"--data must have training images, but {shown_path(root)} has only other parts")
    if not any(len(image.boxes) for image in train):
        raise ValueError(f"--data must have boxes in training images, but none of {len(train)} in {shown_path(root)} "
                         f"has a valid one{because(faults)}")  # fmt: skip
    if not count_objects(train):
        raise ValueError(f"--data must have boxes of single objects in training images, but all boxes in "
                         f"{shown_path(root)} surround crowds")  # fmt: skip
    if len(train) < 2:
        raise ValueError(f"--data must have at least 2 training images, but {shown_path(root)} has 1")


def hold_out_boxed(
    images: Sequence[BoxedImage], classes: int, share: float, seed: int
) -> tuple[list[BoxedImage], list[BoxedImage]]:
    """Return (remaining, held-out) images, both in their order: about `share` of the images of each class.

    Classes are served from the rarest to the most frequent, then images without boxes, as in iterative stratification
    (Sechidis et al., 2011); a class with a single image keeps it for training. If no class has an image to spare, one
    with objects is held out nevertheless, unless it has all of them.
    """
    holders: list[list[int]] = [[] for _ in range(classes + 1)]
    for place, image in enumerate(images):
        for label in np.unique(image.labels).tolist() or [classes]:
            holders[label].append(place)
    side: dict[int, bool] = {}
    for label in sorted(range(classes + 1), key=lambda label: (label == classes, len(holders[label]), label)):
        group = holders[label]
        wanted = min(round(len(group) * share), len(group) - 1) if len(group) > 1 else 0
        held = sum(side.get(place, False) for place in group)
        for place in shuffled([place for place in group if place not in side], seed, label):
            side[place] = held < wanted
            held += side[place]
    objects = [count_objects([image]) for image in images]
    if not any(side.values()):
        boxes = sum(len(image.boxes) for image in images)
        spare = [place for place, image in enumerate(images) if len(image.boxes) < boxes]
        order = shuffled(spare or range(len(images)), seed)
        side[next((place for place in order if objects[place]), order[0])] = True
    elif not any(objects[place] for place, held in side.items() if held):
        usable = [place for place, count in enumerate(objects) if 0 < count < sum(objects)]
        side |= dict.fromkeys(shuffled(usable, seed)[:1], True)
    return (
        [image for place, image in enumerate(images) if not side[place]],
        [image for place, image in enumerate(images) if side[place]],
    )
