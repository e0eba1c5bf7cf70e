"""The typed record of a trial, and the only code that reads or writes it in Optuna's user attributes.

A trial's parameters, values and attributes in the database are Optuna's, so that Optuna's own tools open them:

    parameters         the choice of each decision
    values             [accuracy, latency_ms] of a complete trial
    user attributes    each field of the record by its name (`origin` as `from`), unless it is None or empty
    system attributes  the sampler's own notes, which are not in the record
"""

import copy
import datetime
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from mnas.architecture import Architecture, architecture_from_dict
from mnas.candidate import Candidate
from mnas.controller.view import KNOWN_VALUES
from mnas.evaluate.evaluation import Evaluation, Metric
from mnas.latency.latency import Latency, Source, joint_source
from mnas.space.candidates import candidate_space, input_sizes_of
from mnas.study.check import (
    Check,
    check_fingerprint,
    check_named,
    damaged,
    fields_of,
    mapped,
    number,
    numbers,
    one_line,
    pair_with_latency,
    share,
    text,
    whole,
)
from mnas.study.limits import Skip

VERSION = 1
"""Version of the record; 0 stands for trials without a stored version."""

State = Literal["running", "complete", "skipped", "failed"]

STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "skipped",
    TrialState.FAIL: "failed",
}
"""Optuna's state -> the record's state."""

