"""A whole search: images, devices, the loop, and the front's models as files."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mnas.atomic import require_writable
from mnas.children import signal_name
from mnas.data.batches import by_stat_line
from mnas.data.dataset import Dataset
from mnas.data.listing.class_lines import class_table_lines
from mnas.data.mirror import mirror_note
from mnas.objective import Objective
from mnas.search.evaluator import ProxyEvaluator
from mnas.search.front_files import export_front
from mnas.search.loop import search
from mnas.search.open import open_search, versions
from mnas.search.problem import Problem
from mnas.search.progress import Watcher
from mnas.search.settings import SearchSettings
from mnas.study import Snapshot, StudyWriter
from mnas.version import __version__


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A search that has ended, for the conclusion that its user reads."""

    run: Snapshot
    """The run as it stands now."""
    reason: str
    """Why the search ended: trials, hours or converged."""
    objectives: tuple[Objective, ...]
    """One for each target."""
    dataset: Dataset
    failed_exports: Mapping[str, str]
    """label -> reason, for models of the front that could not be written."""


def run_search(settings: SearchSettings, watcher: Watcher, command: str) -> SearchResult:
    """Search, or resume the search in `settings.run`, and export the front.

    Args:
        command: how the user began the search, for the report's provenance.

    Raises:
        ValueError: an option that does not fit the others, the images, the devices, or the run that is there.
        KeyboardInterrupt: the search was asked to stop; the run is saved, and the same settings resume it.
    """
    require_writable(settings.run, "--run")  # before the images are read
    dataset = settings.load_data(watcher.decoding)
    settings = settings.as_begun(dataset)
    for line in (
        *class_table_lines(dataset.table, "val"),
        by_stat_line(dataset),
        mirror_note(settings.proxy.mirror, dataset.flip, dataset.classes),
    ):
        if line:
            watcher.say(line)
    space = settings.searched_space(dataset.input_size)
    evaluate = ProxyEvaluator(settings, dataset.input_size, dataset.fingerprint, (dataset.content, dataset.key))
    with open_search(settings, space, dataset, evaluate, watcher.say) as (run, problem):
        _keep_provenance(run, dataset, problem, command)
        try:
            reason = search(run, problem, settings.plan(), watcher)
        except KeyboardInterrupt as stop:
            run.set("state", {"status": "stopped", "reason": signal_name(stop)})
            watcher.updated(run)
            raise
        failed = export_front(run, dataset, problem.objectives)
        return SearchResult(
            run=Snapshot(run.path, run.attributes, run.trials),
            reason=reason,
            objectives=problem.objectives,
            dataset=dataset,
            failed_exports=failed,
        )


def _keep_provenance(run: StudyWriter, dataset: Dataset, problem: Problem, command: str) -> None:
    """Keep where the results come from; counts of classes also where an earlier version did not keep them."""
    if "val_counts" not in run.attributes:
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
