"""The settings of a search: its options, their checks, and values derived from them."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mnas.candidate import Candidate
from mnas.children import MOST_WORKERS
from mnas.data.cache import OnProgress
from mnas.data.dataset import Dataset
from mnas.data.mirror import as_begun, mirrors, to_store
from mnas.data.options import TrainingDataOptions
from mnas.evaluate.config import ProxyConfig
from mnas.evaluate.evaluation import METRICS, Metric
from mnas.objective import DEFAULT_WEIGHTS, Form, Objective, Sharing
from mnas.readers import stored_settings
from mnas.scaling import input_sizes
from mnas.search.presets import PRESETS
from mnas.search.problem import Plan
from mnas.settings import from_options, named_preset
from mnas.space.candidates import CandidateSpace, Parent
from mnas.space.cuts import can_be_cut
from mnas.space.named import load_space
from mnas.space.skeleton import output_stride_for
from mnas.space.space import Space
from mnas.zoo.architectures import reference_arch

Auto = Literal["auto"]

MOST_BUDGET_S = 86_400.0
"""Largest latency budget per candidate, in seconds: one day."""
FAR = 2.0
"""Multiple of the target latency beyond which a network with known weights is not worth a training: a smaller input
size of the same network is nearer."""
SMALLEST_SIZE, LEAST_LARGEST_SIZE, SIZES = 48, 128, 8
"""Default input sizes of parents in pixels: the smallest, the least that the largest may be (known weights serve images
of 32 pixels better when these are enlarged), and their number."""
OF_SPACE = ("space", "width", "output_stride")
"""Options of the space that a search from scratch chooses from; with one of them, `--parent auto` is no parent."""
MAY_CHANGE = (
    *("preset", "run", "trials", "hours", "workers", "keep_models_mb", "width", "devices", "fresh", "predictor"),
    *("data_dir", "download", "verify_cache"),
)
"""Options that may differ when a run is resumed; the effective values of some are stored elsewhere."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of a search. Raises ValueError where an option is out of range."""

    images: TrainingDataOptions
    """Training and validation images."""
    run: Path = Path("runs/search")
    """Folder of the run; an unfinished search in it is resumed."""
    preset: str = "standard"
    """Defaults of the other options: standard, or paper (PPO, soft reward, 8,000 trials of 5 epochs, 20 candidates per
    update)."""

    trials: int = 100
    """Total number of candidates; a larger number continues a finished run."""
    hours: float = math.inf
    """Stop after this many hours, counted over all starts of the run; a resumed run may have another limit."""
    workers: int | Auto = "auto"
    """Number of candidates trained in parallel; auto: as many as the cores allow. Any number gives the same trials."""

    space: str = "mnasnet"
    """Search space: mnasnet, mnasnet-no-se, per-layer, mobilenetv4, cell, a TOML file, or module:factory (a function
    that returns a space)."""
    width: float = 1.0
    """Width multiplier of the skeleton (the filters, layers and strides on which the space is built); less than 1 for
    small images and short searches."""
    input_size: str = "auto"
    """Input size in pixels, or several (64,96,128), of which the search chooses one for each candidate; auto: the size
    of the data set's images, up to 224, and with parents eight sizes from 48 pixels up to that, or to 128."""
    parent: str = "auto"
    """Networks with known weights to choose from, separated by commas: NAME, which takes published weights, or
    NAME=WEIGHTS with timm, torchvision, pretrained or a file; also a model that mnas train made. Each is fine-tuned,
    then smaller networks are cut from it; no network is trained from random weights. auto: efficientnet-lite0 for a
    folder with fewer than 50,000 training images of 48 pixels or more, if the extra pretrained is installed; else, or
    with --space, --width, --output-stride, --start-from or --latency predicted, no parent."""
    whole: bool = False
    """With a named --parent, take the parents whole, at each input size; cut no smaller networks from them."""
    from_scratch: bool = False
    """Search --space from random weights; with a named --parent, search both."""
    output_stride: int | Auto = "auto"
    """Input pixels per pixel of the last feature map; auto: the largest of 32, 16, 8 and 4 that leaves a map of at
    least 3 x 3."""

    start_from: str = "auto"
    """Networks to evaluate first (mnasnet-a1) and earlier runs to import (runs/OLD), separated by commas; auto: the
    networks of the space that are nearest to MobileNetV2 and MnasNet-A1; none: no networks."""

    controller: str = "surrogate"
    """Controller that proposes candidates: surrogate (needs the fewest trials), ppo (the paper's, for thousands of
    trials), evolution, random, nsga2, tpe, or module:factory (a function that returns an Optuna sampler)."""
    candidates_per_update: int | Auto = "auto"
    """Number of candidates drawn before the controller learns from them; auto: 5 for surrogate, the paper's 20 for all
    others."""
    seed: int = 0
    """Random seed."""

    reward: Form = "target"
    """Formula that combines accuracy and latency into the reward. target: finds the most accurate network at the target
    latency T. soft (the paper's): weighs latency against accuracy in the same way, whatever T is. hard (the paper's),
    absolute (TuNAS's) and weighted-sum (linear): other published formulas."""
    metric: Metric = "accuracy"
    """Score to maximise: accuracy, or balanced-accuracy, the mean recall over classes, in which all classes have the
    same weight."""
    target_latency_ms: str = "auto"
    """Target latency T in milliseconds; auto: that of MobileNetV2 with the space's filters, layers and strides.
    MobileNetV2 is measured at the search's input size. Several targets (3,5,8) share all trials and get one model each.
    Several devices have one target each (pixel=5,pi=20)."""
    alpha: float | Auto = "auto"
    """Exponent or weight (0 or less) that --reward gives to latencies up to T; auto: the default of --reward. With
    --alpha 0 --beta 0, accuracy is the only objective."""
    beta: float | Auto = "auto"
    """Exponent or weight (0 or less) that --reward gives to latencies above T; auto: the default of --reward. For
    --reward soft, the Python function mnas.objective.beta_for(0.05) returns the exponent that accepts twice the latency
    for 5 % more accuracy."""
    latency_limit: float | Auto = "auto"
    """Skip candidates whose latency exceeds this multiple of T; they are not trained. auto: 2 with parents, else no
    limit."""
    max_size_mb: float = math.inf
    """Skip candidates whose file is larger than this, in MB; they are neither measured nor trained."""
    max_memory_mb: float = math.inf
    """Skip candidates for which the runtime needs more memory than this, in MB; they are not trained."""

    device: str = "host"
    """Device to measure latency on: host (this machine), or a device from devices.toml (mnas devices list). Several
    devices, separated by commas, share one model."""
    devices: Path | Auto = "auto"
    """File that describes the devices; auto: devices.toml in your configuration folder (~/.config/mnas on Linux)."""
    device_weights: str = "worst"
    """Rule that combines latencies on several devices, each divided by its device's T. worst: the largest of these
    ratios counts. pixel=1,pi=2: their mean with these weights counts."""
    latency: Literal["measured", "predicted"] = "measured"
    """Source of latencies: measured, or predicted by the predictors of mnas latency fit. With predicted, mnas measures
    only candidates that may be on the Pareto front."""
    predictor: str = "auto"
    """Predictor files, one per device, separated by commas; auto: the files that mnas latency fit writes by default."""
    latency_budget_s: float = 3.0
    """Time limit for measuring the latency of each candidate, in seconds."""
    latency_threads: int | Auto = "auto"
    """Number of threads of the measured runtime; auto: the device's setting (1, as in the paper, unless devices.toml
    differs)."""
    fresh: bool = False
    """Re-measure cached latencies and report the change."""

    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    """Proxy task: the short training of each candidate."""
    keep_models_mb: float = 1000.0
    """Limit on the stored weights of models on the Pareto front, in MB; beyond it, the models with the best rewards
    keep theirs."""

    def __post_init__(self) -> None:
        from mnas.controller.named import find_controller  # imports torch, which help does not need

        find_controller(self.controller)
        if self.metric not in METRICS:
            raise ValueError(f"--metric must be one of {', '.join(METRICS)}, but got {self.metric!r}")
        if not 0 < self.latency_budget_s <= MOST_BUDGET_S:
            got = f"but got {self.latency_budget_s}"
            raise ValueError(f"--latency-budget-s must be greater than 0 and at most {MOST_BUDGET_S:g}, {got}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be an integer from 0 to {2**63 - 1}, but got {self.seed}")
        if not all(names := self.start_names):
            raise ValueError(f"--start-from must be names separated by commas, but got {self.start_from!r}")
        if len(names) > 1 and {"auto", "none"} & set(names):
            raise ValueError(
                f"--start-from must be auto, none or names separated by commas, but got {self.start_from!r}"
            )
        if self.whole and not self.from_weights:
            raise ValueError("--whole takes the networks of --parent whole, but --parent is missing")
        input_sizes(self.input_size)
        self.plan()  # called for its checks, as on the next line
        self.objectives(self.sharing(dict.fromkeys(self.device_names, 1.0)))

    def plan(self, space: CandidateSpace | None = None) -> Plan:
        """Return the part of the settings that the search loop needs.

        Args:
            space: candidates to choose from; if these are whole parents only, there are no more trials than candidates.
        """
        trials = self.trials
        if space is not None and space.space is None and not space.cuts:
            trials = min(trials, len(space.of_parents()))
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
            trials=trials,
            hours=self.hours,
            workers=workers,
            candidates_per_update=self.batch_size,
            latency_limit=self.effective_latency_limit,
            max_size_mb=self.max_size_mb,
            max_memory_mb=self.max_memory_mb,
            keep_models_mb=self.keep_models_mb,
        )

    @property
    def from_weights(self) -> bool:
        """Whether there are parents; `auto` counts as none until mnas.search.default_parent has decided."""
        return self.parent not in ("", "auto")

    @property
    def space_options(self) -> bool:
        """Whether an option has another value than its default and needs a search from scratch."""
        changed = any(getattr(self, name) != getattr(SearchSettings, name) for name in OF_SPACE)
        return changed or self.latency == "predicted"

    @property
    def effective_latency_limit(self) -> float:
        """Latency over which a candidate is skipped, as a multiple of T."""
        if self.latency_limit == "auto":
            return FAR if self.from_weights else math.inf
        return self.latency_limit

    @property
    def batch_size(self) -> int:
        """Number of candidates drawn from the same closed batches."""
        from mnas.controller.named import candidates_per_update

        auto = self.candidates_per_update == "auto"
        return candidates_per_update(self.controller) if auto else int(self.candidates_per_update)

    @property
    def start_names(self) -> tuple[str, ...]:
        """Names in `start_from`, in the user's order; empty for none."""
        return () if self.start_from in ("", "none") else tuple(self.start_from.split(","))

    @property
    def device_names(self) -> tuple[str, ...]:
        """Names in `device`, in the user's order."""
        names = tuple(self.device.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"--device must be different names separated by commas, but got {self.device!r}")
        return names

    @property
    def targets_ms(self) -> tuple[float, ...]:
        """Targets given for a single device, in milliseconds; empty for auto and for several devices."""
        if self.target_latency_ms == "auto" or len(self.device_names) > 1:
            return ()
        if "," not in self.target_latency_ms:
            return tuple(device_values("--target-latency-ms", self.target_latency_ms, self.device_names).values())
        try:
            targets_ms = tuple(map(float, self.target_latency_ms.split(",")))
        except ValueError:
            got = f"but got {self.target_latency_ms!r}"
            raise ValueError(f"--target-latency-ms must be auto, a number or several numbers (3,5,8), {got}") from None
        if len(set(targets_ms)) < len(targets_ms):
            raise ValueError(f"--target-latency-ms must give each target once, but got {self.target_latency_ms}")
        return targets_ms

    def sharing(self, reference_ms: Mapping[str, float]) -> Sharing:
        """Return how devices share one model; `reference_ms` maps each device to MobileNetV2's latency in ms."""
        targets_ms = dict(reference_ms)
        if self.targets_ms:
            targets_ms[self.device_names[0]] = self.targets_ms[0]
        elif self.target_latency_ms != "auto":
            targets_ms |= device_values("--target-latency-ms", self.target_latency_ms, self.device_names)
        weights = {}
        if self.device_weights != "worst":
            weights = device_values("--device-weights", self.device_weights, self.device_names)
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
    def sizes(self) -> tuple[int, ...]:
        """Input sizes on offer in pixels, ascending."""
        if sizes := input_sizes(self.input_size):
            return tuple(sorted(sizes))
        native = self.images.native_size()
        return sizes_up_to(max(native, LEAST_LARGEST_SIZE)) if self.from_weights else (native,)

    def load_data(self, on_progress: OnProgress | None = None) -> dict[int, Dataset]:
        """Return the images at each input size."""
        return self.images.load_sizes(self.sizes, seed=self.seed, on_progress=on_progress)

    def searched_space(self, input_size: int) -> Space:
        """Return the space at its width and output stride. Raises ValueError for values that do not fit it."""
        space = load_space(self.space).scaled(self.width)
        stride = output_stride_for(input_size) if self.output_stride == "auto" else self.output_stride
        if self.output_stride == "auto":
            stride = min(stride, space.skeleton.output_stride)
        return space.with_output_stride(stride)

    def candidate_space(self, parents: Sequence[Parent] = ()) -> CandidateSpace:
        """Return the candidates to choose from. Raises ValueError for values that do not fit the space."""
        space = None if parents and not self.from_scratch else self.searched_space(self.sizes[0])
        cuts = not self.whole and any(can_be_cut(parent.arch) for parent in parents)
        return CandidateSpace(space=space, input_sizes=self.sizes, parents=tuple(parents), cuts=cuts)

    def reference(self) -> Candidate:
        """Return the reference of all latencies: MobileNetV2 with the space's filters, layers and strides.

        It has the largest input size. Raises ValueError where an input size is too small for its strides.
        """
        scratch = self.from_scratch or not self.from_weights
        arch = reference_arch(self.searched_space(self.sizes[0 if scratch else -1]).reference_skeleton)
        for size in self.sizes if scratch else self.sizes[-1:]:
            arch.check_input_size(size)
        return Candidate(arch=arch, input_size=self.sizes[-1])

    def identity(self, space: CandidateSpace, dataset: Dataset) -> dict[str, Any]:
        """Return the settings that must not change while a run is resumed, under their flat names.

        Args:
            space: candidates to choose from.
            dataset: images at the largest input size.
        """
        fields = dataclasses.asdict(self)
        fields |= fields.pop("images")
        for may_change in (*MAY_CHANGE, *([] if self.start_names else ["start_from"])):
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
        for name in ("space", "parent", "from_scratch", "whole"):  # what they mean is in the fields below
            del fields[name]
        fields["latency_limit"] = self.effective_latency_limit
        fields |= space.to_config() | {"data_content": dataset.fingerprint}
        return {name: "inf" if value == math.inf else value for name, value in fields.items()}

    def as_begun(self, dataset: Dataset) -> "SearchSettings":
        """Return the settings with the values of `mirror`, `start_from` and `whole` of the run that they resume.

        A run that began without networks to start from, as all did before `auto`, is resumed without them, and one
        that took its parents whole, as all did before networks were cut, with whole parents.
        """
        settings, path = self, self.run / "config.json"
        mirror = as_begun(self.proxy.mirror, stored_settings(path, "proxy"), dataset.flip, dataset.classes)
        if mirror != self.proxy.mirror:
            settings = dataclasses.replace(settings, proxy=dataclasses.replace(self.proxy, mirror=mirror))
        if self.start_from == "auto" and "start_from" not in (stored_settings(path) or {"start_from": "auto"}):
            settings = dataclasses.replace(settings, start_from="none")
        stored = stored_settings(path) or {}
        if "parents" in stored and "cuts" not in stored:
            settings = dataclasses.replace(settings, whole=True)
        return settings