OPTUNA_STATES = {state: stored for stored, state in STATES.items()}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The trial of an earlier run that a trial was imported from."""

    run: str
    """Path of the run, as the user typed it."""
    trial: int

    def __str__(self) -> str:
        return f"{self.run}#{self.trial}"


@dataclass(frozen=True, kw_only=True, repr=False)
class TrialRecord:
    """A trial of a search, or a reference network, with everything that is stored about it.

    Raises ValueError where an accuracy or a latency is out of its range, or a complete trial lacks one.
    """

    number: int
    """Number in the study; -1, -2, ... for reference networks."""
    state: State
    arch: Architecture
    fingerprint: str
    """Fingerprint of the canonical architecture; equal networks have equal fingerprints."""
    input_size: int
    """Side of its input in pixels."""
    parent: str = ""
    """Name of the pretrained network whose weights its training begins with; empty: random weights."""
    params: int
    macs: int
    size_bytes: int
    """Size of the LiteRT file; 0 for a reference of an earlier version that did not store it."""
    seed: int
    """Random seed of its training."""
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Decision of the search space -> choice; empty for a reference."""
    accuracy: float | None = None
    """Score that the search maximises, in [0, 1]; None for an incomplete trial and for an untrained reference."""
    latency: Latency | None = None
    """Latency that counts: the only device's, or the combined one of several devices; None before it is measured."""
    latencies: Mapping[str, Latency] = field(default_factory=dict)
    """Device -> latency; empty before it is measured."""
    features: Evaluation | None = None
    """Score of a linear classifier on its frozen features; None before that, and for random weights."""
    evaluation: Evaluation | None = None
    """Result of the training; None before it is trained."""
    reward: float | None = None
    """Reward for the first target; None unless the trial is complete."""
    rewards: tuple[float, ...] = ()
    """Reward for each target, where the search has several."""
    same_as: int | None = None
    """Number of the trial of the same network whose evaluation this trial shares."""
    origin: Origin | None = None
    """Trial of an earlier run that this one was imported from."""
    name: str | None = None
    """Name by which the user added this network to the start of the search."""
    reference: str | None = None
    """Name of a reference network; None for a trial."""
    skipped: Skip | None = None
    """Limit that the trial exceeds."""
    error: str | None = None
    """Reason why the trial failed."""
    started: datetime.datetime | None = field(default=None, compare=False)
    finished: datetime.datetime | None = field(default=None, compare=False)
    version: int = VERSION
    """Version of the stored record; 0 for trials from before records had one."""

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise ValueError(f"state must be one of {', '.join(get_args(State))}, but got {self.state!r}")
        if self.accuracy is not None:
            check_named("accuracy", share, self.accuracy)
        if self.state == "complete" and (self.accuracy is None or self.latency is None):
            raise ValueError(f"a complete trial must have an accuracy and a latency, but {self.title} lacks one")

    def __repr__(self) -> str:
        facts: list[str] = [self.state]
        if self.accuracy is not None:
            facts.append(f"accuracy {self.accuracy:.4f}")
        if self.latency is not None:
            facts.append(f"{self.latency.latency_ms:.3f} ms")
        facts += [f"{self.params / 1e6:.2f}M params", f"{self.macs / 1e6:.1f}M MACs"]
        return f"TrialRecord({self.title}: {', '.join(facts)})"

    @property
    def candidate(self) -> Candidate:
        """Return the network with its input size and its parent."""
        return Candidate(arch=self.arch, input_size=self.input_size, parent=self.parent)

    @property
    def graph(self) -> str:
        """Return what its latency depends on, equal for equal ones: the network and its input size."""
        return f"{self.fingerprint}@{self.input_size}"

    @property
    def identity(self) -> str:
        """Return what its accuracy depends on, equal for equal ones: also the weights that its training begins with."""
        return f"{self.graph}<{self.parent}"

    @property
    def label(self) -> str:
        """Return `17`, or a reference's name: the part after # in runs/NAME#17, also used for files and folders."""
        return self.reference or str(self.number)

    @property
    def title(self) -> str:
        """Return `trial 17`, or a reference's name."""
        return self.reference or f"trial {self.number}"

    @property
    def is_finished(self) -> bool:
        """Return whether the trial has ended, so that nothing of it will change."""
        return self.state != "running"

    @property
    def latency_ms(self) -> float | None:
        """Return the latency that counts, in milliseconds; None before it is measured."""
        return None if self.latency is None else self.latency.latency_ms

    @property
    def point(self) -> tuple[float, float]:
        """Return (accuracy, latency in milliseconds) of a trial, or a reference, that has both."""
        assert self.accuracy is not None and self.latency is not None, self.title  # noqa: PT018
        return self.accuracy, self.latency.latency_ms

    @property
    def source(self) -> Source:
        """Return the source of the latency that counts: that of the least certain device."""
        return joint_source(latency.source for latency in self.latencies.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, JSON-able: every field by its name, and `latency_ms`."""
        plain: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            plain[each.name] = _plain(each.name, value)
            if each.name == "accuracy":
                plain["latency_ms"] = self.latency_ms
        return plain


# The table of user attributes


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """The storage format of a record's field."""

    read: Callable[[Any], Any]
    """Converts a plain value to the field. Raises ValueError, TypeError or KeyError for an invalid value."""
    write: Callable[[Any], Any] = lambda value: value
    """Converts the field to a plain value that reads back equal."""
    key: str = ""
    """Name of the attribute; empty where it is the field's name."""


def _checked(check: Check) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        check(value)
        return value

    return read


def _read_latencies(value: Any) -> dict[str, Latency]:
    mapped(lambda _: None)(value)
    return {device: Latency.from_dict(latency) for device, latency in value.items()}


def _read_origin(value: Any) -> Origin:
    fields_of({"run": text, "trial": whole})(value)
    return Origin(run=value["run"], trial=value["trial"])


def _read_version(value: Any) -> int:
    whole(value)
    if value > VERSION:
        raise ValueError(f"was written by a later version of mnas (record {value}, this one reads {VERSION})")
    return int(value)


def _to_dict(value: Any) -> Any:
    return value.to_dict()


_ATTRIBUTES: dict[str, _Attribute] = {
    "version": _Attribute(read=_read_version),
    "arch": _Attribute(read=architecture_from_dict, write=_to_dict),
    "fingerprint": _Attribute(read=_checked(text)),
    "input_size": _Attribute(read=_checked(whole)),
    "parent": _Attribute(read=_checked(text)),
    "params": _Attribute(read=_checked(whole)),
    "macs": _Attribute(read=_checked(whole)),
    "size_bytes": _Attribute(read=_checked(whole)),
    "seed": _Attribute(read=_checked(whole)),
    "latency": _Attribute(read=Latency.from_dict, write=_to_dict),
    "latencies": _Attribute(
        read=_read_latencies, write=lambda value: {device: latency.to_dict() for device, latency in value.items()}
    ),
    "features": _Attribute(read=Evaluation.from_dict, write=_to_dict),
    "evaluation": _Attribute(read=Evaluation.from_dict, write=_to_dict),
    "reward": _Attribute(read=_checked(number)),
    "rewards": _Attribute(read=lambda value: tuple(_checked(numbers)(value)), write=list),
    "same_as": _Attribute(read=_checked(whole)),
    "origin": _Attribute(
        read=_read_origin, write=lambda origin: {"run": origin.run, "trial": origin.trial}, key="from"
    ),
    "name": _Attribute(read=_checked(text)),
    "skipped": _Attribute(read=Skip.from_stored, write=_to_dict),
    "error": _Attribute(read=_checked(text)),
}
"""Field of the record that is a user attribute -> its storage format."""

_ALWAYS = ("arch", "fingerprint", "params", "macs", "size_bytes", "seed")
_NEEDED: dict[State, tuple[str, ...]] = {
    "running": _ALWAYS,
    "complete": (*_ALWAYS, "latency", "latencies", "evaluation", "reward"),
    "skipped": (*_ALWAYS, "skipped"),
    "failed": (*_ALWAYS, "error"),
}
"""State -> the attributes that a trial in it must have."""


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Mapping) and name not in _ATTRIBUTES:
        return dict(value)
    return _ATTRIBUTES[name].write(value) if value is not None and name in _ATTRIBUTES else value


