"""Result of a proxy check: how well every setting ranks, the recommended one, and both as a file."""

import dataclasses
import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnas.architecture import Architecture
from mnas.atomic import write_atomic
from mnas.proxycheck.agreement import RELEVANT_LOSS, Array, ProxyAgreement, ScoreInterval, agreements, choose, needed
from mnas.proxycheck.plan import Setting
from mnas.proxycheck.results import Results, key_of


@dataclass(frozen=True, kw_only=True)
class ProxyCheck:
    """A finished check."""

    reference: Setting
    settings: Sequence[Setting]
    archs: Sequence[Architecture]
    seeds: int
    agreements: Sequence[ProxyAgreement]
    """Agreement of each setting with the reference."""
    itself: ProxyAgreement
    """Agreement between the reference's own seeds."""
    seconds: Sequence[float]
    """Mean seconds of a training in each setting, and last of the reference."""
    failed: int
    """Number of trainings that failed."""
    output_stride: int
    """Output stride of all architectures, at any image size."""

    @property
    def recommended(self) -> Setting | None:
        """Return the cheapest setting that ranks as well as the best; None where none ranks better than chance."""
        chosen = choose(self.agreements, self.seconds)
        return None if chosen is None else self.settings[chosen]

    def options(self, setting: Setting) -> str:
        """Return the options of `mnas search` for that training."""
        share = f" --image-share {setting.image_share:g}" if setting.image_share < 1 else ""
        size = f" --input-size {setting.input_size}"
        if setting.input_size != self.settings[0].input_size:  # the search would remove strides
            size += f" --output-stride {self.output_stride}"
        return f"--epochs {setting.epochs}{share}{size}"


def check_of(
    results: Results, reference: Setting, settings: Sequence[Setting], archs: Sequence[Architecture], seeds: int
) -> ProxyCheck:
    """Return the check of the trainings in `results`, which must be complete."""
    trainings = {
        setting: [[results.trainings[key_of(setting.key, arch.fingerprint, s)] for s in range(seeds)] for arch in archs]
        for setting in (*settings, reference)
    }

    def accuracies(setting: Setting) -> Array:
        return np.array([[seed.get("accuracy", math.nan) for seed in arch] for arch in trainings[setting]], float)

    def mean_s(setting: Setting) -> float:
        times = [seed["train_s"] for arch in trainings[setting] for seed in arch if "train_s" in seed]
        return math.fsum(times) / len(times) if times else math.nan

    truth = accuracies(reference)
    return ProxyCheck(
        reference=reference,
        settings=settings,
        archs=archs,
        seeds=seeds,
        agreements=agreements([accuracies(setting) for setting in settings], truth),
        itself=agreements([truth], truth)[0],
        seconds=[mean_s(setting) for setting in (*settings, reference)],
        output_stride=archs[0].output_stride,
        failed=sum("error" in seed for ways in trainings.values() for arch in ways for seed in arch),
    )


def recommendation(check: ProxyCheck) -> list[str]:
    """Return the recommendation and its certainty, in lines."""
    chosen = choose(check.agreements, check.seconds)
    if chosen is None:
        return [
            f"no proxy task ranks these {len(check.archs)} architectures significantly better than chance; use longer "
            "trainings (--epochs) or more --architectures"
        ]
    setting, agreement = check.settings[chosen], check.agreements[chosen]
    best = max(range(len(check.agreements)), key=lambda i: np.nan_to_num(check.agreements[i].tau.value, nan=-1.0))
    why = "the best and the cheapest"
    if chosen != best:
        rival = f"{check.options(check.settings[best])}, tau {check.agreements[best].tau.value:.2f}"
        why = f"the cheapest setting that does not differ significantly from the best ({rival})"
    lines = [
        f"recommended: {check.options(setting)}, {why}, tau {score_text(agreement.tau)} at "
        f"{check.seconds[chosen]:.2f} s, "
        f"{check.seconds[chosen] / check.seconds[0]:.0%} of the time of {check.options(check.settings[0])}"
    ]
    if chosen != best and agreement.worse_by.high > RELEVANT_LOSS:
        lines.append(
            f"with {agreement.architectures} architectures, its tau may be up to {agreement.worse_by.high:.2f} below "
            f"the best; about {needed(agreement)} architectures would reveal a loss of {RELEVANT_LOSS:g} (resume with "
            f"--architectures {needed(agreement)})"
        )
    return lines


def write_result(path: Path, check: ProxyCheck, command: str, facts: dict[str, Any]) -> None:
    """Write the check as JSON, with the command and `facts` on data and machine. Raises OSError."""
    rows = [
        {**dataclasses.asdict(setting), "seconds": seconds, **dataclasses.asdict(agreement)}
        for setting, agreement, seconds in zip(check.settings, check.agreements, check.seconds, strict=False)
    ]
    chosen = choose(check.agreements, check.seconds)
    values = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        **facts,
        "seeds": check.seeds,
        "architectures": [arch.to_dict() for arch in check.archs],
        "failed": check.failed,
        "reference": {
            **dataclasses.asdict(check.reference),
            "seconds": check.seconds[-1],
            "mean_accuracy": check.itself.mean_accuracy,
            "accuracy_std": check.itself.accuracy_std,
            "tau_between_seeds": dataclasses.asdict(check.itself.tau_between_seeds),
        },
        "settings": rows,
        "recommended": None if chosen is None else check.options(check.settings[chosen]),
        "recommendation": recommendation(check),
    }
    write_atomic(path, json.dumps(_without_nan(values), indent=1))


def score_text(score: ScoreInterval) -> str:
    """Return `0.83 (0.71-0.92)`; `-` where there is no value."""
    return "-" if math.isnan(score.value) else f"{score.value:.2f} ({score.low:.2f}-{score.high:.2f})"


def _without_nan(value: Any) -> Any:
    """Return the value with null for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
