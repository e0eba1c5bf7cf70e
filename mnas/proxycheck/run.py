"""Run of a proxy check: all trainings in parallel; a resumed check keeps the trainings in its file."""

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mnas.architecture import Architecture
from mnas.candidate import Candidate
from mnas.data.dataset import Dataset
from mnas.data.listing.class_lines import class_table_lines
from mnas.data.mirror import mirror_note
from mnas.evaluate.evaluation import Evaluation, Step
from mnas.latency.onboard.script import processor_of
from mnas.proxycheck.check import ProxyCheck, check_of, write_result
from mnas.proxycheck.plan import Setting, spread
from mnas.proxycheck.results import Results, key_of, open_results
from mnas.proxycheck.settings import ProxyCheckSettings
from mnas.search.evaluator import CachedImages, ProxyEvaluator
from mnas.search.start import named_member
from mnas.space.space import Space
from mnas.workers import LocalWorkers, Task

RESULT_NAME = "result.json"

Say = Callable[[str], None]
Counting = Callable[[int], AbstractContextManager[Callable[[int, str], None]]]
"""Function of the number of trainings; its context is called with the number done and a line on the last one."""


def run_proxy_check(
    settings: ProxyCheckSettings, *, say: Say, progress: Say, counting: Counting, command: str
) -> ProxyCheck:
    """Run the missing trainings, and return the comparison, which is also written to result.json.

    Args:
        say: called with lines for the user.
        progress: called with a few words at the start of each step.
        counting: opens the counter of the trainings.
        command: the user's command, for result.json.

    Raises:
        ValueError: options and images do not fit each other, or the folder contains another check.
        OSError: a file cannot be written.
        KeyboardInterrupt: the check was interrupted; finished trainings are in the file.
    """
    progress("reading the images")
    [dataset] = settings.search_settings().load_data().values()
    settings = settings.as_begun(dataset)
    for line in (
        *class_table_lines(dataset.table, "val"),
        mirror_note(settings.proxy.mirror, dataset.flip, dataset.classes),
    ):
        if line:
            say(line)
    space = settings.search_settings().searched_space(dataset.input_size)
    reference, proxies = settings.ways(dataset.input_size, space.skeleton.output_stride)
    archs = _architectures(settings, space, dataset)
    with open_results(settings.out, settings.identity(space, dataset)) as results:
        _train(settings, results, [reference, *proxies], archs, dataset, say, counting)
        check = check_of(results, reference, proxies, archs, settings.seeds)
        facts = {
            "machine": f"{_processor()}, {os.cpu_count()} cores",
            "data": {
                "name": settings.images.data,
                "val_images": len(dataset.val.labels),
                "fingerprint": dataset.fingerprint,
            },
            "space": space.to_dict(),
        }
        write_result(settings.out / RESULT_NAME, check, command, facts)
    return check


def _architectures(settings: ProxyCheckSettings, space: Space, dataset: Dataset) -> list[Architecture]:
    """Return the architectures, the named ones first."""
    named = [named_member(name, space, "--also").arch for name in settings.also.split(",") if name]
    drawn = spread(
        space,
        settings.architectures,
        input_size=dataset.input_size,
        num_classes=len(dataset.classes),
        seed=settings.seed,
    )
    return list({arch.fingerprint: arch for arch in (*named, *drawn)}.values())


def _train(
    settings: ProxyCheckSettings,
    results: Results,
    ways: Sequence[Setting],
    archs: Sequence[Architecture],
    dataset: Dataset,
    say: Say,
    counting: Counting,
) -> None:
    """Run the missing trainings in parallel, the long ones first, so that none runs alone at the end."""
    tasks: list[Task] = []
    keys: list[str] = []
    for seed in range(settings.seeds):
        for setting in ways:
            scoring = _scoring(settings, setting, dataset)
            for arch in archs:
                key = key_of(setting.key, arch.fingerprint, seed)
                if key not in results.trainings:
                    candidate = Candidate(arch=arch, input_size=setting.input_size)
                    tasks.append(Task(len(keys), candidate, seed_of(settings.seed, key), Path(), evaluate=scoring))
                    keys.append(key)
    total = settings.seeds * len(ways) * len(archs)
    say(
        f"{len(archs)} architectures, {len(ways)} settings and {settings.seeds} seed(s): {total} trainings, "
        f"{total - len(tasks)} of them finished"
    )
    if not tasks:
        return
    waiting = iter(tasks)
    workers = settings.search_settings().plan().workers
    with (
        LocalWorkers(tasks[0].evaluate or _scoring(settings, ways[0], dataset), workers) as pool,
        counting(total) as count,
    ):
        count(total - len(tasks), "")
        for done, (task, outcome) in enumerate(pool.run(lambda: next(waiting, None)), total - len(tasks) + 1):
            key = keys[task.number]
            results.keep(key, {"error": outcome} if isinstance(outcome, str) else outcome.to_dict())
            count(done, f"{key}: {'failed' if isinstance(outcome, str) else f'accuracy {outcome.accuracy:.4f}'}")


def _scoring(settings: ProxyCheckSettings, setting: Setting, dataset: Dataset) -> "_Scoring":
    """Return how a worker trains in that way, picklable; images of another size are decoded first."""
    search = settings.search_settings(setting)
    if setting.input_size != dataset.input_size:
        [dataset] = search.load_data().values()
    images = {setting.input_size: CachedImages.of(dataset, search.images, search.seed)}
    return _Scoring(ProxyEvaluator(search.proxy, images))


@dataclass(frozen=True)
class _Scoring:
    """Trains a candidate without writing its weights."""

    evaluator: ProxyEvaluator
    modules: ClassVar = ("mnas.evaluate.proxy",)

    def __call__(self, candidate: Candidate, step: Step, seed: int, weights_path: Path) -> Evaluation:
        return self.evaluator.evaluate(candidate, step, seed, None)


def seed_of(seed: int, key: str) -> int:
    """Return the seed of one training; seeds differ, as shared noise would look like agreement."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big")


def _processor() -> str:
    try:
        return processor_of(Path("/proc/cpuinfo").read_text()) or platform.machine()
    except OSError:  # only Linux has the file
        return platform.processor() or platform.machine()
