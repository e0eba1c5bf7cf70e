"""What a proxy check says: its table, its recommendation, and both as a file."""

import dataclasses
import datetime
import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mnas.architecture import Architecture
from mnas.atomic import write_atomic
from mnas.proxycheck.agreement import TELLING, Agreement, Array, Score, agreements, choose, needed
from mnas.proxycheck.plan import Setting
from mnas.proxycheck.results import Results, key_of

RESULT_NAME = "result.json"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A finished check."""

    reference: Setting
    settings: Sequence[Setting]
    archs: Sequence[Architecture]
    seeds: int
    found: Sequence[Agreement]
    """Of each setting."""
    itself: Agreement
    """Of the reference: how far its own seeds agree."""
    seconds: Sequence[float]
    """Of a training in each setting, and last of the reference; the mean."""
    failed: int
    """Trainings, in all."""
    output_stride: int
    """Of all architectures, at any size of images."""

    def options(self, setting: Setting) -> str:
        """What has `mnas search` train in that way."""
        share = f" --image-share {setting.image_share:g}" if setting.image_share < 1 else ""
        size = f" --input-size {setting.input_size}"
        if setting.input_size != self.settings[0].input_size:  # the search would take out strides
            size += f" --output-stride {self.output_stride}"
        return f"--epochs {setting.epochs}{share}{size}"


def check_of(
    results: Results, reference: Setting, settings: Sequence[Setting], archs: Sequence[Architecture], seeds: int
) -> Check:
    """What the trainings in `results` say; all of them must be there."""
    told = {
        setting: [[results.known[key_of(setting.key, arch.fingerprint, s)] for s in range(seeds)] for arch in archs]
        for setting in (*settings, reference)
    }

    def accuracies(setting: Setting) -> Array:
        return np.array([[seed.get("accuracy", math.nan) for seed in arch] for arch in told[setting]], float)

    def mean_s(setting: Setting) -> float:
        times = [seed["train_s"] for arch in told[setting] for seed in arch if "train_s" in seed]
        return math.fsum(times) / len(times) if times else math.nan

    truth = accuracies(reference)
    return Check(
        reference=reference,
        settings=settings,
        archs=archs,
        seeds=seeds,
        found=agreements([accuracies(setting) for setting in settings], truth),
        itself=agreements([truth], truth)[0],
        seconds=[mean_s(setting) for setting in (*settings, reference)],
        output_stride=archs[0].output_stride,
        failed=sum("error" in seed for ways in told.values() for arch in ways for seed in arch),
    )


def say(console: Console, text: str) -> None:
    """A line as it is."""
    console.print(text)


def print_check(console: Console, check: Check) -> None:
    """The table, and what to take."""
    table = Table(
        *("epochs", "images", "px", "tau against reference", "tau between seeds", "accuracy", "std of seeds"),
        *("seconds", "of reference"),
        box=box.SIMPLE,
    )
    chosen = choose(check.found, check.seconds)
    rows = [
        *zip(check.settings, check.found, check.seconds, strict=False),
        (check.reference, check.itself, check.seconds[-1]),
    ]
    for place, (setting, agreement, seconds) in enumerate(rows):
        reference = setting is check.reference
        table.add_row(
            str(setting.epochs),
            f"{setting.image_share:.0%}",
            str(setting.input_size),
            "reference" if reference else _score(agreement.tau),
            _score(agreement.tau_between_seeds),
            f"{agreement.mean_accuracy:.4f}",
            "-" if math.isnan(agreement.accuracy_std) else f"{agreement.accuracy_std:.4f}",
            f"{seconds:.2f}",
            f"{seconds / check.seconds[-1]:.1%}",
            style="bold" if place == chosen else "",
        )
    console.print(table)
    say(
        console,
        f"tau: of one training, against the mean of {check.seeds} of {check.reference.epochs} epochs; in brackets 95 % "
        f"intervals, by drawing the {len(check.archs)} architectures again",
    )
    if check.failed:
        say(console, f"{check.failed} trainings failed; where one did, its architecture does not count")
    for line in recommendation(check):
        say(console, line)


def recommendation(check: Check) -> list[str]:
    """What to take, and how sure that is."""
    chosen = choose(check.found, check.seconds)
    if chosen is None:
        return [
            f"no way of training ranks these {len(check.archs)} architectures better than chance for certain: take "
            "longer trainings (--epochs), or more --architectures"
        ]
    setting, found = check.settings[chosen], check.found[chosen]
    best = max(range(len(check.found)), key=lambda i: np.nan_to_num(check.found[i].tau.value, nan=-1.0))
    why = "the best and the cheapest"
    if chosen != best:
        rival = f"{check.options(check.settings[best])}, tau {check.found[best].tau.value:.2f}"
        why = f"the cheapest of those that cannot be told from the best ({rival})"
    lines = [
        f"take {check.options(setting)}: {why}, tau {_score(found.tau)} at {check.seconds[chosen]:.2f} s, "
        f"{check.seconds[chosen] / check.seconds[0]:.0%} of {check.options(check.settings[0])}"
    ]
    if chosen != best and found.worse_by.high > TELLING:
        lines.append(
            f"{found.architectures} architectures cannot tell more: its tau may be up to {found.worse_by.high:.2f} "
            f"below the best's; about {needed(found)} would show a loss of {TELLING:g} (the same command with "
            f"--architectures {needed(found)} goes on from here)"
        )
    return lines


def write_result(path: Path, check: Check, facts: dict[str, Any]) -> None:
    """All of it as JSON, with `facts` on data and machine. Raises OSError."""
    rows = [
        {**dataclasses.asdict(setting), "seconds": seconds, **dataclasses.asdict(agreement)}
        for setting, agreement, seconds in zip(check.settings, check.found, check.seconds, strict=False)
    ]
    chosen = choose(check.found, check.seconds)
    told = {
        "command": shlex.join(["mnas", *sys.argv[1:]]),
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
    write_atomic(path, json.dumps(_without_nan(told), indent=1))


def _score(score: Score) -> str:
    return "-" if math.isnan(score.value) else f"{score.value:.2f} ({score.low:.2f}-{score.high:.2f})"


def _without_nan(value: Any) -> Any:
    """JSON knows none: null."""
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