def attributes_of(changes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, plain value) of each user attribute in `changes` that is neither None nor empty."""
    for name, value in changes.items():
        if name in _ATTRIBUTES and value is not None and value not in ((), {}, ""):
            yield _ATTRIBUTES[name].key or name, _ATTRIBUTES[name].write(value)


def with_attributes(trial: FrozenTrial, attributes: Mapping[str, Any]) -> FrozenTrial:
    """Return the trial with additional user attributes."""
    changed = copy.copy(trial)
    changed.user_attrs = {**trial.user_attrs, **attributes}
    return changed


def sampler_attributes(record: TrialRecord) -> dict[str, Any]:
    """Return the user attributes from which a sampler still learns about a trial that this search skipped."""
    return {} if record.latency is None else {KNOWN_VALUES: [None, record.latency.latency_ms]}


# Trials before they are stored


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A trial that is not stored yet: its record, and the values that only Optuna needs."""

    record: TrialRecord
    distributions: Mapping[str, BaseDistribution]
    """Decision -> the distribution of its choices."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """The sampler's own notes (system attributes), JSON-able."""

    def frozen(self) -> FrozenTrial:
        """Return the trial to store. Skips the checks of Optuna's `create_trial`, which take half a millisecond."""
        record, now = self.record, datetime.datetime.now()
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=OPTUNA_STATES[record.state],
            value=None,
            values=list(record.point) if record.state == "complete" else None,
            intermediate_values={},
            datetime_start=record.started or now,
            datetime_complete=(record.finished or now) if record.is_finished else None,
            params=dict(record.choices),
            distributions=dict(self.distributions),
            user_attrs=dict(attributes_of(vars(record))),
            system_attrs=dict(self.notes),
        )


# Stored trials


def records_of(path: Path, attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
    """Return the records of a study's trials, each checked.

    Raises:
        RunError: a trial is missing or invalid; the message names it.
    """
    for place, trial in enumerate(trials):
        if trial.number != place:
            raise damaged(path, f"trial {place} is missing (its row has number {trial.number!r})")
    closed = max((v["trials"] for name, v in attributes.items() if name.startswith("update:")), default=0)
    if closed > len(trials):
        raise damaged(path, f"trial {len(trials)} is missing (the updates count {closed} trials)")
    config = attributes["config"]
    has_space = "space" in config or "parents" in config
    space = candidate_space(config).distributions if trials and has_space else None
    sizes = input_sizes_of(config) if "input_size" in config else (0,)
    targets = len(attributes.get("other_objectives", [])) + 1
    records = []
    for trial in trials:
        try:
            record = record_of(trial, config.get("metric", "accuracy"), input_size=sizes[-1])
            if record.same_as is not None and record.same_as >= len(trials):
                raise ValueError(f"its attribute 'same_as' must be a trial's number, but got {record.same_as}")
            if record.state == "complete" and targets > 1 and len(record.rewards) != targets:
                raise ValueError(f"its attribute 'rewards' must be {targets} numbers")
            if space is not None and trial.distributions != space:
                raise ValueError("its parameters must be the decisions of the run's space")
        except ValueError as error:
            raise damaged(path, f"trial {trial.number}: {one_line(error)}") from None
        records.append(record)
    return records


def fields_of_stored(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields in these user attributes, by name. Raises ValueError for an invalid one."""
    fields = {}
    for name, attribute in _ATTRIBUTES.items():
        key = attribute.key or name
        if key in attributes:
            fields[name] = check_named(f"its attribute {key!r}", attribute.read, attributes[key])
    return fields


def record_of(trial: FrozenTrial, metric: Metric = "accuracy", *, input_size: int) -> TrialRecord:
    """Return the record of one stored trial. Raises ValueError for a trial that no search writes.

    Args:
        metric: score that the search maximises.
        input_size: the run's, for a trial of an earlier version, which did not store its own.
    """
    if trial.state not in STATES:
        raise ValueError(f"its state must be RUNNING, COMPLETE, PRUNED or FAIL, but got {trial.state.name}")
    state, stored = STATES[trial.state], trial.user_attrs
    for name in _NEEDED[state]:
        if name not in stored:
            raise ValueError(f"its attribute {name!r} is missing")
    values = {"version": 0, "input_size": input_size, **fields_of_stored(stored)}
    if KNOWN_VALUES in stored:
        check_named(f"its attribute {KNOWN_VALUES!r}", pair_with_latency, stored[KNOWN_VALUES])
    if "latency" in values and "latencies" not in values:
        raise ValueError("its attribute 'latencies' is missing")
    check_fingerprint(values["arch"], values["fingerprint"])
    accuracy = None
    if state == "complete":
        accuracy = _accuracy_of(trial, values["evaluation"].score(metric), values["latency"].latency_ms)
    return TrialRecord(
        number=trial.number,
        state=state,
        accuracy=accuracy,
        choices=trial.params,
        started=trial.datetime_start,
        finished=trial.datetime_complete,
        **values,
    )


def _accuracy_of(trial: FrozenTrial, score: float, latency_ms: float) -> float:
    """Return the first value of a complete trial. Raises ValueError unless both values equal its attributes."""
    if trial.values is None or len(trial.values) != 2:
        raise ValueError("its values must be an accuracy and a latency, but one is missing")
    check_named("its accuracy", share, trial.values[0])
    check_named("its latency", number, trial.values[1])
    if not trial.values[1] > 0:
        raise ValueError(f"its latency: must be greater than 0 ms, but got {trial.values[1]}")
    expected = [score, latency_ms]
    if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(trial.values, expected, strict=True)):
        raise ValueError(f"its values {trial.values} must be those of its attributes, {expected}")
    return float(trial.values[0])
