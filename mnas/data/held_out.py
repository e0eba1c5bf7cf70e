"""Select the images of a data set that a model may be scored on, from the record of its training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mnas.data.batches import Part
from mnas.training_data import STAT, TrainedOn, TrainingData, printable_name

Wanted = Part | Literal["auto", "all"]
Relation = Literal["same", "other", "unknown"]
"""Relation of data to a model: its training data, other data, or not recorded."""


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A data set whose images have not been read."""

    name: str
    digest: Callable[[], str]
    """Function that returns the digest of the content, or of stats if there is no other."""
    by_stat: str
    """Digest of file names, sizes and times."""
    counts: dict[Part, int]
    """Number of images in each existing part; includes `val` only if the data has its own validation images."""

    @cached_property
    def content(self) -> str:
        """Digest of the data's content."""
        return self.digest()

    def record_in(self, trained_on: Sequence[TrainingData]) -> TrainingData | None:
        """Return the last training on exactly these images, or None."""
        images = sum(self.counts.values())
        for record in trained_on:
            if record.images != images and not record.max_images_per_class:
                continue  # avoids the digest, which takes minutes for ImageNet
            if record.content == (self.by_stat if record.content.startswith(STAT) else self.content):
                return record
        return None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images to score."""

    part: Part | Literal["all"]
    parts: tuple[Part, ...]
    """Parts that make up `part`."""
    seed: int | None
    """Seed of the split that drew `part`; None if the data has it as its own part."""
    record: TrainingData | None
    """Training on this data; None if the model file records none."""
    relation: Relation
    notes: tuple[str, ...] = ()
    """Notes on the score for the user, one clause each."""


def select(
    wanted: Wanted,
    seed: int | None,
    data: Offered,
    trained_on: TrainedOn,
    *,
    ours: bool,
    beside: int | None = None,
    offers_all: bool = True,
) -> Selection:
    """Return the images to score, without training images unless the user asks for them.

    Args:
        wanted: part to score; `auto`: the test part, else the data's own validation part, else the images that the
            training held out. For a foreign model, data without such parts is scored whole.
        seed: seed of the split; None: the training's.
        trained_on: trainings recorded in the model's file.
        ours: whether mnas wrote the model's file.
        beside: seed in the settings beside a file without a record; None without such settings.
        offers_all: whether the command has `--part`, so that errors may advise `--part all`.

    Raises:
        ValueError: the part does not exist; the seed contradicts the file; or the data has no such part of its own, and
            the model was trained on other data or the data has changed since.
    """
    record = data.record_in(trained_on)
    relation: Relation = "same" if record else "other" if trained_on else "unknown"
    part = _resolved(wanted, seed, data, relation, ours)
    if part == "all" or (part in data.counts and (part != "train" or "val" in data.counts)):
        parts: tuple[Part, ...] = tuple(data.counts) if part == "all" else (part,)
        notes = _notes_on(part, data, relation, trained_on, ours=ours, chosen=wanted != "auto")
        return Selection(part=part, parts=parts, seed=None, record=record, relation=relation, notes=notes)
    if part == "test" or "train" not in data.counts:
        have = [*data.counts, *(["val"] if "val" not in data.counts and "train" in data.counts else [])]
        listed = " and ".join(name for name in ("train", "val", "test") if name in have)
        raise ValueError(f"--data must have a part {part!r}, but {data.name!r} has only {listed}")
    if relation == "other":
        raise ValueError(_refusal(data, trained_on, offers_all))
    if record is None:
        drawn = next((candidate for candidate in (seed, beside) if candidate is not None), 0)
        notes = _notes_unknown(part, drawn, data, ours, beside) if seed is None else ()
        return Selection(part=part, parts=(part,), seed=drawn, record=None, relation=relation, notes=notes)
    if seed is not None and seed != record.seed:
        raise ValueError(
            f"--seed must be {record.seed}, the seed that split these images for the model's training, but got {seed}, "
            f"which draws images that the model was trained on. Leave --seed out{', or use --part all' * offers_all}."
        )
    return Selection(
        part=part,
        parts=(part,),
        seed=record.seed,
        record=record,
        relation=relation,
        notes=("the model was trained on these images",) if part == "train" else (),
    )


def _resolved(wanted: Wanted, seed: int | None, data: Offered, relation: Relation, ours: bool) -> Part | Literal["all"]:
    if wanted != "auto":
        return wanted
    if "test" in data.counts or "val" in data.counts:
        return "test" if "test" in data.counts else "val"
    return "all" if relation == "unknown" and not ours and seed is None else "val"


def _notes_on(
    part: Part | Literal["all"], data: Offered, relation: Relation, trained_on: TrainedOn, *, ours: bool, chosen: bool
) -> tuple[str, ...]:
    """Return notes on images of the data's own parts."""
    if relation == "same":
        return ("these include images that the model was trained on",) if part in ("train", "all") else ()
    name = printable_name(data.name)
    if relation == "other" and name in {record.name for record in trained_on}:
        return (f"{name!r} has changed since the model was trained on it, so these may include training images",)
    if relation == "other":
        return (
            f"{name!r} is not the data that the model was trained on ({_named(trained_on)}); mnas cannot tell whether "
            "they share images",
        )
    if not chosen and part == "all":
        return (f"{name!r} has no test or validation part, so every image is scored",)
    if ours and part in ("train", "all"):
        return ("the model file does not record its training data, so these may include training images",)
    return ()


def _notes_unknown(
    part: Part | Literal["all"], seed: int, data: Offered, ours: bool, beside: int | None
) -> tuple[str, ...]:
    """Return notes on a part that is drawn for a model whose file has no record of its training."""
    if beside is not None:
        return (
            f"the model file does not record its training data, so {part} is drawn with seed {seed} from the settings "
            "beside the file; if the training used other images, these may include training images",
        )
    if not ours:
        return (f"{data.name!r} has no part {part!r}, so mnas draws one with seed {seed}",)
    return (
        f"the model file does not record its training data, so {part} is drawn with seed {seed}; if the training used "
        "another --seed or other images, these may include training images, so pass the training's --seed",
    )


def _refusal(data: Offered, trained_on: TrainedOn, offers_all: bool) -> str:
    own = "name a folder with a validation part of its own"
    name = printable_name(data.name)
    if then := [record for record in trained_on if record.name == name]:
        images = sum(data.counts.values())
        counts = "" if then[0].max_images_per_class else f" ({then[0].images:,} images then, {images:,} now)"
        times = ", or copied" if then[0].content.startswith(STAT) else ""
        unseen = "use --part all with a folder of images that the model has not seen" if offers_all else own
        return (
            f"{name!r} has been changed{times} since the model was trained on it{counts}, so the held-out images "
            f"cannot be drawn again. Restore the images, train again, or {unseen}."
        )
    remedy = "If the model was trained on none of them, use --part all." if offers_all else f"Give those, or {own}."
    return (
        f"data without a test or validation part must be the model's training data ({_named(trained_on)}), but got "
        f"other images in {name!r}. {remedy}"
    )


def _named(trained_on: TrainedOn) -> str:
    return ", ".join(dict.fromkeys(repr(record.name) for record in trained_on))
