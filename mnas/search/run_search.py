"""Run a whole search: load the images, open the run and its devices, search, and export the models of the front.

`mnas search` and `mnas.search()` call it; the algorithm of the search is in mnas/search/loop.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnas.atomic import require_writable
from mnas.children import signal_name
from mnas.data.batches import by_stat_line
from mnas.data.dataset import Dataset
from mnas.data.listing.class_lines import class_table_lines
from mnas.data.mirror import mirror_note
from mnas.latency.devices.registry import find_device
from mnas.objective import Objective
from mnas.search.default_parent import with_parent
from mnas.search.evaluator import CachedImages, ProxyEvaluator
from mnas.search.front_files import export_front
from mnas.search.loop import search
from mnas.search.open import open_search, versions
from mnas.search.parents import KnownWeights, fine_tune, read_parents
from mnas.search.problem import Problem
from mnas.search.progress import Clock, Watcher
from mnas.search.settings import SearchSettings
from mnas.study import Snapshot, StudyWriter
from mnas.train.initial import held_out_seed, trained_on, tuned_sources
from mnas.version import __version__


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search that has ended."""

    run: Snapshot
    """The run with all its trials."""
    reason: str
    """Limit that ended the search: `trials`, `hours` or `converged`."""
    objectives: tuple[Objective, ...]
    """One objective for each target latency, in the user's order."""
    dataset: Dataset
    """Images that the candidates were trained and scored on, at the largest input size."""
    failed_exports: Mapping[str, str]
    """Label -> reason, for each model of the front that could not be written."""


def run_search(settings: SearchSettings, watcher: Watcher, command: str) -> SearchResult:
    """Begin a search in `settings.run`, or resume the one in that folder, and export its front.

    Args:
        watcher: shows notices, decoding and progress.
        command: the command or call that began the search, for the report's provenance.

    Raises:
        ValueError: an option does not fit the others, the images, the devices, or an earlier run in the same folder.
        KeyboardInterrupt: a signal asked the search to stop; the run is saved, and the same settings resume it.
    """
    require_writable(settings.run, "--run")  # checked first: reading the images may take minutes
    for name in settings.device_names:
        find_device(name, settings.devices)
    settings, choice = with_parent(settings)
    if choice:
        watcher.say(choice)
    datasets = settings.load_data(watcher.decoding)
    dataset = datasets[settings.sizes[-1]]
    settings = settings.as_begun(dataset)
    for notice in _data_notices(settings, dataset):
        watcher.say(notice)
    parents = read_parents(settings.parent) if settings.from_weights else ()
    _require_unseen(settings, parents, watcher)
    space = settings.candidate_space([each.parent for each in parents])
    images = {size: CachedImages.of(each, settings.images, settings.seed) for size, each in datasets.items()}
    tuned = tuned_sources(space.parents, settings.run) if space.cuts else {}
    sources = {each.parent.name: each.source for each in parents}
    evaluate = ProxyEvaluator(settings.proxy, images, sources, tuned)
    with open_search(settings, space, dataset, evaluate, watcher.say) as (run, problem):
        _store_provenance(run, dataset, problem, command)
        plan = settings.plan(space)
        clock = Clock(run, plan, watcher)
        try:
            try:
                fine_tune(parents, tuned, dataset, settings.proxy, settings.seed, watcher.say)
            finally:
                clock.save()  # --hours counts this time
            reason = search(run, problem, plan, watcher)
        except KeyboardInterrupt as stop:
            run.set("state", {"status": "stopped", "reason": signal_name(stop)})
            watcher.updated(run)
            raise
        failed_exports = export_front(run, problem.objectives)
        return SearchResult(
            run=Snapshot(run.path, run.attributes, run.trials),
            reason=reason,
            objectives=problem.objectives,
            dataset=dataset,
            failed_exports=failed_exports,
        )


def _data_notices(settings: SearchSettings, dataset: Dataset) -> list[str]:
    """Return the table of classes, and notices about the images that should come before hours of search."""
    notices = [
        *class_table_lines(dataset.table, "val"),
        by_stat_line(dataset),
        mirror_note(settings.proxy.mirror, dataset.flip, dataset.classes),
    ]
    return [notice for notice in notices if notice]


def _require_unseen(settings: SearchSettings, parents: Sequence[KnownWeights], watcher: Watcher) -> None:
    """Raise ValueError where the weights of a parent were trained on validation images of this search."""
    images = settings.images
    for parent in parents:
        weights = parent.source.weights
        notices: list[str] = []
        seed = held_out_seed(
            weights,
            trained_on(weights, watcher.say),
            images.data,
            seed=settings.seed,
            max_images_per_class=images.max_images_per_class,
            data_dir=images.data_dir,
            download=images.download,
            say=notices.append,
        )
        if seed != settings.seed:
            raise ValueError(
                f"--seed must be {seed}, as in the training of {weights} on these images, but got {settings.seed}, "
                "which would validate on its training images"
            )
        for notice in notices:
            watcher.say(notice)


def _store_provenance(run: StudyWriter, dataset: Dataset, problem: Problem, command: str) -> None:
    """Store the provenance of the results once: a resumed run keeps its first objective and versions.

    A kill may leave only a part of these attributes. `provenance` is stored last, so its presence shows that the others
    are complete.
    """
    if "val_counts" not in run.attributes:  # also for resumed runs, since earlier versions did not store these
        run.set("val_counts", dataset.val_counts)
    if "provenance" in run.attributes:
        return
    run.set("objective", dataclasses.asdict(problem.objective))
    run.set("other_objectives", [dataclasses.asdict(other) for other in problem.others])
    run.set("sharing", dataclasses.asdict(problem.sharing))
    run.set(
        "provenance",
        {
            "mnas": __version__,
            "versions": versions(),
            "devices": {name: units[0]["device"] for name, units in run.attributes["calibrations"].items()},
            "data": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "train_images": len(dataset.train.labels),
                "val_images": len(dataset.val.labels),
                "skipped": len(dataset.skipped),
                "table": dataset.table.to_dict(),
            },
            "command": command,
        },
    )
