"""`mnas proxy-check`: whether short trainings rank architectures as long ones do, and which cheapest one does."""

import dataclasses
import hashlib
import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Parameter
from rich.console import Console

from mnas.architecture import Architecture
from mnas.cli.class_table import print_class_table, print_line
from mnas.cli.console import make_console
from mnas.cli.data_options import VerifyCache
from mnas.cli.progress import counting
from mnas.cli.proxy_result import RESULT_NAME, check_of, print_check, say, write_result
from mnas.data.dataset import Dataset
from mnas.data.mirror import as_begun, mirror_note, mirrors, to_store
from mnas.data.options import DataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import Evaluation
from mnas.latency.onboard.script import processor_of
from mnas.proxycheck.plan import Setting, settings_of, smaller_sizes, spread
from mnas.proxycheck.results import FILE_NAME, Results, key_of, open_results
from mnas.readers import stored_settings
from mnas.search.evaluator import ProxyEvaluator
from mnas.search.settings import SearchSettings
from mnas.search.start import named_member
from mnas.space.space import Space
from mnas.workers import LocalWorkers, Task

Auto = Literal["auto"]
REFERENCE_TIMES = 4
"""The reference trains so many times as long as the longest proxy, unless told."""


@dataclass(frozen=True, kw_only=True)
class ProxyCheckCommand:
    """Train a spread of architectures in cheap ways and in a long one, and say which cheap way ranks them as the long
    one does. The same command goes on where it was interrupted, also with more architectures, seeds or ways.
    """

    data: str
    """digits, cifar10, fashion-mnist, imagenet, or a folder, as in mnas search."""
    out: Path = Path("runs/proxy-check")
    """Where the trainings are kept, and result.json."""

    architectures: int = 10
    """How many members of the space, spread over its multiply-accumulates."""
    also: str = ""
    """Networks to check besides, by commas: mnasnet-a1, a trial, a file."""
    seeds: int = 2
    """Trainings of each architecture in each way; 1 tells nothing of the noise between seeds."""
    reference_epochs: int | Auto = "auto"
    """Of the long training; auto: four times the longest proxy's."""

    try_epochs: str = "auto"
    """Besides --epochs, by commas; auto: a half and a fifth of them."""
    try_image_shares: str = "auto"
    """Besides --image-share, by commas; auto: a half and a quarter of it."""
    try_input_sizes: str = "auto"
    """Besides --input-size, by commas; auto: three quarters and a half of it."""
    all_combinations: bool = False
    """Try every combination, not only what differs from the first in one thing."""

    space: str = "mnasnet"
    """As in mnas search."""
    width: float = 1.0
    """Width multiplier of the space's skeleton."""
    input_size: int | Auto = "auto"
    """Side of the images in pixels, for the reference too; auto: the data set's own, up to 224."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last map; auto: as mnas search at --input-size; smaller images keep it."""
    proxy: Annotated[ProxyConfig, Parameter(name="*")] = dataclasses.field(default_factory=ProxyConfig)
    """The way that is looked for cheaper ones of."""
    max_images_per_class: int = 0
    """Use only so many images of each class; 0: all."""
    data_dir: Path | None = None
    """Where cifar10, fashion-mnist and imagenet lie, or are downloaded to; not given: in the cache folder."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    verify_cache: VerifyCache = False
    workers: int | Auto = "auto"
    """Trainings side by side; auto: as many as the cores allow."""
    seed: int = 0
    """Of the architectures, the images held out and the trainings."""

    def __post_init__(self) -> None:
        if self.architectures < 3:
            raise ValueError(f"architectures must be 3 or more for a ranking, but got {self.architectures}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be 1 or more, but got {self.seeds}")
        if self.reference_epochs != "auto" and self.reference_epochs < 1:
            raise ValueError(f"reference epochs must be 1 or more, but got {self.reference_epochs}")
        self.search_settings(self.input_size, self.proxy)  # its checks
        self._ways(self.input_size if self.input_size != "auto" else 224, 1)

    def run(self) -> None:
        """Train what is missing, and print what it says."""
        console = make_console()
        with console.status("reading the images"):
            dataset = self.search_settings(self.input_size, self.proxy).load_data()
        print_class_table(console, dataset.table, "val")
        stored = stored_settings(self.out / FILE_NAME, "config", "proxy")
        mirror = as_begun(self.proxy.mirror, stored, dataset.flip, dataset.classes)
        print_line(console, mirror_note(mirror, dataset.flip, dataset.classes))
        dataclasses.replace(self, proxy=dataclasses.replace(self.proxy, mirror=mirror))._check(console, dataset)

    def _check(self, console: Console, dataset: Dataset) -> None:
        space = self.search_settings(self.input_size, self.proxy).searched_space(dataset.input_size)
        reference, settings = self._ways(dataset.input_size, space.skeleton.output_stride)
        archs = self._architectures(space, dataset)
        with open_results(self.out, self.identity(space, dataset)) as results:
            try:
                self._train(console, results, [reference, *settings], archs, dataset)
            except KeyboardInterrupt:
                say(console, f"stopped; nothing is lost. To go on: {shlex.join(['mnas', *sys.argv[1:]])}")
                raise
            check = check_of(results, reference, settings, archs, self.seeds)
            print_check(console, check)
            facts = {
                "machine": f"{_processor()}, {os.cpu_count()} cores",
                "data": {"name": self.data, "val_images": len(dataset.val.labels), "fingerprint": dataset.fingerprint},
                "space": space.to_dict(),
            }
            write_result(self.out / RESULT_NAME, check, facts)
            say(console, f"trainings and result: {self.out}")

    def search_settings(self, input_size: int | Auto, proxy: ProxyConfig) -> SearchSettings:
        """Return the settings of a search in that way."""
        return SearchSettings(
            images=DataOptions(
                data=self.data,
                max_images_per_class=self.max_images_per_class,
                data_dir=self.data_dir,
                download=self.download,
                verify_cache=self.verify_cache,
            ),
            space=self.space,
            width=self.width,
            input_size=input_size,
            output_stride=self.output_stride,
            proxy=proxy,
            workers=self.workers,
            seed=self.seed,
        )

    def identity(self, space: Space, dataset: Dataset) -> dict[str, Any]:
        """What must not change between two starts, as trainings would not be comparable."""
        proxy = dataclasses.asdict(self.proxy)
        for tried in ("epochs", "image_share", "mirror"):
            del proxy[tried]
        mirrored = mirrors(self.proxy.mirror, dataset.flip, dataset.classes)
        proxy |= to_store(mirrored, dataset.flip)
        proxy["accelerator"] = self.proxy.device().type
        content = {"data": self.data, "data_content": dataset.fingerprint, "seed": self.seed}
        return {**content, "input_size": dataset.input_size, "space": space.to_dict(), "proxy": proxy}

    def _ways(self, input_size: int, output_stride: int) -> tuple[Setting, list[Setting]]:
        """The reference, and the proxies: the one that the options give first."""
        base = Setting(epochs=self.proxy.epochs, image_share=self.proxy.image_share, input_size=input_size)
        epochs = [e for e in (base.epochs // 2, base.epochs // 5) if e]
        if self.try_epochs != "auto":
            epochs = _numbers("try epochs", self.try_epochs, int, 1, 10_000)
        shares = [base.image_share / 2, base.image_share / 4]
        if self.try_image_shares != "auto":
            shares = _numbers("try image shares", self.try_image_shares, float, 1e-6, 1)
        sizes = smaller_sizes(input_size, output_stride)
        if self.try_input_sizes != "auto":
            sizes = _numbers("try input sizes", self.try_input_sizes, int, 8, 1024)
        settings = settings_of(base, epochs, shares, sizes, every=self.all_combinations)
        longest = max(setting.epochs for setting in settings)
        reference = REFERENCE_TIMES * longest if self.reference_epochs == "auto" else self.reference_epochs
        if reference <= longest:
            raise ValueError(f"reference epochs must be more than the longest proxy's {longest}, but got {reference}")
        return Setting(epochs=reference, image_share=1.0, input_size=input_size), settings

    def _architectures(self, space: Space, dataset: Dataset) -> list[Architecture]:
        """The named ones first."""
        named = [named_member(name, space).arch for name in self.also.split(",") if name]
        drawn = spread(
            space,
            self.architectures,
            input_size=dataset.input_size,
            num_classes=len(dataset.classes),
            seed=self.seed,
        )
        return list({arch.fingerprint: arch for arch in (*named, *drawn)}.values())

    def _train(
        self,
        console: Console,
        results: Results,
        ways: Sequence[Setting],
        archs: Sequence[Architecture],
        dataset: Dataset,
    ) -> None:
        """All that is not known yet, side by side; the long ones first, so that none is waited for alone."""
        tasks: list[Task] = []
        keys: list[str] = []
        for seed in range(self.seeds):
            for setting in ways:
                training = self._training(setting, dataset)
                for arch in archs:
                    key = key_of(setting.key, arch.fingerprint, seed)
                    if key not in results.known:
                        tasks.append(Task(len(keys), arch, seed_of(self.seed, key), Path(), training))
                        keys.append(key)
        total = self.seeds * len(ways) * len(archs)
        say(
            console,
            f"{len(archs)} architectures in {len(ways)} ways with {self.seeds} seed(s): {total} trainings, "
            f"{total - len(tasks)} of them known",
        )
        if not tasks:
            return
        waiting = iter(tasks)
        workers = self.search_settings(self.input_size, self.proxy).plan().workers
        with (
            LocalWorkers(tasks[0].evaluate or self._training(ways[0], dataset), workers) as pool,
            counting(console, total) as count,
        ):
            count(total - len(tasks), "")
            for done, (task, outcome) in enumerate(pool.run(lambda: next(waiting, None)), total - len(tasks) + 1):
                told = "failed" if isinstance(outcome, str) else f"accuracy {outcome.accuracy:.4f}"
                results.keep(keys[task.number], {"error": outcome} if isinstance(outcome, str) else outcome.to_dict())
                count(done, f"{keys[task.number]}: {told}")

    def _training(self, setting: Setting, dataset: Dataset) -> "_Scoring":
        """Picklable: how a worker trains in that way; images of another size have been decoded by then."""
        settings = self.search_settings(setting.input_size, setting.config(self.proxy))
        if setting.input_size != dataset.input_size:
            dataset = settings.load_data()
        known = (dataset.content, dataset.key)
        return _Scoring(ProxyEvaluator(settings, setting.input_size, dataset.fingerprint, known))


@dataclass(frozen=True)
class _Scoring:
    """Trains, and keeps no weights."""

    training: ProxyEvaluator
    modules: ClassVar = ProxyEvaluator.modules

    def __call__(self, arch: Architecture, seed: int, weights_path: Path) -> Evaluation:
        return self.training.evaluate(arch, seed, None)


def seed_of(seed: int, key: str) -> int:
    """Of one training; no two have the same, or noise that they share would look like order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big")


def _numbers(name: str, text: str, kind: type[int] | type[float], low: float, high: float) -> list[Any]:
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(low <= value <= high for value in values):
        what = "integers" if kind is int else "numbers"
        raise ValueError(f"{name} must be auto, or {what} from {low:g} to {high:g} with commas, but got {text!r}")
    return values


def _processor() -> str:
    try:
        return processor_of(Path("/proc/cpuinfo").read_text()) or platform.machine()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
