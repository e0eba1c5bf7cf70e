"""The record of a candidate that has been named or drawn, before it is measured."""

import hashlib
from collections.abc import Mapping
from typing import Any

from mnas.candidate import Candidate
from mnas.nn.cost import cost
from mnas.search.problem import Plan, Problem
from mnas.study import TrialRecord


def trial_seed(seed: int, number: int) -> int:
    """Return the random seed for the evaluation of a trial (-1, -2, ... for the references)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def candidate_record(
    candidate: Candidate,
    number: int,
    choices: Mapping[str, Any],
    problem: Problem,
    plan: Plan,
    name: str | None = None,
) -> TrialRecord:
    """Return the record that trial `number` begins with; `choices` maps each decision of the space to its choice."""
    costs = cost(candidate.arch, candidate.input_size, problem.num_classes)
    return TrialRecord(
        number=number,
        state="running",
        arch=candidate.arch,
        fingerprint=candidate.arch.fingerprint,
        input_size=candidate.input_size,
        parent=candidate.parent,
        params=costs.params,
        macs=costs.macs,
        size_bytes=problem.size_bytes(candidate),
        seed=trial_seed(plan.seed, number),
        choices=choices,
        name=name,
    )
