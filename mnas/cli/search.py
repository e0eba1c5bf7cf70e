"""`mnas search`: from a data set and this machine to the Pareto front of models, with their weights as LiteRT files."""

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Parameter
from rich.console import Console

from mnas.architecture import Architecture
from mnas.atomic import require_writable
from mnas.children import MOST_WORKERS
from mnas.cli.class_table import print_class_table, print_line
from mnas.cli.conclusion import conclude, label_counts
from mnas.cli.console import make_console
from mnas.cli.data_options import VerifyCache
from mnas.cli.front import export_front
from mnas.cli.progress import watching
from mnas.cli.search_devices import device_values
from mnas.cli.search_presets import named_preset
from mnas.cli.search_start import open_search, versions
from mnas.cli.signals import signal_name
from mnas.controller.named import CONTROLLERS, candidates_per_update
from mnas.data.batches import by_stat_line
from mnas.data.cache import OnProgress
from mnas.data.dataset import Dataset
from mnas.data.load import load_dataset
from mnas.data.mirror import as_begun, mirror_note, mirrors, to_store
from mnas.data.native import native_size
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import METRICS, Evaluation, Metric
from mnas.objective import DEFAULT_WEIGHTS, Form, Objective, Sharing
from mnas.readers import stored_settings
from mnas.report.html import write_snapshot_report
from mnas.search.loop import search
from mnas.search.problem import Plan, Problem
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.space.space import Space
from mnas.study import RunError, Snapshot, StudyWriter
from mnas.version import __version__

Auto = Literal["auto"]


MOST_BUDGET_S = 86_400.0
"""A candidate is measured for a day at most."""
MAY_CHANGE = (
    *("preset", "run_dir", "trials", "hours", "workers", "keep_models_mb", "data_dir", "download", "width"),
    *("devices", "fresh", "predictor", "verify_cache"),
)
"""Fields that need not be the same when a run is resumed; of some it is kept elsewhere what they stood for."""


