"""Open the images that a model is scored on; the data is split only if a seed draws the selection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mnas.data.arrays import ArrayBatches
from mnas.data.augmentation import Augmentation
from mnas.data.batches import Batches, Part
from mnas.data.cache import OnProgress
from mnas.data.files import FolderBatches
from mnas.data.held_out import Offered, Selection
from mnas.data.listing.class_table import ClassTable
from mnas.data.load import load_source, open_source
from mnas.data.named import IMAGENET_MOMENTS
from mnas.data.open_batches import MOST_ARRAY_BYTES
from mnas.data.shards import ShardBatches
from mnas.data.shards.index import is_shards
from mnas.data.source import Parts, Source
from mnas.folders import user_cache_dir


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredImages:
    """The images that a model is scored on."""

    batches: Batches
    parts: tuple[Part, ...]
    """Parts of `batches` with the selected images; their names may differ from those in the selection."""
    selection: Selection
    alone: bool
    """Whether `batches` holds only these images, as its part `train`."""
    content: str
    """Digest of the whole data; a digest of stats if its images are not decoded into the cache."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scored parts in `table`."""
        return (self.selection.part,) if self.alone else self.parts

    @property
    def table(self) -> ClassTable:
        """Number of images of each class and part; only of the selected images if nothing else was opened."""
        table = self.batches.table
        if not self.alone:
            return table
        [part], [name] = self.parts, self.names
        return replace(table, counts={name: table.counts[part]}, images={name: table.images[part]})


def open_scored(
    data: str,
    choose: Callable[[Offered], Selection],
    *,
    input_size: int,
    crop: float,
    data_dir: Path | None,
    download: bool,
    workers: int,
    on_progress: OnProgress | None,
    verify_cache: bool = False,
) -> ScoredImages:
    """Return the images that `choose` selects.

    Small selections come from the cache; others are decoded on the fly.

    Raises:
        ValueError: see `load_dataset`; or raised by `choose`.
        ImportError: the data are shards and webdataset is not installed.
    """
    cache_dir = user_cache_dir()
    if is_shards(data):
        return _scored_shards(
            choose,
            ShardBatches(
                data, input_size=input_size, seed=0, crop=crop, augmentation=Augmentation(), workers=workers,
                cache_dir=cache_dir, on_progress=on_progress,
            ),
        )  # fmt: skip
    data_dir = cache_dir / "downloads" if data_dir is None else data_dir
    source = open_source(data, data_dir, download, needs_train=False)
    given = source.parts()
    offered = offered_by(source, given)
    selection = choose(offered)
    seed, per_class, parts = 0, 0, selection.parts
    alone = selection.seed is None and not _in_cache(selection)
    if not alone:
        record = selection.record
        seed = (0 if record is None else record.seed) if selection.seed is None else selection.seed
        per_class = 0 if record is None else record.max_images_per_class
        images = sum(len(part) for part in (given.train, given.val, given.test) if part is not None)
    else:
        source, parts = unsplit(source, given, selection.parts), ("train",)
        images = len(source.parts().train)
    if images * input_size * input_size * 3 <= MOST_ARRAY_BYTES:
        dataset = load_source(
            source, input_size=input_size, seed=seed, max_images_per_class=per_class, crop=crop,
            on_progress=on_progress, verify_cache=verify_cache,
        )  # fmt: skip
        arrays = ArrayBatches(dataset, Augmentation(), seed)
        return ScoredImages(batches=arrays, parts=parts, selection=selection, alone=alone, content=offered.content)
    files = FolderBatches(
        replace(source, moments=source.moments or IMAGENET_MOMENTS),  # the model has its own: no estimate needed
        input_size=input_size, seed=seed, crop=crop, augmentation=Augmentation(), workers=workers, cache_dir=cache_dir,
        max_images_per_class=per_class, on_progress=on_progress,
    )  # fmt: skip
    return ScoredImages(batches=files, parts=parts, selection=selection, alone=alone, content=offered.by_stat)


def _scored_shards(choose: Callable[[Offered], Selection], shards: ShardBatches) -> ScoredImages:
    offered = Offered(
        name=shards.name, digest=lambda: shards.content, by_stat=shards.content, counts=dict(shards.counts)
    )
    selection = choose(offered)
    return ScoredImages(batches=shards, parts=selection.parts, selection=selection, alone=False, content=shards.content)


def _in_cache(selection: Selection) -> bool:
    """Return whether the training decoded the selected part, one of the data's own, in full."""
    record = selection.record
    whole = record is not None and not record.max_images_per_class
    return record is not None and (selection.part == "test" or (selection.part == "val" and whole))


def offered_by(source: Source, given: Parts) -> Offered:
    """Return the record from which images are selected; `given` is the result of `source.parts()`."""
    counts: dict[Part, int] = {"train": len(given.train), "val": len(given.val or ()), "test": len(given.test or ())}
    return Offered(
        name=source.name,
        digest=lambda: source.content(user_cache_dir()),
        by_stat=source.by_stat,
        counts={part: count for part, count in counts.items() if count},
    )


def unsplit(source: Source, given: Parts, parts: Sequence[Part]) -> Source:
    """Return `source` with only the images of `parts`, all in its part `train`, without a validation part."""
    items = {"train": given.train, "val": given.val, "test": given.test}
    chosen = [item for part in parts for item in items[part] or ()]
    return replace(
        source,
        identity=["unsplit", list(parts), source.identity],
        split=["unsplit", list(parts), source.split],
        files=source.files if source.in_memory else lambda: {"train": [(i.name, str(i.content)) for i in chosen]},
        parts=lambda: Parts(classes=given.classes, train=chosen, val=[], test=None),
        fixed_val=False,
    )
