"""The settings of a search: its options, their checks, and values derived from them."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mnas.children import MOST_WORKERS
from mnas.data.cache import OnProgress
from mnas.data.dataset import Dataset
from mnas.data.mirror import as_begun, mirrors, to_store
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import METRICS, Metric
from mnas.objective import DEFAULT_WEIGHTS, Form, Objective, Sharing
from mnas.readers import stored_settings
from mnas.search.presets import named_preset
from mnas.search.problem import Plan
from mnas.settings import from_options
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.space.space import Space

Auto = Literal["auto"]

MOST_BUDGET_S = 86_400.0
"""Largest latency budget per candidate, in seconds: one day."""
MAY_CHANGE = (
    *("preset", "run", "trials", "hours", "workers", "keep_models_mb", "width", "devices", "fresh", "predictor"),
    *("data_dir", "download", "verify_cache"),
)
"""Options that may differ when a run is resumed; the effective values of some are stored elsewhere."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search. Raises ValueError where an option is out of its range."""

    images: TrainingDataOptions
    """Which images the candidates are trained on."""
    run: Path = Path("runs/search")
    """Folder of this search; an unfinished search in it is resumed."""
    preset: str = "standard"
    """standard, or paper (PPO, soft reward, 8,000 trials of 5 epochs, 20 per update), whose values become the defaults
    of the other options."""

    trials: int = 100
    """Number of candidates in all; a larger number later continues a finished run."""
    hours: float = math.inf
    """Stop after this many hours of searching in total; may be changed on resume."""
    workers: int | Auto = "auto"
    """Candidates trained side by side; auto: as many as the cores allow. The trials are the same for any number."""

    space: str = "mnasnet"
    """mnasnet, mnasnet-no-se, per-layer, cell, a TOML file with a space of your own, or module:factory, a function that
    returns one."""
    width: float = 1.0
    """Width multiplier of the space's skeleton: below 1 for small images and short searches."""
    input_size: int | Auto = "auto"
    """Side of the images in pixels; auto: the data set's own, up to 224."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last map; auto: the largest of 32, 16, 8, 4 that leaves a map of 3 x 3 or more."""

    start_from: str = ""
    """Networks to evaluate first (mnasnet-a1) and earlier runs to learn from (runs/OLD), separated by commas."""

    controller: str = "surrogate"
    """surrogate (needs the fewest trials), ppo (the paper's, for thousands), evolution, random, nsga2, tpe, or
    module:factory, a function that returns an Optuna sampler."""
    candidates_per_update: int | Auto = "auto"
    """Candidates drawn before the controller learns from them; auto: 5 for surrogate, the paper's 20 for the others."""
    seed: int = 0
    """Random seed."""

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
    """Device to measure latency on: host is this machine; devices.toml describes others (mnas devices list). Several,
    separated by commas, get one model for all of them."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: your own in the configuration folder."""
    device_weights: str = "worst"
    """How several devices' latencies count, each as a multiple of its T: worst, or weights: pixel=1,pi=2."""
    latency: Literal["measured", "predicted"] = "measured"
    """measured, or predicted by predictors of mnas latency fit; then only candidates that may be on the front are
    measured."""
    predictor: str = "auto"
    """Predictor files, one per device, separated by commas; auto: those that mnas latency fit wrote."""
    latency_budget_s: float = 3.0
    """Latency budget per candidate, in seconds."""
    latency_threads: int | Auto = "auto"
    """Threads of the measured runtime; auto: the device's own (1 unless devices.toml says otherwise, as the paper)."""
    fresh: bool = False
    """Re-measure cached latencies and report the change."""

    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    """How a candidate is trained."""
    keep_models_mb: float = 1000.0
    """Cap on the weights kept of the front's models, in MB."""

    def __post_init__(self) -> None:
        from mnas.controller.named import find_controller  # torch takes seconds, and help needs none of it

        find_controller(self.controller)
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
        self.plan()  # like the next line, for its checks
        self.objectives(self.sharing(dict.fromkeys(self.device_names, 1.0)))

    def plan(self) -> Plan:
        """Return the part of the settings that the search loop needs."""
        cores = os.cpu_count() or 1
        if self.workers != "auto":
            workers = self.workers
        elif self.proxy.device().type == "cuda":  # more than one would compete for the same memory
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
        """Return the number of candidates drawn from the same closed batches."""
        from mnas.controller.named import candidates_per_update

        auto = self.candidates_per_update == "auto"
        return candidates_per_update(self.controller) if auto else int(self.candidates_per_update)

    @property
    def device_names(self) -> tuple[str, ...]:
        """Return the names in `device`, in the user's order."""
        names = tuple(self.device.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"device must be one name, or several different ones with commas, but got {self.device!r}")
        return names

    @property
    def targets_ms(self) -> tuple[float, ...]:
        """Return all targets given for a single device, in ms; empty for auto and for several devices."""
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
        """Return how devices share one model; `reference_ms` maps each device to MobileNetV2's latency in ms."""
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
        """Return the objective of each target; for several devices there is one, whose T is the first device's."""
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

    @property
    def size(self) -> int:
        """Return the side of the images in pixels."""
        return self.images.native_size() if self.input_size == "auto" else self.input_size

    def load_data(self, on_progress: OnProgress | None = None, *, cached: tuple[str, str] | None = None) -> Dataset:
        """Return the images; see `TrainingDataOptions.load` for `cached`."""
        return self.images.load(input_size=self.size, seed=self.seed, on_progress=on_progress, cached=cached)

    def searched_space(self, input_size: int) -> Space:
        """Return the space at its width and output stride. Raises ValueError for values that do not fit it."""
        space = load_space(self.space).scaled(self.width)
        stride = output_stride_for(input_size) if self.output_stride == "auto" else self.output_stride
        if self.output_stride == "auto":
            stride = min(stride, space.skeleton.output_stride)
        return space.with_output_stride(stride)

    def identity(self, space: Space, dataset: Dataset) -> dict[str, Any]:
        """Return the settings that must not change while a run is resumed, under their flat names."""
        fields = dataclasses.asdict(self)
        fields |= fields.pop("images")
        for may_change in (*MAY_CHANGE, *(["start_from"] if not self.start_from else [])):
            del fields[may_change]
        fields["proxy"]["accelerator"] = self.proxy.device().type
        fields["candidates_per_update"] = self.batch_size
        if self.metric == "accuracy":  # left out, so that runs from before this option keep their identity
            del fields["metric"]
        if self.targets_ms:
            fields["target_latency_ms"] = ",".join(f"{target_ms:.12g}" for target_ms in self.targets_ms)
        del fields["proxy"]["mirror"]
        mirrored = mirrors(self.proxy.mirror, dataset.flip, dataset.classes)
        fields["proxy"] |= to_store(mirrored, dataset.flip)
        if self.proxy.image_share == 1:  # left out, so that runs from before this option keep their identity
            del fields["proxy"]["image_share"]
        changed = {"space": space.to_dict(), "input_size": dataset.input_size, "data_content": dataset.fingerprint}
        fields.update(changed)
        return {name: "inf" if value == math.inf else value for name, value in fields.items()}

    def as_begun(self, dataset: Dataset) -> "SearchSettings":
        """Return the settings with `mirror` as in the run that they resume."""
        stored = stored_settings(self.run / "config.json", "proxy")
        mirror = as_begun(self.proxy.mirror, stored, dataset.flip, dataset.classes)
        if mirror == self.proxy.mirror:
            return self
        return dataclasses.replace(self, proxy=dataclasses.replace(self.proxy, mirror=mirror))


def search_settings(options: Mapping[str, object]) -> SearchSettings:
    """Return the settings of these options by name, over the values of the preset among them.

    Raises:
        ValueError: an unknown option or preset, or a value out of its range.
    """
    preset = options.get("preset", SearchSettings.preset)
    return from_options(SearchSettings, {**named_preset(str(preset)), **options})


def device_values(what: str, text: str, devices: Sequence[str]) -> dict[str, float]:
    """Return a number for each device from `5` (for a single device) or `pixel=5,pi=20`.

    Raises:
        ValueError: the text has neither form, or a device is missing or unknown.
    """
    parts = [part.partition("=") for part in text.split(",")]
    example = ",".join(f"{name}=1" for name in devices)
    try:
        if len(devices) == 1 and len(parts) == 1 and not parts[0][1]:
            return {devices[0]: float(text)}
        values = {name: float(number) for name, _, number in parts}
    except ValueError:
        form = "auto or a number" if len(devices) == 1 else f"given as in {example}"
        raise ValueError(f"{what} must be {form}, but got {text!r}") from None
    if len(values) < len(parts) or set(values) != set(devices):
        raise ValueError(f"{what} must be given for each device once, as in {example}, but got {text!r}")
    return values