@dataclass(frozen=True, kw_only=True)
class SearchCommand:
    """Search for the image models with the best trade-off of accuracy and latency; the same command again resumes."""

    data: str
    """digits, cifar10, fashion-mnist, imagenet, or a folder with one folder of images for each class (or train/,
    val/)."""
    run_dir: Annotated[Path, Parameter(name="--run")] = Path("runs/search")
    """Where everything of this search is kept; an unfinished one there is resumed."""
    preset: str = "standard"
    """standard, or paper (PPO, soft reward, 8,000 trials of 5 epochs, 20 an update): whose values are the defaults of
    the options below."""

    trials: int = 100
    """How many candidates in all; a larger number later continues a finished run."""
    hours: float = math.inf
    """Stop after so many hours of searching; may be changed on resume."""
    workers: int | Auto = "auto"
    """Candidates trained side by side; auto: as many as the cores allow. The trials are the same for any number."""

    space: str = "mnasnet"
    """mnasnet, mnasnet-no-se, per-layer, cell, or a TOML file with a space of your own."""
    width: float = 1.0
    """Width multiplier of the space's skeleton: below 1 for small images and short searches."""
    input_size: int | Auto = "auto"
    """Side of the images in pixels; auto: the data set's own, up to 224."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last map; auto: the largest of 32, 16, 8, 4 that leaves a map of 3 x 3 or more."""

    start_from: str = ""
    """What to begin with, by commas: networks to evaluate first (mnasnet-a1), earlier runs to learn from (runs/OLD)."""

    controller: str = "surrogate"
    """surrogate (needs the fewest trials), ppo (the paper's, for thousands), evolution, random, nsga2 or tpe."""
    candidates_per_update: int | Auto = "auto"
    """Candidates drawn before the controller learns from them; auto: 5 for surrogate, the paper's 20 for the others."""
    seed: int = 0
    """Of everything random."""

    reward: Form = "target"
    """target: the most accurate at T; soft (trades latency for accuracy whatever T is) and hard are the paper's,
    absolute TuNAS's, weighted-sum the linear trade-off."""
    metric: Metric = "accuracy"
    """Score to search for. accuracy; balanced-accuracy: the mean of the classes' recalls, in which every class counts
    alike however many images it has."""
    target_latency_ms: str = "auto"
    """T, ms on the device; auto: MobileNetV2's on the same skeleton and input. Several that share all trials, a model
    for each: 3,5,8. For several devices: pixel=5,pi=20."""
    alpha: float | Auto = "auto"
    """The reward's exponent (weight) up to T; 0 with --beta 0: accuracy alone."""
    beta: float | Auto = "auto"
    """The reward's exponent (weight) beyond T (mnas.objective.beta_for(0.05): twice the latency buys 5 % accuracy)."""
    latency_limit: float = math.inf
    """Candidates slower than this multiple of T are skipped before training."""
    max_size_mb: float = math.inf
    """Candidates with a larger file are skipped before they are measured."""
    max_memory_mb: float = math.inf
    """Candidates for which the runtime takes more memory are skipped before training."""

    device: str = "host"
    """Where latency is measured: host is this machine; devices.toml describes others (mnas devices list). Several, with
    commas: one model for all of them."""
    devices: Path | Auto = "auto"
    """The file that describes devices; auto: the user's own."""
    device_weights: str = "worst"
    """How several devices' latencies count, each as a multiple of its T: worst, or weights: pixel=1,pi=2."""
    latency: Literal["measured", "predicted"] = "measured"
    """predicted: by predictors that mnas latency fit made; measured are only candidates that may be on the front."""
    predictor: str = "auto"
    """Predictors' files, one for each device, with commas; auto: where mnas latency fit left them."""
    latency_budget_s: float = 3.0
    """At most so many seconds of measuring for a candidate."""
    latency_threads: int | Auto = "auto"
    """Threads of the measured runtime; auto: the device's own (1 unless devices.toml says otherwise, as the paper)."""
    fresh: bool = False
    """Measure also what the cache of latencies knows, and say how far it moved."""

    proxy: Annotated[ProxyConfig, Parameter(name="*")] = dataclasses.field(default_factory=ProxyConfig)
    """How a candidate is trained."""
    max_images_per_class: int = 0
    """Use only so many training images of each class; 0: all."""
    data_dir: Path | None = None
    """Where cifar10, fashion-mnist and imagenet lie, or are downloaded to; not given: in the cache folder."""
    download: bool = False
    """Download cifar10 or fashion-mnist if they are missing."""
    verify_cache: VerifyCache = False

    keep_models_mb: float = 1000.0
    """Cap on the weights kept of the front's models."""

    def __post_init__(self) -> None:
        if self.controller not in CONTROLLERS:
            raise ValueError(f"controller must be one of {', '.join(CONTROLLERS)}, but got {self.controller!r}")
        if self.metric not in METRICS:
            raise ValueError(f"--metric must be one of {', '.join(METRICS)}, but got {self.metric!r}")
        if not 0 < self.latency_budget_s <= MOST_BUDGET_S:
            raise ValueError(
                f"latency budget s must be above 0 and at most {MOST_BUDGET_S:g}, but got {self.latency_budget_s}"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be an integer from 0 to {2**63 - 1}, but got {self.seed}")
        if self.start_from and not all(self.start_from.split(",")):
            raise ValueError(f"start from must be names with commas between them, but got {self.start_from!r}")
        self.plan()  # its checks come before any work
        self.objectives(self.sharing(dict.fromkeys(self.device_names, 1.0)))

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return option -> default, of the preset that the given options choose.

        Raises:
            ValueError: there is no such preset.
        """
        return named_preset(given.get("preset", cls.preset))

    def run(self) -> None:
        """Search, or go on searching; then export the front and print what to take."""
        console = make_console()
        self.search(console)

    def plan(self) -> Plan:
        """The part of the settings that the loop needs."""
        cores = os.cpu_count() or 1
        if self.workers != "auto":
            workers = self.workers
        elif self.proxy.device().type == "cuda":  # several would take each other's memory
            workers = 1
        else:
            workers = max(1, min(MOST_WORKERS, cores // self.proxy.threads))
        return Plan(
            controller=self.controller,
            seed=self.seed,
            trials=self.trials,
            hours=self.hours,
            workers=workers,
            candidates_per_update=self.batch_size,
            latency_limit=self.latency_limit,
            max_size_mb=self.max_size_mb,
            max_memory_mb=self.max_memory_mb,
            keep_models_mb=self.keep_models_mb,
        )

    @property
    def batch_size(self) -> int:
        """Candidates drawn from the same closed batches."""
        auto = self.candidates_per_update == "auto"
        return candidates_per_update(self.controller) if auto else int(self.candidates_per_update)

    @property
    def device_names(self) -> tuple[str, ...]:
        """Of `device`, in the user's order."""
        names = tuple(self.device.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"device must be one name, or several different ones with commas, but got {self.device!r}")
        return names

    @property
    def targets_ms(self) -> tuple[float, ...]:
        """Of one device: all that are given; empty for auto, and for several devices."""
        if self.target_latency_ms == "auto" or len(self.device_names) > 1:
            return ()
        if "," not in self.target_latency_ms:
            return tuple(device_values("target latency ms", self.target_latency_ms, self.device_names).values())
        try:
            targets_ms = tuple(map(float, self.target_latency_ms.split(",")))
        except ValueError:
            got = f"but got {self.target_latency_ms!r}"
            raise ValueError(f"target latency ms must be auto, a number, or several as in 3,5,8, {got}") from None
        if len(set(targets_ms)) < len(targets_ms):
            raise ValueError(f"targets of latency must be different ones, but got {self.target_latency_ms}")
        return targets_ms

    def sharing(self, reference_ms: Mapping[str, float]) -> Sharing:
        """How devices share one model, where MobileNetV2 takes `reference_ms` (device -> milliseconds)."""
        targets_ms = dict(reference_ms)
        if self.targets_ms:
            targets_ms[self.device_names[0]] = self.targets_ms[0]
        elif self.target_latency_ms != "auto":
            targets_ms |= device_values("target latency ms", self.target_latency_ms, self.device_names)
        weights = {}
        if self.device_weights != "worst":
            weights = device_values("device weights", self.device_weights, self.device_names)
        return Sharing(targets_ms=targets_ms, weights=weights)

    def objectives(self, sharing: Sharing) -> list[Objective]:
        """The reward for each target; of several devices there is one, whose T is the first device's."""
        alpha, beta = DEFAULT_WEIGHTS[self.reward]
        return [
            Objective(
                form=self.reward,
                target_latency_ms=target_ms,
                alpha=alpha if self.alpha == "auto" else self.alpha,
                beta=beta if self.beta == "auto" else self.beta,
            )
            for target_ms in self.targets_ms or [next(iter(sharing.targets_ms.values()))]
        ]

    def load_data(self, on_progress: OnProgress | None = None, *, known: tuple[str, str] | None = None) -> Dataset:
        """The images, decoded once and shared by all processes; `known`: see `load_dataset`."""
        return load_dataset(
            self.data,
            input_size=native_size(self.data) if self.input_size == "auto" else self.input_size,
            seed=self.seed,
            data_dir=self.data_dir,
            download=self.download,
            max_images_per_class=self.max_images_per_class,
            on_progress=on_progress,
            cached=known,
            verify_cache=self.verify_cache and known is None,
        )

    def searched_space(self, input_size: int) -> Space:
        """The space at its width and output stride. Raises ValueError where they cannot be."""
        space = load_space(self.space).scaled(self.width)
        stride = output_stride_for(input_size) if self.output_stride == "auto" else self.output_stride
        if self.output_stride == "auto":
            stride = min(stride, space.skeleton.output_stride)
        return space.with_output_stride(stride)

    def identity(self, space: Space, dataset: Dataset) -> dict[str, Any]:
        """What must not change while a run is resumed."""
        fields = dataclasses.asdict(self)
        for may_change in (*MAY_CHANGE, *(["start_from"] if not self.start_from else [])):
            del fields[may_change]
        fields["proxy"]["accelerator"] = self.proxy.device().type
        fields["candidates_per_update"] = self.batch_size
        if self.metric == "accuracy":  # as in runs that were begun before there was a choice
            del fields["metric"]
        if self.targets_ms:
            fields["target_latency_ms"] = ",".join(f"{target_ms:.12g}" for target_ms in self.targets_ms)
        del fields["proxy"]["mirror"]
        mirrored = mirrors(self.proxy.mirror, dataset.flip, dataset.classes)
        fields["proxy"] |= to_store(mirrored, dataset.flip)
        if self.proxy.image_share == 1:  # as in runs that were begun before there was a share
            del fields["proxy"]["image_share"]
        changed = {"space": space.to_dict(), "input_size": dataset.input_size, "data_content": dataset.fingerprint}
        fields.update(changed)
        return {name: "inf" if value == math.inf else value for name, value in fields.items()}

    def search(self, console: Console) -> StudyWriter:
        """`run`, printing to `console`; returns the run, closed, for who wants to read it."""
        require_writable(self.run_dir, "--run")  # before the images are read
        with console.status("reading the images") as status:
            dataset = self.load_data(lambda done, count: status.update(f"decoding images: {done} of {count}"))
        command = self._as_begun(dataset)
        print_class_table(console, dataset.table, "val")
        print_line(console, by_stat_line(dataset))
        print_line(console, mirror_note(command.proxy.mirror, dataset.flip, dataset.classes))
        return command._search(console, dataset)

    def _as_begun(self, dataset: Dataset) -> "SearchCommand":
        """Return the command with images mirrored as in the run that it resumes."""
        stored = stored_settings(self.run_dir / "config.json", "proxy")
        mirror = as_begun(self.proxy.mirror, stored, dataset.flip, dataset.classes)
        if mirror == self.proxy.mirror:
            return self
        return dataclasses.replace(self, proxy=dataclasses.replace(self.proxy, mirror=mirror))

    def _search(self, console: Console, dataset: Dataset) -> StudyWriter:
        space = self.searched_space(dataset.input_size)
        evaluate = Training(self, dataset.input_size, dataset.fingerprint, (dataset.content, dataset.key))
        with open_search(self, space, dataset, evaluate, console) as (run, problem):
            _keep_provenance(run, dataset, problem)
            try:
                with watching(console) as watcher:
                    reason = search(run, problem, self.plan(), watcher)
            except KeyboardInterrupt as stop:
                run.set("state", {"status": "stopped", "reason": signal_name(stop)})
                write_snapshot_report(Snapshot(run.path, run.attributes, run.trials))
                console.print(f"stopped; nothing is lost. To go on: {_command()}")
                raise
            failed = export_front(run, dataset, problem.objectives)
            conclude(console, run, reason, problem.objectives, dataset)
        if failed:
            told = "; ".join(f"{run.path / 'front' / label}: {reason}" for label, reason in failed.items())
            raise RunError(
                f"all models must be exported, but {len(failed)} failed ({told}); the others are there, and the "
                "same command tries again"
            )
        return run


@dataclass(frozen=True)
class Training:
    """Trains a candidate in a worker process, which opens the cached data set once."""

    command: SearchCommand
    input_size: int
    data_content: str
    known: tuple[str, str] | None = None
    """Content and key of the images, so that a worker opens the cache without looking at every file."""
    modules: ClassVar = ("mnas.evaluate.proxy",)

    def __call__(self, arch: Architecture, seed: int, weights_path: Path) -> Evaluation:
        return self.evaluate(arch, seed, weights_path)

    def evaluate(self, arch: Architecture, seed: int, weights_path: Path | None) -> Evaluation:
        """As `evaluate_proxy`; raises RunError where the images are not those of the start."""
        from mnas.evaluate.proxy import evaluate_proxy  # torch and timm: the searching process needs none of them

        dataset = _dataset_of(self.command, self.known)
        if (dataset.input_size, dataset.fingerprint) != (self.input_size, self.data_content):
            raise RunError(f"the images of {self.command.data} have changed during the search; begin another --run")
        return evaluate_proxy(arch, dataset, self.command.proxy, seed, weights_path)


_opened: dict[SearchCommand, Dataset] = {}


def _dataset_of(command: SearchCommand, known: tuple[str, str] | None) -> Dataset:
    if command not in _opened:
        _opened[command] = command.load_data(known=known)
    return _opened[command]


def _keep_provenance(run: StudyWriter, dataset: Dataset, problem: Problem) -> None:
    """Written by the first start; counts of classes also by a later one, where they were not kept yet."""
    if "val_counts" not in run.attributes:
        run.set("val_counts", label_counts(dataset))
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
            "devices": {name: told[0]["device"] for name, told in run.attributes["calibrations"].items()},
            "data": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "train_images": len(dataset.train.labels),
                "val_images": len(dataset.val.labels),
                "skipped": len(dataset.skipped),
                "table": dataset.table.to_dict(),
            },
            "command": _command(),
        },
    )


def _command() -> str:
    return shlex.join(["mnas", *sys.argv[1:]])