def sizes_up_to(largest: int) -> tuple[int, ...]:
    """Return the default input sizes of parents: up to eight multiples of 8, about equally far apart in proportion."""
    ratio = largest / SMALLEST_SIZE
    sizes = {8 * round(SMALLEST_SIZE * ratio ** (place / (SIZES - 1)) / 8) for place in range(SIZES)}
    return tuple(sorted(sizes))


def search_settings(options: Mapping[str, object]) -> SearchSettings:
    """Return the settings of these options by name, over the values of the preset among them.

    Raises:
        ValueError: an unknown option or preset, or a value out of its range.
    """
    return from_options(SearchSettings, {**defaults_with(options), **options})


def defaults_with(given: Mapping[str, object]) -> Mapping[str, Any]:
    """Return option -> default where the given options change it. Raises ValueError for an unknown preset.

    An option of the space has this effect with any value: `--space mnasnet` asks for a search from scratch.
    """
    without = {"parent": ""} if any(name in given for name in OF_SPACE) else {}
    return {**without, **named_preset(PRESETS, str(given.get("preset", SearchSettings.preset)))}


def device_values(flag: str, text: str, devices: Sequence[str]) -> dict[str, float]:
    """Return a number for each device from `5` (for a single device) or `pixel=5,pi=20`, a value of the option `flag`.

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
        form = "a number" if len(devices) == 1 else f"a number for each device ({example})"
        word = "worst" if flag == "--device-weights" else "auto"
        raise ValueError(f"{flag} must be {word} or {form}, but got {text!r}") from None
    if len(values) < len(parts) or set(values) != set(devices):
        raise ValueError(f"{flag} must give each device one number ({example}), but got {text!r}")
    return values
